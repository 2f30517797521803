"""The noise of the CUDA kernels is that of the CPU kernels, bit for bit, and so is the sample made of it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from cases import DTYPES, LAYOUTS, generator, posterior
from families import SCALES, scaling
from golden import draw
from gpu import needs_cuda
from torch import Tensor

import pyvae

pytestmark = [needs_cuda, pytest.mark.usefixtures("cuda_kernels", "kernels")]
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def assert_same_bits(got: Tensor, want: Tensor) -> None:
    """One NaN is as good as another; signs of zeros count."""
    got, want = got.detach().cpu().contiguous(), want.detach().contiguous()
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    integer = INTEGERS[got.element_size()]
    differ = (got.view(integer) != want.view(integer)) & ~(got.isnan() & want.isnan())
    assert not differ.any(), (
        f"{int(differ.sum())} of {differ.numel()} differ, the first at {differ.flatten().nonzero()[0]}"
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("features", (1, 2, 3, 4, 5, 7, 20, 31, 784, 1000, 2049, 70_003))
def test_noise_of_every_width_and_row_offset(features: int, dtype: torch.dtype) -> None:
    for row_offset, seed in itertools.product((0, 1, 2, 3, 10**15 // features), (0, -1, 2**63 + 12345)):
        arguments = (seed, 7, features, dtype, row_offset)
        assert_same_bits(draw(*arguments, device="cuda"), draw(*arguments))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_many_draws(dtype: torch.dtype) -> None:
    for seed in (1, 2**64 - 2):
        assert_same_bits(draw(seed, 4099, 4097, dtype, 3, device="cuda"), draw(seed, 4099, 4097, dtype, 3))


@pytest.mark.parametrize(("mu_dtype", "scale_dtype"), list(itertools.product(DTYPES, DTYPES)), ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_sample_of_every_scale_and_dtype(scale: str, mu_dtype: torch.dtype, scale_dtype: torch.dtype) -> None:
    """Ordinary posteriors, and scales at the ends of the number range, infinities and NaN included."""
    extreme = torch.tensor([*scaling(scale).extremes, math.inf, math.nan], dtype=torch.float64)
    extreme = extreme.repeat_interleave(16).repeat(3, 1)
    wild = torch.linspace(-3, 3, extreme.numel(), dtype=torch.float64).view_as(extreme)
    ordinary = posterior(scale, (37, 131), torch.float64)
    for mu, s in (ordinary, (wild, extreme), (torch.zeros_like(wild), extreme)):
        mu, s = mu.to(mu_dtype), s.to(scale_dtype)
        got = pyvae.reparameterize(mu.to("cuda"), **{scale: s.to("cuda")}, seed=19, row_offset=5)
        assert_same_bits(got, pyvae.reparameterize(mu, **{scale: s}, seed=19, row_offset=5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("layout", "scale_layout"),
    [*itertools.product([name for name in LAYOUTS if name != "flattened"], repeat=2), ("flattened",) * 2],
)
def test_sample_of_every_layout(layout: str, scale_layout: str, dtype: torch.dtype) -> None:
    """On the CPU the same values are contiguous."""
    mu, logvar = posterior("logvar", (5, 4, 3, 6), dtype, device="cuda")
    mu, logvar = LAYOUTS[layout](mu), LAYOUTS[scale_layout](logvar)
    want = pyvae.reparameterize(mu.cpu().contiguous(), logvar.cpu().contiguous(), seed=8, row_offset=1)
    assert_same_bits(pyvae.reparameterize(mu, logvar, seed=8, row_offset=1), want)


@pytest.mark.parametrize("offset", (0, 4, 12, 2**32 - 4, 2**33, 2**40 + 8))
@pytest.mark.parametrize("seed", (0, 1, 2**31, 2**63 + 5, 2**64 - 1))
def test_the_seed_is_torchs_at_every_state_of_the_generator(seed: int, offset: int) -> None:
    """The kernel works out itself what torch.randint would have drawn: whatever the generator's seed and offset."""
    mu, logvar = posterior("logvar", (5, 33), device="cuda")
    ours, theirs = generator(seed % 2**63, "cuda"), generator(seed % 2**63, "cuda")
    state = ours.get_state()
    state.view(torch.int64)[0] = seed - 2**64 if seed >= 2**63 else seed
    state.view(torch.int64)[1] = offset
    ours.set_state(state)
    theirs.set_state(state)
    for _ in range(3):
        key = torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device="cuda", generator=theirs)
        got = pyvae.reparameterize(mu, logvar, generator=ours)
        assert torch.equal(ours.get_state(), theirs.get_state())
        assert torch.equal(got, pyvae.reparameterize(mu, logvar, seed=key))
        assert_same_bits(got, pyvae.reparameterize(mu.cpu(), logvar.cpu(), seed=key.cpu()))
