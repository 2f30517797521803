"""The scale form `rho`, sigma = softplus(rho): against 50 digits over the whole number range, where float64 formulas
would have to be as careful as the kernels are. What it shares with the other forms is in every other suite."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath as mp
import pytest
import torch
from cases import all_equal, assert_relative, assert_ulp, leaf
from tolerances import GRADIENT_ULP, LOSS, SOFTPLUS_ULP
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = pytest.mark.usefixtures("kernels")

FLOATS = pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
Number = mp.mpf
UNIT = math.log(math.expm1(1))  # where softplus is 1


def softplus(s: Number) -> Number:
    return mp.log1p(mp.exp(s)) if s < 200 else s


def log_softplus(s: Number) -> Number:
    return mp.log(softplus(s)) if s > -200 else s


def relative_slope(s: Number) -> Number:
    """d log softplus / ds"""
    return 1 / ((1 + mp.exp(-s)) * softplus(s)) if s > -200 else mp.mpf(1)


def spread(s: Number) -> Number:
    return (softplus(s) ** 2 - 1) / 2 - log_softplus(s)


def spread_slope(s: Number) -> Number:
    return (softplus(s) ** 2 - 1) * relative_slope(s)


def exact(function: Callable[..., Number], *given: Tensor) -> Tensor:
    """Of each element, to 50 digits, rounded to float64."""
    with mp.workdps(50):
        return torch.tensor(
            [float(function(*map(mp.mpf, numbers))) for numbers in zip(*(x.tolist() for x in given), strict=True)],
            dtype=torch.float64,
        )


def sweep(dtype: torch.dtype) -> Tensor:
    """Both tails, to sigma = 1.2e-38 and 1e19; around UNIT and 0; and where the formula changes its ways."""
    near = torch.logspace(-7, 0.2, 150, dtype=torch.float64)
    wide = torch.linspace(-87.3, 40, 500, dtype=torch.float64)
    large, small = torch.logspace(0, 19, 100, dtype=torch.float64), torch.logspace(-40, 0, 80, dtype=torch.float64)
    ends = torch.tensor([UNIT + 1, UNIT - 1], dtype=torch.float64)[:, None]
    ends = (ends * (1 + torch.linspace(-1e-5, 1e-5, 41, dtype=torch.float64))).flatten()
    return torch.cat([UNIT + near, UNIT - near, wide, large, small, -small, ends]).to(dtype)


@FLOATS
def test_sigma_and_its_slope(dtype: torch.dtype, device: str) -> None:
    s = leaf(sweep(dtype).to(device))
    sigma = pyvae.reparameterize(torch.zeros_like(s), rho=s, eps=torch.ones_like(s))
    assert_ulp(sigma, exact(softplus, s), SOFTPLUS_ULP)
    (slope,) = grad(sigma.sum(), s)
    assert_ulp(slope, exact(lambda x: 1 / (1 + mp.exp(-x)), s), SOFTPLUS_ULP)


@FLOATS
def test_divergence_and_its_slope(dtype: torch.dtype, device: str) -> None:
    s = leaf(sweep(dtype).to(device))
    kl = pyvae.kl_divergence(torch.zeros_like(s), rho=s)
    assert_relative(kl, exact(spread, s), LOSS)
    (slope,) = grad(kl.sum(), s)
    assert_ulp(slope, exact(spread_slope, s), GRADIENT_ULP)


@FLOATS
@pytest.mark.parametrize("t", [math.log(math.expm1(0.1)), UNIT, 3.0, -20.0, 1e3])
def test_divergence_from_a_prior(t: float, dtype: torch.dtype, device: str) -> None:
    """Of the posterior's slope and the prior's, the second a difference."""
    near = torch.logspace(-7, 0.5, 150, dtype=torch.float64) * max(1.0, abs(t))
    s = torch.cat([t + near, t - near, torch.linspace(-40, 40, 101, dtype=torch.float64)]).to(device, dtype)
    mu, mean, prior = torch.full_like(s, 0.75), torch.full_like(s, 0.5), torch.full_like(s, t)
    leaves = [leaf(x) for x in (s, prior)]
    kl = pyvae.kl_divergence(mu, rho=leaves[0], prior=(mean, leaves[1]))

    def value(s: Number, t: Number) -> Number:
        ratio = softplus(s) / softplus(t)
        return (1 / (4 * softplus(t))) ** 2 / 2 + (ratio**2 - 1) / 2 - (log_softplus(s) - log_softplus(t))

    def to_s(s: Number, t: Number) -> Number:
        return ((softplus(s) / softplus(t)) ** 2 - 1) * relative_slope(s)

    def parts(s: Number, t: Number) -> tuple[Number, Number]:
        return (1 / (4 * softplus(t))) ** 2 * relative_slope(t), to_s(s, t) / relative_slope(s) * relative_slope(t)

    assert_relative(kl, exact(value, s, prior), LOSS)
    got = grad(kl.sum(), leaves)
    assert_ulp(got[0], exact(to_s, s, prior), GRADIENT_ULP)
    want, units = (
        exact(lambda s, t, f=f: f(*parts(s, t)), s, prior)
        for f in (lambda a, b: -a - b, lambda a, b: max(abs(a), abs(b)))
    )
    assert_ulp(got[1], want, GRADIENT_ULP, magnitude=torch.maximum(want.abs(), units))


def test_tails(device: str) -> None:
    """Where sigma is 0 in float32 the KL goes on, with slope -1; where its square is too large the KL is infinite."""
    s = leaf(torch.tensor([-math.inf, -1e30, -1e4, -104.0, 2.5e19, 2.7e19, 3e38], device=device))
    kl = pyvae.kl_divergence(torch.zeros_like(s), rho=s)
    want = torch.tensor([math.inf, 1e30, 9999.5, 103.5, 3.125e38, math.inf, math.inf])
    torch.testing.assert_close(kl.cpu(), want, rtol=LOSS[torch.float32], atol=0)
    (slope,) = grad(kl.sum(), s)
    assert torch.equal(slope, torch.where(s < 0, -torch.ones_like(s), s))
    z = pyvae.reparameterize(torch.ones_like(s), rho=s, seed=1)
    assert torch.equal(z[:3], torch.ones_like(z[:3]))


def test_the_prior_of_the_docstring_is_that_of_the_other_forms(device: str) -> None:
    """N(0, 0.1^2) and a posterior, each in the form of rho and of std."""
    rho = torch.linspace(-8, 3, 40, device=device).reshape(4, 10)
    mu, std = rho.sin(), torch.log1p(torch.exp(rho.double()))
    got = pyvae.kl_divergence(mu, rho=rho, prior=(0.0, math.log(math.expm1(0.1))))
    want = pyvae.kl_divergence(mu.double(), std=std, prior=(0.0, 0.1))
    assert_relative(got, want, LOSS)


def test_a_range_is_for_a_logvar(device: str) -> None:
    mu = torch.zeros(2, 3, device=device)
    with pytest.raises(ValueError, match="`logvar_range` must come with `logvar`, but came with `rho`"):
        pyvae.reparameterize(mu, rho=mu, logvar_range=(-3, 3))


def test_the_module_takes_it(device: str) -> None:
    x, mu, rho = (torch.rand(3, 4, device=device) for _ in range(3))
    options = {"rho": rho, "prior": (0.0, -2.0)}
    criterion = pyvae.ELBOLoss(likelihood="gaussian")
    assert torch.equal(criterion(x, x, mu, **options), pyvae.elbo_loss(x, x, mu, **options, likelihood="gaussian"))
    terms = criterion.terms(x, x, mu, **options)
    assert all_equal(terms, pyvae.elbo_terms(x, x, mu, **options, likelihood="gaussian"))
    assert_relative(terms.kl, pyvae.kl_divergence(mu.double(), rho=rho.double(), prior=(0.0, -2.0)).sum(), LOSS)
