"""Gradients without the score of q, made of the public functions: docs/recipes.md against the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from cases import assert_whole, generator, leaf, posterior
from torch import Tensor
from torch.autograd import grad
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import pyvae

pytestmark = pytest.mark.usefixtures("backend")
B, L, K, S = 6, 5, 4, 7


def components() -> tuple[Tensor, Tensor, Tensor]:
    draw = generator(9)
    mean, logvar, logits = (torch.randn(n, generator=draw, dtype=torch.float64) for n in ((K, L), (K, L), (K,)))
    return leaf(mean), leaf(logvar / 2), leaf(logits)


def noise() -> Tensor:
    zeros = torch.zeros(B, L, dtype=torch.float64)
    return pyvae.reparameterize(zeros, zeros, samples=S, seed=5)


def log_prior(z: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor) -> Tensor:
    parts = Independent(Normal(mean, torch.exp(logvar / 2)), 1)
    return MixtureSameFamily(Categorical(logits=logits), parts).log_prob(z)


def test_sticking_the_landing() -> None:
    """Roeder et al. 2017: of log q - log p only what comes by z, (d log q / dz - d log p / dz) dz."""
    mu, logvar = (leaf(x) for x in posterior("logvar", (B, L), torch.float64))
    parts = components()
    prior = pyvae.Mixture(*parts[:2], logits=parts[2])
    z = pyvae.reparameterize(mu, logvar, samples=S, seed=5)
    kl = pyvae.gaussian_log_prob(z, mu.detach(), logvar.detach()) - pyvae.mixture_log_prob(z, prior)
    usual = pyvae.reparameterize_kl(mu, logvar, prior=prior, samples=S, seed=5)[1]
    assert_whole(kl.mean(0), usual, 1e-12)  # the same value
    slopes = grad(kl.mean(0).sum(), (mu, logvar, *parts))

    sigma = torch.exp(logvar.detach() / 2)
    at = leaf(mu.detach() + sigma * noise())
    by_prior = grad(log_prior(at, *parts).sum() / S, (at, *parts))
    by_z = -noise() / sigma / S - by_prior[0]
    formulas = (by_z.sum(0), (by_z * sigma * noise() / 2).sum(0), *(-x for x in by_prior[1:]))
    for got, want in zip(slopes, formulas, strict=True):
        assert_whole(got, want, 1e-10)
    # Without bias: the score that is left out has the mean 0.
    score = grad(usual.sum(), (mu, logvar))
    expected = noise() / sigma / S, (noise() ** 2 - 1) / 2 / S
    for left_out, whole, path in zip(expected, score, slopes[:2], strict=True):
        assert_whole(whole - path, left_out.sum(0), 1e-9)


def test_it_sticks() -> None:
    """Where the posterior is the prior, each sample's gradient is 0; with the score it is 0 in the mean alone."""
    mu, logvar = (leaf(x) for x in posterior("logvar", (B, L), torch.float64))
    prior = pyvae.Mixture(mu.detach()[:, None], logvar.detach()[:, None])
    z = pyvae.reparameterize(mu, logvar, seed=5)
    kl = pyvae.gaussian_log_prob(z, mu.detach(), logvar.detach()) - pyvae.mixture_log_prob(z, prior)
    assert all(x.abs().max() < 1e-12 for x in grad(kl.sum(), (mu, logvar)))
    usual = pyvae.reparameterize_kl(mu, logvar, prior=prior, seed=5)[1]
    assert all(x.abs().max() > 0.1 for x in grad(usual.sum(), (mu, logvar)))


def test_doubly_reparameterized() -> None:
    """Tucker et al. 2019: of the importance-weighted bound, with normalized weights w, by the posterior
    sum_s w_s^2 d log w_s / dz dz, and by all else sum_s w_s d log w_s."""
    mu, logvar = (leaf(x) for x in posterior("logvar", (B, L), torch.float64))
    parts, decoder = components(), leaf(torch.randn(L, 3, generator=generator(1), dtype=torch.float64))
    x = torch.rand(B, 3, generator=generator(2), dtype=torch.float64)
    prior = pyvae.Mixture(*parts[:2], logits=parts[2])

    z = pyvae.reparameterize(mu, logvar, samples=S, seed=5)
    log_weight = pyvae.mixture_log_prob(z, prior) - pyvae.gaussian_log_prob(z, mu.detach(), logvar.detach())
    log_weight = log_weight - pyvae.reconstruction_loss(z @ decoder, x, likelihood="gaussian")
    share = torch.softmax(log_weight.detach(), 0)
    z.register_hook(lambda slope: share[..., None] * slope)
    slopes = grad(-(share * log_weight).sum(), (mu, logvar, decoder, *parts))

    sigma = torch.exp(logvar.detach() / 2)
    at = leaf(mu.detach() + sigma * noise())
    known = Independent(Normal(at @ decoder, torch.ones((), dtype=torch.float64)), 1).log_prob(x)
    known = known + 3 * math.log(2 * math.pi) / 2 + log_prior(at, *parts)
    weights = known - Independent(Normal(mu.detach(), sigma), 1).log_prob(at)
    assert_whole(log_weight, weights, 1e-10)
    w = torch.softmax(weights.detach(), 0)
    by_z = -(w**2)[..., None] * grad(weights.sum(), at, retain_graph=True)[0]
    want = (by_z.sum(0), (by_z * sigma * noise() / 2).sum(0), *grad(-(w * weights).sum(), (decoder, *parts)))
    for got, right in zip(slopes, want, strict=True):
        assert_whole(got, right, 1e-9)
