"""The log densities in pure PyTorch, part of the specification: see reference.py.

Differentiable to every order by autograd. They are computed in float64 where an argument is, else in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import _latent_checks, _mixture_checks
from ._arguments import DensityReduction, LatentArguments, Posterior
from ._mixture_checks import Components, Mixture
from ._posterior import FORMS, HALF_LOG_TWO_PI, compute_dtype, in_compute_dtype


def gaussian_log_prob(
    z: Tensor,
    mu: Tensor,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    rho: Tensor | None = None,
    logvar_range: tuple[float | None, float | None] | None = None,
    reduction: DensityReduction = "none",
) -> Tensor:
    """log N(z; mu, sigma^2) in nats, summed over the features or not; see `pyvae.gaussian_log_prob`."""
    call = LatentArguments(mu, logvar, std, logstd, rho, logvar_range)
    posterior = _mixture_checks.gaussian("gaussian_log_prob", z, call, reduction)
    return gaussian("gaussian_log_prob", z, posterior, reduction)


def mixture_log_prob(z: Tensor, mixture: Mixture, *, reduction: DensityReduction = "none") -> Tensor:
    """log sum_k pi_k N(z; m_k, s_k^2) in nats, of all dimensions or of each; see `pyvae.mixture_log_prob`."""
    components = _mixture_checks.mixture("mixture_log_prob", z, mixture, reduction)
    return under_mixture("mixture_log_prob", z, components, reduction)


def gaussian(function: str, z: Tensor, posterior: Posterior, reduction: str) -> Tensor:
    """The density of a checked call of the public `function`."""
    _latent_checks.data(function, posterior)
    dtype = compute_dtype(z, posterior.mu, posterior.scale)
    given = in_compute_dtype(posterior._replace(mu=posterior.mu.to(dtype)))
    out = _log_density(z.to(dtype), given.mu, given.scale, given.kind)
    first = z.ndim - posterior.mu.ndim + 1  # of the features
    return out if reduction == "elements" or first == z.ndim else out.sum(tuple(range(first, z.ndim)))


def under_mixture(function: str, z: Tensor, given: Components, reduction: str) -> Tensor:
    """The density of a checked call of the public `function`. Memory: all terms, which the kernels never have."""
    given.check_data(function)
    mean, logits = given.posterior.mu, given.logits
    dtype = compute_dtype(z, mean, given.posterior.scale, *(() if logits is None else (logits,)))
    components = in_compute_dtype(given.posterior._replace(mu=mean.to(dtype)))
    mean, scale, kind = components[:3]
    weights: Tensor | float = -math.log(mean.shape[-2])
    if logits is not None:
        weights = torch.log_softmax(logits.to(dtype), -1)
        # A component of weight 0 has no part in anything, whatever its numbers are: 0 times what they make may be NaN.
        absent = (weights == -math.inf)[..., None]
        mean, scale = torch.where(absent, 0.0, mean), torch.where(absent, FORMS[kind].one, scale)
    terms = _log_density(z.to(dtype)[..., None, :], mean, scale, kind)  # [..., B, K, L]
    if reduction == "elements":
        return _log_sum_exp(terms + (weights[..., None] if isinstance(weights, Tensor) else weights), -2)
    return _log_sum_exp(terms.sum(-1) + weights, -1)


def _log_density(z: Tensor, mean: Tensor, scale: Tensor, kind: str) -> Tensor:
    form = FORMS[kind]
    y = (z - mean) / form.sigma(scale)
    return -(y * y) / 2 - form.log_variance(scale) / 2 - HALF_LOG_TWO_PI


def _log_sum_exp(terms: Tensor, dim: int) -> Tensor:
    """Of terms relative to the largest, by whose sum its slopes divide: torch's are e^(term - result), and of a result
    far below 0 the logarithm of a small sum is lost."""
    top = terms.detach().amax(dim, keepdim=True)
    base = torch.where(top == -math.inf, 0.0, top)
    return base.squeeze(dim) + torch.log(torch.exp(terms - base).sum(dim))
