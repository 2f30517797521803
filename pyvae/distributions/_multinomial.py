"""The multinomial distribution, each row of a total of its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .._expect import is_readable, what
from .._noise import exact_dtype
from .._posterior import compute_dtype
from ..objective import reconstruction_loss
from ._fused import carried
from ._parameters import check_range, check_value
from ._poisson import rounded

CHUNK = 2**16  # categories drawn of a row at a time


class Multinomial(Distribution):
    """Counts of a row's categories, each row of a total of its own.

    Args:
        logits: of the categories, shape (B, ...): all dimensions but the first are categories.
        total_count: of each row, a whole number or a tensor of them, shape (B,): `sample`, `mean` and `variance` need
            it. `log_prob` takes each row's own.
        validate_args: as of torch's.

    Example:
        >>> import torch, pyvae
        >>> words = pyvae.distributions.of("multinomial", torch.zeros(2, 4), total_count=9)
        >>> words.sample().sum(1)
        tensor([9., 9.])
        >>> words.log_prob(torch.tensor([[1.0, 0, 0, 0], [2, 1, 1, 1]])).exp()
        tensor([0.2500, 0.0586])
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012
    has_enumerate_support = False

    def __init__(
        self, logits: Tensor, total_count: Tensor | int | None = None, validate_args: bool | None = None
    ) -> None:
        self.logits, self._total_count = logits, total_count
        super().__init__(logits.shape[:1], logits.shape[1:], validate_args=validate_args)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.nonnegative_integer, len(self._event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """A distribution of this batch shape."""
        new = carried(self, _instance)
        new.logits = self.logits.expand(torch.Size(batch_shape) + self._event_shape)
        Distribution.__init__(new, torch.Size(batch_shape), self._event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def probs(self) -> Tensor:
        """Of the categories: they sum to 1 over a row."""
        flat = self.logits.reshape(*self._batch_shape, self._event_shape.numel())
        return torch.softmax(flat, -1).reshape(self.logits.shape)

    @property
    def total_count(self) -> Tensor:
        """Of each row, shape (B,)."""
        return self._totals(None)

    @property
    def mean(self) -> Tensor:
        return self._wide(self.total_count) * self.probs

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.probs)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) of each row, shape of value and the batch, broadcast, without the event's dimensions; float32
        (float64 for float64)."""
        function = f"{type(self).__name__}.log_prob"
        shape = check_value(function, value, self.logits.shape, self.logits.device)
        if self._validate_args and value.numel():  # of none torch cannot check
            self._validate_sample(value)
        events = len(self._event_shape)
        rows = shape[: len(shape) - events].numel()
        exact = exact_dtype(self.logits.device)  # in which the two parts, both large, are subtracted
        logits, counts = (
            x.to(exact).expand(shape).reshape(rows, self._event_shape.numel()) for x in (self.logits, value)
        )
        try:
            known = reconstruction_loss(logits, counts, likelihood="multinomial", reduction="none")
        except ValueError:  # found by the kernels
            check_range(function, "value", value, 0.0, math.inf)
            raise
        ways = torch.lgamma(counts.sum(1) + 1) - torch.lgamma(counts + 1).sum(1)
        return (ways - known).to(compute_dtype(self.logits, value)).reshape(shape[: len(shape) - events])

    def sample(self, sample_shape: Any = (), *, total_count: Tensor | int | None = None) -> Tensor:
        """Counts of shape sample_shape + (B, ...); `total_count` of each row, if not the distribution's own."""
        shape = self._extended_shape(torch.Size(sample_shape or ()))
        with torch.no_grad():
            width = self._event_shape.numel()
            rows = self.probs.reshape(-1, width)
            totals = self._totals(total_count).reshape(-1).long()
            times = torch.Size(sample_shape or ()).numel()
            rows, totals = rows.repeat(times, 1), totals.repeat(times)
            counts = torch.zeros(rows.shape, dtype=torch.float64, device=rows.device)
            most = int(totals.max()) if totals.numel() else 0
            for start in range(0, most, CHUNK):
                drawn = torch.multinomial(rows, min(CHUNK, most - start), replacement=True)
                ones = torch.arange(start, start + drawn.shape[1], device=rows.device) < totals[:, None]
                counts.scatter_add_(1, drawn, ones.to(counts.dtype))
            return rounded(counts, self.logits.dtype).reshape(shape)

    def _wide(self, totals: Tensor) -> Tensor:
        return totals.reshape(*totals.shape, *(1 for _ in self._event_shape))

    def _totals(self, given: Any) -> Tensor:
        given = self._total_count if given is None else given
        if given is None:
            raise ValueError(f"{type(self).__name__}: `total_count` must be given to draw, or for a mean, but is None")
        name = f"{type(self).__name__}: `total_count`"
        if not isinstance(given, (int, Tensor)) or isinstance(given, bool):
            raise TypeError(f"{name} must be a whole number or a Tensor of them, but is {what(given)}")
        totals = torch.as_tensor(given, device=self.logits.device)
        if totals.ndim and totals.shape != self._batch_shape:
            raise ValueError(f"{name} must have shape {tuple(self._batch_shape)}, but has shape {tuple(totals.shape)}")
        if is_readable(totals) and not bool(((totals >= 0) & (totals == totals.round())).all()):
            raise ValueError(f"{name} must hold whole numbers >= 0, but does not everywhere")
        return totals.expand(self._batch_shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(logits: {tuple(self.logits.shape)})"
