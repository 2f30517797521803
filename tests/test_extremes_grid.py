"""Two numbers for one thing: kernels, reference and torch's own functions over a grid of extremes.

They agree in which results are finite, inf, -inf or NaN, and in the values of the finite ones. One element a row, so
that none hides another. What is left open, since it hangs on the order of factors alone, here and in torch: a gradient
with an infinite factor (weight, pos_weight or upstream gradient) is inf, or NaN where autograd adds up inf - inf, but
never finite; and 0 times an infinite derivative is 0 or NaN.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import SCALES
from torch import Tensor
from torch.autograd import grad
from torch.distributions import Normal
from torch.distributions import kl_divergence as normals

import pyvae

pytestmark = pytest.mark.usefixtures("kernels")

inf, nan = math.inf, math.nan
LOGVARS = (
    *(inf, -inf, nan, 0.0, 1.0, -40.5, 1e38, -1e38),
    *(s * x for x in (88.5, 88.7, 88.8, 89.0, 89.3, 89.4, 90.0, 103.5, 104.0, 709.0, 710.5, 745.0) for s in (1, -1)),
)
POINTS = {
    "logvar": LOGVARS,
    "logstd": tuple(x / 2 for x in LOGVARS),
    "rho": (*LOGVARS, 1e19, 2e19, -1e19, 1e-19, 1e-38, 0.5),
    "std": (0.0, inf, 1e38, 1e19, 2e19, 1e-19, 1e-20, 1e-38, nan, 0.5, 1.0),
}
MEANS = (0.0, inf, -inf, 1e38, -1e38, 1e19, 2e19, 1e-38, nan, 0.5)
LOGITS = (0.0, inf, -inf, nan, 1e38, -1e38, 104.0, -104.0, 90.0, -90.0, 20.0)
PROBABILITIES = (0.0, 1.0, 1e-45, 1e-40, 1e-38, 1 - 2**-24, 0.5, 1e-13)
REALS = (0.0, inf, -inf, nan, 1e38, -1e38, 1e19, 2e19, 1.0)
UPSTREAM = (1.0, 0.0, inf, 2.5)
TYPES = (torch.float32, torch.float64, torch.bfloat16)
# Relative: one rounding of the result on each side, and some units in the compute type before it. In float64 torch's
# binary_cross_entropy divides by 1e-12 in float32, which is off by 4e-9.
WITHIN = {torch.float32: 1e-6, torch.float64: 1e-8, torch.bfloat16: 2**-7}
# Denormal numbers have fewer digits, and may be 0 on one side; torch divides some of them by that 1e-12.
TINY = {torch.float32: 1e-32, torch.float64: 1e-300, torch.bfloat16: 1e-32}
# Of torch's own functions, which lose the small ones of two summands.
TORCH = 1e-7


def kinds(x: Tensor) -> Tensor:
    """0: finite; 1: inf; 2: -inf; 3: NaN."""
    return (x == inf) * 1 + (x == -inf) * 2 + x.isnan() * 3


def assert_one_number(
    got: Tensor, want: Tensor, dtype: torch.dtype, given: Tensor, open_: Tensor | None = None, within: float = 0.0
) -> None:
    """Where `open_`, both have to be inf or NaN."""
    got, want = got.detach().double().flatten(), want.detach().double().flatten()
    same = kinds(got) == kinds(want)
    if open_ is not None:
        same |= open_.flatten() & ~got.isfinite() & ~want.isfinite()
    error, size = (got - want).abs(), torch.maximum(got.abs(), want.abs())
    same &= ~(got.isfinite() & want.isfinite() & (error > WITHIN[dtype] * size + TINY[dtype] + within))
    wrong = [(given[i].tolist(), got[i].item(), want[i].item()) for i in (~same).nonzero().flatten().tolist()]
    assert not wrong, f"{len(wrong)} of {len(got)}; (inputs, got, expected): {wrong[:8]}"


def grid(dtype: torch.dtype, *axes: tuple[float, ...]) -> Tensor:
    return torch.tensor(list(itertools.product(*axes)), dtype=torch.float64).to(dtype)


def columns(points: Tensor) -> list[Tensor]:
    return [column.clone().requires_grad_() for column in points.split(1, 1)]


def assert_gradients(
    got: list[Tensor],
    want: list[Tensor],
    slopes: list[Tensor],
    upstream: float,
    dtype: torch.dtype,
    given: Tensor,
    within: float = 0.0,
) -> None:
    """`slopes`: the gradients with the upstream gradient 1."""
    for mine, theirs, slope in zip(got, want, slopes, strict=True):
        decided = slope.isfinite().flatten() if upstream == 0 else torch.ones(len(given), dtype=torch.bool)
        everywhere = torch.full((int(decided.sum()),), math.isinf(upstream))
        assert_one_number(mine[decided], theirs[decided], dtype, given[decided], everywhere, within)


@pytest.mark.parametrize("upstream", UPSTREAM)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("kind", SCALES)
def test_divergence_and_sample(kind: str, dtype: torch.dtype, upstream: float) -> None:
    points = grid(dtype, MEANS, POINTS[kind])

    def divergence(functions: ModuleType, upstream: float) -> tuple[Tensor, list[Tensor]]:
        mu, scale = columns(points)
        kl = functions.kl_divergence(mu, **{kind: scale})
        return kl, list(grad(kl, (mu, scale), torch.full_like(kl, upstream)))

    def sample(functions: ModuleType, upstream: float) -> tuple[Tensor, list[Tensor]]:
        mu, scale = columns(points)
        z = functions.reparameterize(mu, **{kind: scale}, eps=torch.full_like(mu, -0.75))
        return z, list(grad(z, (mu, scale), torch.full_like(z, upstream)))

    for call in (divergence, sample):
        (value, gradients), (want, want_gradients) = call(pyvae, upstream), call(pyvae.reference, upstream)
        assert_one_number(value, want, dtype, points)
        assert_gradients(gradients, want_gradients, call(pyvae, 1.0)[1], upstream, dtype, points)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_divergence_is_that_of_torchs_normals(dtype: torch.dtype) -> None:
    """Where torch gives a number or inf. It is worse at some ends: sigma^2 overflows before the half is taken, 1e-20^2
    is 0, whose logarithm is -inf, and at sigma = inf it has inf - inf."""
    points = grid(dtype, MEANS, POINTS["std"])
    mu, scale = points.unbind(1)
    want = normals(Normal(mu, scale, validate_args=False), Normal(torch.zeros_like(mu), torch.ones_like(mu)))
    squared = scale * scale
    decided = ~squared.isinf() & (squared >= torch.finfo(dtype).tiny)
    got = pyvae.kl_divergence(mu[:, None], std=scale[:, None])
    at_most = torch.finfo(dtype).max / 2  # mu^2 overflows there as well
    decided &= ~((mu.abs() > at_most**0.5) & mu.isfinite())
    assert decided.sum() >= 20
    assert_one_number(got[decided], want[decided], dtype, points[decided], within=TORCH)


def losses(likelihood: str, functions: ModuleType | None, points: Tensor, upstream: float, **factors: float | None):
    """Value and gradient of each element, by pyvae's functions or (None) by torch's own."""
    x, t = columns(points)
    t = t.detach()
    weight, pos_weight = (
        None
        if number is None
        else torch.tensor([number], dtype=torch.float32).to(torch.promote_types(x.dtype, torch.float32))
        for number in (factors.get("weight"), factors.get("pos_weight"))
    )
    if functions is not None:
        value = functions.reconstruction_loss(x, t, likelihood=likelihood, weight=weight, pos_weight=pos_weight)
    else:
        wide = torch.promote_types(x.dtype, torch.float32)
        if likelihood == "bernoulli":
            value = F.binary_cross_entropy(x.to(wide), t.to(wide), weight, reduction="none")
        else:
            value = F.binary_cross_entropy_with_logits(
                x.to(wide), t.to(wide), weight, reduction="none", pos_weight=pos_weight
            )
        value = value.flatten()
    return value, list(grad(value, (x,), torch.full_like(value, upstream)))


@pytest.mark.parametrize("upstream", UPSTREAM)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("likelihood", "recon", "targets"),
    (
        ("bernoulli_logits", LOGITS, (0.0, 1.0, 0.5)),
        ("bernoulli", PROBABILITIES, (0.0, 1.0, 0.5)),
        ("gaussian", REALS, REALS),
        ("laplace", REALS, REALS),
    ),
)
def test_likelihoods(
    likelihood: str, recon: tuple[float, ...], targets: tuple[float, ...], dtype: torch.dtype, upstream: float
) -> None:
    points = grid(dtype, recon, targets)
    takes = (None, inf, 0.0, 2.0) if likelihood == "bernoulli_logits" else (None,)
    for pos_weight, weight in itertools.product(takes, (None, inf, 0.0)):
        factors = {"weight": weight, "pos_weight": pos_weight}
        got, gradients = losses(likelihood, pyvae, points, upstream, **factors)
        slopes = losses(likelihood, pyvae, points, 1.0, **factors)[1]
        sides: list[ModuleType | None] = [pyvae.reference]
        # torch's two are decisive, but for infinite logits: at -inf with a target > 0 it has inf - inf, ours the limit,
        # and on the target's side it has 0 times inf, and ours 0.
        sides += [None] if likelihood.startswith("bernoulli") else []
        for side in sides:
            want, want_gradients = losses(likelihood, side, points, upstream, **factors)
            decided, within = torch.ones(len(points), dtype=torch.bool), TORCH if side is None else 0.0
            if side is None:
                decided = ~((points[:, 0] == -inf) & (points[:, 1] != 0.5)) & ~(
                    (points[:, 0] == inf) & (points[:, 1] == 1)
                )
                decided &= ~((points[:, 0] == -inf) & (points[:, 1] > 0))
            if weight == inf:  # a value too small for one side is 0 there, of which an infinite factor makes NaN
                plain = [losses(likelihood, of, points, 1.0, pos_weight=pos_weight)[0] for of in (pyvae, side)]
                decided &= (plain[0] != 0) == (plain[1] != 0)
            assert_one_number(got[decided], want[decided], dtype, points[decided], within=within)
            if inf in (weight, pos_weight if side is None else None):
                assert not any(x.isfinite().any() for x in (*gradients, *want_gradients))
                continue
            mine, theirs, slope = ([x[decided] for x in of] for of in (gradients, want_gradients, slopes))
            assert_gradients(mine, theirs, slope, upstream, dtype, points[decided], within)


PARAMETRIC: dict[str, tuple[Callable[..., Any], tuple[tuple[float, ...], ...]]] = {  # recon, target, and parameters
    "Gaussian": (pyvae.Gaussian, ((0.0, inf, -inf, nan, 1e19, 1.0), (0.0, 1.0, inf), LOGVARS)),
    "Laplace": (pyvae.Laplace, ((0.0, inf, -inf, nan, 1e19, -1e38, 1.0), (0.0, 1.0, inf), LOGVARS)),
    "Poisson": (pyvae.Poisson, (tuple(x for x in LOGVARS if abs(x) != 1e38), (0.0, 1.0, 3.0, 1e5, nan))),
}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", list(PARAMETRIC))
def test_likelihoods_with_parameters(name: str, dtype: torch.dtype) -> None:
    """The negative binomials are left out: the kernels keep log theta within 40 on either side of 0."""
    likelihood, axes = PARAMETRIC[name]
    points = grid(dtype, *axes)

    def call(functions: ModuleType) -> list[Tensor]:
        x, t, *parameters = columns(points)
        value = functions.reconstruction_loss(x, t.detach(), likelihood=likelihood(*parameters))
        return [value, *grad(value, (x, *parameters), torch.ones_like(value))]

    for place, (got, want) in enumerate(zip(call(pyvae), call(pyvae.reference), strict=True)):
        # The slope by an infinite parameter is the limit in the kernels; autograd has none.
        decided = ~points[:, -1].isinf() | torch.tensor(place < 2)
        decided &= ~(got.abs().flatten() > torch.finfo(got.dtype).max / 8)  # autograd's sums overflow earlier
        assert_one_number(got[decided], want[decided], dtype, points[decided])
