"""The public functions: one fused kernel on each side of the decoder.

A plain eager call goes straight to the extension, which answers None to everything else. Only then are the arguments
checked in words, and the call takes `torch.ops.pyvae` (while compiling, for subclasses and modes) or the reference (for
torch.func, forward-mode differentiation, other devices, and where there is no extension).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from . import _checks, _extension, reference
from .reference import ELBO

__all__ = [
    "ELBO",
    "backend",
    "elbo_loss",
    "elbo_terms",
    "kl_divergence",
    "reconstruction_loss",
    "reparameterize",
    "reparameterize_kl",
]

_C = _extension._C
_use_reference: ContextVar[bool] = ContextVar("pyvae_use_reference", default=False)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Choose the implementation within a ``with`` block, for this thread or task.

    Args:
        name: "auto" (the kernels wherever they can run, which is the default) or "reference" (pure PyTorch).

    Raises:
        ValueError: for any other name.

    Example:
        >>> import torch, pyvae
        >>> with pyvae.backend("reference"):
        ...     pyvae.kl_divergence(torch.ones(1, 2), torch.zeros(1, 2))
        tensor([1.])
    """
    if name not in ("auto", "reference"):
        raise ValueError(f'backend: `name` must be "auto" or "reference", but is {name!r}')
    token = _use_reference.set(name == "reference")
    try:
        yield
    finally:
        _use_reference.reset(token)


def _direct() -> bool:
    """Whether to try the extension's eager entry first."""
    return _C is not None and not torch.compiler.is_compiling() and not _use_reference.get()


def _operators(*tensors: Tensor | None) -> bool:
    """Whether an unusual call may go through `torch.ops.pyvae`; otherwise it goes through the reference."""
    if not torch.compiler.is_compiling() and _use_reference.get():
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    if any(torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None for tensor in given):
        return False
    return _extension.kernels_for(given[0].device)


# ---- encoder side ---------------------------------------------------------------------------------------------------


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
    if _direct():
        out = _C.reparameterize(mu, logvar, std, logstd, eps, seed, row_offset, generator, False)
        if out is not None:
            return out
    return _reparameterize("reparameterize", mu, logvar, std, logstd, eps, seed, row_offset, generator, False)[0]


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
    if _direct():
        out = _C.reparameterize(mu, logvar, std, logstd, eps, seed, row_offset, generator, True)
        if out is not None:
            return out
    return _reparameterize("reparameterize_kl", mu, logvar, std, logstd, eps, seed, row_offset, generator, True)


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
    if _direct():
        out = _C.kl_divergence(mu, logvar, std, logstd, reduction)
        if out is not None:
            return out
    posterior = _checks.posterior("kl_divergence", mu, logvar, std, logstd)
    _checks.reduction("kl_divergence", reduction)
    if not _operators(posterior.mu, posterior.scale):
        return reference.kl_divergence(mu, logvar, std=std, logstd=logstd, reduction=reduction)
    return torch.ops.pyvae.kl_divergence(
        posterior.mu, posterior.scale, _checks.SCALES.index(posterior.kind), _checks.REDUCTIONS.index(reduction)
    )


def _reparameterize(
    function: str,
    mu: Tensor,
    logvar: Tensor | None,
    std: Tensor | None,
    logstd: Tensor | None,
    eps: Tensor | None,
    seed: int | Tensor | None,
    row_offset: int,
    generator: torch.Generator | None,
    with_kl: bool,
) -> tuple[Tensor, Tensor]:
    """The calls that the extension's eager entry does not take."""
    posterior = _checks.posterior(function, mu, logvar, std, logstd)
    _checks.noise(function, mu, eps, seed, row_offset, generator)
    if not _operators(posterior.mu, posterior.scale, eps):
        return reference.reparameterize_kl(
            mu,
            logvar,
            std=std,
            logstd=logstd,
            eps=eps,
            seed=seed,
            row_offset=row_offset,
            generator=generator,
        )
    key = None if eps is not None else _checks.seed_tensor(seed, generator, mu.device)
    kind = _checks.SCALES.index(posterior.kind)
    return torch.ops.pyvae.reparameterize(posterior.mu, posterior.scale, eps, key, kind, row_offset, with_kl)


# ---- decoder side ---------------------------------------------------------------------------------------------------


