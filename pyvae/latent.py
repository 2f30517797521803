"""Encoder side: the sample, its noise, and the KL divergence, each in one fused kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _route, reference
from ._arguments import LatentArguments
from ._extension import _C
from ._noise import seed_tensor


def reparameterize(
    mu: Tensor,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    eps: Tensor | None = None,
    seed: int | Tensor | None = None,
    row_offset: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A sample z = mu + sigma * eps of the posterior N(mu, sigma^2), through which gradients pass.

    The noise eps ~ N(0, 1) is a function of (seed, element): it is never stored, the backward pass draws it again. One
    seed gives the same sample, bit for bit, on any number of threads and any CPU, and in any split of the batch.

    Args:
        mu: posterior mean, shape (B, ...), floating.
        logvar: log sigma^2, or
        std: sigma, or
        logstd: log sigma; exactly one of the three, in mu's shape.
        eps: use this noise instead, in mu's shape; differentiable.
        seed: 64 bits as an int or an int64 tensor of one element on mu's device. Without it the seed is drawn from
            `generator`, or torch's default one: `torch.manual_seed` repeats it, and two calls differ.
        row_offset: index of mu's first row in a larger batch, so that parts drawn apart equal the whole.
        generator: a torch.Generator on mu's device.

    Returns:
        z, shape of mu, dtype `torch.promote_types(mu.dtype, scale.dtype)`. 16-bit inputs are computed in float32.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source:
        Kingma & Welling, "Auto-encoding variational Bayes" (2014), section 2.4. Philox4x32-10: Salmon et al., "Parallel
        random numbers: as easy as 1, 2, 3" (2011).

    Example:
        >>> import torch, pyvae
        >>> mu, logvar = torch.zeros(4, 2), torch.zeros(4, 2)
        >>> whole = pyvae.reparameterize(mu, logvar, seed=7)
        >>> half = pyvae.reparameterize(mu[2:], logvar[2:], seed=7, row_offset=2)
        >>> torch.equal(whole[2:], half)
        True
    """
    return _reparameterize("reparameterize", False, mu, logvar, std, logstd, eps, seed, row_offset, generator)


def reparameterize_kl(
    mu: Tensor,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    eps: Tensor | None = None,
    seed: int | Tensor | None = None,
    row_offset: int = 0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """A sample of the posterior and its KL divergence from the prior, in one pass.

    Args:
        mu, logvar, std, logstd, eps, seed, row_offset, generator: as for `reparameterize`.

    Returns:
        (z, kl): z as from `reparameterize`; kl as from `kl_divergence`, shape (B,), nats, float32 (float64 for float64
        inputs).

    Raises:
        TypeError, ValueError: as `reparameterize`.

    Source:
        Kingma & Welling, "Auto-encoding variational Bayes" (2014), section 2.4 and appendix B.

    Example:
        >>> import torch, pyvae
        >>> z, kl = pyvae.reparameterize_kl(torch.ones(3, 2), torch.zeros(3, 2))
        >>> z.shape, kl
        (torch.Size([3, 2]), tensor([1., 1., 1.]))
    """
    return _reparameterize("reparameterize_kl", True, mu, logvar, std, logstd, eps, seed, row_offset, generator)


def kl_divergence(
    mu: Tensor,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, I)) = 1/2 sum(mu^2 + sigma^2 - 1 - log sigma^2), summed over the features.

    Computed as mu^2 + (expm1(logvar) - logvar), which stays exact where the posterior is near the prior.

    Args:
        mu: posterior mean, shape (B, ...).
        logvar, std, logstd: log sigma^2, sigma or log sigma; exactly one, in mu's shape.
        reduction: "none", shape (B,); "sum" over the batch; "batchmean", the mean over the batch.

    Returns:
        The divergence in nats, float32 (float64 for float64 inputs).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came. "mean" is refused.

    Source:
        Kingma & Welling, "Auto-encoding variational Bayes" (2014), appendix B.

    Example:
        >>> import torch, pyvae
        >>> pyvae.kl_divergence(torch.ones(2, 4), torch.zeros(2, 4))
        tensor([2., 2.])
    """
    if _route.direct():
        out = _C.kl_divergence(mu, logvar, std, logstd, reduction)
        if out is not None:
            return out
    posterior = _checks.posterior("kl_divergence", mu, logvar, std, logstd)
    _checks.reduction("kl_divergence", reduction)
    if not _route.operators(posterior.mu, posterior.scale):
        return reference.divergence(posterior, reduction)
    return torch.ops.pyvae.kl_divergence(
        posterior.mu, posterior.scale, _checks.SCALES.index(posterior.kind), _checks.REDUCTIONS.index(reduction)
    )


def _reparameterize(function: str, with_kl: bool, *arguments: Any) -> Any:
    """z, or with its KL (z, kl); `arguments` are those of LatentArguments."""
    if _route.direct():
        out = _C.reparameterize(with_kl, *arguments)
        if out is not None:
            return out
    call = LatentArguments(*arguments)
    mu, scale, kind = posterior = _checks.latent(function, call)
    if not _route.operators(mu, scale, call.eps):
        z, posterior = reference.sample(posterior, call)
        return (z, reference.divergence(posterior, "none")) if with_kl else z
    seed = None if call.eps is not None else seed_tensor(call.seed, call.generator, mu.device)
    z, kl = torch.ops.pyvae.reparameterize(
        mu, scale, call.eps, seed, _checks.SCALES.index(kind), call.row_offset, with_kl
    )
    return (z, kl) if with_kl else z
