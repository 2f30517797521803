"""The KL divergence from a mixture, which has no closed form: estimated from the samples that a call draws anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _latent_checks, _mixture_checks, _sharding
from ._arguments import LatentArguments
from ._mixture_checks import Mixture
from ._noise import seed_tensor
from ._posterior import FORMS, HALF_LOG_TWO_PI, in_compute_dtype


class Functions(NamedTuple):
    """The kernels' or the reference's."""

    reparameterize: Callable[..., Tensor]
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
    _mixture_checks.mixture(name, posterior.mu, prior, "none", "mu", "prior").check_data(name)
    # In the compute dtype, so that both densities are those of z before it is rounded to 16 bits.
    mu, scale, kind, *_ = in_compute_dtype(posterior)
    source: dict[str, Any] = {"eps": call.eps, "samples": call.samples}
    if call.eps is None:
        seed = call.seed
        if seed is None and not _sharding.among(mu, scale):  # of DTensors each process draws one for its own rows
            seed = seed_tensor(None, call.generator, mu.device)
        generator = call.generator if seed is None else None
        source |= {"seed": seed, "row_offset": call.row_offset, "generator": generator}
    z = functions.reparameterize(mu, **{kind: scale}, **source)
    # log q(z|x) = -1/2 eps^2 - log sigma + a constant, by the noise itself: of a z that is near mu (z - mu) / sigma has
    # no digits, and its gradients by mu, directly and through z, are each other's opposite.
    if call.eps is not None:
        eps = call.eps.to(mu.dtype)
    elif source["seed"] is not None:
        with torch.no_grad():
            eps = functions.reparameterize(torch.zeros_like(mu), std=torch.ones_like(mu), **source)
    else:
        eps = ((z - mu) / FORMS[kind].sigma(scale)).detach()
    log_sigma = FORMS[kind].log_variance(scale).sum(1) / 2
    log_q = -(eps * eps).sum(-1) / 2 - mu.shape[1] * HALF_LOG_TWO_PI - log_sigma
    kl = log_q - functions.mixture_log_prob(z, prior)
    z = z.to(torch.promote_types(posterior.mu.dtype, posterior.scale.dtype))
    return z, kl if call.samples is None else kl.mean(0)
