"""What the tests' tables are made of: dtypes, layouts, shapes, inputs, and comparisons with the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import truth
from families import family, scaling
from tolerances import FLOAT32_ROUNDING, GRADIENT_ULP, LOSS
from torch import Tensor

Bound = dict[torch.dtype, float]
REDUCTIONS = ("none", "sum", "batchmean")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)  # of targets
MIXED_DTYPES = (  # of recon and target
    *((dtype, dtype) for dtype in DTYPES),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float16, torch.bfloat16),
    (torch.float32, torch.float64),
    (torch.float64, torch.float16),
    *((torch.float32, dtype) for dtype in INTEGERS),
    (torch.bfloat16, torch.uint8),
    (torch.float16, torch.bool),
    (torch.float64, torch.int64),
)


def result_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


# ---- shapes: around vector widths (16), chunks (512), with tiny, large, many and no rows -----------------------------

SHAPES: tuple[tuple[int, ...], ...] = (
    *((2, columns) for columns in (1, 7, 15, 16, 17, 31, 33, 63, 65, 511, 512, 513, 1023, 1024, 1025)),
    *((batch, 17) for batch in (1, 3, 7, 15, 16, 17, 33)),
    (1, 1),
    (1, 262_147),
    (20_011, 3),
    (513,),
    (0, 5),
    (3, 0),
    (0,),
    (2, 3, 5, 7),
    (2, 1, 3, 1, 5),
)


# ---- layouts: the same values laid out otherwise ---------------------------------------------------------------------


def _unread(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Filled with what shows in every result: NaN, or the largest of x's integers."""
    floating = x.is_floating_point()
    return x.new_full(shape, math.nan if floating else x.dtype == torch.bool or torch.iinfo(x.dtype).max)


def _strided(x: Tensor) -> Tensor:
    """Every second column of a wider tensor."""
    wide = _unread(x, (*x.shape[:-1], 2 * x.shape[-1] + 1))
    return wide[..., 1::2].copy_(x)


def _sliced(x: Tensor) -> Tensor:
    """The inside of a tensor with a border that must not be read."""
    padded = _unread(x, [n + 3 for n in x.shape])
    return padded[tuple(slice(1, n + 1) for n in x.shape)].copy_(x)


def _odd_offset(x: Tensor) -> Tensor:
    """Contiguous, but starting one element past the allocation: no vector load is aligned."""
    storage = _unread(x, (x.numel() + 1,))
    return storage[1:].view(x.shape).copy_(x)


def _expanded_features(x: Tensor) -> Tensor:
    """One value per sample, with stride 0 along the features."""
    one = (slice(None), *[slice(0, 1)] * (x.dim() - 1))
    return x[one].clone().expand(x.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "strided": _strided,
    "sliced": _sliced,
    "batch_last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "odd_offset": _odd_offset,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "expanded": lambda x: x[:1].clone().expand(x.shape),  # the first sample for all of them: other values
    "expanded_features": _expanded_features,
    "flattened": lambda x: x.flatten(1),
}
DENSE_LAYOUTS = ("contiguous", "batch_last", "odd_offset", "channels_last")


# ---- inputs ----------------------------------------------------------------------------------------------------------


