"""What the distributions share: a likelihood, what it takes as recon, and `log_prob` of the two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .._expect import what
from ..objective import reconstruction_loss


class Fused(Distribution):
    """A distribution whose `log_prob` is a likelihood's, of each element.

    What it holds is as it was given: nothing is expanded to the batch shape, so that a theta of shape (D,) has its
    gradient summed in the kernel.
    """

    _recon: Tensor  # broadcasts to the batch shape, as the likelihood's parameters do
    _likelihood: Any  # a name or an object, as `elbo_loss` takes it
    _constant = 0.0  # log of the density's factor that losses leave out

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), of each element: shape of value and the batch, broadcast."""
        if self._validate_args:
            self._validate_sample(value)
        return self._evaluate(value)

    def _evaluate(self, value: Tensor) -> Tensor:
        shape = broadcast(self, value, self._batch_shape)
        # Kernels know a batch and features: of a single number, one of each.
        recon, target = (x.expand(shape or (1,)) for x in (self._recon, value))
        out = reconstruction_loss(recon, target, likelihood=self._likelihood, weight=-1.0, reduction="elements")
        return (out - self._constant if self._constant else out).reshape(shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """A distribution of this batch shape; its parameters stay as they are."""
        new = type(self).__new__(type(self)) if _instance is None else _instance
        new._recon, new._likelihood = self._recon, self._likelihood
        return super().expand(batch_shape, new)


def broadcast(distribution: Distribution, value: Any, shape: torch.Size) -> torch.Size:
    """The shape of `value` and the distribution's, broadcast."""
    name = f"{type(distribution).__name__}.log_prob"
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: `value` must be a Tensor, but is {what(value)}")
    try:
        return torch.broadcast_shapes(value.shape, shape)
    except RuntimeError:
        raise ValueError(
            f"{name}: `value` must broadcast with the distribution's shape {tuple(shape)}, but has shape "
            f"{tuple(value.shape)}"
        ) from None


def tensors(*values: Tensor | float | None) -> tuple[Tensor, ...]:
    """Of tensors and numbers tensors, the latter of the type and on the device of the former; integers as floats."""
    given = [x for x in values if isinstance(x, Tensor)]
    dtype = next((x.dtype for x in given if x.is_floating_point()), torch.get_default_dtype())
    device = given[0].device if given else None
    made = (x if isinstance(x, Tensor) else torch.tensor(x, dtype=dtype, device=device) for x in values)
    return tuple(x if x.is_floating_point() else x.to(dtype) for x in made)
