"""Several samples of recon against one target: `reconstruction_loss` of recon (S, B, ...) and target (B, ...).

The operators take recon's samples one after the other, (S * B, ...), and read target's B rows for each of them. Nothing
of target's size is copied, but by the reference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ._arguments import ObjectiveArguments
from ._objects import held


def has_samples(recon: Any, target: Any) -> bool:
    """Whether recon has one dimension more than target, before target's own, which has features: two or more. A recon
    (1, 1, D) against (1, D) is none: target is its flattened form."""
    if not (isinstance(recon, Tensor) and isinstance(target, Tensor)) or recon.is_nested or target.is_nested:
        return False
    if recon.ndim != target.ndim + 1 or target.ndim < 2 or recon.shape[1:] != target.shape:
        return False
    return recon.shape[:2] != (1, 1) or target.ndim > 2


def flattened(call: ObjectiveArguments) -> ObjectiveArguments:
    """The call with S * B rows in place of (S, B), but for the target, which keeps B."""
    shape = call.recon.shape
    like = call.likelihood
    own = {
        name: _library(value, shape) if name == "log_library" else _rows(value, shape)
        for name, value in held(like).items()
    }
    return call._replace(
        recon=call.recon.flatten(0, 1),
        likelihood=replace(like, **own) if own else like,
        weight=_rows(call.weight, shape),
        pos_weight=_rows(call.pos_weight, shape),
    )


def _rows(x: Any, shape: torch.Size) -> Any:
    """What broadcasts to (S, B, ...), for (S * B, ...)."""
    if not isinstance(x, Tensor) or x.ndim < len(shape) - 1:
        return x
    lead = x.shape[: 2 - (len(shape) - x.ndim)]  # of the dimensions S and B, those that x has
    if all(size == 1 for size in lead):
        return x.reshape(x.shape[len(lead) - 1 :])  # the same for all
    return x.expand(*shape[:2], *x.shape[len(lead) :]).flatten(0, 1)


def _library(x: Any, shape: torch.Size) -> Any:
    """Of each of B rows, (B,) or (B, 1), or of each sample, (S, B) or (S, B, 1)."""
    samples, batch = shape[:2]
    if not isinstance(x, Tensor):
        return x
    if tuple(x.shape) in ((batch,), (batch, 1)):
        return x.reshape(1, batch).expand(samples, batch).flatten()
    return x.flatten()


def spread(target: Tensor, recon: Tensor) -> Tensor:
    """Target with a row for each of recon's: a copy, where recon holds samples."""
    if target.ndim != recon.ndim or target.shape[0] in (0, recon.shape[0]):
        return target
    return target.repeat(recon.shape[0] // target.shape[0], *(1,) * (target.ndim - 1))


def unflattened(out: Tensor, shape: torch.Size) -> Tensor:
    """Of results of S * B rows those of (S, B); of a sum, what it is."""
    return out.unflatten(0, shape[:2]) if out.ndim else out
