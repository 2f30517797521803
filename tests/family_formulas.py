"""The contract's formulas in closed form, and what samples are drawn from: float64 in and out.

Written independently of pyvae.reference. A likelihood's value and each of its derivatives come with a unit: the number
itself, or where it is a difference, or a sum of both signs, what its summands are as large as. Finite precision is
right to that.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath as mp
import torch
from softplus_truth import softplus
from torch import Generator, Tensor
from torch.distributions import NegativeBinomial
from torch.nn.functional import binary_cross_entropy_with_logits

Shape = tuple[int, ...]
Sided = tuple[Tensor, Tensor]  # a number, and the unit of its error


def excess(x: Tensor) -> Tensor:
    """e^x - 1 - x, by its series where the difference would cancel."""
    series = x * x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7)))))
    return torch.where(x.abs() < 1e-2, series, torch.expm1(x) - x)


def difference(positive: Tensor, negative: Tensor) -> Sided:
    return positive - negative, torch.maximum(positive.abs(), negative.abs())


def _sum(first: Tensor, second: Tensor) -> Sided:
    return first + second, first.abs() + second.abs()


def alone(x: Tensor) -> Sided:
    return x, x.abs()


# ---- likelihoods: of recon, target and parameters the value in nats, and its derivative by recon and by each parameter


def bernoulli(p: Tensor, t: Tensor) -> list[Sided]:
    value = -t * torch.log(p).clamp(min=-100) - (1 - t) * torch.log1p(-p).clamp(min=-100)
    variance = (p * (1 - p)).clamp(min=1e-12)
    return [alone(value), ((p - t) / variance, torch.maximum(p * (1 - t), t * (1 - p)) / variance)]


def bernoulli_logits(x: Tensor, t: Tensor, pos_weight: Tensor | float) -> list[Sided]:
    value = (1 - t) * softplus(x) + pos_weight * t * softplus(-x)
    return [alone(value), difference(torch.sigmoid(x) * (1 - t), pos_weight * torch.sigmoid(-x) * t)]


def cross_entropy(x: Tensor, t: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(x, t, reduction="none")


# log(sinh(x/2) / (x/2)) = sum of log(1 + (x / 2 pi n)^2) over n > 0: of its powers ((x / 2 pi)^2)^k the sums are zetas.
_SINH = [float((-1) ** (k + 1) * mp.zeta(2 * k) / k) for k in range(1, 40)]


def continuous_bernoulli_logits(x: Tensor, t: Tensor) -> list[Sided]:
    y = x.abs()
    small, s = y < 2.5, (x.clamp(-2.5, 2.5) / (2 * math.pi)) ** 2
    by_series = sum(c * s**k for k, c in enumerate(_SINH, 1))
    step = sum(2 * k * c * s ** (k - 1) for k, c in enumerate(_SINH, 1)) * x / (2 * math.pi) ** 2
    inverse, tail = 1 / y, torch.exp(-y) / -torch.expm1(-y)  # of y = 0 they are not used
    log_partition = torch.log(-torch.expm1(-y) * inverse)
    near = torch.where(x > 0, 1 - t, t) * y
    value = _sum(torch.where(small, (0.5 - t) * x, near), torch.where(small, by_series, log_partition))
    above = torch.where(small, 0.5 + step.abs(), 1 + tail - inverse)
    below = torch.where(small, 0.5 - step.abs(), inverse - tail)
    mean, rest = torch.where(x > 0, above, below), torch.where(x > 0, below, above)
    return [value, difference(mean * (1 - t), rest * t)]


def gaussian(m: Tensor, x: Tensor) -> list[Sided]:
    return [alone((m - x) ** 2 / 2), alone(m - x)]


def laplace(m: Tensor, x: Tensor) -> list[Sided]:
    return [alone((m - x).abs()), alone(torch.sign(m - x))]


def gaussian_logvar(m: Tensor, x: Tensor, s: Tensor) -> list[Sided]:
    half_square = (m - x) ** 2 * torch.exp(-s) / 2
    return [_sum(half_square, s / 2), alone((m - x) * torch.exp(-s)), difference(half_square * 0 + 0.5, half_square)]


def laplace_logscale(m: Tensor, x: Tensor, s: Tensor) -> list[Sided]:
    scaled = (m - x).abs() * torch.exp(-s)
    return [_sum(scaled, s), alone(torch.sign(m - x) * torch.exp(-s)), difference(scaled * 0 + 1, scaled)]


def poisson(a: Tensor, x: Tensor) -> list[Sided]:
    return [alone(torch.exp(a) - x * a + torch.lgamma(x + 1)), difference(torch.exp(a), x)]


def _defect(w: Tensor) -> Tensor:
    """log(1 + w) - w / (1 + w): with y = log(1 + w), e^-y - 1 + y."""
    return excess(-torch.log1p(w))


def negative_binomial(a: Tensor, x: Tensor, r: Tensor) -> list[Sided]:
    """By r: how far the mean does not fit, less what is left where it fits; both are 0 or more."""
    mean, theta = torch.exp(a), torch.exp(r)
    n = theta + x
    value = theta * softplus(a - r) + x * softplus(r - a) - torch.lgamma(n) + torch.lgamma(theta) + torch.lgamma(x + 1)
    fitted = (torch.log(theta) - torch.digamma(theta)) - (torch.log(n) - torch.digamma(n))
    misfit = _defect((mean - x) / n)
    by_mean = difference(theta * torch.sigmoid(a - r), x * torch.sigmoid(r - a))
    return [alone(value), by_mean, difference(theta * misfit, theta * fitted)]


def zero_inflated_negative_binomial(a: Tensor, x: Tensor, r: Tensor, rho: Tensor) -> list[Sided]:
    (n, _), *slopes = negative_binomial(a, x, r)
    zero, inflated, rest = x == 0, torch.sigmoid(rho), torch.sigmoid(-rho)
    probability = inflated + rest * torch.exp(-n)
    share = torch.where(zero, rest * torch.exp(-n) / probability, 1.0)
    value = torch.where(zero, -torch.log1p(rest * torch.expm1(-n)), softplus(rho) + n)
    by_rho = inflated * torch.where(zero, rest * torch.expm1(-n) / probability, 1.0)
    return [alone(value), *((share * slope, share * unit) for slope, unit in slopes), alone(by_rho)]


def zero_inflated_by_torch(a: Tensor, x: Tensor, r: Tensor, rho: Tensor) -> Tensor:
    """The value, of torch's negative binomial."""
    probability = torch.exp(NegativeBinomial(torch.exp(r), logits=a - r).log_prob(x))
    return -torch.log(torch.where(x == 0, torch.sigmoid(rho), 0.0) + torch.sigmoid(-rho) * probability)


