"""`of`: a torch distribution of what `elbo_loss` takes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.distributions as torch_distributions
from torch import Tensor
from torch.distributions import Distribution, constraints

from .. import _checks, likelihoods
from .._arguments import LikelihoodName, without_posterior
from .._noise import exact_dtype
from .._objects import held
from .._posterior import HALF_LOG_TWO_PI
from ..likelihoods import LikelihoodObject, resolve
from ._fused import Fused
from ._multinomial import Multinomial
from ._negative_binomial import NegativeBinomial, ZeroInflatedNegativeBinomial
from ._poisson import Poisson

LOG_2 = math.log(2)


class Bernoulli(Fused, torch_distributions.Bernoulli):
    """torch's, with a `log_prob` of targets anywhere in [0, 1], as gray pixels are."""

    support = constraints.unit_interval  # type: ignore[assignment]
    _range = (0.0, 1.0)


class ContinuousBernoulli(Fused, torch_distributions.ContinuousBernoulli):
    """torch's, exact for every logit x, where torch's probabilities end at about 16: its density is proportional to
    e^(x t)."""

    _range = (0.0, 1.0)

    @property
    def mean(self) -> Tensor:
        """1 / (1 - e^-x) - 1 / x."""
        x, near = self._apart()
        return torch.where(near, 0.5 + x / 12, -1 / torch.expm1(-x) - 1 / x).to(self._recon.dtype)

    @property
    def variance(self) -> Tensor:
        """1 / x^2 - 1 / (2 sinh(x / 2))^2."""
        x, near = self._apart()
        y = x.abs()
        share = torch.exp(-y) / torch.expm1(-y).square()  # 1 / (2 sinh(x / 2))^2 without an infinity
        return torch.where(near, 1 / 12 - x * x / 240, 1 / (x * x) - share).to(self._recon.dtype)

    def icdf(self, value: Tensor) -> Tensor:
        """Where the share `value` of the probability lies below: log(1 + u (e^x - 1)) / x."""
        x, near = self._apart()
        u = value.to(x.dtype)
        y, small = x.abs(), torch.where(x > 0, 1 - u, u)  # by the side where e^-|x| does not vanish
        at = -torch.log1p(small * torch.expm1(-y)) / y
        at = torch.where(near, u + u * (1 - u) * x / 2, torch.where(x > 0, 1 - at, at))
        return at.clamp(0, 1).to(self._recon.dtype)

    def _apart(self) -> tuple[Tensor, Tensor]:
        """The logit in float64, in the batch shape, and whether it is so near 0 that a series is used."""
        x = self._recon.to(exact_dtype(self._recon.device)).expand(self._batch_shape)
        return x, x.abs() < 1e-3


class Normal(Fused, torch_distributions.Normal):
    """torch's, by its log-variance."""

    _constant = HALF_LOG_TWO_PI


class Laplace(Fused, torch_distributions.Laplace):
    """torch's, by its log-scale."""

    _constant = LOG_2


def of(
    likelihood: LikelihoodName | LikelihoodObject,
    recon: Tensor,
    *,
    total_count: Tensor | int | None = None,
    validate_args: bool | None = None,
) -> Distribution:
    """p(x | z) of what `elbo_loss` takes: to draw data from a decoder, and to evaluate it.

    Args:
        likelihood, recon: as for `elbo_loss`.
        total_count: of "multinomial", how many counts a row has, a whole number or shape (B,). `log_prob` takes each
            row's own and needs none.
        validate_args: as of torch.distributions.

    Returns:
        A torch distribution of recon's shape, each element its own; of "multinomial" each row, its features an event.
        `log_prob` is the log of the density or probability, with the constants that losses leave out: in "gaussian" and
        `Gaussian` 1/2 log(2 pi) an element, in "laplace" and `Laplace` log 2, in "multinomial" the row's coefficient.
        Bernoulli targets may lie anywhere in [0, 1], as for the loss.

    Raises:
        TypeError, ValueError: as `elbo_loss`.

    Example:
        >>> import torch, pyvae
        >>> pixels = pyvae.distributions.of("bernoulli_logits", torch.zeros(2, 784))
        >>> pixels.sample().shape, pixels.mean[0, 0].item()
        (torch.Size([2, 784]), 0.5)
    """
    call = without_posterior(recon, recon, likelihood, None, None, "none")
    call, _ = _checks.objective("distributions.of", call)
    likelihood = call.likelihood
    name = resolve(likelihood).name
    if name == "multinomial":
        return Multinomial(recon, total_count, validate_args)
    if total_count is not None:
        raise ValueError(
            f'distributions.of: `total_count` must come with likelihood="multinomial", but likelihood is {likelihood!r}'
        )
    if name in BERNOULLI:
        cls, parameter = BERNOULLI[name]
        made = _fused(cls(**{parameter: recon}, validate_args=validate_args), recon, likelihood)
        made._recon_range = ("probs", 0.0, 1.0) if parameter == "probs" else None
        return made
    if name in SCALED:
        return _scaled(likelihood, recon, validate_args)
    return _counts(likelihood, recon, validate_args)


BERNOULLI: dict[str, tuple[Any, str]] = {
    "bernoulli": (Bernoulli, "probs"),
    "bernoulli_logits": (Bernoulli, "logits"),
    "continuous_bernoulli_logits": (ContinuousBernoulli, "logits"),
}
SCALED: dict[str, tuple[Any, float]] = {  # and the scale's log, as a multiple of the likelihood's parameter
    "gaussian": (Normal, 0.0),
    "gaussian_logvar": (Normal, 0.5),
    "laplace": (Laplace, 0.0),
    "laplace_logscale": (Laplace, 1.0),
}


def _fused(made: Any, recon: Tensor, likelihood: Any) -> Any:
    """With what its `log_prob` takes."""
    made._recon, made._likelihood = recon, likelihood
    return made


def _beside(value: Tensor | float, recon: Tensor) -> Tensor:
    """A likelihood's parameter as a tensor."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=recon.dtype, device=recon.device)


def _scaled(likelihood: Any, recon: Tensor, validate_args: bool | None) -> Distribution:
    name, given, _ = resolve(likelihood)
    cls, multiple = SCALED[name]
    scale = torch.exp(multiple * _beside(given[0], recon)) if given else torch.ones_like(recon)
    return _fused(cls(recon, scale, validate_args=validate_args), recon, likelihood)


def _counts(likelihood: Any, recon: Tensor, validate_args: bool | None) -> Distribution:
    """Of log means in place of a softmax's scores, and of tensors in place of the numbers that it shows."""
    library = resolve(likelihood).log_library
    if library is not None:
        rows = recon.flatten(1) if recon.ndim > 1 else recon[:, None]
        library = library.reshape(-1, 1) if isinstance(library, Tensor) else library
        recon = (torch.log_softmax(rows, 1) + library).reshape(recon.shape)
    if isinstance(likelihood, str):
        likelihood = likelihoods.Poisson()
    own = {name: value for name, value in held(likelihood).items() if name in ("log_theta", "theta", "zi_logits")}
    own = {name: _beside(value, recon) for name, value in own.items()}
    likelihood = replace(likelihood, log_library=None, **own)
    if isinstance(likelihood, likelihoods.Poisson):
        mean = torch.exp(recon) if likelihood.link == "log" else recon
        return _fused(Poisson(mean, validate_args), recon, likelihood)
    inflated = isinstance(likelihood, likelihoods.ZeroInflatedNegativeBinomial)
    cls = ZeroInflatedNegativeBinomial if inflated else NegativeBinomial
    return cls._of(recon, likelihood, validate_args)
