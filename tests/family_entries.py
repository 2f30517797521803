"""What an entry of the registry (families.py) says of a likelihood, or of a scale of the posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from family_formulas import Shape, Sided
from torch import Generator, Tensor


class Range(NamedTuple):
    low: float
    high: float

    def inside(self, x: Tensor, margin: float) -> Tensor:
        """x, moved away from the ends."""
        return x.clamp(self.low + margin, self.high - margin)


class Sweep(NamedTuple):
    """Where a likelihood is right to units in the last place: numbers for tests of its whole range."""

    recon: Range  # in which finite differences and random values make sense, in float16 too
    target: Range
    dense: Range  # of recon: in small steps, because there the formula changes its ways
    extremes: tuple[float, ...]  # of recon: the ends of the number range
    targets: tuple[float, ...] = (0.0, 1.0, 0.5, 0.1, 0.999, 1e-3, 1e-4)  # first the special ones


@dataclass(frozen=True)
class Entry:
    """A likelihood. Its formulas and its draws are in float64."""

    make: Callable[..., Any]  # the argument: a name; or an object of parameters and, if it takes one, log_library
    # Of recon, target and parameters, and of pos_weight if it takes one: the value, its derivatives by recon and by
    # each parameter. With a softmax recon is a log probability, and plus log_library the log of a mean.
    terms: Callable[..., list[Sided]]
    torch: Callable[..., Tensor]  # the same value by torch's own functions
    draw: Callable[[Shape, Generator], tuple[Tensor, Tensor]]  # recon and target, differentiable there
    parameters: tuple[tuple[str, Callable[[Shape, Generator], Tensor]], ...] = ()  # as many as there are
    softmax: str = "never"  # or "optional", with a log_library; or "always"
    counts: bool = False
    probabilities: bool = False  # recon outside of [0, 1] is refused, or answered by NaN
    takes_pos_weight: bool = False
    # Of its slope's difference the kernels make a product, which is right to units of itself, and not of its summands.
    is_factored: bool = False
    sweep: Sweep | None = None

    def at(self, recon: Tensor, target: Tensor, *own: Tensor, pos_weight: Tensor | float = 1.0) -> list[Sided]:
        """The terms, of a pos_weight too if there may be one."""
        return self.terms(recon, target, *own, *([pos_weight] if self.takes_pos_weight else []))

    def legal(self, recon: Tensor) -> Tensor:
        """Those of the numbers that may be a recon."""
        finite = recon[recon.isfinite()]
        return finite[(finite >= 0) & (finite <= 1)] if self.probabilities else finite

    def anywhere(self, uniform: Tensor) -> Tensor:
        """Numbers of [0, 1], stretched over the targets."""
        low, high = min(self.sweep.targets), max(self.sweep.targets)
        return uniform if (low, high) == (0, 1) else low + (high - low) * uniform

    def swept(self, dtype: torch.dtype) -> Tensor:
        """Both tails of recon, everything between, and the smallest numbers."""
        small = torch.logspace(-44, -1, 400, dtype=torch.float64)
        wide = torch.linspace(*self.sweep.dense, 8801, dtype=torch.float64)
        extremes = torch.tensor(self.sweep.extremes, dtype=torch.float64)
        return self.legal(torch.cat([wide, small, -small, 1 - small, extremes]).to(dtype))


@dataclass(frozen=True)
class Scale:
    of: Callable[[Tensor], Tensor]  # the scale of a log-variance
    std: Callable[[Tensor], Tensor]  # the standard deviation
    std_slope: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]  # (sigma^2 - 1 - log sigma^2) / 2, which with mu^2 / 2 makes the KL
    spread_slope: Callable[[Tensor], Tensor]
    log_ratio: Callable[[Tensor, Tensor], Tensor]  # log sigma^2 of the first less that of the second
    log_ratio_slope: Callable[[Tensor], Tensor]  # d log sigma^2
    range: Range  # for random values, in float16 too
    extremes: tuple[float, ...]

    @property
    def prior(self) -> float:
        """The scale at which sigma is 1."""
        return self.of(torch.zeros(())).item()

    def near_prior(self, largest: float) -> Tensor:
        """On both sides of it, down to steps of 1e-7."""
        steps = torch.cat([torch.logspace(-7, 0, 300, dtype=torch.float64) * largest, torch.zeros(1)])
        return self.prior + torch.cat([steps, -steps])

    def sweep(self, dtype: torch.dtype) -> Tensor:
        """From sigma^2 = 1e-37 to 1e37, and near the prior; not those at which there is no KL."""
        wide = self.of(torch.linspace(-85, 85, 4001, dtype=torch.float64))
        values = torch.cat([self.near_prior(0.3), wide]).to(dtype)
        return values[self.spread(values.double()).isfinite()]
