"""Float64 truths: what the public functions return, from the registry's formulas (families.py).

Everything takes tensors of any dtype, layout and device, read as exact numbers, and returns float64 on the CPU.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from families import family, scaling
from family_formulas import Sided, excess
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


def spread(factor: Tensor | float, like: Tensor) -> Tensor:
    """A factor that broadcasts against `like`'s own shape, as in torch: one number for each of its `rows`."""
    return rows(exact(factor).expand(like.shape))


def std(kind: str, scale: Tensor) -> Tensor:
    """The posterior's standard deviation from any of its parametrizations."""
    return scaling(kind).std(exact(scale))


def kl_slope(kind: str, mu: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """d kl / d mu and d kl / d scale of each element."""
    return exact(mu), scaling(kind).spread_slope(exact(scale))


def reduce(values: Tensor, reduction: str) -> Tensor:
    """(B,) to the contract's reductions."""
    return {"none": lambda x: x, "sum": torch.sum, "batchmean": lambda x: x.sum() / len(x)}[reduction](values)


def kl_divergence(kind: str, mu: Tensor, scale: Tensor, reduction: str = "none") -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1))."""
    return reduce((rows(mu) ** 2 / 2 + scaling(kind).spread(rows(scale))).sum(1), reduction)


def kl_elements(kind: str, mu: Tensor, scale: Tensor, mean: Tensor, prior_scale: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(mean, p^2)) of each element."""
    mu, scale, mean, prior_scale = map(exact, (mu, scale, mean, prior_scale))
    entry = scaling(kind)
    return (((mu - mean) / entry.std(prior_scale)) ** 2 + excess(entry.log_ratio(scale, prior_scale))) / 2


def kl_slopes(kind: str, mu: Tensor, scale: Tensor, mean: Tensor, prior_scale: Tensor) -> tuple[list[Tensor], Tensor]:
    """Its derivatives by the four, of each element; and the larger summand of the last, which is a difference."""
    mu, scale, mean, prior_scale = map(exact, (mu, scale, mean, prior_scale))
    entry = scaling(kind)
    p = entry.std(prior_scale)
    u, slope = (mu - mean) / p, torch.expm1(entry.log_ratio(scale, prior_scale)) / 2
    of_prior = entry.log_ratio_slope(prior_scale)
    slopes = [u / p, slope * entry.log_ratio_slope(scale), -u / p, -(u * u / 2 + slope) * of_prior]
    return slopes, torch.maximum(u * u / 2, slope.abs()) * of_prior


def kl_gradients(kind: str, upstream: Tensor, *given: Tensor) -> list[Tensor]:
    """Of the same four, each in its own shape, from one number for each element."""
    slopes, _ = kl_slopes(kind, *given)
    return [(exact(upstream) * slope).sum_to_size(x.shape) for slope, x in zip(slopes, given, strict=True)]


def sided(
    name: str,
    recon: Tensor,
    target: Tensor,
    weight: Tensor | float = 1.0,
    pos_weight: Tensor | float = 1.0,
    reduction: str = "none",
) -> Sided:
    """-log p(target | recon), less the constants that the contract leaves out, and the unit of its error: what is
    summed may be of both signs."""
    terms, *_ = family(name).at(rows(recon), rows(target), pos_weight=spread(pos_weight, recon))
    value, unit = (reduce((spread(weight, recon) * term).sum(1), reduction) for term in terms)
    return value, unit


def reconstruction(*given: Any, **options: Any) -> Tensor:
    return sided(*given, **options)[0]


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
