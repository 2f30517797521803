"""What the distributions are given, checked in words: parameters of the constructors, and the value of `log_prob`."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from .._expect import FLOATS, INTEGERS, is_number, is_readable, number, tensor, what


def parameters(function: str, **given: Any) -> dict[str, Tensor]:
    """Of tensors and numbers tensors that go together, on one device.

    Integers and numbers take the floating type of the others, or torch's default. Where that is float64, by the rules
    of `common_dtype`, all are float64, as results of torch.distributions are; of other types kernels take any mixture.
    """
    values = {name: number(value) for name, value in given.items()}
    for name, value in values.items():
        if isinstance(value, Tensor):
            tensor(function, name, value, ".float()", (*FLOATS, *INTEGERS))
        elif not is_number(value):
            raise TypeError(f"{function}: `{name}` must be a Tensor or a number, but is {what(value)}")
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    dtype = common_dtype(*tensors.values())
    at, first = next(iter(tensors.items()), ("", torch.empty(0)))
    for name, value in tensors.items():
        if value.ndim == 0 and value.device.type == "cpu":  # as everywhere in torch, it goes with any device
            values[name] = value.to(first.device)
        elif first.ndim == 0 and first.device.type == "cpu":
            at, first = name, value
        elif value.device != first.device:
            raise ValueError(f"{function}: `{name}` must be on {at}'s device {first.device}, but is on {value.device}")
    try:
        torch.broadcast_shapes(*(value.shape for value in tensors.values()))
    except RuntimeError:
        names = ", ".join(f"`{name}`" for name in tensors)
        shapes = ", ".join(str(tuple(value.shape)) for value in tensors.values())
        raise ValueError(f"{function}: {names} must broadcast, but have shapes {shapes}") from None
    return {name: _made(value, dtype, first.device) for name, value in values.items()}


def _made(value: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=dtype, device=device)
    value = value.to(device)
    return value.to(dtype) if dtype == torch.float64 or not value.is_floating_point() else value


def common_dtype(*tensors: Tensor) -> torch.dtype:
    """The floating type of what torch computes of them: numbers without a dimension count where there are no others."""
    floats = [x for x in tensors if x.is_floating_point()]
    counted = [x.dtype for x in floats if x.ndim] or [x.dtype for x in floats]
    return reduce(torch.promote_types, counted) if counted else torch.get_default_dtype()


def check_value(function: str, value: Any, shape: torch.Size, device: torch.device) -> torch.Size:
    """The shape of `value` and the distribution's, broadcast."""
    tensor(function, "value", value, ".float()", (*FLOATS, *INTEGERS))
    if value.device != device:
        raise ValueError(f"{function}: `value` must be on the distribution's device {device}, but is on {value.device}")
    try:
        return torch.broadcast_shapes(value.shape, shape)
    except RuntimeError:
        raise ValueError(
            f"{function}: `value` must broadcast with the distribution's shape {tuple(shape)}, but has shape "
            f"{tuple(value.shape)}"
        ) from None


def check_range(function: str, name: str, given: Tensor, least: float, most: float) -> None:
    """Refuse what lies outside; NaN passes. Reads the data."""
    if not is_readable(given):
        return
    outside = given.detach()[(given < least) | (given > most)]
    if outside.numel():
        expected = f"must lie in [{least:g}, {most:g}]" if most < torch.inf else f"must hold counts >= {least:g}"
        raise ValueError(f"{function}: `{name}` {expected}, but holds {outside[0].item():g}")
