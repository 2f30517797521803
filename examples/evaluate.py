"""What to say of a trained VAE: its bound and a tighter one, bits per pixel, which latent dimensions it uses, samples.

Bounds are made of log densities of several samples, and `pyvae.distributions.of` makes of a decoder's output the
distribution that the loss took it for: what the model draws. The bounds of log p(x), in nats:

    ELBO   =  E log p(x|z) - KL(q(z|x) || p(z))
    IW_S   =  E log 1/S sum_s p(x|z_s) p(z_s) / q(z_s|x),  with S samples z_s of q(z|x)  (Burda et al. 2016)

IW_1 is the ELBO, and IW_S grows with S towards log p(x).

python examples/evaluate.py
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import pyvae

LATENT, HIDDEN, PIXELS = 32, 128, 64
SAMPLES = (1, 10, 100, 1000)


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, PIXELS))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), both (B, LATENT)."""
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        return mu, logvar


class Evaluation(NamedTuple):
    elbo: float  # nats per image
    bounds: dict[int, float]  # IW_S by S, nats per image
    active: int  # latent dimensions in use


def train(model: VAE, images: Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(epochs):
        for x in images[torch.randperm(len(images))].split(64):
            z, kl = pyvae.reparameterize_kl(*model.encode(x))
            loss = pyvae.elbo_loss(model.decoder(z), x, kl=kl, likelihood="bernoulli_logits", reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def log_weights(model: VAE, x: Tensor, samples: int) -> Tensor:
    """log p(x|z) p(z) / q(z|x) of S samples z of q(z|x), shape (S, B)."""
    mu, logvar = model.encode(x)
    z = pyvae.reparameterize(mu, logvar, samples=samples)  # (S, B, LATENT)
    # The Bernoulli's loss is -log p, constants included. Recon has S samples of each image, (S, B, PIXELS).
    log_likelihood = -pyvae.reconstruction_loss(model.decoder(z), x, likelihood="bernoulli_logits")
    log_prior = pyvae.gaussian_log_prob(z, torch.zeros_like(mu), torch.zeros_like(mu))
    return log_likelihood + log_prior - pyvae.gaussian_log_prob(z, mu, logvar)


def bound(model: VAE, x: Tensor, samples: int) -> float:
    """IW_S, nats per image."""
    parts = [torch.logsumexp(log_weights(model, part, samples), 0) - math.log(samples) for part in x.split(60)]
    return torch.cat(parts).mean().item()


@torch.no_grad()
def evaluate(model: VAE, x: Tensor) -> Evaluation:
    mu, logvar = model.encode(x)
    z, kl = pyvae.reparameterize_kl(mu, logvar)
    elbo = -pyvae.elbo_loss(model.decoder(z), x, kl=kl, likelihood="bernoulli_logits", reduction="batchmean").item()
    # A dimension is in use if its mean moves with the data (Burda et al. 2016).
    active = int((mu.var(0) > 0.01).sum())
    return Evaluation(elbo, {samples: bound(model, x, samples) for samples in SAMPLES}, active)


def main(epochs: int = 60) -> Evaluation:
    """Trains, and prints what `evaluate` finds on held-out images."""
    torch.set_num_threads(1)  # networks as small as these are slower on several
    torch.manual_seed(0)
    gray = torch.as_tensor(load_digits().data, dtype=torch.float32) / 16  # (1797, PIXELS), ordered by writer
    images = (gray > 0.5).float()[torch.randperm(len(gray))]  # black and white, so that log p is of a probability
    held_out = images[:360]
    model = VAE()
    train(model, images[360:], epochs)

    found = evaluate(model, held_out)
    bits = {"ELBO": found.elbo} | {f"IW, {samples} samples": value for samples, value in found.bounds.items()}
    for name, value in bits.items():
        print(f"{name:<18} {value:8.2f} nats per image, {-value / PIXELS / math.log(2):.4f} bits per pixel")
    print(f"{found.active} of {LATENT} latent dimensions are in use")

    with torch.no_grad():
        pixels = pyvae.distributions.of("bernoulli_logits", model.decoder(torch.randn(6, LATENT)))
        for rows in pixels.sample().view(6, 8, 8).unbind(1):  # the first rows of all six, then the second ones ...
            print("   ".join("".join("##" if pixel else "  " for pixel in row) for row in rows))
    return found


if __name__ == "__main__":
    main()
