"""The specification: every public function in pure PyTorch, with the same names, signatures and refusals.

It is what the kernels are tested against, what they use for second derivatives, forward mode and the `torch.func`
transforms, and what runs where there are no kernels. Autograd derives every gradient from the values written here.

Types. The objective computes in float64 when recon or target is float64, else in float32, integer data included, and so
does the sampler by mu and the scale. The noise and the KL are computed in float64, where the device is known to have
it, and rounded once.

Source: Kingma & Welling, "Auto-Encoding Variational Bayes" (2014), section 2.4 and appendix B.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _codes, _latent_checks, _mixture_kl, _samples
from ._arguments import (
    ELBO,
    ElementReduction,
    LatentArguments,
    LikelihoodName,
    ObjectiveArguments,
    Posterior,
    Reduction,
    without_posterior,
)
from ._expect import is_readable
from ._mixture_checks import Mixture
from ._noise import normal, seed_tensor
from ._posterior import compute_dtype, in_compute_dtype, kl_elements, sigma
from ._reference_mixture import gaussian as gaussian
from ._reference_mixture import gaussian_log_prob, mixture_log_prob
from ._reference_mixture import under_mixture as under_mixture
from .likelihoods import LIKELIHOODS, LikelihoodObject, resolve, with_tensors

__all__ = [
    "ELBO",
    "elbo_loss",
    "elbo_terms",
    "gaussian_log_prob",
    "kl_divergence",
    "mixture_log_prob",
    "normal",
    "reconstruction_loss",
    "reparameterize",
    "reparameterize_kl",
]


# ---- latent: noise, sample, KL ---------------------------------------------------------------------------------------


def reparameterize(
    mu: Tensor,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    rho: Tensor | None = None,
    logvar_range: tuple[float | None, float | None] | None = None,
    eps: Tensor | None = None,
    seed: int | Tensor | None = None,
    row_offset: int = 0,
    generator: torch.Generator | None = None,
    samples: int | None = None,
) -> Tensor:
    """Draw z = mu + sigma * eps, shape (B, ...) or (S, B, ...), eps from N(0, I); see `pyvae.reparameterize`."""
    call = LatentArguments(mu, logvar, std, logstd, rho, logvar_range, eps, seed, row_offset, generator, samples)
    return sample("reparameterize", *_latent_checks.call("reparameterize", call))[0]


def reparameterize_kl(
    mu: Tensor,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    rho: Tensor | None = None,
    logvar_range: tuple[float | None, float | None] | None = None,
    eps: Tensor | None = None,
    seed: int | Tensor | None = None,
    row_offset: int = 0,
    generator: torch.Generator | None = None,
    samples: int | None = None,
    prior: tuple[Tensor | float, Tensor | float] | Mixture | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw z of shape (B, ...) and compute the KL of shape (B,) in nats; see `pyvae.reparameterize_kl`."""
    call = LatentArguments(mu, logvar, std, logstd, rho, logvar_range, eps, seed, row_offset, generator, samples, prior)
    if isinstance(prior, Mixture):
        functions = _mixture_kl.Functions(reparameterize, mixture_log_prob)
        return _mixture_kl.sample_and_estimate(functions, call)
    z, posterior = sample("reparameterize_kl", *_latent_checks.call("reparameterize_kl", call))
    return z, divergence("reparameterize_kl", posterior, "none")


def kl_divergence(
    mu: Tensor,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    rho: Tensor | None = None,
    logvar_range: tuple[float | None, float | None] | None = None,
    prior: tuple[Tensor | float, Tensor | float] | None = None,
    reduction: ElementReduction = "none",
) -> Tensor:
    """KL(N(mu, sigma^2) || prior) in nats, summed over the features; see `pyvae.kl_divergence`."""
    call = LatentArguments(mu, logvar, std, logstd, rho, logvar_range, prior=prior)
    posterior = _latent_checks.posterior("kl_divergence", call)
    _checks.reduction("kl_divergence", reduction, _codes.KL_REDUCTIONS)
    return divergence("kl_divergence", posterior, reduction)


