"""The way of a call: kernels directly, kernels through the dispatcher, or the reference.

A plain eager call goes straight to the extension (`direct`), which answers None to everything else. Only then is asked
whether an argument or a mode overrides the function (`overridden`), and are the arguments checked in words. The call
then takes `torch.ops.pyvae` (`operators`: while compiling, for subclasses and
modes) or the reference (for torch.func, forward-mode differentiation, other devices, and without the extension).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import Parameter, signature
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from . import _extension
from ._objects import held


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
def backend(name: Literal["auto", "reference"]) -> Iterator[None]:
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
    # Compiling first: a compiler would guard what is read before.
    if torch.compiler.is_compiling() or _extension._loaded is None or _choices[-1].reference:
        return False
    if _extension.unsaid is not None:
        _extension.say()
    return True


def overridden(arguments: Iterable[Any]) -> bool:
    """Whether a mode, or an argument or part of one (a prior's, a likelihood's), has a `__torch_function__`."""
    # The compiler follows what the function is made of.
    return not torch.compiler.is_compiling() and has_torch_function(_parts(arguments))


def override(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    """What `__torch_function__` makes of a call of the public `function`: a node of torch.fx, for instance."""
    ordered, named = [], {}
    for name, parameter in signature(function).parameters.items():
        if parameter.kind is Parameter.KEYWORD_ONLY:
            named[name] = given[name]
        else:
            ordered.append(given[name])
    return handle_torch_function(function, _parts(given.values()), *ordered, **named)


def _parts(arguments: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(x if isinstance(x, (tuple, list)) else (x, *held(x).values()) for x in arguments))


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
