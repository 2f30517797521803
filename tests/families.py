"""The registry: all that the suites know of each likelihood and of each scale of the posterior.

A new member of the library needs one entry here, and every suite runs over it; without one, each of them says so.
The formulas are the contract's in closed form, written independently of pyvae.reference: float64 in and out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.distributions import Bernoulli

from pyvae import likelihoods as _likelihoods
from pyvae._checks import SCALES as SCALES

# Those without parameters or counts; the others go by rows (parametric.py).
LIKELIHOODS = tuple(
    name for name, member in _likelihoods.LIKELIHOODS.items() if not (member.parameters or member.is_count)
)

Formula = Callable[[Tensor, Tensor, Tensor | float], Tensor]  # of recon, target and pos_weight
Shape = tuple[int, ...]
Entry = TypeVar("Entry")


class Range(NamedTuple):
    low: float
    high: float

    def inside(self, x: Tensor, margin: float) -> Tensor:
        """x, moved away from the ends."""
        return x.clamp(self.low + margin, self.high - margin)


@dataclass(frozen=True)
class Likelihood:
    value: Formula  # -log p(target | recon) of each element, less what the contract leaves out
    slope: Formula  # d value / d recon
    torch: Callable[[Tensor, Tensor], Tensor]  # the same value by torch's own functions, in float64
    draw: Callable[[Shape, Generator], tuple[Tensor, Tensor]]  # recon and target in float64, differentiable there
    recon: Range  # in which finite differences and random values make sense, in float16 too
    target: Range
    dense: Range  # of recon: to be swept in small steps, because there the formula changes its ways
    extremes: tuple[float, ...]  # of recon: the ends of the number range
    targets: tuple[float, ...] = (0.0, 1.0, 0.5, 0.1, 0.999, 1e-3, 1e-4)  # to be met by sweeps; first the special ones
    # Where the slope is a difference: the larger of the two summands. Finite precision is right to units of that.
    summand: Formula | None = None
    cancels: bool = False  # whether the kernels form that difference, as the reference's autograd does anyway
    probabilities: bool = False  # recon outside of [0, 1] is refused, or answered by NaN
    takes_pos_weight: bool = False

    def slope_and_units(self, x: Tensor, t: Tensor, pos_weight: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        slope = self.slope(x, t, pos_weight)
        return slope, slope.abs() if self.summand is None else self.summand(x, t, pos_weight)

    def legal(self, recon: Tensor) -> Tensor:
        """Those of the numbers that may be a recon."""
        finite = recon[recon.isfinite()]
        return finite[(finite >= 0) & (finite <= 1)] if self.probabilities else finite

    def anywhere(self, uniform: Tensor) -> Tensor:
        """Numbers of [0, 1], stretched over the targets."""
        low, high = min(self.targets), max(self.targets)
        return uniform if (low, high) == (0, 1) else low + (high - low) * uniform

    def sweep(self, dtype: torch.dtype) -> Tensor:
        """Both tails of recon, everything between, and the smallest numbers."""
        small = torch.logspace(-44, -1, 400, dtype=torch.float64)
        wide = torch.linspace(*self.dense, 8801, dtype=torch.float64)
        extremes = torch.tensor(self.extremes, dtype=torch.float64)
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


# ---- formulas --------------------------------------------------------------------------------------------------------


def softplus(x: Tensor) -> Tensor:
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))


def excess(x: Tensor) -> Tensor:
    """e^x - 1 - x, by its series where the difference would cancel."""
    series = x * x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7)))))
    return torch.where(x.abs() < 1e-2, series, torch.expm1(x) - x)


def _variance(p: Tensor) -> Tensor:
    return (p * (1 - p)).clamp(min=1e-12)


# ---- samples ---------------------------------------------------------------------------------------------------------


def _normal(shape: Shape, draw: Generator) -> Tensor:
    return 3 * torch.randn(shape, generator=draw, dtype=torch.float64)


def _logits(shape: Shape, draw: Generator) -> tuple[Tensor, Tensor]:
    """Two thirds of the targets are 0 or 1, the others between."""
    recon = _normal(shape, draw)
    soft, hard = (torch.rand(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    return recon, torch.where(hard < 2 / 3, soft.round(), soft)


def _probabilities(shape: Shape, draw: Generator) -> tuple[Tensor, Tensor]:
    recon, target = _logits(shape, draw)
    return torch.sigmoid(recon), target


def _apart(shape: Shape, draw: Generator) -> tuple[Tensor, Tensor]:
    """At least 1/4 from each other: there is a kink where they meet, which sweeps and random values come upon."""
    recon, distance = _normal(shape, draw), _normal(shape, draw)
    return recon, recon + distance + torch.where(distance < 0, -0.25, 0.25)


# ---- the entries -----------------------------------------------------------------------------------------------------

ENTRIES: dict[str, Likelihood] = {
    "bernoulli": Likelihood(
        value=lambda p, t, _: -t * torch.log(p).clamp(min=-100) - (1 - t) * torch.log1p(-p).clamp(min=-100),
        slope=lambda p, t, _: (p - t) / _variance(p),
        summand=lambda p, t, _: torch.maximum(p * (1 - t), t * (1 - p)) / _variance(p),
        torch=lambda p, t: -Bernoulli(p, validate_args=False).log_prob(t),
        draw=_probabilities,
        recon=Range(0, 1),
        target=Range(0, 1),
        dense=Range(0, 1),
        extremes=(0.0, -0.0, 1.0, 1e-45, 1e-38, 1e-12, 1 - 2**-24, 2**-24, 0.5),
        probabilities=True,
    ),
    "bernoulli_logits": Likelihood(
        value=lambda x, t, pos_weight: (1 - t) * softplus(x) + pos_weight * t * softplus(-x),
        slope=lambda x, t, pos_weight: torch.sigmoid(x) * (1 - t) - pos_weight * torch.sigmoid(-x) * t,
        summand=lambda x, t, w: torch.maximum(torch.sigmoid(x) * (1 - t), w * torch.sigmoid(-x) * t),
        cancels=True,
        torch=lambda x, t: -Bernoulli(logits=x, validate_args=False).log_prob(t),
        draw=_logits,
        recon=Range(-2048, 2048),
        target=Range(0, 1),
        dense=Range(-110, 110),
        extremes=(1e4, -1e4, 88.0, -88.0, 103.9, -103.9, 0.0, -0.0, 1e-45, -1e-45, 1e30, -1e30, 1e38, -1e38),
        takes_pos_weight=True,
    ),
    "gaussian": Likelihood(
        value=lambda x, t, _: (x - t) ** 2 / 2,
        slope=lambda x, t, _: x - t,
        torch=lambda x, t: F.mse_loss(x, t, reduction="none") / 2,
        draw=lambda shape, draw: (_normal(shape, draw), _normal(shape, draw)),
        recon=Range(-1024, 1024),
        target=Range(-1024, 1024),
        dense=Range(-1e4, 1e4),
        extremes=(1e4, -1e4, 0.0, -0.0, 1e-19, 1e-45, 1e18, -1e18),
    ),
    "laplace": Likelihood(
        value=lambda x, t, _: (x - t).abs(),
        slope=lambda x, t, _: torch.sign(x - t),
        torch=lambda x, t: F.l1_loss(x, t, reduction="none"),
        draw=_apart,
        recon=Range(-1024, 1024),
        target=Range(-1024, 1024),
        dense=Range(-1e4, 1e4),
        extremes=(1e4, -1e4, 0.0, -0.0, 1e-19, 1e-45, 1e38, -1e38),
    ),
}

SCALE_ENTRIES: dict[str, Scale] = {
    "logvar": Scale(
        of=lambda logvar: logvar,
        std=lambda s: torch.exp(s / 2),
        std_slope=lambda s: torch.exp(s / 2) / 2,
        spread=lambda s: excess(s) / 2,
        spread_slope=lambda s: torch.expm1(s) / 2,
        log_ratio=lambda s, t: s - t,
        log_ratio_slope=torch.ones_like,
        range=Range(-80, 80),
        extremes=(0.0, -0.0, 1e-45, -1e-7, 1.0, -80.0, 80.0, 88.0, 88.7, 177.0, -180.0, -210.0, 1e3, -1e4, -torch.inf),
    ),
    "std": Scale(
        of=lambda logvar: torch.exp(logvar / 2),
        std=lambda s: s,
        std_slope=torch.ones_like,
        spread=lambda s: torch.where(
            (s - 1).abs() < 1e-3, excess(2 * torch.log(s)) / 2, (s - 1) * (s + 1) / 2 - torch.log(s)
        ),
        spread_slope=lambda s: (s - 1) * (s + 1) / s,
        log_ratio=lambda s, t: 2 * torch.where(s > t, torch.log1p((s - t) / t), -torch.log1p((t - s) / s)),
        log_ratio_slope=lambda s: 2 / s,
        range=Range(2**-14, 1024),
        extremes=(0.0, -0.0, 1e-45, 1e-38, 1e-30, 1e-7, 1.0, 1e18, 1e30, 3e38, 6e4),
    ),
    "logstd": Scale(
        of=lambda logvar: logvar / 2,
        std=torch.exp,
        std_slope=torch.exp,
        spread=lambda s: excess(2 * s) / 2,
        spread_slope=lambda s: torch.expm1(2 * s),
        log_ratio=lambda s, t: 2 * (s - t),
        log_ratio_slope=lambda s: torch.full_like(s, 2),
        range=Range(-40, 40),
        extremes=(0.0, -0.0, 1e-45, -1e-7, 1.0, -40.0, 40.0, 44.0, 88.8, -90.0, -105.0, 1e3, -1e4, -torch.inf),
    ),
}


def _entry(entries: Mapping[str, Entry], kind: str, name: str) -> Entry:
    if name not in entries:
        raise LookupError(f"{kind} {name!r} has no entry in tests/families.py, which has {', '.join(entries)}")
    return entries[name]


def family(name: str) -> Likelihood:
    return _entry(ENTRIES, "likelihood", name)


def scaling(name: str) -> Scale:
    return _entry(SCALE_ENTRIES, "scale", name)


def cycled(*lists: tuple) -> list[tuple]:
    """Side by side until each member of each list has been there: shorter lists start again."""
    return [tuple(x[i % len(x)] for x in lists) for i in range(max(map(len, lists)))]
