"""Values at the ends of the number range, and of NaN and inf."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import truth
from calls import assert_sided
from cases import DTYPES, assert_relative, data
from families import PLAIN, SCALES, family, scaling
from tolerances import LOSS

import pyvae

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize("likelihood", PLAIN)
def test_the_whole_range_of_recon(likelihood: str, device: str) -> None:
    """One element a row, so that nothing hides behind a larger neighbor."""
    entry = family(likelihood)
    recon = entry.swept(torch.float32).to(device)
    for t, pos_weight in itertools.product(entry.sweep.targets, (None, 2.5) if entry.takes_pos_weight else (None,)):
        target = torch.full_like(recon, t)
        got = pyvae.reconstruction_loss(recon, target, likelihood=likelihood, pos_weight=pos_weight)
        value, unit = entry.at(*map(truth.exact, (recon, target)), pos_weight=pos_weight or 1.0)[0]
        assert_sided(got, (value.where(value <= torch.finfo(torch.float32).max, math.inf), unit), LOSS)


@pytest.mark.parametrize("likelihood", PLAIN)
def test_nan_and_inf_go_through(likelihood: str, device: str) -> None:
    """The loss of that sample, and of no other, is not finite."""
    bad = (math.nan,) if family(likelihood).probabilities else (math.nan, math.inf, -math.inf)
    for value, t, dtype in itertools.product(bad, family(likelihood).sweep.targets[:3], DTYPES):
        recon, target = data(likelihood, (3, 40), (dtype, dtype), device=device)
        want = pyvae.reconstruction_loss(recon, target, likelihood=likelihood)
        recon[1, 17], target[1, 17] = value, t
        got = pyvae.reconstruction_loss(recon, target, likelihood=likelihood)
        assert torch.equal(got[::2], want[::2])
        if likelihood == "bernoulli_logits" and (value, t) in ((math.inf, 1.0), (-math.inf, 0.0)):
            assert got[1].isfinite()  # a certainty that is right costs nothing
            continue
        assert not got[1].isfinite()
        if math.isnan(value):
            assert got[1].isnan()
        assert not pyvae.reconstruction_loss(recon, target, likelihood=likelihood, reduction="sum").isfinite()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_infinite_logits(dtype: torch.dtype, device: str) -> None:
    """On the target's side 0, with gradient 0, whatever pos_weight is; on the other inf, with the gradient's limit."""
    logits = torch.tensor([[math.inf], [-math.inf], [math.inf], [-math.inf]], dtype=dtype, device=device)
    target = torch.tensor([[1.0], [0.0], [0.0], [1.0]], device=device)
    for pos_weight in (None, 3.0):
        recon = logits.clone().requires_grad_()
        loss = pyvae.reconstruction_loss(recon, target, likelihood="bernoulli_logits", pos_weight=pos_weight)
        assert loss.tolist() == [0, 0, math.inf, math.inf]
        (gradient,) = torch.autograd.grad(loss.sum(), recon)
        assert gradient.flatten().tolist() == [0, 0, 1, -(pos_weight or 1.0)]
    half = pyvae.reconstruction_loss(logits[:2], target[:2] * 0 + 0.5, likelihood="bernoulli_logits")
    assert half.tolist() == [math.inf, math.inf]


@pytest.mark.parametrize("scale", SCALES)
def test_extreme_scale(scale: str, device: str) -> None:
    s = torch.tensor([*scaling(scale).extremes, math.nan], device=device)
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
    s = scaling(scale).near_prior(0.1).to(device, torch.float32)
    mu = torch.zeros_like(s)
    assert_relative(pyvae.kl_divergence(mu, **{scale: s}), truth.kl_divergence(scale, mu, s), LOSS)
    assert_relative(pyvae.reparameterize_kl(mu, **{scale: s}, seed=1)[1], truth.kl_divergence(scale, mu, s), LOSS)
