"""Sizes from one element to more than 2^31, rows of 1 to 10^7 features, batches of 1 to 10^6."""

from __future__ import annotations

import pytest
import torch
import truth
from calls import assert_sided
from cases import assert_relative, assert_slope, assert_ulp, data, leaf, step_inputs
from families import PLAIN, SCALES, Range, cycled, family
from gpu import free_memory, needs_cuda
from tolerances import GRADIENT_ULP, LOSS, REFERENCE_GRADIENT_ULP
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = [needs_cuda, pytest.mark.usefixtures("cuda_kernels")]

# ---- more than 2^31 elements -----------------------------------------------------------------------------------------

ROWS, FEATURES = 5, 2**29 + 1  # odd, so that rows begin at every alignment; the last one lies beyond 2^31
EDGES = (0, 2**31 // FEATURES * FEATURES, 2**31 - 4096, ROWS * FEATURES - 8192)
PIECE = 8192  # elements compared at each of them


def room_for(tensors: int) -> None:
    """Skips where so many 16-bit tensors of the full size do not fit."""
    needed = (tensors + 1) * ROWS * FEATURES * 2
    if free_memory() < needed:
        pytest.skip(f"{needed / 2**30:.0f} GiB of GPU memory are not free")


def numbers(dtype: torch.dtype, within: Range) -> Tensor:
    """Anywhere in a range, but not far from 0."""
    low, high = max(within.low, -4.0), min(within.high, 4.0)
    return torch.empty(ROWS, FEATURES, dtype=dtype, device="cuda").uniform_(low, high)


@pytest.mark.parametrize(("likelihood", "dtype"), cycled(PLAIN, (torch.bfloat16, torch.float16)))
def test_objective_of_more_than_2_to_the_31_elements(likelihood: str, dtype: torch.dtype) -> None:
    """Its sum is that of the rows', which are computed from copies of their own; its gradient that of pieces."""
    room_for(4)
    recon, target = (
        leaf(numbers(dtype, family(likelihood).sweep.recon)),
        numbers(dtype, family(likelihood).sweep.target),
    )
    rows = pyvae.reconstruction_loss(recon.detach(), target, likelihood=likelihood)
    single = [
        pyvae.reconstruction_loss(recon.detach()[i].clone()[None], target[i].clone()[None], likelihood=likelihood)
        for i in range(ROWS)
    ]
    assert_relative(rows, truth.exact(torch.cat(single)), LOSS)
    part = slice(-(1 << 22), None)  # of the row beyond 2^31, against float64
    tail = pyvae.reconstruction_loss(recon.detach()[-1:, part], target[-1:, part], likelihood=likelihood)
    assert_sided(tail, truth.sided(likelihood, recon[-1:, part], target[-1:, part]), LOSS)

    total = pyvae.elbo_loss(recon, target, likelihood=likelihood)
    assert_relative(total, truth.exact(rows).sum(), LOSS)
    (gradient,) = grad(total, recon)
    for first in EDGES:
        x, t, got = (y.detach().view(-1)[first : first + PIECE] for y in (recon, target, gradient))
        assert_slope(got, likelihood, x, t)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
def test_sampler_of_more_than_2_to_the_31_elements(dtype: torch.dtype) -> None:
    """Sample and gradients of its pieces are those that the CPU kernels give for the same global indices."""
    room_for(6)
    mu, logvar = (leaf(numbers(dtype, Range(-2.0, 2.0))) for _ in range(2))
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=23)
    single = [pyvae.kl_divergence(mu.detach()[i].clone()[None], logvar.detach()[i].clone()[None]) for i in range(ROWS)]
    assert_relative(kl, truth.exact(torch.cat(single)), LOSS)
    gradients = grad((z, kl), (mu, logvar), (z.detach(), torch.ones_like(kl)))
    for first in EDGES:
        m, s, *got = (x.detach().view(-1)[first : first + PIECE].cpu()[:, None] for x in (mu, logvar, z, *gradients))
        m.requires_grad_()
        s.requires_grad_()
        sample, divergence = pyvae.reparameterize_kl(m, s, seed=23, row_offset=first)  # one feature a row
        assert torch.equal(got[0], sample)
        wants = grad((sample, divergence), (m, s), (sample.detach(), torch.ones_like(divergence)))
        for value, want in zip(got[1:], wants, strict=True):
            assert_ulp(value, truth.exact(want), REFERENCE_GRADIENT_ULP)


def test_strides_of_more_than_2_to_the_31_elements() -> None:
    """A small tensor whose elements lie far apart in a large memory."""
    room_for(1)
    memory = torch.zeros(ROWS * FEATURES, dtype=torch.bfloat16, device="cuda")
    far = memory.as_strided((5, 33), (FEATURES, 2**24 - 1))
    values = data("gaussian", (5, 33), (torch.bfloat16, torch.bfloat16))[0].to("cuda")
    far.copy_(values)
    for x, y in ((far, values), (far.t(), values.t().contiguous())):
        recon, target = leaf(x), torch.zeros_like(y)
        loss, want = (pyvae.reconstruction_loss(v, target, likelihood="gaussian") for v in (recon, y))
        assert_relative(loss, truth.exact(want), LOSS)
        assert torch.equal(grad(loss.sum(), recon)[0], y)
        assert torch.equal(pyvae.reparameterize(x, std=x, seed=2), pyvae.reparameterize(y, std=y, seed=2))


# ---- rows of 1 to 10^7 features, batches of 1 to 10^6 ----------------------------------------------------------------

SHAPES = (
    *((1, 10**n + 3) for n in range(8)),
    *((1, features) for features in (1, 1000, 1024, 1025, 8192, 8193)),
    *((10**n, 1) for n in (3, 4, 5, 6)),
    *((rows, 3) for rows in (1007, 131_071, 1_000_003)),
    *((2, features) for features in (1023, 1024, 1025, 2047, 2048, 2049, 1_000_001)),
    *((7, features) for features in (8191, 131_071, 262_147)),
    *((8193, features) for features in (31, 64, 129)),
    (263, 7),
    (264, 8),
    (265, 9),
    (6607, 127),
    (2051, 1025),
    (300, 4001),
)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_size_of_rows_and_batches(shape: tuple[int, int]) -> None:
    for likelihood, dtype, scale in cycled(PLAIN, (torch.float32, torch.bfloat16), SCALES):
        recon, target, mu, s = step_inputs(likelihood, shape, shape, (dtype, dtype), scale, device="cuda")
        for reduction in ("none", "sum"):
            loss = pyvae.elbo_loss(recon, target, likelihood=likelihood, reduction=reduction)
            assert_sided(loss, truth.sided(likelihood, recon, target, reduction=reduction), LOSS)
        (gradient,) = grad(loss, recon)
        assert_slope(gradient, likelihood, recon, target)

        z, kl = pyvae.reparameterize_kl(mu, **{scale: s}, seed=6, row_offset=1)
        assert_relative(kl, truth.kl_divergence(scale, mu, s), LOSS)
        on_cpu = pyvae.reparameterize(mu.detach().cpu(), **{scale: s.detach().cpu()}, seed=6, row_offset=1)
        assert torch.equal(z.detach().cpu(), on_cpu)
        total = pyvae.elbo_loss(recon, target, mu, **{scale: s}, likelihood=likelihood)
        want = truth.objective(likelihood, recon, target, truth.kl_divergence(scale, mu, s)).loss
        assert_relative(total, want, LOSS)
        for got, want in zip(grad(total, (mu, s)), truth.kl_slope(scale, mu, s), strict=True):
            assert_ulp(got, want, GRADIENT_ULP)
