"""The specification: every public function in pure PyTorch, with the same names, signatures and refusals.

It is what the kernels are tested against, what they use for second derivatives, forward mode and the `torch.func`
transforms, and what runs where there are no kernels. Autograd derives every gradient from the values written here.

Types. The objective computes in float64 when recon or target is float64, else in float32, and so does the sampler by mu
and the scale. The noise and the KL are computed in float64, where the device is known to have it, and rounded once.

Source: Kingma & Welling, "Auto-Encoding Variational Bayes" (2014), section 2.4 and appendix B.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _checks
from ._checks import Posterior
from ._noise import exact_dtype, normal

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


class ELBO(NamedTuple):
    """The negative ELBO and its two terms in nats, all reduced alike: loss = recon + beta * kl."""

    loss: Tensor
    recon: Tensor
    kl: Tensor


# ---- latent: noise, sample, KL ---------------------------------------------------------------------------------------


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
    """Draw z = mu + sigma * eps of shape (B, ...) with eps from N(0, I); see `pyvae.reparameterize`."""
    return _latent("reparameterize", mu, logvar, std, logstd, eps, seed, row_offset, generator)[0]


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
    """Draw z of shape (B, ...) and compute the KL of shape (B,) in nats; see `pyvae.reparameterize_kl`."""
    z, posterior = _latent("reparameterize_kl", mu, logvar, std, logstd, eps, seed, row_offset, generator)
    return z, _kl(posterior)


def kl_divergence(
    mu: Tensor,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, I)) in nats, summed over the features; see `pyvae.kl_divergence`."""
    posterior = _checks.posterior("kl_divergence", mu, logvar, std, logstd)
    _checks.reduction("kl_divergence", reduction)
    return _reduce(_kl(_in_compute_dtype(posterior)), reduction)


def _latent(
    function: str,
    mu: Tensor,
    logvar: Tensor | None,
    std: Tensor | None,
    logstd: Tensor | None,
    eps: Tensor | None,
    seed: int | Tensor | None,
    row_offset: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Posterior]:
    """The sample in its own dtype, and the posterior in the compute dtype."""
    given = _checks.posterior(function, mu, logvar, std, logstd)
    _checks.noise(function, mu, eps, seed, row_offset, generator)
    posterior = _in_compute_dtype(given)
    mu, scale, kind = posterior
    if eps is None:
        eps = normal(_checks.seed_tensor(seed, generator, mu.device), mu.shape, mu.dtype, row_offset)
    sigma = scale if kind == "std" else torch.exp(scale / 2 if kind == "logvar" else scale)
    z = mu + sigma * eps.to(mu.dtype)
    return z.to(torch.promote_types(given.mu.dtype, given.scale.dtype)), posterior


def _in_compute_dtype(posterior: Posterior) -> Posterior:
    """One cast for all uses, so that gradients from the sample and from the KL add up before they are rounded."""
    mu, scale, kind = posterior
    dtype = _compute_dtype(mu, scale)
    return Posterior(mu.to(dtype), scale.to(dtype), kind)


def _kl(posterior: Posterior) -> Tensor:
    """The KL of each sample, 1/2 sum(mu^2 + sigma^2 - 1 - log sigma^2), with sigma^2 - 1 = expm1(log sigma^2).

    Near sigma = 1 the last terms cancel to half the square of log sigma^2, and the gradient likewise. In float32 that
    would leave few correct digits; in float64, which a tensor as small as a posterior can afford, the error of
    the difference is 1e-16 |log sigma^2|, below float32's resolution of the result down to |log sigma^2| = 1e-9.
    """
    exact = exact_dtype(posterior.mu.device)
    mu, scale = posterior.mu.to(exact), posterior.scale.to(exact)
    if posterior.kind == "std":
        spread = (scale - 1) * (scale + 1) - 2 * torch.log(scale)
    else:
        logvar = scale if posterior.kind == "logvar" else 2 * scale
        spread = torch.expm1(logvar) - logvar
    return _sum_features((mu * mu + spread) / 2).to(posterior.mu.dtype)


# ---- objective: likelihoods, reduction -------------------------------------------------------------------------------


def reconstruction_loss(
    recon: Tensor,
    target: Tensor,
    *,
    likelihood: str = "bernoulli",
    weight: Tensor | None = None,
    pos_weight: Tensor | float | None = None,
    reduction: str = "none",
) -> Tensor:
    """-log p(target | recon) in nats, summed over the features; see `pyvae.reconstruction_loss`."""
    no_kl = (None,) * 5
    return evaluate("reconstruction_loss", recon, target, *no_kl, likelihood, 1.0, weight, pos_weight, reduction).recon


def elbo_loss(
    recon: Tensor,
    target: Tensor,
    mu: Tensor | None = None,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    kl: Tensor | None = None,
    likelihood: str = "bernoulli",
    beta: float | Tensor = 1.0,
    weight: Tensor | None = None,
    pos_weight: Tensor | float | None = None,
    reduction: str = "sum",
) -> Tensor:
    """The negative ELBO in nats, reconstruction + beta * KL; see `pyvae.elbo_loss`."""
    return evaluate(
        "elbo_loss", recon, target, mu, logvar, std, logstd, kl, likelihood, beta, weight, pos_weight, reduction
    ).loss


