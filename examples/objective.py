"""The objective three ways: pyvae's two fused kernels, the ten lines that people paste, and torch.compile of those.

Each is a pair of functions, one on each side of the decoder:

    z, kl = sample(mu, logvar, seed, row_offset)      # kl: nats of each image
    loss = negative_elbo(decoder(z), x, kl, beta)     # nats, summed over the batch

For counts, `negative_elbo(scores, counts, kl, likelihood)` takes pyvae's likelihood in beta's place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import pyvae
from model import CountLikelihood

NAMES = ("fused", "eager", "compile")


class Objective(NamedTuple):
    sample: Callable[..., tuple[Tensor, Tensor]]
    negative_elbo: Callable[..., Tensor]


def objective(name: str, counts: bool = False) -> Objective:
    if name == "fused":
        return Objective(fused_sample, fused_counts if counts else fused_negative_elbo)
    sample, negative_elbo = eager_sample, eager_counts if counts else eager_negative_elbo
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


def fused_counts(scores: Tensor, counts: Tensor, kl: Tensor, likelihood: CountLikelihood) -> Tensor:
    return pyvae.elbo_loss(scores, counts, kl=kl, likelihood=likelihood)


def eager_counts(scores: Tensor, counts: Tensor, kl: Tensor, likelihood: CountLikelihood, eps: float = 1e-8) -> Tensor:
    """The usual formulas, with the usual eps in their logarithms: theta log(theta / (theta + mu)) +
    x log(mu / (theta + mu)) + lgamma(x + theta) - lgamma(theta) - lgamma(x + 1)."""
    x = counts.to(scores.dtype)
    theta = likelihood.log_theta.exp()
    mu = likelihood.log_library.exp().unsqueeze(1) * scores.softmax(dim=1)
    log_total = torch.log(theta + mu + eps)
    log_none = theta * (torch.log(theta + eps) - log_total)  # of NB(0)
    ways = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    log_p = log_none + x * (torch.log(mu + eps) - log_total) + ways
    if isinstance(likelihood, pyvae.ZeroInflatedNegativeBinomial):
        kept = F.logsigmoid(-likelihood.zi_logits)
        zero = torch.logaddexp(F.logsigmoid(likelihood.zi_logits), kept + log_none)
        log_p = torch.where(x < eps, zero, kept + log_p)
    return kl.sum() - log_p.sum()
