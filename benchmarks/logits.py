"""Errors of the Bernoulli losses over the magnitude of the logit, of which accuracy.py writes the CSV.

In float32, relative to float64: of the value, and of its derivative by the logit. A logit stands on its target's side
(positive and the target 1, or negative and 0: the prediction is right) or on the other one. An error is the largest
over a bin of magnitudes and over both targets, of which some functions of torch do one better than the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

import pyvae

from . import Row

PER_DECADE, DECADES = 10, (-3, 1.9)  # bins, up to 79: beyond 87 float32 has no normal number for e^-x
LOGITS = 1000  # a bin


def with_logits(logit: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logit, target, reduction="none")


def of_sigmoid(logit: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy(torch.sigmoid(logit), target, reduction="none")


def fused(logit: Tensor, target: Tensor) -> Tensor:
    """One element a sample, so that each has a loss of its own; likewise below."""
    return pyvae.reconstruction_loss(logit[:, None], target[:, None], likelihood="bernoulli_logits")


def fused_of_sigmoid(logit: Tensor, target: Tensor) -> Tensor:
    return pyvae.reconstruction_loss(torch.sigmoid(logit)[:, None], target[:, None], likelihood="bernoulli")


COMPETITORS = {
    "eager": with_logits,
    "eager_probabilities": of_sigmoid,
    "fused": fused,
    "fused_probabilities": fused_of_sigmoid,
}


def exact(logit: Tensor, target: float) -> tuple[Tensor, Tensor]:
    """-log Bernoulli(target; sigmoid(logit)), and its derivative by the logit: in float64, for targets 0 and 1."""
    sign = 1 - 2 * target
    wrong = sign * logit.double()  # how far it is on the other side
    return wrong.clamp(min=0) + torch.log1p(torch.exp(-wrong.abs())), sign * torch.sigmoid(wrong)


def errors(magnitude: Tensor, side: int) -> Iterator[tuple[str, str, Tensor]]:
    """What, competitor, and the larger of the two targets' relative errors at each magnitude."""
    for name, function in COMPETITORS.items():
        worst = torch.zeros(2, *magnitude.shape, dtype=torch.float64)
        for target in (0.0, 1.0):
            logit = (side * (2 * target - 1) * magnitude).requires_grad_()
            value = function(logit, torch.full_like(magnitude, target))
            (slope,) = torch.autograd.grad(value.sum(), logit)
            for error, got, right in zip(worst, (value, slope), exact(logit.detach(), target), strict=True):
                torch.maximum(error, ((got.detach() - right) / right).abs(), out=error)
        yield from (("logits_error", name, worst[0]), ("logits_gradient_error", name, worst[1]))


def rows() -> list[Row]:
    """Of each bin, by its middle: as a positive logit for the target's side, as a negative one for the other."""
    first, last = (round(decade * PER_DECADE) for decade in DECADES)
    edges = [step / PER_DECADE for step in range(first, last + 1)]
    bins = list(pairwise(edges))
    magnitude = torch.cat([torch.logspace(*ends, LOGITS, dtype=torch.float64) for ends in bins]).float()
    measured = []
    for side in (1, -1):
        for what, name, error in errors(magnitude, side):
            for (low, high), worst in zip(bins, error.view(len(bins), LOGITS).amax(1).tolist(), strict=True):
                measured.append(Row(what, name, worst, "relative", logit=side * 10 ** ((low + high) / 2)))
    return measured
