"""A variational autoencoder of two small multilayer perceptrons (Kingma & Welling 2014)."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Size, Tensor, nn


def perceptron(inputs: int, outputs: int, hidden: int = 256) -> list[nn.Module]:
    return [nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)]


class VAE(nn.Module):
    def __init__(self, image: Size, latent: int) -> None:
        super().__init__()
        self.latent = latent
        pixels = math.prod(image)
        self.encoder = nn.Sequential(nn.Flatten(), *perceptron(pixels, 2 * latent))
        self.decoder = nn.Sequential(*perceptron(latent, pixels), nn.Unflatten(1, image))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), both (B, latent)."""
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        return mu, logvar

    def forward(self, x: Tensor, sample: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Logits of p(x|z), (B, *image), and KL(q(z|x) || p(z)) of each image.

        The sampler comes from outside: it is the half of the objective that lies before the decoder.
        """
        z, kl = sample(*self.encode(x))
        return self.decoder(z), kl
