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

from . import _checks, _latent_checks
from ._arguments import (
    ELBO,
    DivergenceReduction,
    LatentArguments,
    LikelihoodName,
    ObjectiveArguments,
    Posterior,
    Prior,
    Reduction,
)
from ._expect import is_readable, scalar
from ._likelihoods import LIKELIHOODS
from ._noise import exact_dtype, normal, seed_tensor
from .likelihoods import LikelihoodObject, resolve, with_tensors

__all__ = [
    "ELBO",
    "elbo_loss",
    "elbo_terms",
    "kl_divergence",
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
    logvar_range: tuple[float | None, float | None] | None = None,
    eps: Tensor | None = None,
    seed: int | Tensor | None = None,
    row_offset: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw z = mu + sigma * eps of shape (B, ...) with eps from N(0, I); see `pyvae.reparameterize`."""
    call = LatentArguments(mu, logvar, std, logstd, logvar_range, eps, seed, row_offset, generator)
    return sample("reparameterize", *_latent_checks.call("reparameterize", call))[0]


def reparameterize_kl(
    mu: Tensor,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    logvar_range: tuple[float | None, float | None] | None = None,
    eps: Tensor | None = None,
    seed: int | Tensor | None = None,
    row_offset: int = 0,
    generator: torch.Generator | None = None,
    prior: tuple[Tensor | float, Tensor | float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw z of shape (B, ...) and compute the KL of shape (B,) in nats; see `pyvae.reparameterize_kl`."""
    call = LatentArguments(mu, logvar, std, logstd, logvar_range, eps, seed, row_offset, generator, prior)
    z, posterior = sample("reparameterize_kl", *_latent_checks.call("reparameterize_kl", call))
    return z, divergence("reparameterize_kl", posterior, "none")


def kl_divergence(
    mu: Tensor,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    logvar_range: tuple[float | None, float | None] | None = None,
    prior: tuple[Tensor | float, Tensor | float] | None = None,
    reduction: DivergenceReduction = "none",
) -> Tensor:
    """KL(N(mu, sigma^2) || prior) in nats, summed over the features; see `pyvae.kl_divergence`."""
    posterior = _latent_checks.posterior("kl_divergence", mu, logvar, std, logstd, logvar_range, prior)
    _checks.reduction("kl_divergence", reduction, _checks.KL_REDUCTIONS)
    return divergence("kl_divergence", posterior, reduction)


def sample(function: str, call: LatentArguments, given: Posterior) -> tuple[Tensor, Posterior]:
    """z of a checked call of the public `function`, whose posterior is `given`, and the posterior in the compute
    dtype."""
    _latent_checks.data(function, given)
    posterior = _in_compute_dtype(given)
    mu, scale, kind, *_ = posterior
    eps = call.eps
    if eps is None:
        eps = normal(seed_tensor(call.seed, call.generator, mu.device), mu.shape, mu.dtype, call.row_offset)
    sigma = scale if kind == "std" else torch.exp(scale / 2 if kind == "logvar" else scale)
    z = mu + sigma * eps.to(mu.dtype)
    return z.to(torch.promote_types(given.mu.dtype, given.scale.dtype)), posterior


def divergence(function: str, posterior: Posterior, reduction: str) -> Tensor:
    """The KL of a checked posterior, in a call of the public `function`."""
    _latent_checks.data(function, posterior)
    given = _in_compute_dtype(posterior)
    return _kl_elements(given).to(given.mu.dtype) if reduction == "elements" else _reduce(_kl(given), reduction)


def _in_compute_dtype(posterior: Posterior) -> Posterior:
    """One cast for all uses, so that gradients from the sample and from the KL add up before they are rounded."""
    mu, scale, kind, bounds, prior = posterior
    dtype = _compute_dtype(mu, scale)
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
    out = scale
    for bound, outside in ((high, torch.gt), (low, torch.lt)):
        if bound is not None:
            end = (bound if isinstance(bound, Tensor) else scalar(bound)).to(scale.dtype)
            out = torch.where(outside(scale, end), end, out)
    return out


def _kl(posterior: Posterior) -> Tensor:
    """The KL of each sample."""
    return _sum_features(_kl_elements(posterior)).to(posterior.mu.dtype)


def _kl_elements(posterior: Posterior) -> Tensor:
    """The KL of each element, 1/2 (mu^2 + sigma^2 - 1 - log sigma^2), with sigma^2 - 1 = expm1(log sigma^2).

    Near sigma = 1 the last terms cancel to half the square of log sigma^2, and the gradient likewise. In float32 that
    would leave few correct digits; in float64, which a tensor as small as a posterior can afford, the error of
    the difference is 1e-16 |log sigma^2|, below float32's resolution of the result down to |log sigma^2| = 1e-9.

    Where e^logvar is too large for the compute dtype, the KL and its derivative are infinite, as in torch's
    kl_divergence of Normals. At logvar = inf that one is NaN, from inf - inf; here it is the limit, inf.
    """
    exact = exact_dtype(posterior.mu.device)
    mu, scale = posterior.mu.to(exact), posterior.scale.to(exact)
    if posterior.prior is not None:
        mean, prior_scale = (part.to(exact) for part in posterior.prior)
        return _kl_elements_from_prior(mu, scale, mean, prior_scale, posterior.kind)
    if posterior.kind == "std":
        spread = (scale - 1) * (scale + 1) - 2 * torch.log(scale)
    else:
        logvar = scale if posterior.kind == "logvar" else 2 * scale
        excess = torch.expm1(logvar)
        excess = excess * torch.where(excess > torch.finfo(posterior.scale.dtype).max, torch.inf, 1.0)
        spread = excess - logvar.clamp_max(torch.finfo(exact).max)
    return (mu * mu + spread) / 2


def _kl_elements_from_prior(mu: Tensor, scale: Tensor, mean: Tensor, prior_scale: Tensor, kind: str) -> Tensor:
    """1/2 ((mu - mean)^2 / p^2 + expm1(d) - d) with d = log sigma^2 - log p^2.

    Near sigma = p it is exact where d itself is: as a difference of logarithms, or by log1p from the difference of the
    standard deviations.
    """
    if kind == "std":
        p = prior_scale
        excess = (scale - p) / p
        near = excess.abs() < 0.5  # elsewhere log1p would know nothing of a small scale; no branch may see the other's
        log_ratio = torch.where(
            near, torch.log1p(torch.where(near, excess, 0.0)), torch.log(torch.where(near, 1.0, scale / p))
        )
        spread = excess * (excess + 2) - 2 * log_ratio
    else:
        p = torch.exp(prior_scale / 2 if kind == "logvar" else prior_scale)
        d = (scale - prior_scale) * (1 if kind == "logvar" else 2)
        spread = torch.expm1(d) - d
    return (((mu - mean) / p) ** 2 + spread) / 2


# ---- objective: likelihoods, reduction -------------------------------------------------------------------------------


def reconstruction_loss(
    recon: Tensor,
    target: Tensor,
    *,
    likelihood: LikelihoodName | LikelihoodObject = "bernoulli",
    weight: Tensor | float | None = None,
    pos_weight: Tensor | float | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """-log p(target | recon) in nats, summed over the features; see `pyvae.reconstruction_loss`."""
    no_kl = (None,) * 7
    return _checked("reconstruction_loss", recon, target, *no_kl, likelihood, 1.0, weight, pos_weight, reduction).recon


def elbo_loss(
    recon: Tensor,
    target: Tensor,
    mu: Tensor | None = None,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
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
    posterior = (mu, logvar, std, logstd, logvar_range, prior, kl)
    return _checked("elbo_loss", recon, target, *posterior, likelihood, beta, weight, pos_weight, reduction).loss


def elbo_terms(
    recon: Tensor,
    target: Tensor,
    mu: Tensor | None = None,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
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
    posterior = (mu, logvar, std, logstd, logvar_range, prior, kl)
    return _checked("elbo_terms", recon, target, *posterior, likelihood, beta, weight, pos_weight, reduction)


def _checked(function: str, *arguments: Any) -> ELBO:
    return evaluate(function, *_checks.objective(function, ObjectiveArguments(*arguments)))


def evaluate(function: str, call: ObjectiveArguments, posterior: Posterior | None) -> ELBO:
    """The objective of a checked call of the public `function`, in whose name probabilities are refused."""
    samples = _reconstruction(function, call)
    kl = torch.zeros_like(samples) if call.kl is None else call.kl
    if posterior is not None:
        kl = divergence(function, posterior, "none")
    recon_term, kl_term = _reduce(samples, call.reduction), _reduce(kl, call.reduction)
    # A tensor scales, and does not decide the result's dtype.
    beta = call.beta.to(kl_term.dtype) if isinstance(call.beta, Tensor) else call.beta
    return ELBO(recon_term + beta * kl_term, recon_term, kl_term)


def _reconstruction(function: str, call: ObjectiveArguments) -> Tensor:
    """-log p(target | recon) of each sample, shape (B,). A weight of bools selects: before the formula, whose gradient
    there would be 0 times what the formula makes of a NaN, and after it."""
    parts = with_tensors(resolve(call.likelihood), call.recon)
    likelihood = LIKELIHOODS[parts.name]
    if is_readable(call.recon) and is_readable(call.target):
        refuse_data(function, call, None)
    dtype = _compute_dtype(call.recon, call.target)
    recon, target = call.recon.to(dtype), call.target.to(dtype).reshape(call.recon.shape)
    mask = call.weight if isinstance(call.weight, Tensor) and call.weight.dtype == torch.bool else None
    weight, pos_weight = (x.to(dtype) if isinstance(x, Tensor) else x for x in (call.weight, call.pos_weight))
    parameters = [value.to(dtype) for value in parts[1 : 1 + len(likelihood.parameters)]]
    if likelihood.softmax == "always" or parts.log_library is not None:
        recon = torch.log_softmax(recon.flatten(1), 1).reshape(recon.shape) if recon.ndim > 1 else recon * 0
    if parts.log_library is not None:
        recon = recon + parts.log_library.to(dtype).reshape(-1, *(1,) * (recon.ndim - 1))
    if mask is not None:
        recon, target = torch.where(mask, recon, 0.5), torch.where(mask, target, 0.0)  # legal for every likelihood
        parameters = [torch.where(mask, value, 0.0) for value in parameters]
        pos_weight = torch.where(mask, pos_weight, 1.0) if isinstance(pos_weight, Tensor) else pos_weight
    value = likelihood.value(recon, target, 1.0 if pos_weight is None else pos_weight, *parameters)
    if mask is not None:
        return _sum_features(torch.where(mask, value, 0.0))
    return _sum_features(value if weight is None else value * weight)


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


def _compute_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
