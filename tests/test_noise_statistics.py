"""The noise is standard normal and independent: distribution, moments, tails and correlations of many draws.

Each statistic is compared with its expectation in units of its standard deviation. Seeds are fixed, so a test that
passes passes always; one that fails does so because the noise has changed for the worse.
"""

from __future__ import annotations

import math

import pytest
import torch
from golden import draw
from tolerances import DEVIATIONS, KOLMOGOROV
from torch import Tensor

pytestmark = pytest.mark.usefixtures("kernels")
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
ROWS, FEATURES = 1 << 12, 1 << 10  # 2^22 draws at a time
MOMENTS = (1, 1, 3, 15, 105, 945, 10395, 135135, 2027025)  # E z^0, z^2, z^4 ... z^16


def moment(order: int) -> int:
    return 0 if order % 2 else MOMENTS[order // 2]


def kolmogorov(z: Tensor) -> float:
    """sqrt(n) times the largest distance between the empirical and the normal distribution function."""
    ordered = torch.special.ndtr(z.double().flatten()).sort().values
    n = len(ordered)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return math.sqrt(n) * max((steps[1:] - ordered).max().item(), (ordered - steps[:-1]).max().item())


class Tally:
    """Moments and tails of draws in batches."""

    def __init__(self, device: str = "cpu") -> None:
        self.sums, self.tails, self.count = torch.zeros(8, dtype=torch.float64, device=device), [0] * 5, 0

    def add(self, z: Tensor) -> None:
        wide = z.double().flatten()
        self.sums += torch.stack([(wide**order).sum() for order in range(1, 9)])
        self.tails = [n + int((wide.abs() > sigma).sum()) for sigma, n in enumerate(self.tails, 1)]
        self.count += z.numel()

    def check(self) -> None:
        """Means of z, z^2 .. z^8, and how many are beyond 1 .. 5 sigma; the last are few: a Poisson variance."""
        means = [(self.sums[k - 1].item(), moment(k), moment(2 * k) - moment(k) ** 2) for k in range(1, 9)]
        for sigma, tail in enumerate(self.tails, 1):
            p = math.erfc(sigma / math.sqrt(2))
            means.append((tail, p, p * (1 - p)))
        for total, expected, variance in means:
            assert abs(total / self.count - expected) < DEVIATIONS * math.sqrt(variance / self.count)


def chi_squared_deviation(counts: Tensor, draws: int) -> float:
    """Of counts in equally likely cells."""
    expected = draws / len(counts)
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()
    return abs(chi_squared - (len(counts) - 1)) / math.sqrt(2 * (len(counts) - 1))


# ---- 2^24 draws -----------------------------------------------------------------------------------------------------


@TYPES
@pytest.mark.parametrize("seed", [1, 2**63 + 5], ids=["small", "large"])
def test_distribution_is_normal(seed: int, dtype: torch.dtype) -> None:
    z = draw(seed, ROWS, FEATURES, dtype)
    assert kolmogorov(z) < KOLMOGOROV
    for residue in range(4):  # every output of a group by itself
        assert kolmogorov(z.flatten()[residue::4]) < KOLMOGOROV


@TYPES
def test_moments_and_tails(dtype: torch.dtype) -> None:
    tally = Tally()
    for seed in range(4):
        tally.add(draw(seed, ROWS, FEATURES, dtype))
    assert tally.count == 1 << 24
    tally.check()


def standardized(z: Tensor) -> Tensor:
    """z, z^2 and |z|, each with mean 0 and variance 1: a Box-Muller pair shares its radius, and must not show it."""
    z = z.double().flatten()
    mean = math.sqrt(2 / math.pi)
    return torch.stack([z, (z**2 - 1) / math.sqrt(2), (z.abs() - mean) / math.sqrt(1 - mean**2)])


def assert_uncorrelated(a: Tensor, b: Tensor, what: str) -> None:
    """By the mean products of sequences (3, n)."""
    assert ((a * b).mean(1) * math.sqrt(a.shape[1])).abs().max() < DEVIATIONS, what


@TYPES
def test_nothing_is_correlated(dtype: torch.dtype) -> None:
    rows = ROWS // 4
    z = standardized(draw(3, rows, FEATURES, dtype))
    for lag in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 64, FEATURES - 1, FEATURES, FEATURES + 1, 1 << 16):
        assert_uncorrelated(z[:, :-lag], z[:, lag:], f"lag {lag}")
    for seed, row_offset in [(2, 0), (4, 0), (-4, 0), (3 + 2**32, 0), (3 + 2**63, 0), (3, rows), (3, 2**32)]:
        other = standardized(draw(seed, rows, FEATURES, dtype, row_offset))
        assert_uncorrelated(z, other, f"seed {seed}, row_offset {row_offset}")


@TYPES
def test_pairs_point_in_every_direction(dtype: torch.dtype) -> None:
    """Angles of (z0, z1) and (z2, z3) are uniform, exp(-radius^2 / 2) too: 16 x 16 equally likely cells."""
    z = draw(6, ROWS, FEATURES, dtype).double().view(-1, 2)
    angle = ((torch.atan2(z[:, 1], z[:, 0]) / (2 * math.pi)) % 1 * 16).long().clamp(max=15)
    radius = (torch.exp(-0.5 * (z**2).sum(1)) * 16).long().clamp(max=15)
    counts = torch.bincount(angle * 16 + radius, minlength=256).double()
    assert chi_squared_deviation(counts, len(z)) < DEVIATIONS


# ---- 10^9 draws -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_billion_draws(device: str) -> None:
    """Moments, tails and the distribution in 2^16 equally likely cells, in bounded memory."""
    cells, batches = 1 << 16, 240
    tally, largest = Tally(device), 0.0
    histogram = torch.zeros(cells, dtype=torch.float64, device=device)
    for batch in range(batches):
        z = draw(10, ROWS, FEATURES, torch.float32, batch * ROWS, device)
        tally.add(z)
        largest = max(largest, z.abs().max().item())
        cell = (torch.special.ndtr(z.double().flatten()) * cells).long().clamp(max=cells - 1)
        histogram += torch.bincount(cell, minlength=cells)
    count = tally.count
    assert count > 10**9
    tally.check()
    assert 5.5 < largest < 6.8  # the largest of 10^9 normals is 6.1, give or take 0.2
    assert chi_squared_deviation(histogram, count) < DEVIATIONS
    distance = (histogram.cumsum(0) / count - torch.arange(1, cells + 1, device=device) / cells).abs().max().item()
    assert math.sqrt(count) * distance < KOLMOGOROV
