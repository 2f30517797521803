"""logvar_range, the clamp before everything else; and reduction="elements", the KL that is not summed."""

from __future__ import annotations

import math

import pytest
import torch
import truth
from cases import DTYPES, LAYOUTS, SHAPES, all_equal, assert_relative, assert_whole, leaf, posterior, prior
from families import SCALES, cycled, scaling
from tolerances import FLOAT32_ROUNDING, GRADCHECK, LOSS, SIXTEEN_BITS
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

import pyvae

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.torch_sensitive("the derivative of torch.clamp, which 2.14 changed"),
]
RANGE = (-1.0, 0.5)


def wide(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """mu, and a logvar of which much is outside of RANGE, and some at its ends."""
    mu, logvar = posterior("logvar", shape, dtype, device=device)
    logvar = 2 * logvar
    if logvar.numel() > 3:
        logvar.view(-1)[:3] = torch.tensor([*RANGE, -math.inf])
    return mu, logvar


def clamped(logvar: Tensor) -> Tensor:
    """torch's clamp; written out, since its gradient at the ends is 1 until torch 2.13, and 0 from 2.14 on."""
    low, high = (torch.tensor(end, dtype=logvar.dtype, device=logvar.device) for end in RANGE)
    within = torch.where(logvar < low, low, torch.where(logvar > high, high, logvar))
    assert torch.equal(within.nan_to_num(), logvar.clamp(*RANGE).nan_to_num())
    return within


# ---- logvar_range ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_clamp_is_that_of_torch(dtype: torch.dtype, device: str) -> None:
    """Values to the bit, since it comes before everything else; and gradients, at the ends too."""
    mu, logvar = wide((7, 19), dtype, device)
    learned = prior("logvar", (19,), dtype, device=device)
    upstream = torch.rand(7, 19).to(device, dtype)
    for options in ({}, {"prior": learned}):
        results = []
        for inside in (True, False):
            m, s = leaf(mu), leaf(logvar)
            bounds = {"logvar_range": RANGE} if inside else {}
            z, kl = pyvae.reparameterize_kl(m, s if inside else clamped(s), seed=3, **bounds, **options)
            gradients = grad([z, kl], [m, s], [upstream, torch.ones_like(kl)])
            results.append((z, kl, *gradients))
        assert all_equal(*results)
        outside = (logvar < RANGE[0]) | (logvar > RANGE[1])
        assert 0 < outside.sum() < outside.numel()
        assert (gradients[1][outside] == 0).all()
        assert (gradients[1][~outside] != 0).all()
        z, kl, *_ = results[0]
        assert torch.equal(z, pyvae.reparameterize(mu, logvar, logvar_range=RANGE, seed=3))
        assert torch.equal(kl, pyvae.kl_divergence(mu, logvar, logvar_range=RANGE, **options))
        assert kl.isfinite().all()


def test_a_nan_is_not_clamped(device: str) -> None:
    mu, logvar = wide((7, 19), torch.float32, device)
    logvar[2, 5] = math.nan
    z, kl = pyvae.reparameterize_kl(mu, s := leaf(logvar), logvar_range=RANGE, seed=1)
    assert z.isnan().nonzero().tolist() == [[2, 5]]
    assert kl.isnan().nonzero().tolist() == [[2]]
    want = (logvar >= RANGE[0]) & (logvar <= RANGE[1])
    assert 0 < want.sum() < want.numel() - 1
    got = grad(z.nan_to_num().sum() + kl.nan_to_num().sum(), s)[0]
    assert torch.equal(got.isfinite() & (got != 0), want)


@pytest.mark.parametrize("layout", ["strided", "batch_last", "odd_offset", "channels_last", "expanded"])
def test_the_clamp_in_every_layout(layout: str, device: str) -> None:
    mu, logvar = (LAYOUTS[layout](x) for x in wide((3, 4, 5, 6), torch.float32, device))
    got = pyvae.reparameterize_kl(mu, s := leaf(logvar), logvar_range=RANGE, seed=3)
    assert all_equal(got, pyvae.reparameterize_kl(mu, clamped(t := leaf(logvar)), seed=3))
    assert all_equal(grad(got[0].sum() + got[1].sum(), s), _of_clamped(mu, t))


def _of_clamped(mu: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    z, kl = pyvae.reparameterize_kl(mu, clamped(t), seed=3)
    return grad(z.sum() + kl.sum(), t)


def test_second_derivatives_of_a_clamped_scale(device: str) -> None:
    mu, logvar = (leaf(x) for x in posterior("logvar", (3, 4), torch.float64, device=device))
    eps = torch.randn(3, 4, dtype=torch.float64, device=device)
    inside = (logvar > RANGE[0]) & (logvar < RANGE[1])
    assert 0 < inside.sum() < 12

    def f(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        return pyvae.reparameterize_kl(mu, logvar, logvar_range=RANGE, eps=eps)

    assert gradcheck(f, (mu, logvar), check_forward_ad=True, **GRADCHECK)
    assert gradgradcheck(f, (mu, logvar), **GRADCHECK)
    mine = torch.func.grad(lambda s: f(mu.detach(), s)[1].sum())(logvar.detach())
    assert_whole(mine, grad(f(mu, logvar)[1].sum(), logvar)[0])


# ---- reduction="elements" --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_elements(shape: tuple[int, ...], device: str) -> None:
    for kind, dtype in cycled(SCALES, (torch.float32, torch.bfloat16, torch.float64)):
        mu, s = posterior(kind, shape, dtype, device=device)
        got = pyvae.kl_divergence(mu, **{kind: s}, reduction="elements")
        standard = torch.zeros(()), torch.tensor(scaling(kind).prior)
        assert_relative(got, truth.kl_elements(kind, mu, s, *standard), LOSS)
        assert got.shape == mu.shape


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_elements_lie_as_mu_does(layout: str, device: str) -> None:
    mu, logvar = (LAYOUTS[layout](x) for x in posterior("logvar", (3, 4, 5, 6), device=device))
    got = pyvae.kl_divergence(mu, logvar, reduction="elements")
    assert got.stride() == torch.empty_like(mu).stride()
    assert torch.equal(got, pyvae.kl_divergence(mu.contiguous(), logvar.contiguous(), reduction="elements"))
    assert_whole(got.flatten(1).sum(1), pyvae.kl_divergence(mu, logvar))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", SCALES)
def test_each_element_has_its_own_gradient(kind: str, dtype: torch.dtype, device: str) -> None:
    """One number for each upstream, laid out in any way; where all are the same it is the gradient of the sums."""
    bound = {torch.float64: 1e-14, torch.float32: FLOAT32_ROUNDING}.get(dtype, SIXTEEN_BITS)
    mu, s = (leaf(x) for x in posterior(kind, (4, 5, 6), dtype, device=device))
    each = pyvae.kl_divergence(mu, **{kind: s}, reduction="elements")
    for upstream in (torch.randn(4, 5, 6), torch.randn(6, 5, 4).transpose(0, 2), torch.randn(4, 1, 1).expand(4, 5, 6)):
        upstream = upstream.to(device, each.dtype)
        got = grad(each, (mu, s), upstream, retain_graph=True)
        want = truth.kl_slope(kind, mu, s)
        for x, slope in zip(got, want, strict=True):
            assert x.dtype == dtype
            assert_whole(x, slope * truth.exact(upstream), bound)
    sums = grad(pyvae.kl_divergence(mu, **{kind: s}).sum(), (mu, s))
    assert all_equal(grad(each.sum(), (mu, s)), sums)


@pytest.mark.parametrize("kind", SCALES)
def test_elements_against_finite_differences(kind: str, device: str) -> None:
    mu, s = (leaf(x) for x in posterior(kind, (3, 4), torch.float64, device=device))

    def f(mu: Tensor, s: Tensor) -> Tensor:
        return pyvae.kl_divergence(mu, **{kind: s}, reduction="elements")

    assert gradcheck(f, (mu, s), check_forward_ad=True, check_batched_grad=True, **GRADCHECK)
    assert gradgradcheck(f, (mu, s), **GRADCHECK)
    assert_whole(torch.func.vmap(f)(mu[:, None], s[:, None])[:, 0], f(mu, s))


def test_under_autocast(device: str) -> None:
    """In 16 bits as they come, with results in float32."""
    mu, logvar = wide((7, 19), torch.bfloat16, device)
    given = {"prior": prior("logvar", (19,), device=device), "logvar_range": RANGE}
    want = pyvae.kl_divergence(mu, logvar, **given, reduction="elements")
    with torch.autocast(device, torch.bfloat16):
        got = pyvae.kl_divergence(mu, logvar, **given, reduction="elements")
    assert got.dtype == torch.float32
    assert torch.equal(got, want)