def of_means(of_logs: Callable[..., list[Sided]], mean: Tensor, x: Tensor, *own: Tensor) -> list[Sided]:
    """The terms by the mean, and by eps the same, of those by its log; at 0 as from the right."""
    at = mean.clamp_min(1e-300)
    value, by_log, *others = of_logs(torch.log(at), x, *own)
    by_mean = tuple(side / at for side in by_log)
    return [value, by_mean, *others, by_mean]


def multinomial(a: Tensor, x: Tensor) -> list[Sided]:
    return [alone(torch.where(x == 0, 0.0, -x * a)), alone(-x)]


# ---- samples ---------------------------------------------------------------------------------------------------------


def normal(shape: Shape, draw: Generator) -> Tensor:
    return torch.randn(shape, generator=draw, dtype=torch.float64)


def _wide(shape: Shape, draw: Generator) -> Tensor:
    return 3 * normal(shape, draw)


def logits(shape: Shape, draw: Generator) -> tuple[Tensor, Tensor]:
    """Two thirds of the targets are 0 or 1, the others between."""
    recon = _wide(shape, draw)
    soft, hard = (torch.rand(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    return recon, torch.where(hard < 2 / 3, soft.round(), soft)


def probabilities(shape: Shape, draw: Generator) -> tuple[Tensor, Tensor]:
    recon, target = logits(shape, draw)
    return torch.sigmoid(recon), target


def apart(shape: Shape, draw: Generator) -> tuple[Tensor, Tensor]:
    """At least 1/4 from each other: there is a kink where they meet, which sweeps and random values come upon."""
    recon, distance = _wide(shape, draw), _wide(shape, draw)
    return recon, recon + distance + torch.where(distance < 0, -0.25, 0.25)


def two_normals(shape: Shape, draw: Generator) -> tuple[Tensor, Tensor]:
    return _wide(shape, draw), _wide(shape, draw)


def with_normals(shape: Shape, draw: Generator) -> tuple[Tensor, Tensor]:
    target = normal(shape, draw)
    return 1.5 * normal(shape, draw), target


def with_counts(shape: Shape, draw: Generator) -> tuple[Tensor, Tensor]:
    """Two thirds of the targets are 0; the others are up to about 100."""
    counts = torch.poisson(torch.exp(1.5 * normal(shape, draw)), generator=draw).clamp(max=100)
    target = torch.where(torch.rand(shape, generator=draw) < 0.5, 0.0, counts)
    return 1.5 * normal(shape, draw), target


def with_means(shape: Shape, draw: Generator) -> tuple[Tensor, Tensor]:
    """The same, with means in place of their logs."""
    log_mean, target = with_counts(shape, draw)
    return torch.exp(log_mean), target


def small(shape: Shape, draw: Generator) -> Tensor:
    """What is added to a mean."""
    return 0.01 * torch.rand(shape, generator=draw, dtype=torch.float64)


def log_theta(shape: Shape, draw: Generator) -> Tensor:
    return -2 + 7 * torch.rand(shape, generator=draw, dtype=torch.float64)