def elbo_terms(
    recon: Tensor,
    target: Tensor,
    mu: Tensor | None = None,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    logstd: Tensor | None = None,
    kl: Tensor | None = None,
    likelihood: str = "bernoulli",
    beta: float | Tensor = 1.0,
    weight: Tensor | None = None,
    pos_weight: Tensor | float | None = None,
    reduction: str = "sum",
) -> ELBO:
    """The negative ELBO and its terms in nats; see `pyvae.elbo_terms`."""
    return evaluate(
        "elbo_terms", recon, target, mu, logvar, std, logstd, kl, likelihood, beta, weight, pos_weight, reduction
    )


def evaluate(
    function: str,
    recon: Tensor,
    target: Tensor,
    mu: Tensor | None,
    logvar: Tensor | None,
    std: Tensor | None,
    logstd: Tensor | None,
    kl: Tensor | None,
    likelihood: str,
    beta: float | Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | float | None,
    reduction: str,
) -> ELBO:
    """The objective, with refusals in the name of the public `function` that was called."""
    posterior = _checks.objective(
        function, recon, target, mu, logvar, std, logstd, kl, likelihood, beta, weight, pos_weight, reduction
    )
    samples = _reconstruction(function, recon, target, likelihood, weight, pos_weight)
    if posterior is not None:
        kl = _kl(_in_compute_dtype(posterior))
    elif kl is None:
        kl = torch.zeros_like(samples)
    recon_term, kl_term = _reduce(samples, reduction), _reduce(kl, reduction)
    if isinstance(beta, Tensor):
        beta = beta.to(kl_term.dtype)  # it scales, and does not decide the result's dtype
    return ELBO(recon_term + beta * kl_term, recon_term, kl_term)


def _reconstruction(
    function: str,
    recon: Tensor,
    target: Tensor,
    likelihood: str,
    weight: Tensor | None,
    pos_weight: Tensor | float | None,
) -> Tensor:
    """-log p(target | recon) of each sample, shape (B,)."""
    if likelihood == "bernoulli" and _is_readable(recon):
        _checks.probabilities(function, recon)
    dtype = _compute_dtype(recon, target)
    recon, target = recon.to(dtype), target.to(dtype).reshape(recon.shape)
    if isinstance(pos_weight, Tensor):
        pos_weight = pos_weight.to(dtype)
    value = _LIKELIHOODS[likelihood](recon, target, 1.0 if pos_weight is None else pos_weight)
    return _sum_features(value if weight is None else value * weight.to(dtype))


def _bernoulli(p: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """-t log p - (1 - t) log(1 - p) as `F.binary_cross_entropy` has it: logs not below -100, and the gradient
    (p - t) y' with y = logit(p) and y' = 1 / max(p(1-p), 1e-12). Outside of [0, 1] one of the logs is NaN.

    Those clamps make the gradient another function's than the value's, and -t/p + (1-t)/(1-p), which autograd would add
    up, cancels where p is near t. So the value is a constant here, and to it is added (p - t) (y - y0) - integral of
    (y - y0) dp from p0 to p: zero at p = p0, and with the derivative (p - t) y' for every p, that is, to every order.
    """
    end = p * (1 - p) < 1e-12
    p0 = p.detach()
    value = -t * torch.log(p0).clamp_min(-100) - (1 - t) * torch.log1p(-p0).clamp_min(-100)
    inner = torch.where(end, 0.5, p)
    inner0 = inner.detach()
    step = inner - inner0
    integral = (inner0 + step) * torch.log1p(step / inner0) + (1 - inner0 - step) * torch.log1p(-step / (1 - inner0))
    rise = torch.where(end, (p - p0) / 1e-12, torch.logit(inner) - torch.logit(inner0))
    return value + (p - t) * rise - torch.where(end, (p - p0) ** 2 / 2e-12, integral)


def _bernoulli_logits(x: Tensor, t: Tensor, pos_weight: Tensor | float) -> Tensor:
    """(1 - t) softplus(x) + pos_weight t softplus(-x): no cancellation in the tails, gradient
    (1 - t) sigmoid(x) - pos_weight t sigmoid(-x). `F.softplus` itself is linear from 20 on; logsigmoid is exact."""
    return (t - 1) * F.logsigmoid(-x) - pos_weight * t * F.logsigmoid(x)


def _gaussian(mean: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """1/2 (t - mean)^2: unit variance, without the constant 1/2 log(2 pi)."""
    difference = mean - t
    return difference * (difference / 2)


_LIKELIHOODS: dict[str, Callable[[Tensor, Tensor, Tensor | float], Tensor]] = {
    "bernoulli": _bernoulli,
    "bernoulli_logits": _bernoulli_logits,
    "gaussian": _gaussian,
}


def _sum_features(value: Tensor) -> Tensor:
    """(B, ...) to (B,); a batch of shape (B,) has one feature."""
    return value.sum(tuple(range(1, value.ndim))) if value.ndim > 1 else value


def _reduce(samples: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return samples
    return samples.sum() if reduction == "sum" else samples.mean()


def _compute_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _is_readable(tensor: Tensor) -> bool:
    """Whether values may decide the control flow: not on an accelerator, in a trace, a transform or a subclass."""
    return (
        tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and type(tensor) in (Tensor, torch.nn.Parameter)
        and not torch._C._are_functorch_transforms_active()
    )