def generator(seed: int, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def rng_state(device: str) -> Tensor:
    """The state of the device's default generator."""
    return torch.get_rng_state() if device == "cpu" else torch.cuda.get_rng_state()


def to(device: str, value: Any) -> Any:
    """A tensor or generator of the CPU on `device`; anything else as it is."""
    if isinstance(value, Tensor) and value.device.type == "cpu":
        return value.to(device)
    return torch.Generator(device) if isinstance(value, torch.Generator) else value


def stored(target: Tensor, dtype: torch.dtype) -> Tensor:
    """A target in this dtype; of integers the nearest that it holds."""
    if not dtype.is_floating_point:
        limits = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        target = target.round().clamp(*limits)
    return target.to(dtype)


def data(
    likelihood: str,
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32),
    seed: int = 0,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:
    """recon and target."""
    recon, target = family(likelihood).draw(shape, generator(seed))
    return recon.to(device, dtypes[0]), stored(target, dtypes[1]).to(device)


def posterior(
    kind: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 1, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """mu, at least 1/2 away from 0 so that no element's KL is near 0, and the scale."""
    draw = generator(seed)
    mu = torch.randn(shape, generator=draw, dtype=torch.float64)
    scale = scaling(kind).of(0.8 * torch.randn(shape, generator=draw, dtype=torch.float64))
    return (mu + torch.where(mu < 0, -0.5, 0.5)).to(device, dtype), scale.to(device, dtype)


def prior(
    kind: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 2, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Its mean and its scale, which is another than the posterior's of `posterior`."""
    draw = generator(seed)
    mean = torch.randn(shape, generator=draw, dtype=torch.float64)
    scale = scaling(kind).of(0.8 * torch.randn(shape, generator=draw, dtype=torch.float64) - 0.3)
    return mean.to(device, dtype), scale.to(device, dtype)


def leaf(x: Tensor) -> Tensor:
    """x as a leaf that requires grad, in the same layout."""
    return x.detach().requires_grad_()


def step_inputs(
    likelihood: str,
    shape: tuple[int, ...],
    latent: tuple[int, ...],
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32),
    scale: str = "logvar",
    seed: int = 0,
    device: str = "cpu",
) -> list[Tensor]:
    """recon, target, mu, scale; all but the target are leaves that require grad."""
    recon, target = data(likelihood, shape, dtypes, seed, device)
    return [leaf(recon), target, *map(leaf, posterior(scale, latent, dtypes[0], seed + 1, device))]


def all_equal(first: Iterable[Tensor], second: Iterable[Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# ---- comparisons -----------------------------------------------------------------------------------------------------


def ulp(magnitude: Tensor, dtype: torch.dtype) -> Tensor:
    """The spacing of dtype's numbers at each magnitude; in the subnormal range that of the subnormals."""
    info = torch.finfo(dtype)
    exponent = (torch.frexp(magnitude).exponent - 1).clamp(min=math.frexp(info.tiny)[1] - 1)
    exponent = torch.where(magnitude == 0, math.frexp(info.tiny)[1] - 1, exponent)
    return torch.from_numpy(np.ldexp(info.eps, exponent.numpy()))


def assert_ulp(got: Tensor, want: Tensor, bound: Bound, magnitude: Tensor | None = None) -> None:
    """got is within bound units in the last place of want, units taken at `magnitude` (default: want's own)."""
    want = want.cpu().reshape(got.shape)
    magnitude = want.abs() if magnitude is None else magnitude.cpu().reshape(got.shape)
    value = got.detach().cpu().to(torch.float64)
    same = (value == want.to(got.dtype)) | (value.isnan() & want.isnan())
    error = torch.where(same, 0.0, (value - want).abs() / ulp(magnitude.nan_to_num(), got.dtype))
    if error.numel():
        worst = int(error.nan_to_num(math.inf).argmax())
        assert error.flatten()[worst] <= bound[got.dtype], (
            f"element {worst}: {error.flatten()[worst]:.3g} ulp of {got.dtype}: "
            f"{value.flatten()[worst]!r} instead of {want.flatten()[worst]!r}"
        )


def assert_relative(got: Tensor, want: Tensor, bound: Bound, **context: Any) -> None:
    """got is within a relative bound of want, element by element; NaN and inf must agree."""
    torch.testing.assert_close(
        got.detach().cpu().to(torch.float64), want.cpu(), rtol=bound[got.dtype], atol=0.0, equal_nan=True,
        msg=lambda text: f"{context} {text}",
    )  # fmt: skip


def assert_losses(got: Tensor, want: Tensor) -> None:
    """Each within LOSS; above float32's largest number inf, and below its normal ones, of fewer bits, near 0."""
    info = torch.finfo(torch.float32)
    want = torch.where(want > info.max, torch.inf, want)
    kept = ~(want.abs() < info.tiny)
    got = got.detach().cpu()
    assert_relative(got[kept], want[kept], LOSS)
    assert (got[~kept].abs() <= 2 * info.tiny).all()


def assert_slope(
    got: Tensor,
    likelihood: str,
    recon: Tensor,
    target: Tensor,
    factor: Tensor | float = 1.0,
    bound: Bound = GRADIENT_ULP,
    pos_weight: Tensor | float = 1.0,
    summands: bool = False,
    compare: Callable[..., None] = assert_ulp,
) -> None:
    """got is factor * d loss / d recon in units in the last place of that slope; with `summands` in those of the larger
    summand where it is a difference, as always for a likelihood whose kernels subtract."""
    entry = family(likelihood)
    _, (slope, units) = entry.at(truth.rows(recon), truth.rows(target), pos_weight=truth.spread(pos_weight, recon))
    units = slope if entry.is_factored and not summands else units
    factor = truth.spread(factor, recon)
    assert (got.dtype, got.shape) == (recon.dtype, recon.shape)
    compare(got, factor * slope, bound, magnitude=(factor * units).abs())


def assert_whole(got: Tensor, want: Tensor, bound: float = FLOAT32_ROUNDING) -> None:
    """The same up to the rounding of the whole: elements may cancel."""
    assert got.shape == want.shape
    got, want = truth.exact(got), truth.exact(want)
    assert (got - want).norm() <= bound * want.norm()
