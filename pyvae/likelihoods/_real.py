"""Likelihoods of real numbers: Gaussian and Laplace, of unit scale or with one of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._noise import exact_dtype
from .._objects import Object
from ._member import Likelihood, Resolved


def _gaussian(mean: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """1/2 (t - mean)^2: unit variance, without the constant 1/2 log(2 pi)."""
    difference = mean - t
    return difference * (difference / 2)


def _gaussian_logvar(mean: Tensor, t: Tensor, _: Tensor | float, logvar: Tensor) -> Tensor:
    """1/2 (t - mean)^2 e^-logvar + 1/2 logvar, in float64: without the constant 1/2 log(2 pi)."""
    exact = exact_dtype(mean.device)
    logvar = logvar.to(exact)
    residual = _times_exp((mean - t).to(exact), -logvar / 2)
    return ((residual * residual + logvar) / 2).to(mean.dtype)


GAUSSIAN = Likelihood("gaussian", _gaussian)
GAUSSIAN_LOGVAR = Likelihood("gaussian_logvar", _gaussian_logvar, ("logvar",))


@dataclass(frozen=True, eq=False, repr=False)
class Gaussian(Object):
    """N(recon, e^logvar): 1/2 (target - recon)^2 e^-logvar + 1/2 logvar, without the constant 1/2 log(2 pi).

    Args:
        logvar: log of the observation noise's variance, broadcastable to recon, or a number; None is 0, the likelihood
            "gaussian".

    Example:
        >>> import torch, pyvae
        >>> noise = pyvae.Gaussian(logvar=torch.zeros(8, requires_grad=True))
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=noise).item()
        8.0
    """

    __module__ = "pyvae.likelihoods"  # where pickles find it
    _members = (GAUSSIAN, GAUSSIAN_LOGVAR)

    logvar: Tensor | float | None = None

    @property
    def resolved(self) -> Resolved:
        return Resolved(GAUSSIAN.name) if self.logvar is None else Resolved(GAUSSIAN_LOGVAR.name, (self.logvar,))


def _laplace(median: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """|t - median|: unit scale, without the constant log 2. The derivative at 0 is 0."""
    return _absolute(median - t)


def _laplace_logscale(median: Tensor, t: Tensor, _: Tensor | float, logscale: Tensor) -> Tensor:
    """|t - median| e^-logscale + logscale, in float64: without the constant log 2."""
    exact = exact_dtype(median.device)
    logscale, difference = logscale.to(exact), (median - t).to(exact)
    # Where they meet, both slopes are 0: of any scale, so that none is 0 times infinity.
    power = torch.where((difference == 0) & ~logscale.isnan(), 0.0, -logscale)
    return (_times_exp(_absolute(difference), power) + logscale).to(median.dtype)


LAPLACE = Likelihood("laplace", _laplace)
LAPLACE_LOGSCALE = Likelihood("laplace_logscale", _laplace_logscale, ("logscale",))


@dataclass(frozen=True, eq=False, repr=False)
class Laplace(Object):
    """Laplace(recon, e^logscale): `|target - recon| e^-logscale + logscale`, without the constant log 2.

    Args:
        logscale: log of the scale, broadcastable to recon, or a number; None is 0, the likelihood "laplace".

    Example:
        >>> import torch, pyvae
        >>> likelihood = pyvae.Laplace(logscale=torch.zeros(()))
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=likelihood).item()
        16.0
    """

    __module__ = "pyvae.likelihoods"  # where pickles find it
    _members = (LAPLACE, LAPLACE_LOGSCALE)

    logscale: Tensor | float | None = None

    @property
    def resolved(self) -> Resolved:
        return Resolved(LAPLACE.name) if self.logscale is None else Resolved(LAPLACE_LOGSCALE.name, (self.logscale,))


def _absolute(difference: Tensor) -> Tensor:
    """|difference|, whose derivative is 0 at 0 and NaN of NaN: of torch's it is 0 there, which would hide the NaN."""
    return difference * torch.where(difference.isnan(), difference, torch.sign(difference))


def _times_exp(x: Tensor, power: Tensor) -> Tensor:
    """x e^power by four factors, none of which is infinite or 0: the product is so only where it has to be."""
    limit = 4 * math.log(torch.finfo(power.dtype).max) - 4
    within = power.clamp(-limit, limit).detach()
    moved = torch.where(power.isinf(), 0.0, power)
    factor = torch.exp((within + (moved - moved.detach())) / 4)  # of value `within`, and with the slope of `power`
    return x * factor * factor * factor * factor
