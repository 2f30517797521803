"""Errors over theta and over the logit: `python -m benchmarks.accuracy` writes results/counts_accuracy.csv and
results/logits_accuracy.csv, and `python -m benchmarks.plots` of such a file draws it.

Of the negative binomial, for counts 3 and 0 and the mean 2, and of the Bernoulli losses: of the value and of its
derivative by log theta or the logit, in float32, as the usual formulas and torch's functions have them and as pyvae has
them, relative to what 50 digits or float64 give. Needs mpmath.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import mpmath as mp
import torch
import torch.nn.functional as F
from torch import Tensor

import pyvae

from . import COUNT_ERRORS_CSV, LOGIT_ERRORS_CSV, RESULTS, Row, environment, write
from .formulas import log_nb

PER_DECADE = 10
COUNTS, MEAN = (3, 0), 2
DECADES = (-2, 8)
DIGITS = 50


def usual(log_mean: Tensor, x: Tensor, log_theta: Tensor) -> Tensor:
    return -log_nb(x, torch.exp(log_mean), torch.exp(log_theta))


def fused(log_mean: Tensor, x: Tensor, log_theta: Tensor) -> Tensor:
    """One element a sample, so that each has a loss of its own."""
    likelihood = pyvae.NegativeBinomial(log_theta[:, None])
    return pyvae.reconstruction_loss(log_mean[:, None], x[:, None], likelihood=likelihood)


COMPETITORS = {"eager": usual, "fused": fused}


def exact(log_mean: float, x: int, log_theta: float) -> tuple[mp.mpf, mp.mpf]:
    """-log NB(x; mean, theta), and its derivative by log theta, at these very numbers."""
    with mp.workdps(DIGITS):
        mean, theta = mp.exp(mp.mpf(log_mean)), mp.exp(mp.mpf(log_theta))
        ways = mp.loggamma(x + theta) - mp.loggamma(theta) - mp.loggamma(x + 1)
        value = theta * mp.log1p(mean / theta) + x * mp.log1p(theta / mean) - ways
        psi = mp.digamma(x + theta) - mp.digamma(theta)
        return value, theta * (mp.log1p(mean / theta) - (mean - x) / (theta + mean) - psi)


def errors(x: int, log_thetas: Iterable[float]) -> Iterator[Row]:
    log_theta = torch.tensor(list(log_thetas), dtype=torch.float32, requires_grad=True)
    log_mean, counts = torch.full_like(log_theta, MEAN).log().detach(), torch.full_like(log_theta, x).detach()
    truth = [exact(float(a), x, float(r)) for a, r in zip(log_mean, log_theta.detach(), strict=True)]
    for name, function in COMPETITORS.items():
        value = function(log_mean, counts, log_theta)
        (slope,) = torch.autograd.grad(value.sum(), log_theta)
        for what, got, right in zip(
            ("nb_error", "nb_theta_error"), (value, slope), zip(*truth, strict=True), strict=True
        ):
            for r, number, true in zip(log_theta.tolist(), got.tolist(), right, strict=True):
                error = float(abs((mp.mpf(number) - true) / true))
                yield Row(what, name, error, "relative", count=x, theta=float(mp.exp(r)))


def rows() -> list[Row]:
    first, last = DECADES
    steps = range(first * PER_DECADE, last * PER_DECADE + 1)
    log_thetas = [step / PER_DECADE * float(mp.log(10)) for step in steps]
    return [row for x in COUNTS for row in errors(x, log_thetas)]


# ---- the Bernoulli losses, over the magnitude of the logit -----------------------------------------------------------
# A logit stands on its target's side (positive and the target 1, or negative and 0: the prediction is right) or on the
# other one. An error is the largest over a bin of magnitudes and over both targets, of which some functions of torch do
# one better than the other.

LOGIT_DECADES = (-3, 1.9)  # bins, up to 79: beyond 87 float32 has no normal number for e^-x
LOGITS = 1000  # a bin


def with_logits(logit: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logit, target, reduction="none")


def of_sigmoid(logit: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy(torch.sigmoid(logit), target, reduction="none")


def fused_logits(logit: Tensor, target: Tensor) -> Tensor:
    """One element a sample, so that each has a loss of its own; likewise below."""
    return pyvae.reconstruction_loss(logit[:, None], target[:, None], likelihood="bernoulli_logits")


def fused_of_sigmoid(logit: Tensor, target: Tensor) -> Tensor:
    return pyvae.reconstruction_loss(torch.sigmoid(logit)[:, None], target[:, None], likelihood="bernoulli")


LOGIT_COMPETITORS = {
    "eager": with_logits,
    "eager_probabilities": of_sigmoid,
    "fused": fused_logits,
    "fused_probabilities": fused_of_sigmoid,
}


def exact_logits(logit: Tensor, target: float) -> tuple[Tensor, Tensor]:
    """-log Bernoulli(target; sigmoid(logit)), and its derivative by the logit: in float64, for targets 0 and 1."""
    sign = 1 - 2 * target
    wrong = sign * logit.double()  # how far it is on the other side
    return wrong.clamp(min=0) + torch.log1p(torch.exp(-wrong.abs())), sign * torch.sigmoid(wrong)


def logit_errors(magnitude: Tensor, side: int) -> Iterator[tuple[str, str, Tensor]]:
    """What, competitor, and the larger of the two targets' relative errors at each magnitude."""
    for name, function in LOGIT_COMPETITORS.items():
        worst = torch.zeros(2, *magnitude.shape, dtype=torch.float64)
        for target in (0.0, 1.0):
            logit = (side * (2 * target - 1) * magnitude).requires_grad_()
            value = function(logit, torch.full_like(magnitude, target))
            (slope,) = torch.autograd.grad(value.sum(), logit)
            for error, got, right in zip(worst, (value, slope), exact_logits(logit.detach(), target), strict=True):
                torch.maximum(error, ((got.detach() - right) / right).abs(), out=error)
        yield from (("logits_error", name, worst[0]), ("logits_gradient_error", name, worst[1]))


def logit_rows() -> list[Row]:
    """Of each bin, by its middle: as a positive logit for the target's side, as a negative one for the other."""
    first, last = (round(decade * PER_DECADE) for decade in LOGIT_DECADES)
    edges = [step / PER_DECADE for step in range(first, last + 1)]
    bins = list(pairwise(edges))
    magnitude = torch.cat([torch.logspace(*ends, LOGITS, dtype=torch.float64) for ends in bins]).float()
    measured = []
    for side in (1, -1):
        for what, name, error in logit_errors(magnitude, side):
            for (low, high), worst in zip(bins, error.view(len(bins), LOGITS).amax(1).tolist(), strict=True):
                measured.append(Row(what, name, worst, "relative", logit=side * 10 ** ((low + high) / 2)))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSVs (%(default)s)")
    options = parser.parse_args()
    where = environment("cpu")  # before a CSV is written, which changes the tree
    for name, measured in ((COUNT_ERRORS_CSV, rows()), (LOGIT_ERRORS_CSV, logit_rows())):
        write(options.out / name, measured, where)
        for row in measured:
            at = f"logit = {row.logit:.3g}" if row.logit else f"x = {row.count}, theta = {row.theta:.3g}"
            print(f"{row.what:21} {row.competitor:19} {at:22} {row.value:.1e}")
        print(options.out / name)


if __name__ == "__main__":
    main()
