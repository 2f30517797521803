"""pyvae.distributions.of: a torch distribution of what elbo_loss took, of every likelihood."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributions as torch_distributions
from cases import assert_whole, leaf
from torch import Tensor
from torch.autograd import grad

import pyvae
from pyvae.distributions import of

pytestmark = pytest.mark.usefixtures("kernels")


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


RECON, WIDE = draw(5, 7), draw(7)
LIBRARY = draw(5) + 2
MEAN = torch.exp(LIBRARY[:, None]) * torch.softmax(RECON, 1)


def nb(mean: Tensor, theta: Any) -> torch_distributions.Distribution:
    return torch_distributions.NegativeBinomial(torch.as_tensor(theta), logits=torch.log(mean / theta))


# Likelihood, recon, and what it is in torch's words.
CASES: dict[str, tuple[Any, Tensor, torch_distributions.Distribution]] = {
    "bernoulli": ("bernoulli", torch.sigmoid(RECON), torch_distributions.Bernoulli(logits=RECON)),
    "bernoulli_logits": ("bernoulli_logits", RECON, torch_distributions.Bernoulli(logits=RECON)),
    "continuous": ("continuous_bernoulli_logits", RECON, torch_distributions.ContinuousBernoulli(logits=RECON)),
    "gaussian": ("gaussian", RECON, torch_distributions.Normal(RECON, 1.0)),
    "Gaussian": (pyvae.Gaussian(WIDE), RECON, torch_distributions.Normal(RECON, torch.exp(WIDE / 2))),
    "Gaussian, a number": (pyvae.Gaussian(0.4), RECON, torch_distributions.Normal(RECON, math.exp(0.2))),
    "laplace": ("laplace", RECON, torch_distributions.Laplace(RECON, 1.0)),
    "Laplace": (pyvae.Laplace(WIDE), RECON, torch_distributions.Laplace(RECON, torch.exp(WIDE))),
    "poisson": ("poisson", RECON, torch_distributions.Poisson(torch.exp(RECON))),
    "Poisson, scores": (pyvae.Poisson(LIBRARY), RECON, torch_distributions.Poisson(MEAN)),
    "Poisson, means": (pyvae.Poisson(link="identity"), MEAN, torch_distributions.Poisson(MEAN)),
    "negative binomial": (pyvae.NegativeBinomial(WIDE), RECON, nb(torch.exp(RECON), torch.exp(WIDE))),
    "negative binomial, scores": (pyvae.NegativeBinomial(WIDE, LIBRARY), RECON, nb(MEAN, torch.exp(WIDE))),
    "negative binomial, means": (
        pyvae.NegativeBinomial(theta=2.0, link="identity"), MEAN, nb(MEAN, 2.0)),
}  # fmt: skip
BY_TORCH = {"float64": (torch.float64, 1e-10), "float32": (torch.float32, 2e-5)}


def values(truth: torch_distributions.Distribution) -> Tensor:
    torch.manual_seed(1)
    return truth.sample((3,))


@pytest.mark.parametrize("dtype, bound", BY_TORCH.values(), ids=BY_TORCH)
@pytest.mark.parametrize("name", CASES)
def test_log_prob_is_torchs(name: str, dtype: torch.dtype, bound: float) -> None:
    """Constants included; of samples, too; and its gradient."""
    likelihood, recon, truth = CASES[name]
    x = values(truth)
    own = leaf(recon.to(dtype))
    made = of(likelihood, own)
    assert made.batch_shape == truth.batch_shape and isinstance(made, torch_distributions.Distribution)
    assert_whole(made.log_prob(x.to(dtype)), truth.log_prob(x), bound)
    assert_whole(made.expand((3, 5, 7)).log_prob(x.to(dtype)), truth.log_prob(x), bound)
    loss = pyvae.reconstruction_loss(own, x[0].to(dtype), likelihood=likelihood, reduction="sum")
    slopes = [grad(total, own)[0] for total in (-made.log_prob(x[0].to(dtype)).sum(), loss)]
    assert_whole(slopes[0], slopes[1], bound)


@pytest.mark.parametrize("name", CASES)
def test_moments_and_samples(name: str) -> None:
    likelihood, recon, truth = CASES[name]
    made = of(likelihood, recon)
    assert_whole(made.mean, truth.mean, 1e-9)
    assert_whole(made.variance, truth.variance, 1e-9)
    torch.manual_seed(0)
    draws = made.sample((20000,))
    assert draws.shape == (20000, 5, 7)
    assert ((draws.mean(0) - truth.mean).abs() < 6 * (truth.variance / 20000).sqrt() + 1e-3).all()
    assert torch_distributions.Independent(made, 1).log_prob(draws[:2]).shape == (2, 5)


def test_zero_inflated() -> None:
    like = pyvae.ZeroInflatedNegativeBinomial(theta=2.0, zi_logits=WIDE, log_library=LIBRARY)
    made, n = of(like, RECON), nb(MEAN, 2.0)
    x = values(n)
    more = torch.nn.functional.logsigmoid(-WIDE) + n.log_prob(x)
    truth = torch.where(x == 0, torch.logaddexp(torch.nn.functional.logsigmoid(WIDE), more), more)
    assert_whole(made.log_prob(x), truth, 1e-10)
    assert_whole(made.mean, MEAN * torch.sigmoid(-WIDE), 1e-10)


def test_gray_targets() -> None:
    """For which torch's Bernoulli has no log_prob."""
    gray = torch.rand(5, 7, dtype=torch.float64)
    truth = -torch.nn.functional.binary_cross_entropy_with_logits(RECON, gray, reduction="none")
    for likelihood, recon in (("bernoulli_logits", RECON), ("bernoulli", torch.sigmoid(RECON))):
        assert_whole(of(likelihood, recon).log_prob(gray), truth, 1e-10)
        with pytest.raises(ValueError, match="support"):
            of(likelihood, recon, validate_args=True).log_prob(gray + 1)


