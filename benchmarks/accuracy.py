"""Errors over theta and over the logit: `python -m benchmarks.accuracy` writes results/counts_accuracy.csv, and with
logits.py results/logits_accuracy.csv. `python -m benchmarks.plots` of such a file draws it.

Here those of the negative binomial, for counts 3 and 0 and the mean 2: of the value and of its derivative by log theta,
in float32, as the usual formula with torch.lgamma has them and as pyvae has them, relative to what 50 digits give.
Needs mpmath.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import mpmath as mp
import torch
from torch import Tensor

import pyvae

from . import Row, logits, write
from .counts import log_nb
from .environment import environment
from .report import COUNT_ERRORS_CSV, LOGIT_ERRORS_CSV, RESULTS

COUNTS, MEAN = (3, 0), 2
PER_DECADE, DECADES = 10, (-2, 8)
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSVs (%(default)s)")
    options = parser.parse_args()
    where = environment("cpu")  # before a CSV is written, which changes the tree
    for name, measured in ((COUNT_ERRORS_CSV, rows()), (LOGIT_ERRORS_CSV, logits.rows())):
        write(options.out / name, measured, where)
        for row in measured:
            at = f"logit = {row.logit:.3g}" if row.logit else f"x = {row.count}, theta = {row.theta:.3g}"
            print(f"{row.what:21} {row.competitor:19} {at:22} {row.value:.1e}")
        print(options.out / name)


if __name__ == "__main__":
    main()
