"""Float64 truths: the contract's formulas in closed form, written independently of pyvae.reference.

Everything takes tensors of any dtype, layout and device, read as exact numbers, and returns float64 on the CPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Terms(NamedTuple):
    loss: Tensor
    recon: Tensor
    kl: Tensor


def exact(x: Tensor | float) -> Tensor:
    """The same numbers in float64."""
    return x.detach().cpu().double() if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64)


def rows(x: Tensor) -> Tensor:
    """(B, ...) as float64 (B, D), in logical order."""
    return exact(x).reshape(x.shape[0], math.prod(x.shape[1:]))


def softplus(x: Tensor) -> Tensor:
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))


def likelihood(name: str, x: Tensor, t: Tensor, pos_weight: Tensor | float = 1.0) -> Tensor:
    """-log p(t | x) of each element, up to the Gaussian's constant; float64 in and out."""
    if name == "bernoulli":
        return -t * torch.log(x).clamp(min=-100) - (1 - t) * torch.log1p(-x).clamp(min=-100)
    if name == "bernoulli_logits":
        return (1 - t) * softplus(x) + pos_weight * t * softplus(-x)
    return (x - t) ** 2 / 2


def likelihood_slope(name: str, x: Tensor, t: Tensor, pos_weight: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """d likelihood / dx, and the larger of the two summands, one for t and one for 1 - t, whose difference it is.

    For 0 < t < 1 the two cancel, and a difference taken in finite precision is right only to units of the larger.
    """
    if name == "bernoulli":
        variance = (x * (1 - x)).clamp(min=1e-12)
        return (x - t) / variance, torch.maximum(x * (1 - t), t * (1 - x)) / variance
    if name == "bernoulli_logits":
        up, down = torch.sigmoid(x) * (1 - t), pos_weight * torch.sigmoid(-x) * t
        return up - down, torch.maximum(up, down)
    return x - t, (x - t).abs()


def std(kind: str, scale: Tensor) -> Tensor:
    """The posterior's standard deviation from any of its three parametrizations."""
    return {"logvar": lambda s: torch.exp(s / 2), "std": lambda s: s, "logstd": torch.exp}[kind](scale)


def excess(x: Tensor) -> Tensor:
    """e^x - 1 - x, by its series where the difference would cancel."""
    series = x * x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7)))))
    return torch.where(x.abs() < 1e-2, series, torch.expm1(x) - x)


def kl(kind: str, mu: Tensor, scale: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) of each element."""
    if kind == "std":
        return mu**2 / 2 + ((scale - 1) * (scale + 1) / 2 - torch.log(scale))
    return (mu**2 + excess(scale if kind == "logvar" else 2 * scale)) / 2


def kl_slope(kind: str, mu: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """d kl / d mu and d kl / d scale of each element."""
    if kind == "logvar":
        return mu, torch.expm1(scale) / 2
    if kind == "std":
        return mu, (scale - 1) * (scale + 1) / scale
    return mu, torch.expm1(2 * scale)


def std_slope(kind: str, scale: Tensor) -> Tensor:
    """d sigma / d scale."""
    if kind == "std":
        return torch.ones_like(scale)
    return std(kind, scale) / (2 if kind == "logvar" else 1)


def reduce(values: Tensor, reduction: str) -> Tensor:
    """(B,) to the contract's reductions."""
    if reduction == "none":
        return values
    return values.sum() / (len(values) if reduction == "batchmean" else 1)


def kl_divergence(kind: str, mu: Tensor, scale: Tensor, reduction: str = "none") -> Tensor:
    return reduce(kl(kind, rows(mu), rows(scale)).sum(1), reduction)


def reconstruction(
    name: str,
    recon: Tensor,
    target: Tensor,
    weight: Tensor | float = 1.0,
    pos_weight: Tensor | float = 1.0,
    reduction: str = "none",
) -> Tensor:
    """Weights broadcast against recon's own shape, as in torch."""
    weight, pos_weight = (rows(exact(w).expand(recon.shape)) for w in (weight, pos_weight))
    return reduce((weight * likelihood(name, rows(recon), rows(target), pos_weight)).sum(1), reduction)


def objective(
    name: str,
    recon: Tensor,
    target: Tensor,
    kl: Tensor,
    beta: Tensor | float = 1.0,
    weight: Tensor | float = 1.0,
    pos_weight: Tensor | float = 1.0,
    reduction: str = "sum",
) -> Terms:
    """The three outputs of elbo_terms, from the (B,) KL."""
    data = reconstruction(name, recon, target, weight, pos_weight)
    terms = Terms(data + exact(beta) * exact(kl), data, exact(kl))
    return Terms(*(reduce(term, reduction) for term in terms))
