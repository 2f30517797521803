"""Gradients against float64 closed forms in units in the last place, and against finite differences. Those of the data
term, by shape, dtype and layout: test_likelihoods.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import truth
from calls import call, of
from cases import (
    DENSE_LAYOUTS,
    DTYPES,
    LAYOUTS,
    REDUCTIONS,
    Bound,
    assert_slope,
    assert_ulp,
    data,
    leaf,
    posterior,
)
from families import OTHERS, PLAIN, SCALES, WAYS, cycled, family, scaling
from tolerances import GRADCHECK, GRADIENT_ULP, REFERENCE_GRADIENT_ULP, SCALED_GRADIENT_ULP
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.torch_sensitive("the derivatives in pyvae.reference, which are torch's"),
]
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
    """assert_slope with the bound that the backend can keep."""
    return partial(assert_slope, compare=compare, summands=backend == "reference")


# ---- recon: the whole range ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("likelihood", PLAIN)
def test_recon_gradient_over_the_whole_range(
    likelihood: str, dtype: torch.dtype, device: str, compare_recon: Compare
) -> None:
    entry = family(likelihood)
    values = entry.swept(dtype)
    for t, pos_weight in itertools.product(entry.sweep.targets, (1.0, 2.5) if entry.takes_pos_weight else (1.0,)):
        recon = leaf(values.repeat(3, 1).to(device))
        target = torch.full_like(recon, t, requires_grad=False)
        options = {"likelihood": likelihood, "pos_weight": pos_weight if entry.takes_pos_weight else None}
        (got,) = grad(pyvae.reconstruction_loss(recon, target, **options).sum(), recon)
        compare_recon(got, likelihood, recon, target, pos_weight=pos_weight)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "library"), WAYS)
def test_upstream_gradient_scales(
    name: str, library: bool, reduction: str, dtype: torch.dtype, device: str, check: Compare
) -> None:
    """A factor that is no power of two, weights, and a batch that is none either."""
    given = call(name, (7, 41), None, (dtype, dtype, dtype), library, device=device)
    given = replace(given, weight=torch.rand(41, device=device) + 0.5)
    upstream = torch.rand(7 if reduction == "none" else (), device=device) + 0.3
    check(given, upstream, reduction)


# ---- posterior -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_kl_gradient_over_the_whole_range(scale: str, dtype: torch.dtype, device: str, compare: Compare) -> None:
    s = leaf(scaling(scale).sweep(dtype).to(device))
    mu = leaf(torch.linspace(-5, 5, s.numel(), device=device).to(dtype))
    got = grad(pyvae.kl_divergence(mu, **{scale: s}, reduction="sum"), (mu, s))
    for value, want in zip(got, truth.kl_slope(scale, mu, s), strict=True):
        assert value.dtype == dtype
        compare(value, want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_sampler_gradient(scale: str, dtype: torch.dtype, device: str, compare: Compare) -> None:
    """Through z alone with given noise; through z and KL in units of the larger of the two contributions."""
    mu, s = (leaf(x) for x in posterior(scale, (4, 257), dtype, device=device))
    eps = torch.randn(4, 257).to(device, dtype)
    upstream = torch.randn(4, 257).to(device, dtype)
    slope = truth.exact(upstream) * scaling(scale).std_slope(truth.exact(s)) * truth.exact(eps)
    got = grad(pyvae.reparameterize(mu, **{scale: s}, eps=eps), (mu, s), upstream)
    assert torch.equal(got[0], upstream)
    compare(got[1], slope, SCALED_GRADIENT_ULP)

    z, kl = pyvae.reparameterize_kl(mu, **{scale: s}, eps=eps)
    per_sample = torch.tensor([1.0, 0.5, 0.0, -2.0]).to(kl)
    got = grad((z, kl), (mu, s), (upstream, per_sample))
    sampled = (truth.exact(upstream), slope)
    for value, a, b in zip(got, sampled, truth.kl_slope(scale, mu, s), strict=True):
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
        slopes = truth.kl_slope(scale, mu, s)
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
        eps = mu.flip(0)
        yield f"kl-{scale}", lambda m, s, k=scale: pyvae.kl_divergence(m, **{k: s}), (mu, s)
        yield f"seed-{scale}", lambda m, s, k=scale: pyvae.reparameterize_kl(m, **{k: s}, seed=7), (mu, s)
        yield f"eps-{scale}", lambda m, s, e, k=scale: pyvae.reparameterize_kl(m, **{k: s}, eps=e), (mu, s, eps)
        yield f"z-{scale}", lambda m, s, k=scale: pyvae.reparameterize(m, **{k: s}, seed=7, row_offset=3), (mu, s)
    beta, kl, weight = (torch.tensor(x, dtype=double[0], device=device) for x in (0.7, [0.3, 1.2], [0.6, 1.0, 1.4]))
    for likelihood in PLAIN:
        recon, target = data(likelihood, shape, double, device=device)
        target = family(likelihood).sweep.target.inside(target, 0.1)
        extra = {"pos_weight": weight} if family(likelihood).takes_pos_weight else {}
        for scale, reduction in cycled(SCALES, REDUCTIONS):
            mu, s = posterior(scale, shape, torch.float64, device=device)

            def terms(x, t, m, s, b, w, n=likelihood, k=scale, r=reduction, e=extra):  # type: ignore[no-untyped-def]
                return pyvae.elbo_terms(x, t, m, **{k: s}, likelihood=n, beta=b, weight=w, reduction=r, **e)

            yield f"{likelihood}-{scale}-{reduction}", terms, (recon, target, mu, s, beta, weight)

        def given(x, k, b, t=target, n=likelihood):  # type: ignore[no-untyped-def]
            return pyvae.elbo_loss(x, t, kl=k, likelihood=n, beta=b, reduction="none")

        yield f"{likelihood}-kl", given, (recon, kl, beta)

        def positive(x, t, p, n=likelihood):  # type: ignore[no-untyped-def]
            return pyvae.reconstruction_loss(x, t, likelihood=n, pos_weight=p)

        if extra:
            yield f"{likelihood}-pos_weight", positive, (recon, target, weight)


@pytest.mark.parametrize("name", [name for name, *_ in functions("cpu")])
def test_gradcheck_and_gradgradcheck(name: str, device: str) -> None:
    function, inputs = next(found for called, *found in functions(device) if called == name)
    inputs = tuple(leaf(x.clone()) for x in inputs)
    batched = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, **batched, **GRADCHECK)
    assert torch.autograd.gradgradcheck(function, inputs, check_fwd_over_rev=True, **GRADCHECK)


@pytest.mark.parametrize("form", [(3,), (2, 1), (2, 3), ()], ids=str)
@pytest.mark.parametrize(("name", "library"), [way for way in WAYS if way[0] in OTHERS])
def test_gradcheck_by_parameters_of_every_shape(name: str, library: bool, form: tuple[int, ...], device: str) -> None:
    """And gradgradcheck."""
    given = call(name, (2, 3), form, (torch.float64,) * 3, library, device=device).leaves()
    function, inputs = of(given, "none"), tuple(given.differentiable)
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, **GRADCHECK)
    assert torch.autograd.gradgradcheck(function, inputs, **GRADCHECK)
