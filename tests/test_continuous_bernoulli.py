"""The continuous Bernoulli: against 100 digits where its formulas cancel, and as the density that it is."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from calls import assert_sided
from cases import assert_relative, assert_ulp, leaf
from tolerances import GRADIENT_ULP, LOSS
from torch.autograd import grad

import pyvae

pytestmark = pytest.mark.usefixtures("kernels")
NAME = "continuous_bernoulli_logits"


def log_partition(x: mp.mpf) -> mp.mpf:
    """log((e^x - 1) / x)"""
    return mp.log(mp.expm1(x) / x) if x else mp.mpf(0)


def mean(x: mp.mpf) -> mp.mpf:
    return 1 / -mp.expm1(-x) - 1 / x if x else mp.mpf(1) / 2


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("t", [0.0, 0.5, 1.0, 0.25, 1 - 2**-20])
def test_near_zero_at_the_seam_and_in_the_tails(t: float, dtype: torch.dtype, device: str) -> None:
    near, wide = torch.logspace(-30, 0, 121, dtype=torch.float64), torch.logspace(0, 4, 81, dtype=torch.float64)
    seam = 2 + torch.linspace(-1e-6, 1e-6, 21, dtype=torch.float64)
    half = torch.cat([near, wide, seam, torch.zeros(1, dtype=torch.float64)])
    x = leaf(torch.cat([half, -half]).to(device, dtype))
    loss = pyvae.reconstruction_loss(x[:, None], torch.full_like(x, t)[:, None], likelihood=NAME)
    (slope,) = grad(loss.sum(), x)
    with mp.workdps(100):
        points = [mp.mpf(v) for v in x.tolist()]
        value = [float(log_partition(v) - t * v) for v in points]
        # What the value is the sum of: near 0 a product that goes with x and one with x^2.
        unit = [float(max(abs((0.5 - t) * v), abs(log_partition(v) - v / 2))) for v in points]
        slopes = [float(mean(v) - t) for v in points]
        summands = [float(max(mean(v) * (1 - t), mean(-v) * t)) for v in points]
    value, unit, slopes, summands = (torch.tensor(x, dtype=torch.float64) for x in (value, unit, slopes, summands))
    assert_sided(loss, (value, unit), LOSS)
    assert_ulp(slope, slopes, GRADIENT_ULP, magnitude=summands)


@pytest.mark.parametrize("logit", [-30.0, -3.0, -1e-4, 0.0, 0.7, 12.0])
def test_it_is_a_density_with_that_mean(logit: float, device: str) -> None:
    """By Gauss-Legendre quadrature: it integrates to 1, which the Bernoulli of gray values does not."""
    x, w = map(torch.as_tensor, np.polynomial.legendre.leggauss(100))
    t = ((x + 1) / 2).to(device)
    logits = leaf(torch.full_like(t, logit)[:, None])
    loss = pyvae.reconstruction_loss(logits, t[:, None], likelihood=NAME)
    (slope,) = grad(loss.sum(), logits)
    density = torch.exp(-loss.detach()) * w.to(device) / 2
    assert_relative(density.sum()[None], torch.ones(1, dtype=torch.float64), LOSS)
    assert_relative(((t + slope[:, 0]) * density).sum()[None], (t * density).sum()[None].cpu(), LOSS)


def test_infinite_logits(device: str) -> None:
    """A density of infinity at that end, and of 0 elsewhere; the slope is the limit's."""
    inf = math.inf
    x = leaf(torch.tensor([[inf], [-inf], [inf], [-inf], [inf]], device=device))
    target = torch.tensor([[1.0], [0.0], [0.0], [1.0], [0.5]], device=device)
    loss = pyvae.reconstruction_loss(x, target, likelihood=NAME)
    assert loss.tolist() == [-inf, -inf, inf, inf, inf]
    assert grad(loss.sum(), x)[0].flatten().tolist() == [0, 0, 1, -1, 0.5]


def test_a_pos_weight_is_refused() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=f'`pos_weight` must come with likelihood="bernoulli_logits".*"{NAME}"'):
        pyvae.reconstruction_loss(x, x, likelihood=NAME, pos_weight=2.0)
