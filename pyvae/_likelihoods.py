"""The likelihoods in pure PyTorch: the specification of each, which csrc/math/likelihood.h computes on the devices.

Differentiable to every order by autograd. A member's place in `LIKELIHOODS` is its code in the compiled kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Likelihood(NamedTuple):
    """-log p(target | recon) of one element in nats: value(recon, target, pos_weight), all of one floating dtype."""

    value: Callable[[Tensor, Tensor, Tensor | float], Tensor]
    takes_pos_weight: bool = False
    is_probability: bool = False  # recon outside [0, 1] is an error


def _bernoulli(p: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """-t log p - (1 - t) log(1 - p) as `F.binary_cross_entropy` has it: logs not below -100, and the gradient
    (p - t) y' with y = logit(p) and y' = 1 / max(p(1-p), 1e-12). Outside of [0, 1] one of the logs is NaN.

    Those clamps make the gradient another function's than the value's, and -t/p + (1-t)/(1-p), which autograd would add
    up, cancels where p is near t. So the value is a constant here, and to it is added (p - t) (y - y0) - integral of
    (y - y0) dp from p0 to p: zero at p = p0, and with the derivative (p - t) y' for every p, that is, to every order.
    """
    end = p * (1 - p) < 1e-12
    p0 = p.detach()
    value = -t * torch.log(p0).clamp_min(-100) - (1 - t) * torch.log1p(-p0).clamp_min(-100)
    inner = torch.where(end, 0.5, p)
    inner0 = inner.detach()
    step = inner - inner0
    integral = (inner0 + step) * torch.log1p(step / inner0) + (1 - inner0 - step) * torch.log1p(-step / (1 - inner0))
    rise = torch.where(end, (p - p0) / 1e-12, torch.logit(inner) - torch.logit(inner0))
    return value + (p - t) * rise - torch.where(end, (p - p0) ** 2 / 2e-12, integral)


def _bernoulli_logits(x: Tensor, t: Tensor, pos_weight: Tensor | float) -> Tensor:
    """(1 - t) softplus(x) + pos_weight t softplus(-x): no cancellation in the tails, gradient
    (1 - t) sigmoid(x) - pos_weight t sigmoid(-x). `F.softplus` itself is linear from 20 on; logsigmoid is exact."""
    return (t - 1) * F.logsigmoid(-x) - pos_weight * t * F.logsigmoid(x)


def _gaussian(mean: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """1/2 (t - mean)^2: unit variance, without the constant 1/2 log(2 pi)."""
    difference = mean - t
    return difference * (difference / 2)


def _laplace(median: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """|t - median|: unit scale, without the constant log 2. The derivative at 0 is 0."""
    return (median - t).abs()


LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Likelihood(_bernoulli, is_probability=True),
    "bernoulli_logits": Likelihood(_bernoulli_logits, takes_pos_weight=True),
    "gaussian": Likelihood(_gaussian),
    "laplace": Likelihood(_laplace),
}
