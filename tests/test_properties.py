"""Properties over random shapes, values, dtypes and layouts, extremes included."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import truth
from calls import Call, assert_sided, operands
from cases import (
    DTYPES,
    INTEGERS,
    LAYOUTS,
    REDUCTIONS,
    assert_relative,
    assert_slope,
    assert_ulp,
    data,
    generator,
    leaf,
    posterior,
)
from families import PLAIN, SCALES, Range, family, scaling
from gpu import rows_share_blocks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerances import GRADIENT_ULP, LOSS
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = pytest.mark.usefixtures("kernels")
# The fixture only asserts that the kernels are there: nothing that must be fresh in each example.
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)

dtypes, likelihoods, scales, reductions = map(st.sampled_from, (DTYPES, PLAIN, SCALES, REDUCTIONS))
target_dtypes = st.sampled_from((*DTYPES, *INTEGERS))
shapes = st.one_of(
    st.tuples(st.integers(0, 5), st.integers(0, 1100)),
    st.tuples(st.integers(0, 700), st.integers(0, 4)),
    st.lists(st.integers(0, 6), min_size=1, max_size=6).map(tuple),
)
layouts = st.sampled_from([name for name in LAYOUTS if name not in ("channels_last", "flattened")])


def wild(draw: Any, rows: int, columns: int, within: Range, dtype: torch.dtype, device: str) -> Tensor:
    """Numbers within a range as dtype holds them, from a handful that hypothesis chooses."""
    count = rows * columns
    width = {torch.float16: 16, torch.bfloat16: 32, torch.float32: 32, torch.float64: 64}[dtype]
    few = draw(st.lists(st.floats(*within, width=width), min_size=1, max_size=12))
    many = torch.tensor(few, dtype=torch.float64).to(dtype).repeat(math.ceil(count / len(few)) + 1)[:count]
    return many.reshape(rows, columns).to(device)


# ---- fused == truth --------------------------------------------------------------------------------------------------


@relaxed
@given(likelihoods, dtypes, target_dtypes, shapes, layouts, layouts, reductions, st.booleans())
def test_objective_of_any_shape_and_layout(
    device: str,
    likelihood: str,
    dtype: torch.dtype,
    target_dtype: torch.dtype,
    shape: tuple[int, ...],
    layout: str,
    target_layout: str,
    reduction: str,
    flattened: bool,
) -> None:
    if reduction == "batchmean":  # a mean, of something
        shape = (max(shape[0], 1), *shape[1:])
    recon, target = data(likelihood, shape, (dtype, target_dtype), device=device)
    recon = leaf(LAYOUTS[layout](recon) if recon.numel() else recon)
    target = LAYOUTS[target_layout](target) if target.numel() else target
    target = target.reshape(shape[0], math.prod(shape[1:])) if flattened else target
    got = pyvae.elbo_loss(recon, target, likelihood=likelihood, reduction=reduction)
    assert_sided(got, truth.sided(likelihood, recon, target, reduction=reduction), LOSS)
    (gradient,) = grad(got.sum(), recon)
    assert_slope(gradient, likelihood, recon, target, 1 / shape[0] if reduction == "batchmean" else 1.0)


@relaxed
@given(st.data(), likelihoods, dtypes, st.integers(1, 3), st.integers(1, 40))
def test_objective_of_any_value(
    device: str, values: st.DataObject, likelihood: str, dtype: torch.dtype, rows: int, columns: int
) -> None:
    recon = leaf(wild(values.draw, rows, columns, family(likelihood).sweep.recon, dtype, device))
    target = wild(values.draw, rows, columns, family(likelihood).sweep.target, dtype, device)
    got = pyvae.reconstruction_loss(recon, target, likelihood=likelihood)
    want = truth.reconstruction(likelihood, recon, target)
    tiny = torch.finfo(got.dtype).tiny * columns  # sums of subnormal numbers have no relative accuracy
    assert ((truth.exact(got) - want).abs() <= LOSS[got.dtype] * want.abs() + tiny).all()
    (gradient,) = grad(got.sum(), recon)
    assert_slope(gradient, likelihood, recon, target)


@relaxed
@given(st.data(), scales, dtypes, st.integers(1, 3), st.integers(1, 40))
def test_posterior_of_any_value(
    device: str, values: st.DataObject, scale: str, dtype: torch.dtype, rows: int, columns: int
) -> None:
    mu = leaf(wild(values.draw, rows, columns, Range(-256, 256), dtype, device))
    s = leaf(wild(values.draw, rows, columns, scaling(scale).range, dtype, device))
    got, want = pyvae.kl_divergence(mu, **{scale: s}), truth.kl_divergence(scale, mu, s)
    tiny = torch.finfo(got.dtype).tiny * columns
    assert ((truth.exact(got) - want).abs() <= LOSS[got.dtype] * want.abs() + tiny).all()
    for value, slope in zip(grad(got.sum(), (mu, s)), truth.kl_slope(scale, mu, s), strict=True):
        assert_ulp(value, slope, GRADIENT_ULP)


# ---- relations between calls -----------------------------------------------------------------------------------------


@relaxed
@given(likelihoods, dtypes, st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 1100))
def test_the_loss_of_a_concatenation_is_the_sum(
    device: str, likelihood: str, dtype: torch.dtype, batches: list[int], columns: int
) -> None:
    recon, target = data(likelihood, (sum(batches), columns), (dtype, dtype), device=device)
    each = pyvae.reconstruction_loss(recon, target, likelihood=likelihood)
    pieces = [
        pyvae.reconstruction_loss(x, t, likelihood=likelihood)
        for x, t in zip(recon.split(batches), target.split(batches), strict=True)
    ]
    if not rows_share_blocks(device):
        assert torch.equal(torch.cat(pieces), each)
    else:
        assert_relative(torch.cat(pieces), truth.exact(each), LOSS)
    total = pyvae.reconstruction_loss(recon, target, likelihood=likelihood, reduction="sum")
    assert_relative(total, truth.exact(each).sum(), LOSS)


@relaxed
@given(likelihoods, scales, dtypes, st.integers(1, 40), st.integers(1, 1100), st.integers(0, 2**32))
def test_a_permutation_of_the_batch_permutes_the_losses(
    device: str, likelihood: str, scale: str, dtype: torch.dtype, batch: int, columns: int, seed: int
) -> None:
    """Bit for bit: a sample's loss does not depend on its neighbors or its place."""
    order = torch.randperm(batch, generator=generator(seed)).to(device)
    recon, target = data(likelihood, (batch, columns), (dtype, dtype), device=device)
    mu, s = posterior(scale, (batch, columns), dtype, device=device)

    def terms(rows: Tensor) -> pyvae.ELBO:
        options: dict[str, Any] = {scale: s[rows], "likelihood": likelihood, "reduction": "none"}
        return pyvae.elbo_terms(recon[rows], target[rows], mu[rows], **options)

    for permuted, straight in zip(terms(order), terms(torch.arange(batch, device=device)), strict=True):
        assert torch.equal(permuted, straight[order])


def test_more_than_2_to_the_31_elements(device: str) -> None:
    """One sample repeated with stride 0: the count is past 32 bits, the memory is not."""
    shape = (2**16 + 1, 2**15)
    recon, target = data("gaussian", (2, shape[1]), (torch.bfloat16, torch.bfloat16), device=device)
    # The operator itself, which has no way to the reference: that would need 2^31 float32 of each operand.
    wide = Call("gaussian", recon[:1].expand(shape), target[:1].expand(shape))
    got, *_ = torch.ops.pyvae.elbo_forward(*operands(wide, REDUCTIONS.index("sum")), 0)
    assert_relative(got, shape[0] * truth.reconstruction("gaussian", recon[:1], target[:1], reduction="sum"), LOSS)
