"""Log densities where a number ends: as the docstring of Mixture says, of kernels and reference alike."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributions as D
from cases import leaf
from torch import Tensor
from torch.autograd import grad

import pyvae

INF = math.inf
TWO, ONES, EQUAL = [[0.0, 0.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [0.0, 0.0]
# z, means, std, logits; the value; whether gradients are numbers.
ENDS = {
    "a std of 0, at the mean": ([0.0, 0.0], TWO, [[0.0, 1.0], [1.0, 1.0]], EQUAL, math.nan, False),
    "a std of 0, elsewhere": ([0.5, 0.0], TWO, [[0.0, 1.0], [1.0, 1.0]], EQUAL, math.nan, False),
    "no weight": ([0.5, 0.0], TWO, ONES, [-INF, -INF], math.nan, False),
    "infinitely far": ([INF, 0.0], TWO, ONES, EQUAL, -INF, False),
    "farther than its square is a number": ([1e200, 0.0], TWO, ONES, EQUAL, -INF, False),
    "a component of infinite std": (
        [0.5, 0.0], TWO, [[INF, 1.0], [1.0, 1.0]], EQUAL, -0.625 - math.log(2 * math.pi) - math.log(2), True),
    "a mean infinitely far": (
        [0.5, 0.0], [[INF, 0.0], [1.0, 1.0]], ONES, EQUAL, -0.625 - math.log(2 * math.pi) - math.log(2), False),
}  # fmt: skip


def by_torch(z: Tensor, mean: Tensor, std: Tensor, logits: Tensor) -> Tensor:
    parts = D.Independent(D.Normal(mean, std, validate_args=False), 1, validate_args=False)
    weights = D.Categorical(logits=logits, validate_args=False)
    return D.MixtureSameFamily(weights, parts, validate_args=False).log_prob(z)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", ENDS)
def test_ends(name: str) -> None:
    *numbers, value, has_slopes = ENDS[name]
    z, mean, std, logits = given = [leaf(torch.tensor(x, dtype=torch.float64)) for x in numbers]
    got = pyvae.mixture_log_prob(z[None], pyvae.Mixture(mean, std=std, logits=logits))[0]
    torch.testing.assert_close(got, torch.tensor(value, dtype=torch.float64), equal_nan=True)
    torch.testing.assert_close(got, by_torch(*given), equal_nan=True)
    slopes = grad(got, given)
    assert all(x.isfinite().all() for x in slopes) == has_slopes
    if has_slopes:
        assert not slopes[1][0].any() and not slopes[2][0].any()
        theirs = grad(by_torch(*given), given)
        torch.testing.assert_close([slopes[i] for i in (0, 1, 3)], [theirs[i] for i in (0, 1, 3)])
