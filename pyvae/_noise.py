"""The noise: normals that are a pure function of (seed, element), by Philox4x32-10 and Box-Muller.

Backward, another thread count, another split of the batch and another device draw the same again. This is the
specification in integer and float64 operations of torch; the kernels are within 4 ulp of it.

Sources: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011); Box & Muller, "A note on the generation of
random normal deviates" (1958).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def seed_tensor(seed: int | Tensor | None, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """The 64 bits that key the noise, as int64 of shape (1,): those given, or drawn from torch's generator."""
    if seed is None:
        return torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=device, generator=generator)
    if isinstance(seed, Tensor):
        return seed.detach().reshape(1)
    if (
        seed >= 2**63
    ):  # int64 has these bits below 0; the index of a number is a constant to the compiler, as it must be
        seed = operator.index(seed) - 2**64  # where numbers that it keeps symbolic are int64 themselves
    return torch.full((1,), seed, dtype=torch.int64, device=device)


def normal(seed: Tensor, shape: Sequence[int], dtype: torch.dtype, row_offset: int = 0, samples: int = 0) -> Tensor:
    """As `draw`; one operator to a compiler, which would write Philox's ten rounds as one expression, and not end."""
    if torch.compiler.is_compiling():
        return _as_operator(seed, shape, dtype, row_offset, samples)
    return draw(seed, shape, dtype, row_offset, samples)


def draw(seed: Tensor, shape: Sequence[int], dtype: torch.dtype, row_offset: int, samples: int = 0) -> Tensor:
    """The standard normals of `seed` (int64, one element) for rows row_offset, row_offset + 1, ... of a larger batch;
    with `samples` as many of them, stacked.

    The element in row r and column c of `features` columns has the global index g = r * features + c and is output
    g % n of Philox call g // n, where a call gives n = 4 normals for float32 and n = 2 for float64. The other half of
    its counter is the sample.
    """
    if samples:
        return torch.stack([_draw(seed, shape, dtype, row_offset, sample) for sample in range(samples)])
    return _draw(seed, shape, dtype, row_offset, 0)


def _draw(seed: Tensor, shape: Sequence[int], dtype: torch.dtype, row_offset: int, sample: int) -> Tensor:
    width = 2 if dtype == torch.float64 else 4
    first = row_offset * math.prod(shape[1:])
    skip, count = first % width, math.prod(shape)
    group = first // width + torch.arange((skip + count + width - 1) // width, device=seed.device)
    zero = torch.zeros_like(group)
    seed = seed.reshape(1)
    words = philox(
        (zero + (sample & _MASK), zero + (sample >> 32), group & _MASK, (group >> 32) & _MASK),
        (seed & _MASK, (seed >> 32) & _MASK),
    )
    exact = exact_dtype(seed.device)
    normals: tuple[Tensor, ...]
    if dtype == torch.float64:
        radius, angle = ((words[i] >> 11) | (words[i + 1] << 21) for i in (0, 2))  # the upper 53 of 64 bits
        normals = _box_muller((radius + 1).to(exact) * 2.0**-53, angle, 53)
    else:
        # The product is exact, so that the sum, which reaches from 2^-33 to 1, is rounded once.
        uniforms = [(word.to(torch.float32) * 2.0**-32 + 2.0**-33).to(exact) for word in words[::2]]
        normals = _box_muller(uniforms[0], words[1], 32) + _box_muller(uniforms[1], words[3], 32)
    return torch.stack(normals, -1).flatten()[skip : skip + count].reshape(tuple(shape)).to(dtype)


@torch.library.custom_op("pyvae::reference_normal", mutates_args=())
def _as_operator(seed: Tensor, shape: Sequence[int], dtype: torch.dtype, row_offset: int, samples: int) -> Tensor:
    return draw(seed, shape, dtype, row_offset, samples)


@_as_operator.register_fake
def _(seed: Tensor, shape: Sequence[int], dtype: torch.dtype, row_offset: int, samples: int) -> Tensor:
    return seed.new_empty((samples, *shape) if samples else tuple(shape), dtype=dtype)


@_as_operator.register_vmap
def _(
    info: Any,
    in_dims: tuple[Any, ...],
    seed: Tensor,
    shape: Sequence[int],
    dtype: torch.dtype,
    row_offset: int,
    samples: int,
) -> tuple[Tensor, int | None]:
    """One seed is one noise for all; several have one each."""
    if in_dims[0] is None:
        return _as_operator(seed, shape, dtype, row_offset, samples), None
    return torch.stack([_as_operator(one, shape, dtype, row_offset, samples) for one in seed.movedim(in_dims[0], 0)]), 0


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four counter words and two key words to four random words, each 32 bits in an int64 tensor."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, 0xD2511F53)
        high1, low1 = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def _multiply(word: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """The upper and lower 32 bits of a 32 x 32 bit product, by halves of the constant: int64 has no room for 64."""
    low = word * (constant & 0xFFFF)
    high = word * (constant >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def _box_muller(uniform: Tensor, turn: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Two normals from a uniform in (0, 1] and an angle of turn / 2^bits turns.

    The angle is brought to within an eighth of a turn of an axis in integers, where it is exact: that keeps the
    relative accuracy of the small cosines and sines.
    """
    radius = torch.sqrt(-2 * torch.log(uniform))
    quadrant = (turn + (1 << (bits - 3))) >> (bits - 2)
    angle = (turn - (quadrant << (bits - 2))).to(uniform.dtype) * (2 * math.pi / 2**bits)
    cos, sin = torch.cos(angle), torch.sin(angle)
    odd = (quadrant & 1) == 1
    normal0 = radius * torch.where(odd, sin, cos)
    normal1 = radius * torch.where(odd, cos, sin)
    return torch.where(((quadrant + 1) & 2) == 2, -normal0, normal0), torch.where(
        (quadrant & 2) == 2, -normal1, normal1
    )


def exact_dtype(device: torch.device) -> torch.dtype:
    """float64 on the devices that are known to have it; MPS and some others do not, and take float32."""
    return torch.float64 if device.type in ("cpu", "cuda", "meta") else torch.float32
