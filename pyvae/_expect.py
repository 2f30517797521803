"""What may be expected of one argument, and the words that refuse another: what _checks.py and _latent_checks.py are
made of."""

from __future__ import annotations

import numbers
import sys
from typing import Any

import torch
from torch import Tensor

LARGEST = int(sys.float_info.max)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)


def number(value: Any) -> Any:
    """A number of another library, numpy's say, as Python's own, whose products with tensors are tensors; anything else
    as it is."""
    if isinstance(value, numbers.Real) and type(value) not in (bool, int, float):
        return float(value)
    if torch.compiler.is_compiling() and type(value).__name__ == "ndarray" and value.ndim == 0:
        return torch.as_tensor(value).double()  # as which the compiler sees numpy's numbers
    return value


def scalar(value: Any) -> Tensor:
    """A number as an operator takes it: a scalar tensor, on the CPU whatever torch's default device is. A compiler can
    keep the product symbolic; it would take the number itself for a constant, and compile anew for each."""
    return torch.ones((), dtype=torch.float64, device="cpu") * value


def as_factor(factor: Tensor | float | None, dtype: torch.dtype) -> Tensor | None:
    """A number as a scalar tensor, an integer tensor as one of this dtype, as the operators take them."""
    if factor is None:
        return None
    if not isinstance(factor, Tensor):
        return scalar(factor)
    return factor if factor.is_floating_point() or factor.dtype == torch.bool else factor.to(dtype)


def is_readable(tensor: Tensor) -> bool:
    """Whether values may decide the control flow: not on an accelerator, in a trace, a transform or a subclass."""
    return (
        tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and type(tensor) in (Tensor, torch.nn.Parameter)
        and not torch._C._are_functorch_transforms_active()
    )


def is_number(value: Any) -> bool:
    """Whether `value` is a real number that a float can hold, and not True or False."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -LARGEST <= value <= LARGEST
    return isinstance(value, numbers.Real)


def choice(function: str, name: str, value: Any, options: tuple[str, ...], others: str = "") -> None:
    """One of these names; `others` are the words for what may come instead of one."""
    listed = ", ".join(f'"{option}"' for option in options) + others
    if not isinstance(value, str):
        raise TypeError(f"{function}: `{name}` must be one of {listed}, but is {what(value)}")
    if value not in options:
        raise ValueError(f'{function}: `{name}` must be one of {listed}, but is "{value}"')


def floating(function: str, name: str, value: Any, remedy: str) -> None:
    tensor(function, name, value, remedy, FLOATS)


def tensor(function: str, name: str, value: Any, remedy: str, dtypes: tuple[torch.dtype, ...]) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{function}: `{name}` must be a Tensor, but is {what(value)}")
    if value.dtype not in dtypes:
        listed = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(
            f"{function}: `{name}` must have one of the dtypes {listed}, but has {value.dtype}; "
            f"convert it with `{name}{remedy}`"
        )
    if value.is_nested:
        raise TypeError(f"{function}: `{name}` must be a dense (strided) Tensor, but is a nested one")
    if value.layout != torch.strided:
        raise TypeError(f"{function}: `{name}` must be a dense (strided) Tensor, but has layout {value.layout}")


def batched(function: str, name: str, value: Tensor) -> None:
    if value.ndim == 0:
        raise ValueError(f"{function}: `{name}` must have a batch dimension, (B, ...), but has shape ()")


def same_shape(function: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    came, expected = tuple(value.shape), tuple(other.shape)
    if came != expected:
        raise ValueError(f"{function}: `{name}` must have {other_name}'s shape {expected}, but has shape {came}")


def broadcasts(function: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    came, expected = tuple(value.shape), tuple(other.shape)
    aligned = zip(came, expected[max(len(expected) - len(came), 0) :], strict=False)
    if len(came) > len(expected) or any(n not in (1, m) for n, m in aligned):
        remedy = ""
        if name == "weight" and came == expected[: len(came)]:  # a mask of positions, say
            missing = ", None" * (len(expected) - len(came))
            remedy = f"; a mask that is the same for all features of a position is given as `mask[...{missing}]`"
        raise ValueError(
            f"{function}: `{name}` must broadcast to {other_name}'s shape {expected}, but has shape {came}{remedy}"
        )


def same_device(function: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.device != other.device:
        raise ValueError(
            f"{function}: `{name}` must be on {other_name}'s device {other.device}, but is on {value.device}"
        )


def is_elsewhere(device: torch.device, other: torch.device) -> bool:
    """Whether two devices are different ones; one without an index may be any of its type."""
    return device.type != other.type or (None not in (device.index, other.index) and device.index != other.index)


def what(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
