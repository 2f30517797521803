"""Values at the ends of the number range, and of NaN and inf."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
import truth
from cases import DTYPES, LIKELIHOODS, SCALES, assert_relative, data
from tolerances import LOSS

import pyvae

pytestmark = pytest.mark.usefixtures("backend")

EXTREME = {
    "bernoulli": (0.0, 1.0, 1e-45, 1e-38, 1e-12, 1 - 2**-24, 2**-24, 0.5),
    "bernoulli_logits": (1e4, -1e4, 88.0, -88.0, 103.9, -103.9, 1e-45, -1e-45, 0.0, -0.0, 1e38, -1e38),
    "gaussian": (1e4, -1e4, 1e-19, 0.0, 1e-45, 1e18),
}


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_extreme_recon(likelihood: str, device: str) -> None:
    """One element a row, so that nothing hides behind a larger neighbor."""
    targets = (0.0, 1.0, 0.5, 1e-3)
    recon = torch.tensor(EXTREME[likelihood]).repeat_interleave(len(targets)).to(device)
    target = torch.tensor(targets).repeat(len(EXTREME[likelihood])).to(device)
    got = pyvae.reconstruction_loss(recon, target, likelihood=likelihood)
    want = truth.reconstruction(likelihood, recon, target)
    normal = torch.finfo(torch.float32).tiny  # below it float32 has fewer bits than the relative bound speaks of
    kept = want.abs() >= normal
    assert_relative(got.cpu()[kept], want[kept], LOSS)
    assert (got.cpu()[~kept].abs() <= 2 * normal).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_nan_and_inf_go_through(likelihood: str, device: str) -> None:
    """The loss of that sample, and of no other, is not finite, as with torch's own losses."""
    bad = (math.nan,) if likelihood == "bernoulli" else (math.nan, math.inf, -math.inf)
    for value, t, dtype in itertools.product(bad, (0.0, 1.0, 0.5), DTYPES):
        recon, target = data(likelihood, (3, 40), (dtype, dtype), device=device)
        want = pyvae.reconstruction_loss(recon, target, likelihood=likelihood)
        recon[1, 17], target[1, 17] = value, t
        got = pyvae.reconstruction_loss(recon, target, likelihood=likelihood)
        assert torch.equal(got[::2], want[::2])
        assert not got[1].isfinite()
        if math.isnan(value):
            assert got[1].isnan()
        if likelihood == "bernoulli_logits":
            assert not F.binary_cross_entropy_with_logits(recon, target, reduction="sum").isfinite()
        assert not pyvae.reconstruction_loss(recon, target, likelihood=likelihood, reduction="sum").isfinite()


EXTREME_SCALE = {
    "logvar": (-80.0, 80.0, -1e4, 88.0, 1e3, -math.inf, math.nan, 1e-45),
    "std": (0.0, 1e-30, 1e-45, 1e18, 1e30, math.nan),
    "logstd": (-40.0, 40.0, -1e4, 44.0, 1e3, -math.inf, math.nan),
}


@pytest.mark.parametrize("scale", SCALES)
def test_extreme_scale(scale: str, device: str) -> None:
    s = torch.tensor(EXTREME_SCALE[scale], device=device)
    mu = torch.full_like(s, 0.75)
    want = truth.kl_divergence(scale, mu, s)
    want[want > torch.finfo(torch.float32).max] = math.inf
    assert_relative(pyvae.kl_divergence(mu, **{scale: s}), want, LOSS)
    assert_relative(pyvae.reparameterize_kl(mu, **{scale: s}, seed=1)[1], want, LOSS)
    # At +inf the terms are inf - inf: NaN as in torch, or the limit.
    assert not pyvae.kl_divergence(mu, **{scale: torch.full_like(s, math.inf)}).isfinite().any()


@pytest.mark.parametrize("scale", SCALES)
def test_kl_near_the_prior(scale: str, device: str) -> None:
    """The bound is relative to a KL that goes to 0 with its posterior: expm1(x) - x alone would cancel."""
    steps = torch.logspace(-7, -1, 121, dtype=torch.float64)
    s = torch.cat([-steps, torch.zeros(1), steps])
    s = (1 + s if scale == "std" else s).to(device, torch.float32)
    mu = torch.zeros_like(s)
    assert_relative(pyvae.kl_divergence(mu, **{scale: s}), truth.kl_divergence(scale, mu, s), LOSS)
    assert_relative(pyvae.reparameterize_kl(mu, **{scale: s}, seed=1)[1], truth.kl_divergence(scale, mu, s), LOSS)
