"""The CUDA kernels against float64 formulas: all numbers of 16 bits, and float32 in every binade.

The objective's kernels use the hardware's own exponential, logarithm and reciprocal: their errors are measured here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import truth
from calls import assert_sided
from cases import assert_slope, generator, leaf
from families import PLAIN, family
from gpu import needs_cuda
from tolerances import GRADIENT_ULP, LOSS, SCALED_GRADIENT_ULP
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = [needs_cuda, pytest.mark.usefixtures("cuda_kernels")]
FLOAT32 = torch.finfo(torch.float32)


def check(
    likelihood: str, values: Tensor, target: Tensor, factor: float = 1.0, pos_weight: float | None = None
) -> None:
    """One element a row, whose losses are seen one by one; and all in one row, which several blocks share."""

    def results(*shape: int) -> tuple[Tensor, Tensor]:
        recon, t = leaf(values.reshape(shape).to("cuda")), target.reshape(shape).to("cuda")
        loss = pyvae.reconstruction_loss(recon, t, likelihood=likelihood, pos_weight=pos_weight)
        return loss, grad(loss, recon, torch.full_like(loss, factor))[0].flatten()

    loss, gradient = results(-1, 1)
    value, unit = family(likelihood).at(*map(truth.exact, (values, target)), pos_weight=pos_weight or 1.0)[0]
    assert_sided(loss, (value.where(value <= FLOAT32.max, torch.inf), unit), LOSS)
    bound = GRADIENT_ULP if factor == 1 else SCALED_GRADIENT_ULP
    assert_slope(gradient, likelihood, values, target, factor, bound, pos_weight or 1.0)
    assert torch.equal(results(1, -1)[1], gradient)


# ---- 16 bits: every number -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_dtype", ("same", torch.float32), ids=str)
@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize("likelihood", PLAIN)
def test_every_number_of_16_bits(likelihood: str, dtype: torch.dtype, target_dtype: torch.dtype | str) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    values = family(likelihood).legal(every)
    for t in family(likelihood).sweep.targets:
        target = torch.full_like(values, t, dtype=dtype if target_dtype == "same" else target_dtype)
        check(likelihood, values, target)
        check(likelihood, values, target, factor=1024.0)  # computed again, not rounded twice


# ---- float32: every binade -------------------------------------------------------------------------------------------


def patterns(low: float, high: float, count: int) -> Tensor:
    """About `count` random float32 from low to high, both positive, equally many in every binade."""
    first, last = torch.tensor([low, high]).view(torch.int32).tolist()
    bits = torch.randint(first, last + 1, (count,), generator=generator(first % 1000), dtype=torch.int64)
    return bits.to(torch.int32).view(torch.float32)


def sweep(likelihood: str) -> Iterator[Tensor]:
    """2^24 values and more, in pieces."""
    whole = 1 << 22
    if family(likelihood).probabilities:
        yield patterns(0.0, 0.5, whole)
        yield patterns(0.25, 1.0, whole)
        ends = torch.tensor([0.0, 1.0, 0.5, 1 - 2**-24, 2**-149, FLOAT32.tiny])
        yield torch.cat([1 - patterns(2**-24, 0.5, whole), ends])
        yield torch.arange(1 << 22, 1 << 23).to(torch.float32) * 2.0**-23  # all of [1/2, 1) that has 23 bits
        return
    for low, high in ((0.0, 2**-10), (2**-10, 16.0), (16.0, 128.0), (128.0, 1e18)):
        positive = patterns(low, high, whole // 2)
        yield torch.cat([positive, -positive, torch.tensor([0.0, -0.0, high])])


@pytest.mark.parametrize("t", (0, 1, None))
@pytest.mark.parametrize("likelihood", PLAIN)
def test_float32_of_every_binade(likelihood: str, t: int | None) -> None:
    """The first two of the targets; None: targets anywhere between the least and the largest."""
    for values in sweep(likelihood):
        anywhere = family(likelihood).anywhere(torch.rand(values.shape, generator=generator(5)))
        check(
            likelihood, values, anywhere if t is None else torch.full_like(values, family(likelihood).sweep.targets[t])
        )


def test_the_sweep_is_as_wide_as_it_says() -> None:
    for likelihood in PLAIN:
        pieces = list(sweep(likelihood))
        assert sum(len(piece) for piece in pieces) >= 1 << 24
        exponents = torch.cat([torch.frexp(piece).exponent.unique() for piece in pieces]).unique()
        assert {-140, -126, -60, -1, 0} <= set(exponents.tolist())


@pytest.mark.parametrize("pos_weight", (0.25, 3.0))
@pytest.mark.parametrize("likelihood", [name for name in PLAIN if family(name).takes_pos_weight])
def test_pos_weight(likelihood: str, pos_weight: float) -> None:
    for values in (patterns(2**-20, 110.0, 1 << 20), -patterns(2**-20, 110.0, 1 << 20)):
        anywhere = family(likelihood).anywhere(torch.rand(values.shape, generator=generator(6)))
        check(likelihood, values, anywhere, pos_weight=pos_weight)