def sample(function: str, call: LatentArguments, given: Posterior) -> tuple[Tensor, Posterior]:
    """z of a checked call of the public `function`, whose posterior is `given`, and the posterior in the compute
    dtype."""
    _latent_checks.data(function, given)
    posterior = in_compute_dtype(given)
    mu, eps = posterior.mu, call.eps
    if eps is None:
        seed = seed_tensor(call.seed, call.generator, mu.device)
        eps = normal(seed, mu.shape, mu.dtype, call.row_offset, call.samples or 0)
    z = mu + sigma(posterior) * eps.to(mu.dtype)
    return z.to(torch.promote_types(given.mu.dtype, given.scale.dtype)), posterior


def divergence(function: str, posterior: Posterior, reduction: str) -> Tensor:
    """The KL of a checked posterior, in a call of the public `function`."""
    _latent_checks.data(function, posterior)
    given = in_compute_dtype(posterior)
    return kl_elements(given).to(given.mu.dtype) if reduction == "elements" else _reduce(_kl(given), reduction)


def _kl(posterior: Posterior) -> Tensor:
    """The KL of each sample."""
    return _sum_features(kl_elements(posterior)).to(posterior.mu.dtype)


# ---- objective: likelihoods, reduction -------------------------------------------------------------------------------


def reconstruction_loss(
    recon: Tensor,
    target: Tensor,
    *,
    likelihood: LikelihoodName | LikelihoodObject = "bernoulli",
    weight: Tensor | float | None = None,
    pos_weight: Tensor | float | None = None,
    reduction: ElementReduction = "none",
) -> Tensor:
    """-log p(target | recon) in nats, summed over the features or not; see `pyvae.reconstruction_loss`."""
    given = without_posterior(recon, target, likelihood, weight, pos_weight, reduction)
    samples = _samples.has_samples(recon, target)
    if samples:
        given = _samples.flattened(_checks.samples("reconstruction_loss", given))
    call, _ = _checks.objective("reconstruction_loss", given, samples)
    of_each = elements("reconstruction_loss", call)
    out = of_each if reduction == "elements" else _reduce(_sum_features(of_each), reduction)
    return _samples.unflattened(out, recon.shape) if samples else out


def elbo_loss(
    recon: Tensor,
    target: Tensor,
    mu: Tensor | None = None,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    rho: Tensor | None = None,
    logvar_range: tuple[float | None, float | None] | None = None,
    prior: tuple[Tensor | float, Tensor | float] | None = None,
    kl: Tensor | None = None,
    likelihood: LikelihoodName | LikelihoodObject = "bernoulli",
    beta: float | Tensor = 1.0,
    weight: Tensor | float | None = None,
    pos_weight: Tensor | float | None = None,
    reduction: Reduction = "sum",
) -> Tensor:
    """The negative ELBO in nats, reconstruction + beta * KL; see `pyvae.elbo_loss`."""
    posterior = (mu, logvar, std, logstd, rho, logvar_range, prior, kl)
    return _checked("elbo_loss", recon, target, *posterior, likelihood, beta, weight, pos_weight, reduction).loss


def elbo_terms(
    recon: Tensor,
    target: Tensor,
    mu: Tensor | None = None,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    rho: Tensor | None = None,
    logvar_range: tuple[float | None, float | None] | None = None,
    prior: tuple[Tensor | float, Tensor | float] | None = None,
    kl: Tensor | None = None,
    likelihood: LikelihoodName | LikelihoodObject = "bernoulli",
    beta: float | Tensor = 1.0,
    weight: Tensor | float | None = None,
    pos_weight: Tensor | float | None = None,
    reduction: Reduction = "sum",
) -> ELBO:
    """The negative ELBO and its terms in nats; see `pyvae.elbo_terms`."""
    posterior = (mu, logvar, std, logstd, rho, logvar_range, prior, kl)
    return _checked("elbo_terms", recon, target, *posterior, likelihood, beta, weight, pos_weight, reduction)


