"""The Gaussian posterior in pure PyTorch: the specification of what csrc/math/gaussian.h computes on the devices.

Differentiable to every order by autograd. The scale comes in one of the forms of `SCALES`, the prior's in the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ._arguments import Posterior, Prior
from ._expect import scalar
from ._noise import exact_dtype

HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2  # of a normal density, which the losses leave out


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


class Form(NamedTuple):
    """What a form of the scale makes of its numbers."""

    sigma: Callable[[Tensor], Tensor]
    log_variance: Callable[[Tensor], Tensor]
    one: float  # where sigma is 1
    # sigma/p - 1, exact near 0. None of logarithms, whose difference is exact.
    excess: Callable[[Tensor, Tensor], Tensor] | None


def _softplus(rho: Tensor) -> Tensor:
    """log(1 + e^rho). Beyond 40 it is rho in every dtype. (F.softplus has other last bits where strides differ.)"""
    large = rho > 40
    return torch.where(large, rho, torch.log1p(torch.exp(torch.where(large, 0.0, rho))))


def _log_softplus(rho: Tensor) -> Tensor:
    """Below -40 it is rho in every dtype, also where softplus is 0."""
    small = rho < -40
    return torch.where(small, rho, torch.log(_softplus(torch.where(small, 0.0, rho))))


def _softplus_excess(rho: Tensor, prior: Tensor) -> Tensor:
    """With softplus(rho) - softplus(prior) = log(1 + sigmoid(prior) (e^(rho - prior) - 1)) where they are near."""
    p, difference = _softplus(prior), rho - prior
    near = difference.abs() < 1
    gap = torch.log1p(torch.sigmoid(prior) * torch.expm1(torch.where(near, difference, 0.0)))
    return torch.where(near, gap, _softplus(rho) - p) / p


# A row for each of `SCALES`.
FORMS = {
    "logvar": Form(lambda s: torch.exp(s / 2), lambda s: s, 0.0, None),
    "std": Form(lambda s: s, lambda s: 2 * torch.log(s), 1.0, lambda s, p: (s - p) / p),
    "logstd": Form(torch.exp, lambda s: 2 * s, 0.0, None),
    "rho": Form(_softplus, lambda s: 2 * _log_softplus(s), math.log(math.expm1(1.0)), _softplus_excess),
}


def sigma(posterior: Posterior) -> Tensor:
    return FORMS[posterior.kind].sigma(posterior.scale)


def in_compute_dtype(posterior: Posterior) -> Posterior:
    """One cast for all uses, so that gradients from the sample and from the KL add up before they are rounded."""
    mu, scale, kind, bounds, prior = posterior
    dtype = compute_dtype(mu, scale)
    scale = _legal(scale.to(dtype), kind)
    if bounds is not None:
        scale = _clamp(scale, *bounds)
    if prior is not None:
        prior = Prior(prior.mean.to(dtype), _legal(prior.scale.to(dtype), kind))
    return Posterior(mu.to(dtype), scale, kind, None, prior)


def _legal(scale: Tensor, kind: str) -> Tensor:
    """NaN for a standard deviation below 0, where it was not refused because values cannot be read."""
    return torch.where(scale < 0, torch.nan, scale) if kind == "std" else scale


def _clamp(scale: Tensor, low: Tensor | float | None, high: Tensor | float | None) -> Tensor:
    """torch.clamp, with one derivative in every version: 1 at the ends too, where torch has it so until 2.13 only. The
    bounds may be scalars on the CPU, as operators take them."""
    out, inside = scale.detach(), torch.ones_like(scale, dtype=torch.bool)
    for bound, within, outside in ((high, torch.le, torch.gt), (low, torch.ge, torch.lt)):
        if bound is not None:
            end = (bound if isinstance(bound, Tensor) else scalar(bound)).to(scale.dtype)
            out, inside = torch.where(outside(out, end), end, out), inside & within(scale, end)
    return torch.where(inside, scale, out)


def kl_elements(posterior: Posterior) -> Tensor:
    """The KL of each element, 1/2 (mu^2 + sigma^2 - 1 - log sigma^2), with sigma^2 - 1 = expm1(log sigma^2).

    Near sigma = 1 the last terms cancel to half the square of log sigma^2, and the gradient likewise. In float32 that
    would leave few correct digits; in float64, which a tensor as small as a posterior can afford, the error of
    the difference is 1e-16 |log sigma^2|, below float32's resolution of the result down to |log sigma^2| = 1e-9.

    Where e^logvar is too large for the compute dtype, the KL and its derivative are infinite, as in torch's
    kl_divergence of Normals. At logvar = inf that one is NaN, from inf - inf; here it is the limit, inf.
    """
    exact = exact_dtype(posterior.mu.device)
    mu, scale = posterior.mu.to(exact), posterior.scale.to(exact)
    form = FORMS[posterior.kind]
    if posterior.prior is not None:
        mean, prior_scale = (part.to(exact) for part in posterior.prior)
        return _kl_from_prior(mu, scale, mean, prior_scale, form)
    if form.excess is not None:
        standard = torch.zeros((), dtype=exact, device=scale.device)
        return _kl_from_prior(mu, scale, standard, standard + form.one, form)
    logvar = form.log_variance(scale)
    excess = torch.expm1(logvar)
    excess = excess * torch.where(excess > torch.finfo(posterior.scale.dtype).max, torch.inf, 1.0)
    return (mu * mu + (excess - logvar.clamp_max(torch.finfo(exact).max))) / 2


def _kl_from_prior(mu: Tensor, scale: Tensor, mean: Tensor, prior_scale: Tensor, form: Form) -> Tensor:
    """1/2 ((mu - mean)^2 / p^2 + expm1(d) - d) with d = log sigma^2 - log p^2.

    Near sigma = p it is exact where d itself is: as a difference of logarithms, or by log1p of sigma/p - 1.
    """
    if form.excess is None:
        d = form.log_variance(scale - prior_scale)
        spread = torch.expm1(d) - d
    else:
        excess = form.excess(scale, prior_scale)
        near = excess.abs() < 0.5  # elsewhere log1p would know nothing of a small scale; no branch may see the other's
        far = form.log_variance(torch.where(near, form.one, scale)) - form.log_variance(prior_scale)
        spread = excess * (excess + 2) - torch.where(near, 2 * torch.log1p(torch.where(near, excess, 0.0)), far)
    return (((mu - mean) / form.sigma(prior_scale)) ** 2 + spread) / 2
