"""Gradients against float64 closed forms in units in the last place, and against finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import truth
from cases import (
    DENSE_LAYOUTS,
    DTYPES,
    LAYOUTS,
    LIKELIHOODS,
    MIXED_DTYPES,
    REDUCTIONS,
    SCALES,
    SHAPES,
    assert_ulp,
    data,
    leaf,
    posterior,
)
from tolerances import GRADCHECK, GRADIENT_ULP, REFERENCE_GRADIENT_ULP, SCALED_GRADIENT_ULP
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = pytest.mark.usefixtures("backend")
Bound = dict[torch.dtype, float]


Compare = Callable[..., None]


@pytest.fixture
def compare(backend: str) -> Compare:
    """assert_ulp with the bound that the backend can keep."""

    def check(got: Tensor, want: Tensor, bound: Bound = GRADIENT_ULP, magnitude: Tensor | None = None) -> None:
        if backend == "reference":
            bound, magnitude = REFERENCE_GRADIENT_ULP, want.abs() if magnitude is None else magnitude
            if got.dtype == torch.float64:
                magnitude = magnitude.clamp(min=1)
        assert_ulp(got, want, bound, magnitude)

    return check


@pytest.fixture
def compare_recon(backend: str, compare: Compare) -> Compare:
    """Compares with d loss / d recon = factor * slope in units in the last place of that slope.

    Except for logits with targets between 0 and 1: there sigma(x)(1-t) and sigma(-x)t cancel, and units are those of
    the larger. The reference, whose gradient autograd derives, has such a difference for probabilities too.
    """

    def check(
        got: Tensor,
        likelihood: str,
        recon: Tensor,
        target: Tensor,
        factor: Tensor | float = 1.0,
        bound: Bound = GRADIENT_ULP,
    ) -> None:
        factor = truth.rows(truth.exact(factor).expand(recon.shape))
        slope, summand = truth.likelihood_slope(likelihood, truth.rows(recon), truth.rows(target))
        cancels = likelihood == "bernoulli_logits" or backend == "reference"
        assert got.dtype == recon.dtype
        assert got.shape == recon.shape
        compare(got, factor * slope, bound, magnitude=(factor * (summand if cancels else slope)).abs())

    return check


# ---- recon: the whole range ------------------------------------------------------------------------------------------


def sweep(likelihood: str) -> Tensor:
    """Both tails, everything between, and the smallest numbers."""
    small = torch.logspace(-44, -1, 400, dtype=torch.float64)
    if likelihood == "bernoulli":
        return torch.cat([torch.linspace(0, 1, 4097), small, 1 - small, torch.tensor([0.0, 1.0, 1e-12, 2**-24])])
    wide = torch.linspace(-110, 110, 8801) if likelihood == "bernoulli_logits" else torch.linspace(-1e4, 1e4, 4001)
    return torch.cat([wide, small, -small, torch.tensor([0.0, -0.0, 1e4, -1e4, 1e30, -1e30])])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_recon_gradient_over_the_whole_range(
    likelihood: str, dtype: torch.dtype, device: str, compare_recon: Compare
) -> None:
    values = sweep(likelihood).to(dtype)
    values = values[values.isfinite()]
    for t in (0.0, 1.0, 0.5, 0.1, 0.999, 1e-4):
        recon = leaf(values.repeat(3, 1).to(device))
        target = torch.full_like(recon, t, requires_grad=False)
        (got,) = grad(pyvae.reconstruction_loss(recon, target, likelihood=likelihood, reduction="sum"), recon)
        compare_recon(got, likelihood, recon, target)


@pytest.mark.parametrize("dtypes", MIXED_DTYPES, ids=str)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_recon_gradient_of_every_dtype_and_reduction(
    likelihood: str, dtypes: tuple[torch.dtype, torch.dtype], device: str, compare_recon: Compare
) -> None:
    recon, target = data(likelihood, (8, 67), dtypes, device=device)
    mu, logvar = posterior("logvar", (8, 5), dtypes[0], device=device)
    for reduction in REDUCTIONS:
        x = leaf(recon)
        loss = pyvae.elbo_loss(x, target, mu, logvar, likelihood=likelihood, beta=0.3, reduction=reduction)
        upstream = torch.tensor([2.0, 1.0, -0.5, 0.0, 4.0, 1.0, 8.0, 1.0]).to(loss) if reduction == "none" else None
        (got,) = grad(loss, x, upstream)
        factor = upstream[:, None] if upstream is not None else 0.125 if reduction == "batchmean" else 1.0
        compare_recon(got, likelihood, recon, target, factor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_upstream_gradient_scales(reduction: str, dtype: torch.dtype, device: str, compare_recon: Compare) -> None:
    """A factor that is no power of two, weights, and a batch that is none either."""
    recon, target = data("bernoulli_logits", (7, 41), (dtype, dtype), device=device)
    weight = torch.rand(41, device=device) + 0.5
    x = leaf(recon)
    loss = pyvae.reconstruction_loss(x, target, likelihood="bernoulli_logits", weight=weight, reduction=reduction)
    upstream = (torch.rand(loss.shape, device=device) + 0.3).to(loss)
    (got,) = grad(loss, x, upstream)
    factor = truth.exact(upstream)[:, None] if reduction == "none" else truth.exact(upstream)
    factor = factor * truth.exact(weight) / (7 if reduction == "batchmean" else 1)
    compare_recon(got, "bernoulli_logits", recon, target, factor, SCALED_GRADIENT_ULP)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_recon_gradient_of_every_shape(shape: tuple[int, ...], device: str, compare_recon: Compare) -> None:
    for likelihood, dtype in itertools.product(LIKELIHOODS, (torch.float32, torch.bfloat16)):
        recon, target = data(likelihood, shape, (dtype, torch.float32), device=device)
        x = leaf(recon)
        (got,) = grad(pyvae.elbo_loss(x, target, likelihood=likelihood), x)
        compare_recon(got, likelihood, recon, target)


@pytest.mark.parametrize(("recon_layout", "target_layout"), list(itertools.product(LAYOUTS, LAYOUTS)))
def test_recon_gradient_of_every_layout(
    recon_layout: str, target_layout: str, device: str, backend: str, compare_recon: Compare
) -> None:
    for likelihood in LIKELIHOODS:
        recon, target = data(likelihood, (3, 4, 5, 6), device=device)
        recon, target = LAYOUTS[recon_layout](recon), LAYOUTS[target_layout](target)
        for x in (leaf(recon), leaf(recon) * 1):
            (got,) = grad(pyvae.reconstruction_loss(x, target, likelihood=likelihood).sum(), x)
            compare_recon(got, likelihood, recon, target)
            if recon_layout in DENSE_LAYOUTS:
                assert got.stride() == x.stride() or backend == "reference"


# ---- posterior -------------------------------------------------------------------------------------------------------


def scale_sweep(scale: str) -> Tensor:
    near = torch.logspace(-7, -0.5, 300, dtype=torch.float64)
    if scale == "std":
        return torch.cat([1 + near, 1 - near, torch.logspace(-15, 15, 2001), torch.ones(1)])
    widest = 85 if scale == "logvar" else 42
    return torch.cat([near, -near, torch.linspace(-widest, widest, 4001), torch.zeros(1)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_kl_gradient_over_the_whole_range(scale: str, dtype: torch.dtype, device: str, compare: Compare) -> None:
    s = scale_sweep(scale).to(dtype)
    s = leaf(s[s.isfinite() & ((s > 0) | (scale != "std"))].to(device))
    mu = leaf(torch.linspace(-5, 5, s.numel(), device=device).to(dtype))
    got = grad(pyvae.kl_divergence(mu, **{scale: s}, reduction="sum"), (mu, s))
    for value, want in zip(got, truth.kl_slope(scale, truth.exact(mu), truth.exact(s)), strict=True):
        assert value.dtype == dtype
        compare(value, want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_sampler_gradient(scale: str, dtype: torch.dtype, device: str, compare: Compare) -> None:
    """Through z alone with given noise; through z and KL in units of the larger of the two contributions."""
    mu, s = (leaf(x) for x in posterior(scale, (4, 257), dtype, device=device))
    eps = torch.randn(4, 257).to(device, dtype)
    upstream = torch.randn(4, 257).to(device, dtype)
    slope = truth.exact(upstream) * truth.std_slope(scale, truth.exact(s)) * truth.exact(eps)
    got = grad(pyvae.reparameterize(mu, **{scale: s}, eps=eps), (mu, s), upstream)
    assert torch.equal(got[0], upstream)
    compare(got[1], slope, SCALED_GRADIENT_ULP)

    z, kl = pyvae.reparameterize_kl(mu, **{scale: s}, eps=eps)
    per_sample = torch.tensor([1.0, 0.5, 0.0, -2.0]).to(kl)
    got = grad((z, kl), (mu, s), (upstream, per_sample))
    sampled = (truth.exact(upstream), slope)
    for value, a, b in zip(got, sampled, truth.kl_slope(scale, truth.exact(mu), truth.exact(s)), strict=True):
        b = truth.exact(per_sample)[:, None] * b
        compare(value, a + b, SCALED_GRADIENT_ULP, magnitude=torch.maximum(a.abs(), b.abs()))


def test_objective_gradient_of_the_posterior_and_kl(device: str, compare: Compare) -> None:
    """beta and the reduction reach the posterior's gradient, and that of a given kl."""
    recon, target = data("gaussian", (8, 9), device=device)
    tensor = torch.tensor(0.25)  # on the CPU it goes with any device
    betas = (0.25, tensor, tensor.to(device), tensor.to(device, torch.float64))
    for scale, reduction, beta in itertools.product(SCALES, REDUCTIONS, betas):
        mu, s = (leaf(x) for x in posterior(scale, (8, 3, 5), device=device))
        kl = leaf(pyvae.kl_divergence(mu, **{scale: s}))
        mean = 1 / 8 if reduction == "batchmean" else 1.0
        options: dict[str, Any] = {"likelihood": "gaussian", "beta": beta, "reduction": reduction}
        (got,) = grad(pyvae.elbo_loss(recon, target, kl=kl, **options).sum(), kl)
        compare(got, torch.full((8,), 0.25 * mean, dtype=torch.float64))
        slopes = truth.kl_slope(scale, truth.exact(mu), truth.exact(s))
        for loss, factor in (
            (pyvae.elbo_loss(recon, target, mu, **{scale: s}, **options), 0.25 * mean),
            (pyvae.kl_divergence(mu, **{scale: s}, reduction=reduction), mean),
        ):
            for value, want in zip(grad(loss.sum(), (mu, s)), slopes, strict=True):
                compare(value, factor * want)


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_posterior_gradients_keep_dtype_and_layout(layout: str, device: str, backend: str) -> None:
    mu, logvar = posterior("logvar", (3, 4, 5, 6), device=device)
    mu, logvar = leaf(LAYOUTS[layout](mu)), leaf(LAYOUTS[layout](logvar.half()))
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=3)
    for value, source in zip(grad(z.sum() + kl.sum(), (mu, logvar)), (mu, logvar), strict=True):
        assert value.dtype == source.dtype
        assert value.stride() == source.stride() or backend == "reference"


