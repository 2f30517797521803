"""Counts at the ends of their ranges, through the public functions, against 50 digits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

import counts_truth
import mpmath as mp
import pytest
import torch
from calls import Call, assert_sided, call
from counts_truth import DIGITS
from families import COUNTS as COUNTS_AND_MEANS
from families import WITH_LIBRARY, family
from tolerances import COUNTS_BELOW, IN_UNITS, REFERENCE_COUNTS
from torch import Tensor

import pyvae

pytestmark = pytest.mark.usefixtures("backend")
COUNTS = tuple(name for name in COUNTS_AND_MEANS if not name.endswith("_mean"))  # of means: test_means.py
EXACT = {name: getattr(counts_truth, name) for name in COUNTS}
MEANS, THETAS = (1e-8, 1e-3, 0.5, 3.7, 500, 1e8), (1e-4, 0.9, 8.5, 1e4, 1e8)
FAR_THETAS = (1e-34, 1e-20, 1e20, 1e34)  # log theta near -80 and 80
TARGETS, LOGITS = (0, 1, 7, 150, 1e6), (-50.0, -1.0, 50.0)
Table = tuple[Tensor, Tensor]  # what is exact and its unit, [N, value and derivatives]


def exactly(name: str, points: Sequence[Sequence[float]]) -> Table:
    with mp.workdps(DIGITS):
        rows = [EXACT[name](*map(mp.mpf, point)) for point in points]
        sides = [[[float(x) for x in pair] for pair in row] for row in rows]
    both = torch.tensor(sides, dtype=torch.float64)
    return both[..., 0], both[..., 1]


@cache
def corners(name: str) -> tuple[Tensor, Table]:
    """Points as float32 has them: [N, recon, target, parameters]."""
    thetas = torch.tensor((*THETAS, *FAR_THETAS)).log()
    axes = [torch.tensor(MEANS).log(), torch.tensor(TARGETS), thetas, torch.tensor(LOGITS)]
    points = torch.cartesian_prod(*axes[: 2 + len(family(name).parameters)]).float()
    return points, exactly(name, points.tolist())


def slack(points: Tensor, table: Table) -> Tensor:
    """What half a unit in the last place of recon and log theta change of an inflated 0's slopes, relative: they have
    e^-n as a factor, where n, the negative binomial's value, may be large."""
    (_, by_mean, by_theta), _ = exactly("negative_binomial", points[:, :3].tolist())[0].T, table
    half = torch.finfo(torch.float32).eps / 2
    change = half * (by_mean * points[:, 0]).abs() + half * (by_theta * points[:, 2]).abs()
    return torch.where(points[:, 1] == 0, change, 0.0)


def by_one(points: Tensor, device: str) -> Iterator[tuple[int, list[Tensor]]]:
    """Each point in a row of its own, once and seven times beside itself: recon, target and parameters."""
    for copies in (1, 7):
        yield copies, [x[:, None].repeat(1, copies).to(device) for x in points.T]


@pytest.mark.parametrize("name", [name for name in COUNTS if name != "multinomial"])
def test_corners(name: str, device: str, backend: str) -> None:
    points, (exact, unit) = corners(name)
    unit = unit.clone()
    if name.startswith("zero_inflated"):
        unit[:, 1:3] *= 1 + slack(points, (exact, unit))[:, None] / IN_UNITS[torch.float32]
    below = exact.abs() < COUNTS_BELOW
    exact = exact.where(~below, 0.0)
    unit = unit.where(~below, COUNTS_BELOW / IN_UNITS[torch.float32])
    if backend == "reference":  # derived by autograd in float64: to 16 digits of the terms that cancel
        unit = unit + REFERENCE_COUNTS / IN_UNITS[torch.float32] * largest_terms(points)[:, None]
    for copies, (recon, target, *parameters) in by_one(points, device):
        given = Call(name, recon, target, tuple(parameters)).leaves()
        loss = given.elbo_loss(reduction="none")
        assert_sided(loss, (copies * exact[:, 0], copies * unit[:, 0]), copies=copies)
        gradients = torch.autograd.grad(loss.sum(), given.differentiable)
        for k, gradient in enumerate(gradients, 1):
            want = exact[:, k, None].expand(gradient.shape), unit[:, k, None].expand(gradient.shape)
            assert_sided(gradient, want, derivative=k, copies=copies)


def largest_terms(points: Tensor) -> Tensor:
    """Of the sums that the reference forms: mean, count and, below 8, theta, each times a logarithm."""
    mean, count = points[:, 0].double().exp(), points[:, 1].double()
    return (1 + mean + count) * (1 + (1 + mean + count).log())


