"""The objective three ways: pyvae's two fused kernels, the ten lines that people paste, and torch.compile of those.

Each is a pair of functions, one on each side of the decoder:

    z, kl = sample(mu, logvar, seed, row_offset)      # kl: nats of each image
    loss = negative_elbo(decoder(z), x, kl, beta)     # nats, summed over the batch
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import pyvae

NAMES = ("fused", "eager", "compile")


class Objective(NamedTuple):
    sample: Callable[..., tuple[Tensor, Tensor]]
    negative_elbo: Callable[[Tensor, Tensor, Tensor, float], Tensor]


def objective(name: str) -> Objective:
    if name == "fused":
        return Objective(fused_sample, fused_negative_elbo)
    sample, negative_elbo = eager_sample, eager_negative_elbo
    if name == "compile":
        sample, negative_elbo = torch.compile(sample), torch.compile(negative_elbo)
    # torch.randn_like knows no seed of its own: these two draw from torch's global generator.
    return Objective(lambda mu, logvar, seed, row_offset: sample(mu, logvar), negative_elbo)


def fused_sample(mu: Tensor, logvar: Tensor, seed: int, row_offset: int) -> tuple[Tensor, Tensor]:
    return pyvae.reparameterize_kl(mu, logvar, seed=seed, row_offset=row_offset)


def fused_negative_elbo(logits: Tensor, x: Tensor, kl: Tensor, beta: float) -> Tensor:
    return pyvae.elbo_loss(logits, x, kl=kl, likelihood="bernoulli_logits", beta=beta)


def eager_sample(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    std = torch.exp(0.5 * logvar)
    eps = torch.randn_like(std)
    z = mu + eps * std
    kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), dim=1)
    return z, kl


def eager_negative_elbo(logits: Tensor, x: Tensor, kl: Tensor, beta: float) -> Tensor:
    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return bce + beta * kl.sum()
