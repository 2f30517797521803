"""Log densities on every way of a call that is no plain one, and the posterior's own density."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributions as D
from cases import DTYPES, LAYOUTS, all_equal, assert_whole, generator, leaf, posterior
from families import SCALES
from test_mixture import SIGMA, Case, inputs, log_prob, upstream
from tolerances import DENSITY, DENSITY_GRADIENT, FLOAT32_ROUNDING, GRADCHECK
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

import pyvae
from pyvae._objects import held

REDUCTIONS = ("none", "elements")
both = pytest.mark.usefixtures("backend")
EACH = pytest.mark.parametrize("reduction", REDUCTIONS)
OWN = pytest.mark.parametrize("own", [False, True])


# ---- the posterior's density -----------------------------------------------------------------------------------------

SHAPES = (
    ((), (5, 7)),
    ((3,), (4, 10)),
    ((2, 3), (4, 2, 5, 3)),
    ((30,), (3, 1030)),
    ((600,), (2, 3)),
    ((4,), (11,)),
    ((2,), (300, 3)),
)


def drawn(
    kind: str, samples: tuple[int, ...], shape: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """z, mu, scale: leaves."""
    z = 2 * torch.randn((*samples, *shape), generator=generator(3), dtype=torch.float64)
    return [leaf(z.to(dtype)), *map(leaf, posterior(kind, shape, dtype))]


def density(given: list[Tensor], kind: str, reduction: str, **others: Any) -> Tensor:
    return pyvae.gaussian_log_prob(given[0], given[1], **{kind: given[2]}, reduction=reduction, **others)


def density_truth(given: list[Tensor], kind: str, reduction: str) -> Tensor:
    z, mu, scale = given
    out = D.Normal(mu, SIGMA[kind](scale)).log_prob(z)
    return out if reduction == "elements" or mu.ndim == 1 else out.flatten(z.ndim - mu.ndim + 1).sum(-1)


@both
@EACH
@pytest.mark.parametrize(("samples", "shape"), SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gaussian(samples: tuple[int, ...], shape: tuple[int, ...], dtype: torch.dtype, reduction: str) -> None:
    for kind in SCALES:
        given = drawn(kind, samples, shape, dtype)
        exact = [leaf(x.double()) for x in given]
        got, want = density(given, kind, reduction), density_truth(exact, kind, reduction)
        assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert got.shape == want.shape
        assert ((got - want).abs() <= DENSITY[got.dtype] * (1 + want.abs())).all()
        factor = upstream(want)
        gradients = grad((got * factor.to(got)).sum(), given)
        for x, y in zip(gradients, grad((want * factor).sum(), exact), strict=True):
            assert x.dtype == dtype
            assert_whole(x, y, DENSITY_GRADIENT[dtype])


@pytest.mark.usefixtures("kernels", "threads")
@EACH
@pytest.mark.parametrize(("samples", "shape"), SHAPES, ids=str)
def test_a_posterior_has_the_same_bits_on_any_number_of_threads(
    samples: tuple[int, ...], shape: tuple[int, ...], reduction: str
) -> None:
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        given = drawn("rho", samples, shape, torch.float32)
        out = density(given, "rho", reduction)
        results.append([out.detach(), *grad((out * upstream(out)).sum(), given)])
    assert all(all_equal(result, results[0]) for result in results)


@both
@EACH
def test_a_range_clamps_and_stops_the_gradient(reduction: str) -> None:
    z, mu, logvar = drawn("logvar", (3,), (4, 5))
    for low, high in ((-0.5, 0.5), (None, 0.0), (-0.25, None)):
        got = density([z, mu, logvar], "logvar", reduction, logvar_range=(low, high))
        clamped = logvar.clamp(low, high)
        torch.testing.assert_close(got, density([z, mu, clamped], "logvar", reduction))
        outside = logvar.detach() != clamped.detach()
        mine, wanted = grad(got.sum(), logvar)[0], grad(density([z, mu, clamped], "logvar", reduction).sum(), logvar)[0]
        assert outside.any() and not mine[outside].any()
        torch.testing.assert_close(mine, wanted)


@pytest.mark.usefixtures("kernels")
@EACH
@pytest.mark.parametrize("layout", ["strided", "sliced", "batch_last", "odd_offset", "channels_last"])
def test_layouts_of_a_posterior(layout: str, reduction: str) -> None:
    plain = drawn("logvar", (), (4, 3, 5, 2), torch.float32)
    given = [leaf(LAYOUTS[layout](x.detach())) for x in plain]
    got, want = density(given, "logvar", reduction), density(plain, "logvar", reduction)
    assert torch.equal(got, want)
    assert all_equal(grad(got.sum(), given), grad(want.sum(), plain))


@both
@EACH
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_nothing_of_a_posterior(shape: tuple[int, ...], reduction: str) -> None:
    given = [leaf(torch.randn(2, *shape)), leaf(torch.randn(shape)), leaf(torch.randn(shape))]
    out = density(given, "logvar", reduction)
    assert out.shape == ((2, *shape) if reduction == "elements" else (2, shape[0]))
    assert not out.any()
    assert all(x.shape == of.shape for x, of in zip(grad(out.sum(), given), given, strict=True))


@both
def test_an_importance_weight_is_the_kl_on_average() -> None:
    """log q(z|x) - log p(z), with a mixture of one standard normal: the KL's estimate, for a sum of squares exactly."""
    mu, logvar = posterior("logvar", (4, 6), torch.float64)
    z = mu + torch.exp(logvar / 2) * torch.randn(20_000, 4, 6, dtype=torch.float64, generator=generator(0))
    standard = pyvae.Mixture(torch.zeros(1, 6, dtype=torch.float64), 0.0)
    ratio = pyvae.gaussian_log_prob(z, mu, logvar) - pyvae.mixture_log_prob(z, standard)
    error = ratio.mean(0) - pyvae.kl_divergence(mu, logvar)
    assert (error.abs() < 4.5 * ratio.std(0) / math.sqrt(20_000)).all()


