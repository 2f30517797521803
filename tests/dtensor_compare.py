"""How calls of DTensors are compared with those of one process: for dtensor_checks.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

PROCESSES = 2
B, D, L = 5, 6, 3  # rows are split into 3 and 2
CHECKS: dict[str, Callable[[], None]] = {}


def check(name: str, *arguments: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(function: Callable[..., None]) -> Callable[..., None]:
        CHECKS[name] = lambda: function(*arguments)
        return function

    return register


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def distributed(x: Tensor, placement: Any) -> Tensor:
    from torch.distributed.tensor import distribute_tensor, init_device_mesh

    return distribute_tensor(x, init_device_mesh("cpu", (PROCESSES,)), [placement]).requires_grad_(x.requires_grad)


def compared(
    call: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], placements: Sequence[Any], expected: Sequence[Any]
) -> None:
    """The results of `call` are those of one process, and have the placements; and so are the gradients of the
    inputs that need some, from upstream gradients that differ from element to element."""
    alone = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    split = [distributed(x, placement) for x, placement in zip(alone, placements, strict=True)]
    results, wanted = call(*split), call(*alone)
    assert [result.placements for result in results] == [(placement,) for placement in expected]
    wholes = [result.full_tensor() for result in results]
    for whole, want in zip(wholes, wanted, strict=True):
        assert whole.shape == want.shape
        torch.testing.assert_close(whole, want)

    def total(parts: Sequence[Tensor]) -> Tensor:
        return sum((part * numbers(*part.shape, seed=9)).sum() for part in parts if part.requires_grad)

    sought = [i for i, x in enumerate(alone) if x.requires_grad]
    gradients = torch.autograd.grad(total(wholes), [split[i] for i in sought], allow_unused=True)
    for i, got, want in zip(
        sought,
        gradients,
        torch.autograd.grad(total(wanted), [alone[i] for i in sought], allow_unused=True),
        strict=True,
    ):
        if want is not None:
            torch.testing.assert_close(got.full_tensor(), want, msg=lambda text, i=i: f"gradient of input {i}: {text}")
