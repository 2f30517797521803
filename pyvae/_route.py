"""The way of a call: kernels directly, kernels through the dispatcher, or the reference.

A plain eager call goes straight to the extension (`direct`), which answers None to everything else. Only then are the
arguments checked in words. The call then takes `torch.ops.pyvae` (`operators`: while compiling, for subclasses and
modes) or the reference (for torch.func, forward-mode differentiation, other devices, and without the extension).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from . import _extension


class _Choice:
    """What one ``with backend(...)`` block asks for; two blocks are never equal."""

    def __init__(self, name: str) -> None:
        self.reference = name == "reference"


# The blocks that are entered and not yet left, of which the last decides: threads, tasks and generators leave theirs in
# any order. One list for the process, as torch's own backend flags: torch.compile guards a global, and would miss a
# context's or a thread's. Append and remove are one step each, which no other thread divides, and the compiler traces
# them, as it would not trace a lock.
_choices = [_Choice("auto")]


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Choose the implementation within a ``with`` block, for the whole process.

    Args:
        name: "auto" (the kernels wherever they can run, which is the default) or "reference" (pure PyTorch). Where
            blocks overlap, nested or in several threads, the one entered last decides until it is left.

    Raises:
        ValueError: for any other name.

    Example:
        >>> import torch, pyvae
        >>> with pyvae.backend("reference"):
        ...     pyvae.kl_divergence(torch.ones(1, 2), torch.zeros(1, 2))
        tensor([1.])
    """
    if name not in ("auto", "reference"):
        raise ValueError(f'backend: `name` must be "auto" or "reference", but is {name!r}')
    choice = _Choice(name)
    _choices.append(choice)
    try:
        yield
    finally:
        _choices.remove(choice)


def direct() -> bool:
    """Whether to try the extension's eager entry first."""
    return _extension._loaded is not None and not torch.compiler.is_compiling() and not _choices[-1].reference


def operators(*tensors: Tensor | None) -> bool:
    """Whether an unusual call may go through `torch.ops.pyvae`; otherwise it goes through the reference."""
    if _choices[-1].reference:
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    if any(torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None for tensor in given):
        return False
    return _extension.kernels_for(given[0].device)