# ---- derivatives of every order, and transforms ----------------------------------------------------------------------


@both
@EACH
@OWN
@pytest.mark.parametrize("scale", SCALES)
def test_gradcheck(scale: str, own: bool, reduction: str) -> None:
    given = inputs(Case((2,), 3, 4, 2, own), scale)

    def f(*x: Tensor) -> Tensor:
        return log_prob(list(x), scale, reduction)

    assert gradcheck(f, given, check_forward_ad=True, check_batched_grad=True, **GRADCHECK)
    assert gradgradcheck(f, given, **GRADCHECK)


@both
@EACH
def test_gradcheck_of_a_posterior(reduction: str) -> None:
    for scale in SCALES:
        given = drawn(scale, (2,), (3, 2, 2))
        assert gradcheck(lambda *x, s=scale: density(list(x), s, reduction), given, check_forward_ad=True, **GRADCHECK)
        assert gradgradcheck(lambda *x, s=scale: density(list(x), s, reduction), given, **GRADCHECK)


@both
@EACH
@OWN
def test_functional_transforms(own: bool, reduction: str) -> None:
    given = inputs(Case((), 3, 4, 2, own), "logvar")
    want = grad(log_prob(given, "logvar", reduction).sum(), given)

    def total(*x: Tensor) -> Tensor:
        return log_prob(list(x), "logvar", reduction).sum()

    plain = [x.detach() for x in given]
    for got in (torch.func.grad(total, argnums=(0, 1, 2, 3))(*plain), torch.func.jacrev(total, (0, 1, 2, 3))(*plain)):
        for x, y in zip(got, want, strict=True):
            torch.testing.assert_close(x, y)
    forward = torch.func.jacfwd(total, (0, 1, 2, 3))(*plain)
    for x, y in zip(forward, want, strict=True):
        torch.testing.assert_close(x, y)
    torch.func.hessian(total)(*plain)
    z, mean, logvar, logits = plain
    mapped = torch.func.vmap(
        lambda at, *held: pyvae.mixture_log_prob(at[None], pyvae.Mixture(*held[:2], logits=held[2])),
        in_dims=(0, *(0 if own else None,) * 3),
    )(z, mean, logvar, logits)
    torch.testing.assert_close(mapped[:, 0], log_prob(plain, "logvar", "none"))


@both
def test_a_mixture_is_a_tree() -> None:
    z, mean, logvar, logits = (x.detach() for x in inputs(Case((), 3, 4, 2, False), "logvar"))
    mixture = pyvae.Mixture(mean, logvar, logits=logits)
    got = torch.func.grad(lambda m: pyvae.mixture_log_prob(z, m).sum())(mixture)
    assert type(got) is pyvae.Mixture
    want = grad(log_prob(each := [leaf(x) for x in (z, mean, logvar, logits)], "logvar", "none").sum(), each[1:])
    for x, y in zip(held(got).values(), want, strict=True):
        torch.testing.assert_close(x, y)


@both
@EACH
def test_retained_and_partial_backward_passes(reduction: str) -> None:
    given = inputs(Case((2,), 5, 4, 3, False), "logvar", torch.float32)
    out = log_prob(given, "logvar", reduction)
    first = grad(out.sum(), given, retain_graph=True)
    assert all_equal(first, grad(out.sum(), given, retain_graph=True))
    doubled = grad(2 * out.sum(), given)
    assert all_equal([2 * x for x in first], doubled)


# ---- compilers -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kernels")
@EACH
@OWN
@pytest.mark.parametrize("dynamic", [None, True])
def test_compile(dynamic: bool | None, own: bool, reduction: str) -> None:
    torch._dynamo.reset()
    given = inputs(Case((2,), 5, 4, 3, own), "rho", torch.float32)

    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=dynamic)
    def step(z: Tensor, mean: Tensor, rho: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        mixture = pyvae.Mixture(mean, rho=rho, logits=logits)
        own_density = pyvae.gaussian_log_prob(z, mean[..., 0, :].expand(z.shape[1:]), std=torch.ones_like(z[0]))
        return pyvae.mixture_log_prob(z, mixture, reduction=reduction), own_density

    got, other = step(*given)
    want = log_prob(given, "rho", reduction)
    torch.testing.assert_close(got, want)
    assert other.shape == (2, 5)
    for x, y in zip(grad(got.sum(), given), grad(want.sum(), given), strict=True):
        assert_whole(x, y, FLOAT32_ROUNDING)
    torch._dynamo.reset()


@EACH
def test_meta(reduction: str) -> None:
    z, mean = torch.empty(3, 5, 2, device="meta"), torch.empty(4, 2, device="meta")
    out = pyvae.mixture_log_prob(z, pyvae.Mixture(mean, mean), reduction=reduction)
    assert out.device.type == "meta"
    assert out.shape == (z.shape if reduction == "elements" else z.shape[:-1])
