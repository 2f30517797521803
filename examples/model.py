"""Variational autoencoders of two small multilayer perceptrons: of images (Kingma & Welling 2014), and of counts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Size, Tensor, nn

import pyvae

Sampler = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # mu, logvar -> z, kl: the half before the decoder
CountLikelihood = pyvae.NegativeBinomial | pyvae.ZeroInflatedNegativeBinomial


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

    def forward(self, x: Tensor, sample: Sampler) -> tuple[Tensor, Tensor]:
        """Logits of p(x|z), (B, *image), and KL(q(z|x) || p(z)) of each image.

        The sampler comes from outside: it is the half of the objective that lies before the decoder.
        """
        z, kl = sample(*self.encode(x))
        return self.decoder(z), kl


class CountVAE(nn.Module):
    """Of counts, in the shape of scVI (Lopez et al. 2018): a cell's observed total is shared out among the genes by a
    softmax, and each gene has a dispersion of its own, learned beside the networks."""

    def __init__(self, genes: int, latent: int, zero_inflated: bool, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(genes, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.SiLU())
        self.scores = nn.Linear(hidden, genes)
        self.zi_logits = nn.Linear(hidden, genes) if zero_inflated else None
        self.log_theta = nn.Parameter(torch.zeros(genes))

    def encode(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|counts), both (B, latent)."""
        mu, logvar = self.encoder(torch.log1p(counts)).chunk(2, dim=1)
        return mu, logvar

    def forward(self, counts: Tensor, sample: Sampler) -> tuple[Tensor, CountLikelihood, Tensor]:
        """Scores of the genes, (B, genes), the likelihood that takes them, and KL(q(z|counts) || p(z)) of each cell."""
        z, kl = sample(*self.encode(counts))
        hidden = self.decoder(z)
        log_library = counts.sum(1).log()
        if self.zi_logits is None:
            likelihood: CountLikelihood = pyvae.NegativeBinomial(self.log_theta, log_library)
        else:
            likelihood = pyvae.ZeroInflatedNegativeBinomial(self.log_theta, self.zi_logits(hidden), log_library)
        return self.scores(hidden), likelihood, kl