def reconstruction_loss(
    recon: Tensor,
    target: Tensor,
    *,
    likelihood: str = "bernoulli",
    weight: Tensor | None = None,
    pos_weight: Tensor | float | None = None,
    reduction: str = "none",
) -> Tensor:
    """-log p(target | recon), summed over the features: the objective without its KL.

    Args:
        recon, target, likelihood, weight, pos_weight: as for `elbo_loss`.
        reduction: "none", shape (B,); "sum" over everything; "batchmean", the mean over the batch.

    Returns:
        The negative log-likelihood in nats, float32 (float64 if recon or target is).

    Raises:
        TypeError, ValueError: as `elbo_loss`.

    Example:
        >>> import torch, pyvae
        >>> pyvae.reconstruction_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood="gaussian")
        tensor([4., 4.])
    """
    return _elbo(
        "reconstruction_loss", recon, target, None, None, None, None, None, likelihood, 1.0, weight, pos_weight,
        reduction, False,
    )  # fmt: skip


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
    """The negative ELBO, -log p(target | recon) + beta * KL(q || N(0, I)), to be minimized.

    One pass reads recon and target, sums the loss and writes d loss / d recon, which the backward pass hands out.

    Args:
        recon: the decoder's output, shape (B, ...): probabilities, logits or means, by `likelihood`.
        target: the data, in recon's shape; either of the two may be the flattened (B, D) form of the other. Dtypes may
            differ (bfloat16 activations against float32 data).
        mu, logvar, std, logstd: the posterior, as for `kl_divergence`; or
        kl: its KL per sample, shape (B,), from `reparameterize_kl`. With neither the KL is 0.
        likelihood: "bernoulli", recon holds probabilities, values and gradients as `F.binary_cross_entropy`;
            "bernoulli_logits", as `F.binary_cross_entropy_with_logits`, exact in the tails; "gaussian", unit variance,
            1/2 (recon - target)^2. Targets of the Bernoulli ones may lie anywhere in [0, 1].
        beta: factor of the KL, a number or a 0-d tensor.
        weight: factor of each element's reconstruction term, or a mask; broadcastable to recon.
        pos_weight: factor of the positive class, number or tensor, for "bernoulli_logits".
        reduction: "sum" over features and batch, what `BCELoss(reduction="sum")` plus the summed KL give; "batchmean",
            sum over the features and mean over the batch; "none", shape (B,).

    Returns:
        The loss in nats, float32 (float64 if an input is).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came. "mean" over all elements would
            weigh the KL wrongly and is refused. Probabilities outside [0, 1] are refused; NaN goes through to the loss.

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
    return _elbo(
        "elbo_loss", recon, target, mu, logvar, std, logstd, kl, likelihood, beta, weight, pos_weight, reduction, False
    )


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
    return _elbo(
        "elbo_terms", recon, target, mu, logvar, std, logstd, kl, likelihood, beta, weight, pos_weight, reduction, True
    )


def _elbo(
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
    terms: bool,
) -> Any:
    """The loss, or with `terms` the ELBO."""
    if _direct():
        try:
            out = _C.elbo(
                recon, target, mu, logvar, std, logstd, kl, likelihood, beta, weight, pos_weight, reduction, terms
            )
        except ValueError:  # found by the kernel: a probability outside [0, 1]
            _checks.probabilities(function, recon)
            raise
        if out is not None:
            return ELBO(*out) if terms else out
    posterior = _checks.objective(
        function, recon, target, mu, logvar, std, logstd, kl, likelihood, beta, weight, pos_weight, reduction
    )
    scale, kind = (None, _checks.SCALES[0]) if posterior is None else posterior[1:]
    # A compiler takes an operator's number for a constant, and would compile anew for each.
    symbolic = isinstance(beta, Tensor) or torch.compiler.is_compiling()
    factor, beta_tensor = _as_tensor(pos_weight), _as_tensor(beta) if symbolic else None
    if not _operators(recon, target, mu, scale, kl, weight, factor, beta_tensor):
        out = reference.evaluate(
            function, recon, target, mu, logvar, std, logstd, kl, likelihood, beta, weight, pos_weight, reduction
        )
    else:
        out = torch.ops.pyvae.elbo(
            recon,
            target,
            mu,
            scale,
            kl,
            weight,
            factor,
            beta_tensor,
            1.0 if symbolic else float(beta),
            _checks.LIKELIHOODS.index(likelihood),
            _checks.SCALES.index(kind),
            _checks.REDUCTIONS.index(reduction),
        )
    return ELBO(*out) if terms else out[0]


def _as_tensor(factor: Tensor | float | None) -> Tensor | None:
    """A number as a scalar tensor, an integer tensor as a floating one, as the operators take them."""
    if factor is None:
        return None
    if not isinstance(factor, Tensor):
        return torch.ones((), dtype=torch.float64) * factor  # a product, which torch.compile can keep symbolic
    return factor if factor.is_floating_point() or factor.dtype == torch.bool else factor.float()
