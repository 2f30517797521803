"""The KL divergence from a mixture, which has no closed form: estimated from the samples that a call draws anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from . import _latent_checks, _mixture_checks
from ._arguments import LatentArguments
from ._mixture_checks import Mixture
from ._posterior import FORMS, in_compute_dtype

HALF_LOG_TWO_PI = 0.91893853320467274178


class Functions(NamedTuple):
    """The kernels' or the reference's."""

    reparameterize: Callable[..., Tensor]
    gaussian_log_prob: Callable[..., Tensor]
    mixture_log_prob: Callable[..., Tensor]


def sample_and_estimate(functions: Functions, given: LatentArguments) -> tuple[Tensor, Tensor]:
    """z of `reparameterize_kl`, and the mean over its samples of log q(z|x) - log p(z), shape (B,)."""
    name, prior = "reparameterize_kl", given.prior
    assert isinstance(prior, Mixture)
    call, posterior = _latent_checks.call(name, given._replace(prior=None))
    _latent_checks.data(name, posterior)
    if posterior.mu.ndim != 2:
        raise ValueError(
            f"{name}: `mu` must have shape (B, L) for a prior that is a mixture over vectors, but has shape "
            f"{tuple(posterior.mu.shape)}; features of more dimensions go with `.flatten(1)`"
        )
    _mixture_checks.mixture(name, posterior.mu, prior, "none", "mu")
    # In the compute dtype, so that both densities are those of z before it is rounded to 16 bits.
    mu, scale, kind, *_ = in_compute_dtype(posterior)
    source = {"eps": call.eps, "seed": call.seed, "row_offset": call.row_offset, "generator": call.generator}
    z = functions.reparameterize(mu, **{kind: scale}, samples=call.samples, **source)
    log_sigma = FORMS[kind].log_variance(scale).sum(1) / 2
    if call.eps is not None:
        eps = call.eps.to(mu.dtype)
        log_q = -(eps * eps).sum(-1) / 2 - mu.shape[1] * HALF_LOG_TWO_PI - log_sigma
    else:
        # log q(z|x) = -1/2 eps^2 - log sigma + a constant: by mu and through z it has no slope. Of its parts autograd
        # would subtract (z - mu) / sigma^2 from itself.
        log_q = functions.gaussian_log_prob(z.detach(), mu.detach(), **{kind: scale.detach()})
        log_q = log_q - (log_sigma - log_sigma.detach())
    kl = log_q - functions.mixture_log_prob(z, prior)
    z = z.to(torch.promote_types(posterior.mu.dtype, posterior.scale.dtype))
    return z, kl if call.samples is None else kl.mean(0)
