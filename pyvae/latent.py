"""Encoder side: the sample, its noise, and the KL divergence, each in one fused kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import _checks, _codes, _latent_checks, _mixture_kl, _route, _sharding, reference
from ._arguments import SCALES, ElementReduction, LatentArguments, Posterior
from ._expect import scalar
from ._extension import _C
from ._mixture_checks import Mixture
from ._noise import seed_tensor
from .mixture import mixture_log_prob


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
    """A sample z = mu + sigma * eps of the posterior N(mu, sigma^2), through which gradients pass.

    The noise eps ~ N(0, 1) is a function of (seed, element): it is never stored, the backward pass draws it again. One
    seed gives the same sample, bit for bit, on any number of threads and any CPU, and in any split of the batch.

    Dimension 0 is the batch: a mu of shape (K, B, L) is K posteriors of B * L features. `samples=S` draws S samples of
    each of B posteriors, shape (S, B, ...); the first is that of a call without it.

    Args:
        mu: posterior mean, shape (B, ...), floating.
        logvar: log sigma^2, or
        std: sigma, 0 or more, or
        logstd: log sigma, or
        rho: sigma = softplus(rho) = log(1 + e^rho), as in Bayes by backprop; exactly one of them, in mu's shape.
        logvar_range: (low, high), to which logvar is clamped before everything else, within the kernel; either may be
            None. The gradient is 0 outside, and passes at the ends (as by `torch.clamp` until 2.13; later ones stop it
            there). (-30, 20) is what diffusers' DiagonalGaussianDistribution does.
        eps: use this noise instead, in the shape of z; differentiable.
        seed: 64 bits as an int or an int64 tensor of one element on mu's device. Without it the seed is drawn from
            `generator`, or torch's default one: `torch.manual_seed` repeats it, and two calls differ. One seed is one
            noise: two layers of equal shape need two, `seed` and `seed + 1`, say. `seed=step` gives a resumed run the
            noise that it would have had. float32 (and 16 bits) and float64 draw two noises from one seed;
            `pyvae.reference` draws the kernels' up to the last bits.
        row_offset: index of mu's first row in a larger batch, so that parts drawn apart equal the whole.
        generator: a torch.Generator on mu's device.
        samples: S, how many samples of each posterior, 1 or more; None: one, without a dimension for it. The noise of
            each is drawn again in the backward pass, and gradients are summed from the first to the last.

    Returns:
        z, shape of mu, or `(S, *mu.shape)` with `samples`, dtype `torch.promote_types(mu.dtype, scale.dtype)`. 16-bit
            inputs are computed in float32. Of DTensors a DTensor, split by rows if mu is: `seed` draws what one
            process would have drawn, and without it each process draws a seed for its rows.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came. A std below 0 is refused on the
            CPU, and gives NaN on CUDA.

    Source:
        Kingma & Welling, "Auto-encoding variational Bayes" (2014), section 2.4. Philox4x32-10: Salmon et al., "Parallel
        random numbers: as easy as 1, 2, 3" (2011). rho: Blundell et al., "Weight uncertainty in neural networks"
        (2015), section 3.2.

    Example:
        >>> import torch, pyvae
        >>> mu, logvar = torch.zeros(4, 2), torch.zeros(4, 2)
        >>> whole = pyvae.reparameterize(mu, logvar, seed=7)
        >>> half = pyvae.reparameterize(mu[2:], logvar[2:], seed=7, row_offset=2)
        >>> torch.equal(whole[2:], half)
        True
    """
    return _reparameterize(
        reparameterize,
        False,
        mu,
        logvar,
        std,
        logstd,
        rho,
        logvar_range,
        eps,
        seed,
        row_offset,
        generator,
        samples,
        None,
    )


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
    """A sample of the posterior and its KL divergence from the prior, in one pass.

    Args:
        mu, logvar, std, logstd, rho, logvar_range, eps, seed, row_offset, generator, samples: as for `reparameterize`.
        prior: as for `kl_divergence`; the sample does not depend on it. Or a `pyvae.Mixture` over vectors, for mu
            (B, L): from it the divergence has no closed form, and is estimated, without bias, by the mean over the
            samples of log q(z|x) - log p(z).

    Returns:
        (z, kl): z as from `reparameterize`; kl as from `kl_divergence`, shape (B,), nats, float32 (float64 for float64
        inputs). Both come from one node of the graph: of two backward passes, one from each, the first needs
        `retain_graph=True`.

    Raises:
        TypeError, ValueError: as `reparameterize`.

    Source:
        Kingma & Welling, "Auto-encoding variational Bayes" (2014), section 2.4 and appendix B.

    Example:
        >>> import torch, pyvae
        >>> z, kl = pyvae.reparameterize_kl(torch.ones(3, 2), torch.zeros(3, 2))
        >>> z.shape, kl
        (torch.Size([3, 2]), tensor([1., 1., 1.]))

        A step of a hierarchy: z1 ~ q(z1|x), and its KL from p(z1|z2), which a network makes of z2.

        >>> z2, kl2 = pyvae.reparameterize_kl(torch.zeros(3, 1), torch.zeros(3, 1))
        >>> mean, logvar = torch.nn.Linear(1, 4)(z2).chunk(2, 1)
        >>> z1, kl1 = pyvae.reparameterize_kl(torch.ones(3, 2), torch.zeros(3, 2), prior=(mean, logvar))
        >>> (kl1 + kl2).shape
        torch.Size([3])
    """
    return _reparameterize(
        reparameterize_kl,
        True,
        mu,
        logvar,
        std,
        logstd,
        rho,
        logvar_range,
        eps,
        seed,
        row_offset,
        generator,
        samples,
        prior,
    )


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
    """KL(N(mu, sigma^2) || N(0, I)) = 1/2 sum(mu^2 + sigma^2 - 1 - log sigma^2), summed over the features.

    From a prior N(m, p^2) it is 1/2 sum((mu - m)^2 / p^2 + expm1(d) - d) with d = log sigma^2 - log p^2, computed in a
    form that stays exact where the posterior is near the prior.

    Args:
        mu: posterior mean, shape (B, ...).
        logvar: log sigma^2, or
        std: sigma, 0 or more, or
        logstd: log sigma, or
        rho: sigma = softplus(rho); exactly one of them, in mu's shape.
        logvar_range: as for `reparameterize`.
        prior: (m, its scale in the posterior's own form: logvar, std, logstd or rho), two tensors that broadcast to
            mu, on its device, or numbers; both differentiable, their gradients in their own shapes. None: N(0, I). It
            is computed in the posterior's type; in float32, p may be from 1e-19 to 1e19. With rho, N(0, 0.1^2) is
            `prior=(0.0, math.log(math.expm1(0.1)))`.
        reduction: "none", shape (B,); "sum" over the batch; "batchmean", the mean over the batch; "elements", mu's
            shape, not summed at all.

    Returns:
        The divergence in nats, float32 (float64 for float64 inputs).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came. "mean" is refused; so is a std
            below 0, the prior's too, on the CPU (NaN on CUDA).

    Source:
        Kingma & Welling, "Auto-encoding variational Bayes" (2014), appendix B. Free bits: Kingma et al., "Improved
        variational inference with inverse autoregressive flow" (2016), appendix C.8. Balancing: Hafner et al.,
        "Mastering Atari with discrete world models" (2021), algorithm 2.

    Example:
        >>> import torch, pyvae
        >>> mu, logvar = torch.ones(2, 4), torch.zeros(2, 4)
        >>> pyvae.kl_divergence(mu, logvar)
        tensor([2., 2.])
        >>> pyvae.kl_divergence(mu, torch.ones(2, 4), prior=(1.0, 1.0))
        tensor([0., 0.])

        Free bits, a KL that is not pushed below a limit: of each element; of each dimension (its mean over the batch:
        one number for all, to be added to `reconstruction_loss(..., reduction="batchmean")`); of each sample.

        >>> each = pyvae.kl_divergence(mu, logvar, reduction="elements")
        >>> each.clamp(min=0.6).sum(1)
        tensor([2.4000, 2.4000])
        >>> each.mean(0).clamp(min=0.6).sum()
        tensor(2.4000)
        >>> pyvae.kl_divergence(mu, logvar).clamp(min=2.5)
        tensor([2.5000, 2.5000])

        Balancing: a learned prior is drawn to the posterior faster than the posterior to it.

        >>> mean, prior_logvar = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
        >>> to_prior = pyvae.kl_divergence(mu.detach(), logvar.detach(), prior=(mean, prior_logvar))
        >>> to_posterior = pyvae.kl_divergence(mu, logvar, prior=(mean.detach(), prior_logvar.detach()))
        >>> 0.8 * to_prior + 0.2 * to_posterior
        tensor([2., 2.], grad_fn=<AddBackward0>)
    """
    if _route.direct():
        try:
            out = _C.kl_divergence(mu, logvar, std, logstd, rho, logvar_range, prior, reduction)
        except ValueError:  # found by the kernel: a std below 0
            _latent_checks.refuse_data(
                "kl_divergence", LatentArguments(mu, logvar, std, logstd, rho, logvar_range, prior=prior)
            )
            raise
        if out is not None:
            return out
    given = LatentArguments(mu, logvar, std, logstd, rho, logvar_range, prior=prior)
    if _route.overridden(given):
        return _route.override(kl_divergence, given._asdict() | {"reduction": reduction})
    posterior = _latent_checks.posterior("kl_divergence", given)
    _checks.reduction("kl_divergence", reduction, _codes.KL_REDUCTIONS)
    return divergence("kl_divergence", posterior, reduction)


def divergence(function: str, posterior: Posterior, reduction: str) -> Tensor:
    """The KL of a checked posterior, in a call of the public `function` that is no plain one."""
    tensors = (posterior.mu, posterior.scale, *(posterior.prior or ()))
    if _sharding.among(*tensors):
        return _sharding.divergence(kl_divergence, function, posterior, reduction)
    if not _route.operators(*tensors):
        return reference.divergence(function, posterior, reduction)
    return torch.ops.pyvae.kl_divergence(*_operands(posterior, None, None, 0, 0), _codes.KL_REDUCTIONS.index(reduction))


def _reparameterize(function: Callable[..., Any], with_kl: bool, *arguments: Any) -> Any:
    """z, or with its KL (z, kl); `arguments` of the public `function` are those of LatentArguments."""
    if _route.direct():
        try:
            out = _C.reparameterize(with_kl, *arguments)
        except ValueError:  # as in kl_divergence
            _latent_checks.refuse_data(function.__name__, LatentArguments(*arguments))
            raise
        if out is not None:
            return out
    call = LatentArguments(*arguments)
    if _route.overridden(call):
        return _route.override(function, call._asdict())
    if with_kl and isinstance(call.prior, Mixture):
        functions = _mixture_kl.Functions(reparameterize, mixture_log_prob)
        return _mixture_kl.sample_and_estimate(functions, call)
    call, posterior = _latent_checks.call(function.__name__, call)
    tensors = (posterior.mu, posterior.scale, call.eps, *(posterior.prior or ()))
    if _sharding.among(*tensors):
        return _sharding.sample(partial(_reparameterize, function), function.__name__, with_kl, call, posterior)
    if not _route.operators(*tensors):
        z, posterior = reference.sample(function.__name__, call, posterior)
        return (z, reference.divergence(function.__name__, posterior, "none")) if with_kl else z
    seed = None if call.eps is not None else seed_tensor(call.seed, call.generator, posterior.mu.device)
    operands = _operands(posterior, call.eps, seed, call.row_offset, call.samples or 0)
    z, kl = torch.ops.pyvae.reparameterize(*operands, with_kl)
    return (z, kl) if with_kl else z


def _operands(
    posterior: Posterior, eps: Tensor | None, seed: Tensor | None, row_offset: int, samples: int
) -> tuple[Any, ...]:
    """The latent operators' common arguments."""
    mu, scale, kind, bounds, prior = posterior
    low, high = (None if bound is None else scalar(bound) for bound in bounds or (None, None))
    return mu, scale, SCALES.index(kind), low, high, eps, seed, row_offset, *(prior or (None, None)), samples
