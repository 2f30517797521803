"""Log densities under mixtures: values and gradients against torch.distributions in float64, on every way of a call."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributions as D
from cases import DTYPES, LAYOUTS, all_equal, assert_whole, generator, leaf
from families import SCALES, scaling
from tolerances import DENSITY, DENSITY_GRADIENT
from torch import Tensor
from torch.autograd import grad

import pyvae

REDUCTIONS = ("none", "elements")
both = pytest.mark.usefixtures("backend")
EACH = pytest.mark.parametrize("reduction", REDUCTIONS)


class Case(NamedTuple):
    """z (..., B, L), and a mixture of K components: shared, or of each sample."""

    samples: tuple[int, ...]
    batch: int
    components: int
    features: int
    own: bool


# Around tiles of 32 rows, runs of 64 and 2 features, 16 terms, strips of 512 rows; one of everything; many of one. On
# CUDA around tiles of 48, 96 and 192 components, and rows that a thread holds and that none does.
CASES = (
    Case((), 5, 3, 2, False),
    Case((3,), 7, 20, 10, False),
    Case((30,), 3, 17, 5, True),
    Case((), 9, 4, 3, True),
    Case((2, 3), 4, 33, 1, True),
    Case((), 33, 1, 7, False),
    Case((), 1, 16, 65, False),
    Case((40,), 33, 15, 3, False),
    Case((), 1100, 2, 9, False),
    Case((520,), 2, 3, 4, True),
    Case((), 3, 2, 700, True),
    Case((), 2, 1, 1, True),
    Case((), 9, 200, 16, False),
    Case((2,), 3, 50, 20, True),
    Case((), 40, 9, 70, False),
    Case((), 2, 3, 1100, False),
)
names = [f"{'x'.join(map(str, c.samples)) or 1}-{c.batch}-{c.components}-{c.features}-{c.own}" for c in CASES]
EVERY = pytest.mark.parametrize("case", CASES, ids=names)


def inputs(case: Case, scale: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """z, mean, scale, logits: leaves."""
    draw = generator(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    shape = (*((case.batch,) if case.own else ()), case.components, case.features)
    z, mean = 2 * normal(*case.samples, case.batch, case.features), normal(*shape)
    width = scaling(scale).of(0.8 * normal(*shape))
    return [leaf(x.to(dtype)) for x in (z, mean, width, normal(*shape[:-1]))]


def log_prob(given: list[Tensor], scale: str, reduction: str) -> Tensor:
    z, mean, width, logits = given
    return pyvae.mixture_log_prob(z, pyvae.Mixture(mean, **{scale: width}, logits=logits), reduction=reduction)


SIGMA: dict[str, Callable[[Tensor], Tensor]] = {
    "logvar": lambda s: torch.exp(s / 2),
    "std": lambda s: s,
    "logstd": torch.exp,
    "rho": torch.nn.functional.softplus,
}


def truth(given: list[Tensor], scale: str, reduction: str) -> Tensor:
    """By torch.distributions."""
    z, mean, width, logits = given
    sigma = SIGMA[scale](width)
    if reduction == "none":
        parts: D.Distribution = D.Independent(D.Normal(mean, sigma), 1)
    else:
        parts = D.Normal(mean.mT, sigma.mT)
        logits = logits[..., None, :].expand(mean.mT.shape)
    return D.MixtureSameFamily(D.Categorical(logits=logits), parts).log_prob(z)


def upstream(like: Tensor) -> Tensor:
    return torch.linspace(-1, 2, max(like.numel(), 1)).to(like)[: like.numel()].view(like.shape)


def assert_right(got: Tensor, given: list[Tensor], want: Tensor, exact: list[Tensor]) -> None:
    """Values relative to the larger of what they are made of, gradients as wholes: what they sum has both signs."""
    dtype = torch.float64 if torch.float64 in {x.dtype for x in given} else torch.float32
    assert (got.shape, got.dtype) == (want.shape, dtype)
    assert ((got - want).abs() <= DENSITY[dtype] * (1 + want.abs())).all()
    factor = upstream(want)
    gradients = grad((got * factor.to(got)).sum(), given)
    for x, y, of in zip(gradients, grad((want * factor).sum(), exact), given, strict=True):
        assert (x.dtype, x.shape) == (of.dtype, of.shape)
        if y.norm() > 0:
            assert_whole(x, y, DENSITY_GRADIENT[of.dtype])


# ---- values and gradients --------------------------------------------------------------------------------------------


@both
@EVERY
@EACH
def test_float64(case: Case, reduction: str, device: str) -> None:
    for scale in SCALES:
        given, exact = inputs(case, scale), inputs(case, scale)
        got = log_prob([x.to(device) for x in given], scale, reduction).cpu()
        want = truth(exact, scale, reduction)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
        factor = upstream(want)
        for x, y in zip(grad((got * factor).sum(), given), grad((want * factor).sum(), exact), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


@both
@EVERY
@EACH
@pytest.mark.parametrize("dtype", [x for x in DTYPES if x != torch.float64])
def test_other_types(case: Case, reduction: str, dtype: torch.dtype) -> None:
    """Of what the inputs hold in that type; computed in float32, also where 16 bits come."""
    for scale in SCALES:
        given = inputs(case, scale, dtype)
        exact = [leaf(x.double()) for x in given]
        assert_right(log_prob(given, scale, reduction), given, truth(exact, scale, reduction), exact)


@both
@EACH
def test_types_may_differ(reduction: str) -> None:
    case = CASES[1]
    for turn in range(4):
        given = inputs(case, "logvar", torch.float32)
        given[turn] = leaf(given[turn].bfloat16())
        given[turn - 1] = leaf(given[turn - 1].double())
        exact = [leaf(x.double()) for x in given]
        got, want = log_prob(given, "logvar", reduction), truth(exact, "logvar", reduction)
        assert got.dtype == torch.float64
        assert ((got - want).abs() <= 1e-9 * (1 + want.abs())).all()


@pytest.mark.usefixtures("kernels")
@EACH
@pytest.mark.parametrize("layout", ["strided", "sliced", "batch_last", "odd_offset", "expanded"])
def test_layouts(layout: str, reduction: str) -> None:
    for case in (CASES[1], CASES[2]):
        given = [LAYOUTS[layout](x.detach()).requires_grad_() for x in inputs(case, "logvar", torch.float32)]
        dense = [leaf(x.detach().contiguous()) for x in given]
        got, want = log_prob(given, "logvar", reduction), log_prob(dense, "logvar", reduction)
        assert torch.equal(got, want)
        factor = upstream(want)
        assert all_equal(grad((got * factor).sum(), given), grad((want * factor).sum(), dense))


@both
@EACH
@pytest.mark.parametrize("own", [False, True])
def test_without_logits_all_weights_are_equal(own: bool, reduction: str) -> None:
    z, mean, scale, logits = inputs(Case((2,), 5, 6, 3, own), "logvar")
    got = pyvae.mixture_log_prob(z, pyvae.Mixture(mean, scale), reduction=reduction)
    torch.testing.assert_close(got, log_prob([z, mean, scale, 0 * logits], "logvar", reduction), rtol=1e-14, atol=1e-14)


@both
@EACH
def test_a_scale_that_broadcasts(reduction: str) -> None:
    z, mean, *_ = inputs(Case((), 5, 6, 3, False), "std")
    widths: tuple[Any, ...] = (0.5, leaf(torch.tensor(0.5).double()), leaf(torch.full((6, 1), 0.5).double()))
    want = pyvae.mixture_log_prob(z, pyvae.Mixture(mean, std=torch.full_like(mean, 0.5)), reduction=reduction)
    for width in widths:
        got = pyvae.mixture_log_prob(z, pyvae.Mixture(mean, std=width), reduction=reduction)
        torch.testing.assert_close(got, want)
        if isinstance(width, Tensor):
            assert grad(got.sum(), width)[0].shape == width.shape


@both
@EACH
@pytest.mark.parametrize("shape", [(0, 3), (4, 0, 3), (0, 4, 3), (4, 0)])
def test_nothing(shape: tuple[int, ...], reduction: str) -> None:
    z = leaf(torch.randn(shape))
    mixture = [leaf(torch.randn(2, shape[-1])), leaf(torch.randn(2, shape[-1])), leaf(torch.zeros(2))]
    out = pyvae.mixture_log_prob(z, pyvae.Mixture(*mixture[:2], logits=mixture[2]), reduction=reduction)
    assert out.shape == (shape if reduction == "elements" else shape[:-1])
    if shape == (4, 0) and reduction == "none":
        torch.testing.assert_close(out, torch.zeros(4))
    for x, of in zip(grad(out.sum(), [z, *mixture]), [z, *mixture], strict=True):
        assert x.shape == of.shape
        assert not x.any()


# ---- what is hard ----------------------------------------------------------------------------------------------------


@both
@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_components(dtype: torch.dtype, reduction: str) -> None:
    """Nothing underflows before the square itself ends."""
    limit = 1e18 if dtype == torch.float32 else 1e150
    for far in (50.0, 1e4, limit):
        z = leaf(torch.tensor([[far]], dtype=dtype))
        mixture = pyvae.Mixture(torch.tensor([[0.0], [1.0], [-1.0]], dtype=dtype), 0.0)
        got = pyvae.mixture_log_prob(z, mixture, reduction=reduction).flatten()
        want = -((far - 1) ** 2) / 2 - math.log(2 * math.pi) / 2 - math.log(3)
        assert got.item() == pytest.approx(want, rel=1e-6)
        assert grad(got.sum(), z)[0].item() == pytest.approx(-(far - 1), rel=1e-6)


@both
@EACH
@pytest.mark.parametrize("own", [False, True])
def test_a_component_of_weight_0(own: bool, reduction: str) -> None:
    """It has no part in the value, and gradients of exactly 0, whatever its numbers are."""
    case = Case((3,), 4, 5, 6, own)
    for scale in SCALES:
        given = inputs(case, scale, torch.float32)
        kept = [x.detach().clone() for x in given]
        kept[1:] = [torch.cat((x[..., :2, :], x[..., 3:, :]), -2) for x in kept[1:3]] + [
            torch.cat((kept[3][..., :2], kept[3][..., 3:]), -1)
        ]
        for fill in (0.0, 1e30, math.inf, math.nan):
            changed = [x.detach().clone() for x in given]
            changed[1][..., 2, :] = fill
            changed[2][..., 2, :] = fill
            changed[3][..., 2] = -math.inf
            mine, others = [leaf(x) for x in changed], [leaf(x) for x in kept]
            got, want = log_prob(mine, scale, reduction), log_prob(others, scale, reduction)
            torch.testing.assert_close(got, want)
            gradients, wanted = grad(got.sum(), mine), grad(want.sum(), others)
            torch.testing.assert_close(gradients[0], wanted[0])
            for x in (gradients[1][..., 2, :], gradients[2][..., 2, :], gradients[3][..., 2]):
                assert torch.equal(x, torch.zeros_like(x))
            assert all(x.isfinite().all() for x in gradients)


@both
@EACH
def test_equal_components_are_one(reduction: str) -> None:
    z, mean, scale, _ = inputs(Case((2,), 7, 1, 3, False), "logvar")
    one = pyvae.mixture_log_prob(z, pyvae.Mixture(mean, scale), reduction=reduction)
    many = pyvae.Mixture(mean.expand(40, 3), scale.expand(40, 3))
    torch.testing.assert_close(pyvae.mixture_log_prob(z, many, reduction=reduction), one, rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("kernels")
@EACH
@pytest.mark.parametrize(("components", "features"), [(4096, 3), (3, 4096), (1024, 1024)])
def test_large(components: int, features: int, reduction: str) -> None:
    case = Case((), 3, components, features, False)
    given = inputs(case, "logstd", torch.float32)
    exact = [leaf(x.double()) for x in given]
    got, want = log_prob(given, "logstd", reduction), truth(exact, "logstd", reduction)
    assert ((got - want).abs() <= DENSITY[torch.float32] * (1 + want.abs())).all()
    for x, y in zip(grad(got.sum(), given), grad(want.sum(), exact), strict=True):
        assert_whole(x, y, 1e-3)  # of terms of thousands of nats float32 knows the difference to 1e-3


@both
@EACH
def test_a_nan_stays_where_it_is(reduction: str) -> None:
    z, mean, scale, logits = inputs(Case((), 40, 5, 3, False), "logvar", torch.float32)
    bad = z.detach().clone()
    bad[7, 1] = math.nan
    got, want = (log_prob([x, mean, scale, logits], "logvar", reduction).isnan() for x in (bad, z))
    assert not want.any()
    assert got.nonzero().tolist() == ([[7]] if reduction == "none" else [[7, 1]])
