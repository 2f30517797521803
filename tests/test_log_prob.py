"""Log densities on every way of a call that is no plain one, the posterior's own density, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributions as D
from cases import DTYPES, LAYOUTS, all_equal, assert_whole, generator, leaf, posterior
from families import SCALES
from refusal import ANY
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


# ---- refusals --------------------------------------------------------------------------------------------------------

Z, MEAN = torch.zeros(4, 3), torch.zeros(5, 3)


def refused(functions: ModuleType, z: Any, mixture: Any, **others: Any) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        functions.mixture_log_prob(z, mixture, **others)
    assert type(caught.value) in (TypeError, ValueError)
    return str(caught.value)


REFUSED: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "`z` must be a Tensor, but is a float": (0.0, pyvae.Mixture(MEAN, MEAN), {}),
    f"`z` must have one of the dtypes {ANY}, but has torch.int64; convert it with `z.float()`": (
        Z.long(),
        pyvae.Mixture(MEAN, MEAN),
        {},
    ),
    "`mixture` must be a pyvae.Mixture, but is a tuple": (Z, (MEAN, MEAN), {}),
    "`mixture` must be a pyvae.Mixture, but is None": (Z, None, {}),
    "`mixture.mean` must be a Tensor, but is a float": (Z, pyvae.Mixture(0.0, MEAN), {}),
    "`mixture.mean` must have shape (K, L) or (B, K, L) with K > 0, but has shape (3,)": (
        Z,
        pyvae.Mixture(MEAN[0], MEAN[0]),
        {},
    ),
    "`mixture.mean` must have shape (K, L) or (B, K, L) with K > 0, but has shape (0, 3)": (
        Z,
        pyvae.Mixture(MEAN[:0], MEAN[:0]),
        {},
    ),
    "exactly one of `logvar`, `std`, `logstd`, `rho` must be given to pyvae.Mixture, but got none": (
        Z,
        pyvae.Mixture(MEAN),
        {},
    ),
    "exactly one of `logvar`, `std`, `logstd`, `rho` must be given to pyvae.Mixture, but got `logvar` and `rho`": (
        Z,
        pyvae.Mixture(MEAN, MEAN, rho=MEAN),
        {},
    ),
    "`mixture.std` must be a Tensor or a number, but is a str": (Z, pyvae.Mixture(MEAN, std="1"), {}),
    "`mixture.logvar` must broadcast to mixture.mean's shape (5, 3), but has shape (4, 3)": (
        Z,
        pyvae.Mixture(MEAN, Z),
        {},
    ),
    "`mixture.logvar` must be on mixture.mean's device cpu, but is on meta": (
        Z,
        pyvae.Mixture(MEAN, MEAN.to("meta")),
        {},
    ),
    "`mixture.logits` must have shape (5,), a number for each component, but has shape (5, 1)": (
        Z,
        pyvae.Mixture(MEAN, MEAN, logits=MEAN[:, :1]),
        {},
    ),
    "`z` must have shape (..., B, 3) for means of shape (5, 3), but has shape (4, 2)": (
        Z[:, :2],
        pyvae.Mixture(MEAN, MEAN),
        {},
    ),
    "`z` must have shape (..., B, 3) for means of shape (5, 3), but has shape (3,)": (
        Z[0],
        pyvae.Mixture(MEAN, MEAN),
        {},
    ),
    "`z` must have shape (..., 2, 3) for means of shape (2, 5, 3), but has shape (4, 3)": (
        Z,
        pyvae.Mixture(torch.zeros(2, 5, 3), 0.0),
        {},
    ),
    "`z` must be on mixture.mean's device cpu, but is on meta": (Z.to("meta"), pyvae.Mixture(MEAN, MEAN), {}),
    '`reduction` must be one of "none", "elements", but is "sum"': (
        Z,
        pyvae.Mixture(MEAN, MEAN),
        {"reduction": "sum"},
    ),
    '`reduction` must be one of "none", "elements", but is None': (Z, pyvae.Mixture(MEAN, MEAN), {"reduction": None}),
    "`std` must hold standard deviations >= 0, but holds -1; F.softplus or exp makes one of any number": (
        Z,
        pyvae.Mixture(MEAN, std=MEAN - 1),
        {},
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_refusals(functions: ModuleType, words: str) -> None:
    z, mixture, others = REFUSED[words]
    assert refused(functions, z, mixture, **others) == f"mixture_log_prob: {words}"


POSTERIORS: dict[str, dict[str, Any]] = {
    "`z` must have mu's shape (4, 3), after any dimensions of samples, but has shape (4, 2)": {"z": Z[:, :2]},
    "`z` must have mu's shape (4, 3), after any dimensions of samples, but has shape (3,)": {"z": Z[0]},
    "`z` must be a Tensor, but is None": {"z": None},
    "`z` must be on mu's device cpu, but is on meta": {"z": Z.to("meta")},
    "`mu` must be a Tensor, but is None": {"mu": None},
    "`logvar` must have mu's shape (4, 3), but has shape (3,)": {"logvar": Z[0]},
    "`logvar_range` must be (low, high) with low <= high, but is (1, 0)": {"logvar_range": (1, 0)},
    '`reduction` must be one of "none", "elements", but is "batchmean"': {"reduction": "batchmean"},
    "`std` must hold standard deviations >= 0, but holds -1; F.softplus or exp makes one of any number": {
        "logvar": None,
        "std": Z - 1,
    },
}


@pytest.mark.parametrize("words", POSTERIORS)
def test_refusals_of_a_posterior(functions: ModuleType, words: str) -> None:
    given: dict[str, Any] = {"z": Z, "mu": Z, "logvar": Z} | POSTERIORS[words]
    with pytest.raises((TypeError, ValueError)) as caught:
        functions.gaussian_log_prob(**given)
    assert str(caught.value) == f"gaussian_log_prob: {words}"


@pytest.mark.usefixtures("kernels")
def test_operators_check_too() -> None:
    """Called by themselves, in fewer words."""
    call: Callable[..., Tensor] = torch.ops.pyvae.mixture_log_prob
    for z, mean, logits in ((Z[:, :2], MEAN, None), (Z, MEAN[0], None), (Z, MEAN, MEAN), (Z.long(), MEAN, None)):
        with pytest.raises(ValueError, match=r"^pyvae::mixture_log_prob: "):
            call(z, mean, mean, 0, logits, None, None, False)
