"""Bernoulli likelihoods, of probabilities and of logits, and the continuous one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ._member import Likelihood


def _unit(t: Tensor) -> Tensor:
    return torch.where((t < 0) | (t > 1), torch.nan, t)


def _logit(p: Tensor) -> Tensor:
    """Not torch.logit, whose backward pass has no forward mode."""
    return torch.log(p) - torch.log1p(-p)


def _bernoulli(p: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """-t log p - (1 - t) log(1 - p) as `F.binary_cross_entropy` has it: logs not below -100, and the gradient
    (p - t) y' with y = logit(p) and y' = 1 / max(p(1-p), 1e-12). Outside of [0, 1] one of the logs is NaN.

    Those clamps make the gradient another function's than the value's, and -t/p + (1-t)/(1-p), which autograd would add
    up, cancels where p is near t. So the value is a constant here, and to it is added (p - t) (y - y0) - integral of
    (y - y0) dp from p0 to p: zero at p = p0, and with the derivative (p - t) y' for every p, that is, to every order.
    """
    t = _unit(t)
    end = p * (1 - p) < 1e-12
    p0 = p.detach()
    value = -t * torch.log(p0).clamp_min(-100) - (1 - t) * torch.log1p(-p0).clamp_min(-100)
    inner = torch.where(end, 0.5, p)
    inner0 = inner.detach()
    step = inner - inner0
    integral = (inner0 + step) * torch.log1p(step / inner0) + (1 - inner0 - step) * torch.log1p(-step / (1 - inner0))
    rise = torch.where(end, (p - p0) / 1e-12, _logit(inner) - _logit(inner0))
    return value + (p - t) * rise - torch.where(end, (p - p0) ** 2 / 2e-12, integral)


BERNOULLI = Likelihood("bernoulli", _bernoulli, is_probability=True, has_unit_target=True)


def _bernoulli_logits(x: Tensor, t: Tensor, pos_weight: Tensor | float) -> Tensor:
    """(1 - t) softplus(x) + pos_weight t softplus(-x): no cancellation in the tails, gradient
    (1 - t) sigmoid(x) - pos_weight t sigmoid(-x). `F.softplus` itself is linear from 20 on; logsigmoid is exact. An
    infinite logit on its target's side costs nothing."""
    t = _unit(t)
    return _times_finite(t - 1, F.logsigmoid(-x)) - _times_finite(pos_weight * t, F.logsigmoid(x))


def _times_finite(factor: Tensor, log: Tensor) -> Tensor:
    """factor log, where log may be -inf: 0 where the factor is."""
    return factor * torch.where(factor == 0, log.clamp_min(torch.finfo(log.dtype).min), log)


BERNOULLI_LOGITS = Likelihood("bernoulli_logits", _bernoulli_logits, takes_pos_weight=True, has_unit_target=True)

# The Bernoulli numbers B_2, B_4 ...: log(sinh(x/2) / (x/2)) = sum B_2k / (2k (2k)!) x^2k for |x| < 2 pi. At x = 2 the
# first that is left out is 1e-18 of it.
_NUMBERS = (
    *(1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330),
    *(854513 / 138, -236364091 / 2730, 8553103 / 6, -23749461029 / 870, 8615841276005 / 14322, -7709321041217 / 510),
)


def _continuous_bernoulli_logits(x: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """The Bernoulli's value less log C, C = x / tanh(x/2) (Loaiza-Ganem & Cunningham 2019, equation 6 by the logit).

    That is (1/2 - t) x + log(sinh(x/2) / (x/2)); with y = |x| beyond 2, (x > 0 ? 1 - t : t) y + log((1 - e^-y) / y)."""
    t = _unit(t)
    small = x.abs() <= 2
    inner = torch.where(small, x, 0.0)
    square = inner * inner
    series = torch.zeros_like(square)
    for k in range(len(_NUMBERS), 0, -1):
        series = (series + _NUMBERS[k - 1] / (2 * k * math.factorial(2 * k))) * square
    y = torch.where(small, 2.0, x).abs()
    near = torch.where(x > 0, 1 - t, t)
    # An infinite logit: a density of infinity where t lies on its side, and of 0 elsewhere.
    finite = y.clamp_max(torch.finfo(y.dtype).max)
    distance = near * torch.where(near == 0, finite, y)
    log_partition = torch.log1p(-torch.exp(-y)) - torch.log(torch.where(near == 0, y, finite))
    return torch.where(small, (0.5 - t) * inner + series, distance + log_partition)


CONTINUOUS_BERNOULLI_LOGITS = Likelihood(
    "continuous_bernoulli_logits", _continuous_bernoulli_logits, has_unit_target=True
)