def test_multinomial() -> None:
    """Each row of a total of its own, 0 included; several samples at once; features of several dimensions."""
    torch.manual_seed(0)
    totals = torch.tensor([0, 1, 9, 400, 70000])
    made = of("multinomial", RECON, total_count=totals, validate_args=True)
    x = made.sample((2,))
    assert x.shape == (2, 5, 7) and torch.equal(x.sum(-1), totals.double().expand(2, 5))
    truth = torch.stack(
        [torch_distributions.Multinomial(int(n), logits=RECON[i]).log_prob(x[:, i]) for i, n in enumerate(totals)], 1
    )
    assert_whole(made.log_prob(x), truth, 1e-9)
    assert_whole(made.expand((2, 5)).log_prob(x), truth, 1e-9)
    assert_whole(made.mean, totals[:, None] * torch.softmax(RECON, 1), 1e-10)
    error = (made.variance[4] / 70000 / 2).sqrt() * 6
    assert ((x[:, 4].mean(0) - made.mean[4]).abs() <= error * 70000**0.5).all()
    assert torch.equal(of("multinomial", RECON).sample(total_count=3).sum(1), torch.full((5,), 3.0).double())
    assert of("multinomial", RECON).log_prob(x[0].int()).shape == (5,)
    images = of("multinomial", draw(3, 2, 4), total_count=5)
    assert images.batch_shape == (3,) and images.event_shape == (2, 4) and images.sample((6,)).shape == (6, 3, 2, 4)
    assert_whole(images.probs.sum((1, 2)), torch.ones(3), 1e-12)
    assert "Multinomial" in repr(made) and isinstance(made, torch_distributions.Distribution)
    with pytest.raises(ValueError, match="support"):
        made.log_prob(-1 - x)


def test_multinomial_keeps_digits() -> None:
    """Of large counts, whose two parts cancel: computed in float64 whatever the type."""
    logits, x = draw(2, 50).float(), torch.poisson(draw(2, 50).exp() * 1e5)
    truth = of("multinomial", logits.double()).log_prob(x)
    assert_whole(of("multinomial", logits).log_prob(x.float()), truth, 1e-6)


def test_continuous_bernoulli_far_from_0() -> None:
    """Where torch's probabilities have ended: e^(x t) with |x| large is all but an exponential distribution."""
    logits = torch.tensor([[-300.0, -50.0, -1e-4, 0.0, 1e-4, 3.0, 50.0, 300.0]])
    made = of("continuous_bernoulli_logits", logits)
    exact = torch.tensor([[1 / 300, 0.02, 0.49999167, 0.5, 0.50000833, 0.71906236, 0.98, 1 - 1 / 300]])
    torch.testing.assert_close(made.mean, exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(made.variance[0, [0, 1, 6]], torch.tensor([1 / 300, 0.02, 0.02]) ** 2, rtol=1e-5, atol=0)
    torch.manual_seed(0)
    draws = made.sample((50000,)).double()
    assert ((draws.mean(0) - made.mean).abs() < 6 * (made.variance / 50000).sqrt()).all()
    assert ((draws.var(0) / made.variance - 1).abs() < 0.05).all() and draws.min() >= 0 and draws.max() <= 1


def test_empty_batches() -> None:
    words = of("multinomial", torch.ones(0, 3), total_count=4)
    assert words.sample((2,)).shape == (2, 0, 3) and words.log_prob(torch.ones(0, 3)).shape == (0,)
    scores = of(pyvae.NegativeBinomial(0.0, torch.zeros(0)), torch.zeros(0, 2))
    assert scores.sample().shape == scores.log_prob(torch.zeros(0, 2)).shape == (0, 2)


@pytest.mark.parametrize(
    "total, error, words",
    [
        (-2, ValueError, "whole numbers >= 0"),
        (2.5, TypeError, "must be a whole number or a Tensor of them, but is a float"),
        (torch.tensor([1.5, 1, 1, 1]), ValueError, "whole numbers >= 0"),
        (torch.ones(3), ValueError, r"must have shape \(4,\), but has shape \(3,\)"),
        ("x", TypeError, "but is a str"),
    ],
    ids=str,
)
def test_totals_are_whole(total: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"Multinomial: `total_count` .*{words}"):
        of("multinomial", torch.ones(4, 3), total_count=total).sample()