def _checked(function: str, *arguments: Any) -> ELBO:
    return evaluate(function, *_checks.objective(function, ObjectiveArguments(*arguments)))


def evaluate(function: str, call: ObjectiveArguments, posterior: Posterior | None) -> ELBO:
    """The objective of a checked call of the public `function`, in whose name probabilities are refused."""
    samples = _sum_features(elements(function, call))
    kl = torch.zeros_like(samples) if call.kl is None else call.kl
    if posterior is not None:
        kl = divergence(function, posterior, "none")
    recon_term, kl_term = _reduce(samples, call.reduction), _reduce(kl, call.reduction)
    # A tensor scales, and does not decide the result's dtype.
    beta = call.beta.to(kl_term.dtype) if isinstance(call.beta, Tensor) else call.beta
    return ELBO(recon_term + beta * kl_term, recon_term, kl_term)


def elements(function: str, call: ObjectiveArguments) -> Tensor:
    """-log p(target | recon) of each element of a checked call, in recon's shape. A weight of bools selects: before the
    formula, whose gradient there would be 0 times what the formula makes of a NaN, and after it."""
    call = call._replace(target=_samples.spread(call.target, call.recon))
    parts = with_tensors(resolve(call.likelihood), call.recon)
    likelihood = LIKELIHOODS[parts.name]
    if is_readable(call.recon) and is_readable(call.target):
        refuse_data(function, call, None)
    dtype = compute_dtype(call.recon, call.target)
    recon, target = call.recon.to(dtype), call.target.to(dtype).reshape(call.recon.shape)
    mask = call.weight if isinstance(call.weight, Tensor) and call.weight.dtype == torch.bool else None
    weight, pos_weight = (x.to(dtype) if isinstance(x, Tensor) else x for x in (call.weight, call.pos_weight))
    parameters = [value.to(dtype) for value in parts.parameters]
    if likelihood.softmax == "always" or parts.log_library is not None:
        if mask is not None:  # of a row that is left out as a whole no score is looked at
            rows = mask.expand(recon.shape).flatten(1).any(1).reshape(-1, *(1,) * (recon.ndim - 1))
            recon = torch.where(rows, recon, 0.0)
        recon = torch.log_softmax(recon.flatten(1), 1).reshape(recon.shape) if recon.ndim > 1 else recon * 0
    if parts.log_library is not None:
        recon = recon + parts.log_library.to(dtype).reshape(-1, *(1,) * (recon.ndim - 1))
    if mask is not None:
        recon, target = torch.where(mask, recon, 0.5), torch.where(mask, target, 0.0)  # legal for every likelihood
        parameters = [torch.where(mask, value, 0.0) for value in parameters]
        pos_weight = torch.where(mask, pos_weight, 1.0) if isinstance(pos_weight, Tensor) else pos_weight
    value = likelihood.value(recon, target, 1.0 if pos_weight is None else pos_weight, *parameters)
    if mask is not None:
        return torch.where(mask, value, 0.0)
    return value if weight is None else value * weight


def refuse_data(function: str, call: ObjectiveArguments, posterior: Posterior | None) -> None:
    """Refuse what no tensor of recon or target may hold for this likelihood, and no std. Reads the data."""
    if posterior is not None:
        _latent_checks.data(function, posterior)
    likelihood = LIKELIHOODS[resolve(call.likelihood).name]
    if likelihood.is_probability:
        _checks.probabilities(function, call)
    if likelihood.has_unit_target:
        _checks.unit_target(function, call)
    if likelihood.is_count:
        _checks.counts(function, call)


def _sum_features(value: Tensor) -> Tensor:
    """(B, ...) to (B,); a batch of shape (B,) has one feature."""
    return value.sum(tuple(range(1, value.ndim))) if value.ndim > 1 else value


def _reduce(samples: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return samples
    return samples.sum() if reduction == "sum" else samples.mean()
