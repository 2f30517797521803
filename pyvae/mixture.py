"""Log densities: of a posterior, and under a mixture of Gaussians, each in one fused pass a direction."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from . import _latent_checks, _mixture_checks, _route, _sharding, reference
from ._arguments import SCALES, DensityReduction, LatentArguments, Posterior
from ._expect import scalar
from ._extension import _C
from ._mixture_checks import Mixture as Mixture

torch.serialization.add_safe_globals([Mixture])  # as the likelihoods' objects


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
    """log N(z; mu, sigma^2), the posterior's density at z: log q(z|x) of importance weights.

    A true log density, -1/2 log(2 pi) included, which the losses leave out.

    Args:
        z: where, in mu's shape, after any dimensions of samples: (S, B, ...), say.
        mu: mean, shape (B, ...).
        logvar: log sigma^2, or
        std: sigma, 0 or more, or
        logstd: log sigma, or
        rho: sigma = softplus(rho); exactly one of them, in mu's shape.
        logvar_range: as for `reparameterize`.
        reduction: "none", summed over the features, or "elements", not summed at all.

    Returns:
        Shape (..., B), or with "elements" z's shape; float32 (float64 for float64 inputs). Differentiable in z, mu and
        the scale.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came. A std below 0 is refused on the
            CPU, and gives NaN on CUDA.

    Source:
        Path derivatives: Roeder et al., "Sticking the landing" (2017); Tucker et al., "Doubly reparameterized gradient
        estimators" (2019).

    Example:
        >>> import torch, pyvae
        >>> mu, logvar = torch.zeros(3, 2), torch.zeros(3, 2)
        >>> pyvae.gaussian_log_prob(torch.zeros(5, 3, 2), mu, logvar).shape
        torch.Size([5, 3])

        A KL without the score of q, whose gradients have less noise near the optimum: q's own parameters are detached,
        and it is differentiated by z alone. Of a z in float32 (z - mu) / sigma has an error of about 2e-8 mu / sigma:
        3e-3 where sigma is a 1e-5th of mu. Narrower posteriors take `reparameterize_kl`, which has it of the noise.

        >>> z, prior = pyvae.reparameterize(mu, logvar, samples=5), pyvae.Mixture(torch.zeros(4, 2), 0.0)
        >>> log_q = pyvae.gaussian_log_prob(z, mu.detach(), logvar.detach())
        >>> (log_q - pyvae.mixture_log_prob(z, prior)).mean(0).shape
        torch.Size([3])
    """
    given = LatentArguments(mu, logvar, std, logstd, rho, logvar_range)
    if _route.direct():
        try:
            out = _C.gaussian_log_prob(z, mu, logvar, std, logstd, rho, logvar_range, reduction)
        except ValueError:  # found by the kernel: a std below 0
            _latent_checks.refuse_data("gaussian_log_prob", given)
            raise
        if out is not None:
            return out
    if _route.overridden((z, *given)):
        return _route.override(gaussian_log_prob, {"z": z, "reduction": reduction} | given._asdict())
    posterior = _mixture_checks.gaussian("gaussian_log_prob", z, given, reduction)
    if not _has_kernels(z, posterior.mu, posterior.scale):
        return reference.gaussian("gaussian_log_prob", z, posterior, reduction)
    # Of each sample a mixture of one component, over all its features.
    rows, features = mu.shape[0], math.prod(mu.shape[1:])
    one = posterior._replace(mu=mu.reshape(rows, 1, features), scale=posterior.scale.reshape(rows, 1, features))
    flat = z.reshape(*z.shape[: z.ndim - mu.ndim], rows, features)
    out = torch.ops.pyvae.mixture_log_prob(flat, *_operands(one, None), reduction == "elements")
    return out.reshape(z.shape) if reduction == "elements" else out


def mixture_log_prob(z: Tensor, mixture: Mixture, *, reduction: DensityReduction = "none") -> Tensor:
    """log p(z) = log sum_k pi_k N(z; m_k, sigma_k^2), the density of a mixture of diagonal Gaussians at z.

    A true log density, -1/2 log(2 pi) included. Exact where all components are far: nothing underflows. Nothing of the
    size of z's rows times components is ever in memory, forward or backward, and the sums of gradients over rows have
    one order, whatever the number of threads.

    Args:
        z: where, shape (..., B, L); leading dimensions are samples.
        mixture: a `pyvae.Mixture`, its means (K, L) for all rows or (B, K, L) for each sample's.
        reduction: "none", the density of vectors; "elements", of each dimension its own, log sum_k pi_k N(z_l; m_kl,
            sigma_kl^2): the marginals.

    Returns:
        Shape (..., B), or with "elements" z's shape; float32 (float64 for float64 inputs). Differentiable in z and all
        that the mixture holds.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came. A std below 0 is refused on the
            CPU, and gives NaN on CUDA.

    Source:
        Total correlation: Chen et al., "Isolating sources of disentanglement in VAEs" (2018).

    Example:
        >>> import torch, pyvae
        >>> prior = pyvae.Mixture(torch.randn(20, 2), torch.zeros(20, 2))
        >>> pyvae.mixture_log_prob(torch.zeros(5, 3, 2), prior).shape
        torch.Size([5, 3])

        The total correlation of a minibatch, whose posteriors are the components:

        >>> mu, logvar = torch.randn(8, 2), torch.zeros(8, 2)
        >>> z, aggregate = pyvae.reparameterize(mu, logvar), pyvae.Mixture(mu, logvar)
        >>> marginals = pyvae.mixture_log_prob(z, aggregate, reduction="elements").sum(-1)
        >>> (pyvae.mixture_log_prob(z, aggregate) - marginals).mean().shape
        torch.Size([])
    """
    if _route.direct() and type(mixture) is Mixture:
        scales = mixture.logvar, mixture.std, mixture.logstd, mixture.rho
        try:
            out = _C.mixture_log_prob(z, mixture.mean, *scales, mixture.logits, reduction)
        except ValueError:  # as in gaussian_log_prob
            _mixture_checks.mixture("mixture_log_prob", z, mixture, reduction).check_data("mixture_log_prob")
            raise
        if out is not None:
            return out
    if _route.overridden((z, mixture)):
        return _route.override(mixture_log_prob, {"z": z, "mixture": mixture, "reduction": reduction})
    components = _mixture_checks.mixture("mixture_log_prob", z, mixture, reduction)
    posterior, logits, _ = components
    if not _has_kernels(z, posterior.mu, posterior.scale, logits):
        return reference.under_mixture("mixture_log_prob", z, components, reduction)
    return torch.ops.pyvae.mixture_log_prob(z, *_operands(posterior, logits), reduction == "elements")


def _has_kernels(*tensors: Tensor | None) -> bool:
    """Of DTensors there are none: the reference takes them, without a warning."""
    return not _sharding.among(*tensors) and _route.operators(*tensors)


def _operands(posterior: Posterior, logits: Tensor | None) -> tuple[Any, ...]:
    mu, scale, kind, bounds, _ = posterior
    low, high = (None if bound is None else scalar(bound) for bound in bounds or (None, None))
    return mu, scale, SCALES.index(kind), logits, low, high
