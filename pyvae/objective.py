"""Decoder side: the negative ELBO and its terms, with the gradient made in the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import _checks, _codes, _route, _samples, _sharding, latent, reference
from ._arguments import (
    ELBO,
    NO_POSTERIOR,
    SCALES,
    ElementReduction,
    LikelihoodName,
    ObjectiveArguments,
    Posterior,
    Reduction,
    without_posterior,
)
from ._expect import as_factor
from ._extension import _C
from .likelihoods import LikelihoodObject, resolve, with_tensors


def reconstruction_loss(
    recon: Tensor,
    target: Tensor,
    *,
    likelihood: LikelihoodName | LikelihoodObject = "bernoulli",
    weight: Tensor | float | None = None,
    pos_weight: Tensor | float | None = None,
    reduction: ElementReduction = "none",
) -> Tensor:
    """-log p(target | recon), summed over the features or not: the objective without its KL.

    Args:
        recon, target, likelihood, weight, pos_weight: as for `elbo_loss`. Or recon holds S samples of each row of a
            target (B, ...) of two dimensions or more, and has shape (S, B, ...): target is not copied, and a softmax is
            each sample's own. Parameters and weights broadcast to recon; log_library is (B,), or (S, B). One sample of
            one row, (1, 1, D) against (1, D), is a flattened row instead, and gives (1,).
        reduction: "none", shape (B,), or (S, B) of samples; "sum" over everything; "batchmean", the mean over the batch
            and the samples; "elements", recon's shape, each element's own, which weights multiply and a mask sets to 0.

    Returns:
        The negative log-likelihood in nats, float32 (float64 if recon or target is).

    Raises:
        TypeError, ValueError: as `elbo_loss`.

    Example:
        >>> import torch, pyvae
        >>> pyvae.reconstruction_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood="gaussian")
        tensor([4., 4.])
    """
    if isinstance(reduction, str) and reduction == "elements":
        return _elements(recon, target, likelihood, weight, pos_weight)
    return _elbo(
        reconstruction_loss, False, recon, target, *NO_POSTERIOR, likelihood, 1.0, weight, pos_weight, reduction
    )


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
    """The negative ELBO, -log p(target | recon) + beta * KL(q || N(0, I)), to be minimized.

    One pass reads recon and target, sums the loss and writes d loss / d recon, which the backward pass hands out.

    Args:
        recon: the decoder's output, shape (B, ...): probabilities, logits or means, by `likelihood`.
        target: the data, in recon's shape; either of the two may be the flattened (B, D) form of the other. Dtypes may
            differ (bfloat16 activations against float32 data), and target may be uint8, int8, int16, int32, int64 or
            bool: read as it is, and not scaled (bytes 0 ... 255 stay those numbers). Integers are computed in float32
            (float64 if recon is), so that those above 2^24 round as by `target.float()`.
        mu, logvar, std, logstd, rho: the posterior, as for `kl_divergence`; or
        logvar_range, prior: of the posterior, as for `kl_divergence`; not beside kl, which has them in it.
        kl: its KL per sample, shape (B,), from `reparameterize_kl`. With neither the KL is 0.
        likelihood: "bernoulli", recon holds probabilities, values and gradients as `F.binary_cross_entropy`;
            "bernoulli_logits", as `F.binary_cross_entropy_with_logits`, exact in the tails;
            "continuous_bernoulli_logits", the same less log C, C = recon / tanh(recon / 2), which makes it a density of
            targets in [0, 1] (Loaiza-Ganem & Cunningham 2019); "gaussian", unit variance, 1/2 (recon - target)^2;
            "laplace", unit scale, `|recon - target|`; "poisson", recon holds the log of the mean; "multinomial", recon
            holds logits over all features, and the target counts. Or an object that carries what belongs to it, tensors
            or numbers: `pyvae.Gaussian(logvar)`, `Laplace(logscale)`, `Poisson(log_library)`, `NegativeBinomial`,
            `ZeroInflatedNegativeBinomial`, `Multinomial`. Targets of the Bernoulli ones may lie anywhere in [0, 1]
            (bytes are to be divided by 255).
        beta: factor of the KL, a number or a 0-d tensor.
        weight: factor of each element's reconstruction term, a number or a tensor of numbers that broadcasts to recon:
            `weight=2 / features` of "gaussian" gives means of squared errors. Or a mask, a tensor of bools, which
            selects: where it is False, target, recon and parameters are neither checked nor looked at, and their
            gradients are exactly 0 (under a softmax the scores there still take part in the normalizer, if any of the
            row is selected; a score of -inf does not). "batchmean" divides by the batch size, not by the mask.
        pos_weight: factor of the positive class, number or tensor, for "bernoulli_logits".
        reduction: "sum" over features and batch, what `BCELoss(reduction="sum")` plus the summed KL give; "batchmean",
            sum over the features and mean over the batch; "none", shape (B,).

    Returns:
        The loss in nats, float32 (float64 if recon, target, the posterior or the KL is). Of DTensors a DTensor: where
        recon is split by rows or, for likelihoods that go element by element, by features, sums are `Partial("sum")`.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came. "mean" over all elements would
            weigh the KL wrongly and is refused. Probabilities and Bernoulli targets outside [0, 1]
            and negative counts are refused on the CPU, and make their sample's loss NaN on CUDA; NaN goes through to
            the loss.

    Source:
        Kingma & Welling, "Auto-encoding variational Bayes" (2014), appendices B and C; beta: Higgins et al.,
        "beta-VAE" (2017).

    Example:
        >>> import torch, pyvae
        >>> x, logits = torch.ones(4, 3), torch.zeros(4, 3)
        >>> mu, logvar = torch.ones(4, 2), torch.zeros(4, 2)
        >>> pyvae.elbo_loss(logits, x, mu, logvar, likelihood="bernoulli_logits", reduction="batchmean")
        tensor(3.0794)
    """
    posterior = (mu, logvar, std, logstd, rho, logvar_range, prior, kl)
    return _elbo(elbo_loss, False, recon, target, *posterior, likelihood, beta, weight, pos_weight, reduction)


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
    """The negative ELBO and its two terms, each differentiable by itself.

    Args:
        All as for `elbo_loss`.

    Returns:
        ELBO(loss, recon, kl): loss = recon + beta * kl; recon, the negative log-likelihood; kl, without beta. Each in
        nats, reduced by `reduction`.

    Raises:
        TypeError, ValueError: as `elbo_loss`.

    Example:
        >>> import torch, pyvae
        >>> x, mu = torch.ones(4, 3), torch.ones(4, 2)
        >>> pyvae.elbo_terms(torch.zeros(4, 3), x, mu, std=torch.ones(4, 2), likelihood="gaussian", beta=0.5)
        ELBO(loss=tensor(8.), recon=tensor(6.), kl=tensor(4.))
    """
    posterior = (mu, logvar, std, logstd, rho, logvar_range, prior, kl)
    return _elbo(elbo_terms, True, recon, target, *posterior, likelihood, beta, weight, pos_weight, reduction)


def _elbo(function: Callable[..., Any], terms: bool, *arguments: Any) -> Any:
    """The loss, or with `terms` the ELBO; `arguments` of the public `function` are those of ObjectiveArguments."""
    if _route.direct():
        try:
            out = _C.elbo(terms, *arguments)
        except ValueError:  # found by a kernel: a number outside [0, 1], a negative count, a std below 0
            call, posterior = _checks.objective(function.__name__, ObjectiveArguments(*arguments))
            reference.refuse_data(function.__name__, call, posterior)
            raise
        if out is not None:
            return ELBO(*out) if terms else out
    call = ObjectiveArguments(*arguments)
    if _route.overridden(call):
        return _route.override(function, call._asdict())
    if function is reconstruction_loss and _samples.has_samples(call.recon, call.target):
        return _of_samples(call)
    return _checked(function, terms, *_checks.objective(function.__name__, call))


def _checked(function: Callable[..., Any], terms: bool, call: ObjectiveArguments, posterior: Posterior | None) -> Any:
    """The rest of `_elbo`, of a checked call."""
    if posterior is not None and (posterior.range or posterior.prior):  # the KL by its own operator
        kl = latent.divergence(function.__name__, posterior, "none")
        absent: dict[str, Any] = dict.fromkeys(("mu", *SCALES, "logvar_range", "prior"))
        call = call._replace(**absent, kl=kl)
        posterior = None
    scale, kind = (None, SCALES[0]) if posterior is None else posterior[1:3]
    # A compiler takes an operator's number for a constant, and would compile anew for each.
    symbolic = isinstance(call.beta, Tensor) or torch.compiler.is_compiling()
    like = with_tensors(resolve(call.likelihood), call.recon)
    dtype = torch.float64 if torch.float64 in (call.recon.dtype, call.target.dtype) else torch.float32
    factors = (call.weight, call.pos_weight, call.beta if symbolic else None)
    weight, pos_weight, beta = (as_factor(factor, dtype) for factor in factors)
    tensors = (
        call.recon,
        call.target,
        call.mu,
        scale,
        call.kl,
        weight,
        pos_weight,
        beta,
        *like.parameters,
        like.log_library,
    )
    if _sharding.among(*tensors):
        out = _sharding.objective(partial(_elbo, function), function.__name__, call, posterior)
        return out if terms else out.loss
    if not _route.operators(*tensors):
        out = reference.evaluate(function.__name__, call, posterior)
    else:
        out = torch.ops.pyvae.elbo(
            call.recon,
            call.target,
            call.mu,
            scale,
            SCALES.index(kind),
            call.kl,
            _codes.likelihood_code(like.name),
            like.parameters,
            like.log_library,
            1.0 if symbolic else float(call.beta),
            beta,
            weight,
            pos_weight,
            _codes.REDUCTIONS.index(call.reduction),
        )
    return ELBO(*out) if terms else out[0]


def _elements(
    recon: Tensor, target: Tensor, likelihood: Any, weight: Tensor | float | None, pos_weight: Tensor | float | None
) -> Tensor:
    """`reconstruction_loss` of each element."""
    name = reconstruction_loss.__name__
    call = without_posterior(recon, target, likelihood, weight, pos_weight, "elements")
    if _route.direct():
        try:
            out = _C.elements(recon, target, likelihood, weight, pos_weight)
        except ValueError:
            reference.refuse_data(name, _checks.objective(name, call)[0], None)
            raise
        if out is not None:
            return out
    if _route.overridden(call):
        return _route.override(reconstruction_loss, call._asdict())
    if _samples.has_samples(recon, target):
        return _of_samples(call)
    return _checked_elements(_checks.objective(name, call)[0])


def _checked_elements(call: ObjectiveArguments) -> Tensor:
    """The rest of `_elements`, of a checked call."""
    name = reconstruction_loss.__name__
    like = with_tensors(resolve(call.likelihood), call.recon)
    dtype = torch.float64 if torch.float64 in (call.recon.dtype, call.target.dtype) else torch.float32
    factors = tuple(as_factor(factor, dtype) for factor in (call.weight, call.pos_weight))
    tensors = (call.recon, call.target, *factors, *like.parameters, like.log_library)
    if _sharding.among(*tensors):
        return _sharding.elements(_elements, name, call)
    if not _route.operators(*tensors):
        return reference.elements(name, call)
    code = _codes.likelihood_code(like.name)
    return torch.ops.pyvae.elements(call.recon, call.target, code, like.parameters, like.log_library, *factors)


def _of_samples(call: ObjectiveArguments) -> Tensor:
    """`reconstruction_loss` of recon (S, B, ...) and target (B, ...)."""
    function, shape = reconstruction_loss.__name__, call.recon.shape
    if _sharding.among(call.recon, call.target):
        return _sharding.samples(reconstruction_loss, call)
    call, _ = _checks.objective(function, _samples.flattened(_checks.samples(function, call)), samples=True)
    is_apart = call.reduction == "elements"
    try:
        out = _checked_elements(call) if is_apart else _checked(reconstruction_loss, False, call, None)
    except ValueError:  # found by a kernel
        reference.refuse_data(function, call._replace(target=_samples.spread(call.target, call.recon)), None)
        raise
    return _samples.unflattened(out, shape)
