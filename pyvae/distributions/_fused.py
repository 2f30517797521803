"""What the distributions share: a likelihood, what it takes as recon, and `log_prob` of the two."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..objective import reconstruction_loss
from ._parameters import check_range, check_value


class Fused(Distribution):
    """A distribution whose `log_prob` is a likelihood's, of each element.

    What it holds is as it was given: nothing is expanded to the batch shape, so that a theta of shape (D,) has its
    gradient summed in the kernel.
    """

    _recon: Tensor  # broadcasts to the batch shape, as the likelihood's parameters do
    _likelihood: Any  # a name or an object, as `elbo_loss` takes it
    _constant = 0.0  # log of the density's factor that losses leave out
    _range = (-math.inf, math.inf)  # of values
    _recon_range: tuple[str, float, float] | None = None  # of recon, if it has one, and its name here

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), of each element: shape of value and the batch, broadcast; float32 (float64 for float64)."""
        shape = self._check(value)
        try:
            return self._evaluate(value, shape)
        except ValueError:  # found by the kernels
            function = self._name("log_prob")
            check_range(function, "value", value, *self._range)
            if self._recon_range is not None:
                name, least, most = self._recon_range
                check_range(function, name, self._recon, least, most)
            raise

    def _name(self, method: str) -> str:
        return f"{type(self).__name__}.{method}"

    def _check(self, value: Tensor) -> torch.Size:
        """The shape of value and the batch, broadcast."""
        shape = check_value(self._name("log_prob"), value, self._batch_shape, self._recon.device)
        if self._validate_args:
            self._validate_sample(value)
        return shape

    def _evaluate(self, value: Tensor, shape: torch.Size) -> Tensor:
        # Kernels know a batch and features: of a single number, one of each.
        recon, target = (x.expand(shape or (1,)) for x in (self._recon, value))
        out = reconstruction_loss(recon, target, likelihood=self._likelihood, weight=-1.0, reduction="elements")
        return (out - self._constant if self._constant else out).reshape(shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """A distribution of this batch shape; its parameters stay as they are."""
        return super().expand(batch_shape, carried(self, _instance))


def carried(distribution: Distribution, instance: Any) -> Any:
    """What `expand` returns, before it is made: `instance`, in which a subclass may have put attributes of its own (the
    way of torch's `_get_checked_instance`), or a new one, with all the others as they are."""
    new = type(distribution).__new__(type(distribution)) if instance is None else instance
    new.__dict__ = distribution.__dict__ | new.__dict__
    return new
