"""Bernoulli likelihoods, of probabilities and of logits."""

from __future__ import annotations

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
