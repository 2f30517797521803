"""The Poisson distribution, with scvi-tools' constructor, and what other distributions of counts share with it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributions as torch_distributions
from torch import Tensor

from .. import likelihoods
from ._fused import Fused
from ._parameters import parameters

LARGEST_MEAN = 1e8  # of a Poisson draw, beyond which torch's is not to be relied on


def rounded(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """In this type; those beyond its numbers are the largest, where 16 bits would have an infinity."""
    return counts.clamp(max=torch.finfo(dtype).max).to(dtype)


class Normalized:
    """What scvi-tools' models ask of the distribution that a decoder returns."""

    _normalized: tuple[str, str] = ("mu", "scale")

    def get_normalized(self, key: str) -> Tensor | None:
        """The mean, "mu", or the normalized expression, "scale"."""
        if key not in ("mu", "scale"):
            raise ValueError(f'{type(self).__name__}.get_normalized: `key` must be "mu" or "scale", but is {key!r}')
        found: Tensor | None = getattr(self, self._normalized[key == "scale"])
        return found


class Poisson(Normalized, Fused, torch_distributions.Poisson):
    """Poisson counts of the mean `rate`.

    Args:
        rate: the mean, 0 or more, any shape, a tensor or a number.
        validate_args: as of torch's.
        scale: the normalized expression, which is kept and not used.

    Example:
        >>> import torch, pyvae
        >>> pyvae.distributions.Poisson(torch.tensor([1.0, 2.0])).log_prob(torch.zeros(2))
        tensor([-1., -2.])
    """

    _normalized = ("rate", "scale")
    _range = (0.0, math.inf)

    def __init__(
        self, rate: Tensor | float, validate_args: bool | None = None, scale: Tensor | None = None
    ) -> None:  # in scvi-tools' order
        super().__init__(parameters(type(self).__name__, rate=rate)["rate"], validate_args=validate_args)
        self.scale = scale
        self._recon, self._likelihood = self.rate, likelihoods.Poisson(link="identity")

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Counts of shape sample_shape + batch_shape; those of 16 bits are drawn in float32, and end at the type's
        largest number."""
        if self.rate.dtype in (torch.float32, torch.float64):
            return super().sample(sample_shape)
        with torch.no_grad():
            means = self.rate.float().expand(self._extended_shape(torch.Size(sample_shape or ())))
            return rounded(torch.poisson(means.clamp(max=LARGEST_MEAN)), self.rate.dtype)