# ---- first and second derivatives against finite differences ---------------------------------------------------------


def functions(device: str) -> Iterator[tuple[str, Callable[..., Any], tuple[Tensor, ...]]]:
    """Every function with every input that it can be differentiated by, in float64."""
    double = (torch.float64, torch.float64)
    shape = (2, 3)
    for scale in SCALES:
        mu, s = posterior(scale, shape, torch.float64, device=device)
        eps = data("gaussian", shape, double, device=device)[0]
        yield f"kl-{scale}", lambda m, s, k=scale: pyvae.kl_divergence(m, **{k: s}), (mu, s)
        yield f"seed-{scale}", lambda m, s, k=scale: pyvae.reparameterize_kl(m, **{k: s}, seed=7), (mu, s)
        yield f"eps-{scale}", lambda m, s, e, k=scale: pyvae.reparameterize_kl(m, **{k: s}, eps=e), (mu, s, eps)
        yield f"z-{scale}", lambda m, s, k=scale: pyvae.reparameterize(m, **{k: s}, seed=7, row_offset=3), (mu, s)
    beta, kl, weight = (torch.tensor(x, dtype=double[0], device=device) for x in (0.7, [0.3, 1.2], [0.6, 1.0, 1.4]))
    for likelihood in LIKELIHOODS:
        recon, target = data(likelihood, shape, double, device=device)
        target = 0.1 + 0.8 * target if likelihood == "bernoulli" else target
        extra = {"pos_weight": weight} if likelihood == "bernoulli_logits" else {}
        for scale, reduction in zip(SCALES, REDUCTIONS, strict=True):
            mu, s = posterior(scale, shape, torch.float64, device=device)

            def terms(x, t, m, s, b, w, n=likelihood, k=scale, r=reduction, e=extra):  # type: ignore[no-untyped-def]
                return pyvae.elbo_terms(x, t, m, **{k: s}, likelihood=n, beta=b, weight=w, reduction=r, **e)

            yield f"{likelihood}-{scale}-{reduction}", terms, (recon, target, mu, s, beta, weight)

        def given(x, k, b, t=target, n=likelihood):  # type: ignore[no-untyped-def]
            return pyvae.elbo_loss(x, t, kl=k, likelihood=n, beta=b, reduction="none")

        yield f"{likelihood}-kl", given, (recon, kl, beta)

    def positive(x, t, p):  # type: ignore[no-untyped-def]
        return pyvae.reconstruction_loss(x, t, likelihood="bernoulli_logits", pos_weight=p)

    yield "pos_weight", positive, (*data("bernoulli_logits", shape, double, device=device), weight)


@pytest.mark.parametrize("name", [name for name, *_ in functions("cpu")])
def test_gradcheck_and_gradgradcheck(name: str, device: str) -> None:
    function, inputs = next(found for called, *found in functions(device) if called == name)
    inputs = tuple(leaf(x.clone()) for x in inputs)
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, **GRADCHECK)
    assert torch.autograd.gradgradcheck(function, inputs, **GRADCHECK)
