"""The registry of the likelihoods that go by rows: with parameters of their own, of counts, through a softmax.

One entry each: how to draw its inputs and make its object, its value and derivatives in closed form, and the value by
torch's own functions. Float64 in and out, written independently of pyvae.reference. A derivative comes with its unit:
itself, or where it is a difference that crosses 0, the larger of the two summands. Finite precision is right to that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from families import excess, softplus
from torch import Generator, Tensor
from torch.distributions import Categorical, Laplace, NegativeBinomial, Normal, Poisson

import pyvae

Shape = tuple[int, ...]
Sided = tuple[Tensor, Tensor]  # a number, and the unit of its error
Draw = Callable[[Shape, Generator], Tensor]


# ---- formulas --------------------------------------------------------------------------------------------------------


def _difference(positive: Tensor, negative: Tensor) -> Sided:
    return positive - negative, torch.maximum(positive.abs(), negative.abs())


def _sum(first: Tensor, second: Tensor) -> Sided:
    return first + second, first.abs() + second.abs()


def _alone(x: Tensor) -> Sided:
    return x, x.abs()


def _gaussian(m: Tensor, x: Tensor, s: Tensor) -> list[Sided]:
    half_square = (m - x) ** 2 * torch.exp(-s) / 2
    return [_sum(half_square, s / 2), _alone((m - x) * torch.exp(-s)), _difference(half_square * 0 + 0.5, half_square)]


def _laplace(m: Tensor, x: Tensor, s: Tensor) -> list[Sided]:
    scaled = (m - x).abs() * torch.exp(-s)
    return [_sum(scaled, s), _alone(torch.sign(m - x) * torch.exp(-s)), _difference(scaled * 0 + 1, scaled)]


def _poisson(a: Tensor, x: Tensor) -> list[Sided]:
    return [_alone(torch.exp(a) - x * a + torch.lgamma(x + 1)), _difference(torch.exp(a), x)]


def _defect(w: Tensor) -> Tensor:
    """log(1 + w) - w / (1 + w): with y = log(1 + w), e^-y - 1 + y."""
    return excess(-torch.log1p(w))


def _negative_binomial(a: Tensor, x: Tensor, r: Tensor) -> list[Sided]:
    """By r: how far the mean does not fit, less what is left where it fits; both are 0 or more."""
    mean, theta = torch.exp(a), torch.exp(r)
    n = theta + x
    value = theta * softplus(a - r) + x * softplus(r - a) - torch.lgamma(n) + torch.lgamma(theta) + torch.lgamma(x + 1)
    fitted = (torch.log(theta) - torch.digamma(theta)) - (torch.log(n) - torch.digamma(n))
    misfit = _defect((mean - x) / n)
    by_mean = _difference(theta * torch.sigmoid(a - r), x * torch.sigmoid(r - a))
    return [_alone(value), by_mean, _difference(theta * misfit, theta * fitted)]


def _zero_inflated(a: Tensor, x: Tensor, r: Tensor, rho: Tensor) -> list[Sided]:
    (n, _), *slopes = _negative_binomial(a, x, r)
    zero, inflated, rest = x == 0, torch.sigmoid(rho), torch.sigmoid(-rho)
    probability = inflated + rest * torch.exp(-n)
    share = torch.where(zero, rest * torch.exp(-n) / probability, 1.0)
    value = torch.where(zero, -torch.log1p(rest * torch.expm1(-n)), softplus(rho) + n)
    by_rho = inflated * torch.where(zero, rest * torch.expm1(-n) / probability, 1.0)
    return [_alone(value), *((share * slope, share * unit) for slope, unit in slopes), _alone(by_rho)]


def _multinomial(a: Tensor, x: Tensor) -> list[Sided]:
    return [_alone(torch.where(x == 0, 0.0, -x * a)), _alone(-x)]


# ---- samples ---------------------------------------------------------------------------------------------------------


def normal(shape: Shape, draw: Generator) -> Tensor:
    return torch.randn(shape, generator=draw, dtype=torch.float64)


def _counts(shape: Shape, draw: Generator) -> Tensor:
    """Two thirds are 0; the others are up to about 100."""
    counts = torch.poisson(torch.exp(1.5 * normal(shape, draw)), generator=draw).clamp(max=100)
    return torch.where(torch.rand(shape, generator=draw) < 0.5, 0.0, counts)


def _log_theta(shape: Shape, draw: Generator) -> Tensor:
    return -2 + 7 * torch.rand(shape, generator=draw, dtype=torch.float64)


# ---- the entries -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    make: Callable[..., Any]  # the object, of its parameters and, if it takes one, log_library
    terms: Callable[..., list[Sided]]  # of recon (a, the log of the mean), target, parameters: value, slopes
    torch: Callable[..., Tensor]  # the same value by torch.distributions
    parameters: tuple[tuple[str, Draw], ...] = ()
    target: Draw = normal
    softmax: str = "never"

    @property
    def counts(self) -> bool:
        return self.target is _counts


ENTRIES: dict[str, Entry] = {
    "gaussian_logvar": Entry(
        make=pyvae.Gaussian,
        terms=_gaussian,
        torch=lambda m, x, s: -Normal(m, torch.exp(s / 2)).log_prob(x) - math.log(2 * math.pi) / 2,
        parameters=(("logvar", normal),),
    ),
    "laplace_logscale": Entry(
        make=pyvae.Laplace,
        terms=_laplace,
        torch=lambda m, x, s: -Laplace(m, torch.exp(s)).log_prob(x) - math.log(2),
        parameters=(("logscale", normal),),
    ),
    "poisson": Entry(
        make=pyvae.Poisson,
        terms=_poisson,
        torch=lambda a, x: -Poisson(torch.exp(a)).log_prob(x),
        target=_counts,
        softmax="optional",
    ),
    "negative_binomial": Entry(
        make=pyvae.NegativeBinomial,
        terms=_negative_binomial,
        torch=lambda a, x, r: -NegativeBinomial(torch.exp(r), logits=a - r).log_prob(x),
        parameters=(("log_theta", _log_theta),),
        target=_counts,
        softmax="optional",
    ),
    "zero_inflated_negative_binomial": Entry(
        make=pyvae.ZeroInflatedNegativeBinomial,
        terms=_zero_inflated,
        torch=lambda a, x, r, rho: (
            -torch.log(
                torch.where(x == 0, torch.sigmoid(rho), 0.0)
                + torch.sigmoid(-rho) * torch.exp(NegativeBinomial(torch.exp(r), logits=a - r).log_prob(x))
            )
        ),
        parameters=(("log_theta", _log_theta), ("zi_logits", lambda shape, draw: 2 * normal(shape, draw))),
        target=_counts,
        softmax="optional",
    ),
    "multinomial": Entry(
        make=pyvae.Multinomial,
        terms=_multinomial,
        torch=lambda a, x: -x * Categorical(logits=a).logits,
        target=_counts,
        softmax="always",
    ),
}
NAMES = tuple(ENTRIES)
WITH_PARAMETERS = tuple(name for name, entry in ENTRIES.items() if entry.parameters)
COUNTS = tuple(name for name, entry in ENTRIES.items() if entry.counts)
WITH_LIBRARY = tuple(name for name, entry in ENTRIES.items() if entry.softmax == "optional")