@pytest.mark.parametrize("log_library", [5.0, 8.0, 12.0])
@pytest.mark.parametrize("name", WITH_LIBRARY)
def test_libraries(name: str, log_library: float, device: str, backend: str) -> None:
    """Through the softmax, of which a count's derivative has its share: one row a theta."""
    features = 23
    given = call(name, (len(THETAS), features), (len(THETAS), features), seed=3, device="cpu")
    theta = torch.tensor(THETAS).log()[:, None].expand(-1, features).clone()
    counts = torch.tensor([TARGETS[i % 4] for i in range(features)]).float().expand_as(theta).clone()
    given = replace(
        given,
        recon=3 * given.recon,
        target=counts,
        parameters=(theta, *given.parameters[1:])[: len(given.parameters)],
        log_library=torch.full((len(THETAS),), log_library),
    )
    scores = given.recon.double()
    p = torch.softmax(scores, 1)
    log_mean = torch.log_softmax(scores, 1) + log_library
    points = torch.stack([x.double().flatten() for x in (log_mean, counts, *given.parameters)], 1)
    exact, unit = (x.reshape(len(THETAS), features, -1) for x in exactly(name, points.tolist()))
    # float32 knows the log of a mean to some units in its last place, and all slopes as well as the mean.
    unit = unit + exact[..., 1:2].abs() + unit[..., 1:2] * (torch.arange(exact.shape[2]) > 0)
    slope, slope_unit = exact[..., 1], unit[..., 1]
    total, total_unit = slope.sum(1, keepdim=True), slope_unit.sum(1, keepdim=True)
    given = replace(
        given.with_differentiable([x.to(device) for x in given.differentiable]), target=counts.to(device)
    ).leaves()
    loss = given.elbo_loss(reduction="none")
    assert_sided(loss, (exact[..., 0].sum(1), unit[..., 0].sum(1)))
    by_scores, *by_parameters, by_library = torch.autograd.grad(loss.sum(), given.differentiable)
    assert_sided(by_scores, (slope - p * total, slope_unit + p * total_unit))
    assert_sided(by_library, (total[:, 0], total_unit[:, 0]))
    for k, gradient in enumerate(by_parameters, 2):
        assert_sided(gradient, (exact[..., k], unit[..., k]), derivative=k)


def test_large_libraries_of_many_features(device: str) -> None:
    for log_library, features in itertools.product((5.0, 12.0), (512, 20_000)):
        given = call("negative_binomial", (2, features), library=True, device=device)
        given = replace(given, log_library=torch.full((2,), log_library, device=device)).leaves()
        loss = given.elbo_loss(reduction="none")
        want = given.truth()
        assert_sided(loss, want.loss)
        for gradient, sides in zip(torch.autograd.grad(loss.sum(), given.differentiable), want.gradients, strict=True):
            assert_sided(gradient, sides, log_library=log_library)


def test_theta_beyond_its_range_is_poisson(device: str) -> None:
    given = call("poisson", (3, 600), device=device)
    for theta, recon in itertools.product((60.0, 100.0, math.inf), (given.recon, given.recon - 20)):
        theta = torch.tensor(theta, device=device)
        want = pyvae.reconstruction_loss(recon, given.target, likelihood="poisson")
        got = pyvae.reconstruction_loss(recon, given.target, likelihood=pyvae.NegativeBinomial(theta))
        torch.testing.assert_close(got, want, rtol=IN_UNITS[torch.float32], atol=0)


@pytest.mark.parametrize("log_theta", [30.0, 35.0, 40.0, 60.0, -60.0, 2.5])
def test_slopes_that_are_small_differences(log_theta: float, device: str, backend: str) -> None:
    """By a theta that hardly matters, and by a zero's logits where inflation is all but impossible."""
    points = torch.tensor([[a, x, log_theta] for a in (0.0, 7.0) for x in (0.0, 3.0, 1000.0)])
    exact, unit = exactly("negative_binomial", points.tolist())
    theta = points[:, 2:].to(device).requires_grad_()
    recon, target = points[:, :1].to(device), points[:, 1:2].to(device)
    loss = pyvae.reconstruction_loss(recon, target, likelihood=pyvae.NegativeBinomial(theta))
    (gradient,) = torch.autograd.grad(loss.sum(), theta)
    assert_sided(gradient[:, 0], (exact[:, 2], unit[:, 2]))

    rho = torch.full((1, 1), -47.637, device=device, requires_grad=True)
    inflated = pyvae.ZeroInflatedNegativeBinomial(torch.full((1, 1), log_theta, device=device), rho)
    zero = torch.zeros(1, 1, device=device)
    (gradient,) = torch.autograd.grad(pyvae.elbo_loss(zero - 3, zero, likelihood=inflated), rho)
    exact, unit = exactly("zero_inflated_negative_binomial", [[-3.0, 0.0, log_theta, rho.item()]])
    assert_sided(gradient[0], (exact[0, 3:], unit[0, 3:]))
