"""The negative binomial, with or without extra zeros, with scvi-tools' constructors."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import probs_to_logits

from .. import likelihoods
from .._expect import is_number, is_readable, number, what
from .._objects import held
from ._fused import Fused, carried
from ._parameters import common_dtype, parameters
from ._poisson import LARGEST_MEAN, Normalized, rounded


class NegativeBinomial(Normalized, Fused):
    """Negative binomial counts of mean mu and variance mu + mu^2 / theta.

    Either `mu` and `theta`, as scvi-tools' models have them, or `total_count` and one of `probs` and `logits`, as of
    `torch.distributions.NegativeBinomial`: theta is then total_count, and mu is total_count * exp(logits). They
    broadcast to the batch shape without being copied. `log_prob` is right where torch's in float32 is not: for large
    theta.

    Args:
        total_count, probs, logits: a tensor or a number each.
        mu: the mean, 0 or more.
        theta: the inverse dispersion, above 0.
        scale: the normalized expression, which is kept and not used.
        validate_args: False, as of scvi-tools': negative values are NaN, with a warning; parameters are not looked at.
            True, as of torch's: what lies outside its range raises an error. None: torch's default.
        eps: what is added to `mu` in `log_prob`, as scvi-tools does, so that a count above 0 is possible where mu is 0.

    Source:
        Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018).

    Example:
        >>> import torch, pyvae
        >>> counts = pyvae.distributions.NegativeBinomial(mu=torch.ones(2, 3), theta=torch.ones(3))
        >>> counts.log_prob(torch.zeros(2, 3)).exp()[0]
        tensor([0.5000, 0.5000, 0.5000])
        >>> counts.sample((4,)).shape
        torch.Size([4, 2, 3])
    """

    arg_constraints = {"mu": constraints.nonnegative, "theta": constraints.nonnegative}  # noqa: RUF012
    support = constraints.nonnegative_integer
    _kind: type = likelihoods.NegativeBinomial
    _scale: Tensor | None
    _warns = False  # of any value outside the support

    def __init__(
        self,
        total_count: Tensor | float | None = None,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        mu: Tensor | float | None = None,
        theta: Tensor | float | None = None,
        scale: Tensor | None = None,
        validate_args: bool | None = False,
        *,
        eps: float = 1e-8,
    ) -> None:
        given = {"total_count": total_count, "probs": probs, "logits": logits, "mu": mu, "theta": theta}
        self._make(given, {}, scale, validate_args, eps)

    def _make(
        self, given: dict[str, Any], beside: dict[str, Any], scale: Any, validate_args: bool | None, eps: Any
    ) -> None:
        """Of one of the two ways to say it, and the parameters beside."""
        function = type(self).__name__
        given = {name: value for name, value in given.items() if value is not None}
        if list(given) not in (["mu", "theta"], ["total_count", "probs"], ["total_count", "logits"]):
            raise ValueError(
                f"{function}: expected `mu` and `theta`, or `total_count` and one of `probs` and `logits`, "
                f"but got {', '.join(f'`{name}`' for name in given) or 'none of them'}"
            )
        made = parameters(function, **given, **beside)
        if "mu" in made:
            if not is_number(number(eps)):
                raise TypeError(f"{function}: `eps` must be a number, but is {what(eps)}")
            recon = made.pop("mu")
            likelihood = self._kind(**made, link="identity", eps=eps)
            likelihood._check(function)
        else:
            made["log_theta"] = log_theta = torch.log(made.pop("total_count"))
            recon = made.pop("logits") if "logits" in made else self._logits_of(made.pop("probs"), validate_args)
            recon, likelihood = recon + log_theta, self._kind(**made)
        self._hold(recon, likelihood, scale, validate_args)

    def _logits_of(self, probs: Tensor, validate_args: bool | None) -> Tensor:
        validates = Distribution._validate_args if validate_args is None else validate_args
        if validates and not bool(((probs >= 0) & (probs < 1)).all()):
            raise ValueError(f"{type(self).__name__}: `probs` must lie in [0, 1), but do not everywhere")
        return probs_to_logits(probs, is_binary=True)

    @classmethod
    def _of(cls, recon: Tensor, likelihood: Any, validate_args: bool | None) -> Any:
        """Of what `elbo_loss` takes: see `_hold`."""
        self = cls.__new__(cls)
        self._hold(recon, likelihood, None, validate_args)
        return self

    def _hold(self, recon: Tensor, likelihood: Any, scale: Tensor | None, validate_args: bool | None) -> None:
        """What `elbo_loss` takes, the likelihood's parameters as tensors and its mean by no softmax."""
        self._recon, self._likelihood, self._scale = recon, likelihood, scale
        shapes = [x.shape for x in (recon, *likelihood.resolved.parameters) if isinstance(x, Tensor)]
        Distribution.__init__(self, torch.broadcast_shapes(*shapes), validate_args=validate_args)

    @property
    def mu(self) -> Tensor:
        """The negative binomial's mean, in the batch shape."""
        mu = self._recon if self._likelihood.link == "identity" else torch.exp(self._recon)
        return mu.expand(self._batch_shape)

    @property
    def theta(self) -> Tensor:
        """The inverse dispersion, in the batch shape."""
        like = self._likelihood
        theta: Tensor = torch.exp(like.log_theta) if like.theta is None else like.theta
        return theta.expand(self._batch_shape)

    total_count = theta

    @property
    def logits(self) -> Tensor:
        """log(mu / theta), of torch's success."""
        log_mean = torch.log(self._recon) if self._likelihood.link == "identity" else self._recon
        return log_mean - torch.log(self.theta)

    @property
    def probs(self) -> Tensor:
        """mu / (mu + theta), of torch's success."""
        return torch.sigmoid(self.logits)

    @property
    def scale(self) -> Tensor | None:
        """The normalized expression, as it was given; of `total_count`, mu's share of its sum."""
        if self._scale is None and self._likelihood.link == "log":
            return self.mu / self.mu.sum(-1, keepdim=True)
        return self._scale

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return self.mu + self.mu**2 / self.theta

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Counts of shape sample_shape + batch_shape: Poisson draws of means from a gamma distribution.

        Those of 16 bits are drawn in float32, and end at the type's largest number.
        """
        own = [x for x in held(self._likelihood).values() if isinstance(x, Tensor)]
        with torch.no_grad():
            counts = self._draw(self._extended_shape(torch.Size(sample_shape or ())))
            return rounded(counts, common_dtype(self._recon, *own))

    def _draw(self, shape: torch.Size) -> Tensor:
        like, single = self._likelihood, torch.promote_types(self._recon.dtype, torch.float32)
        mu = self._recon.to(single) if like.link == "identity" else torch.exp(self._recon.to(single))
        theta = torch.exp(like.log_theta.to(single)) if like.theta is None else like.theta.to(single)
        means = torch._standard_gamma(theta.expand(shape).contiguous()) * (mu / theta)
        means = torch.where(theta.isinf(), mu, torch.where(theta == 0, 0.0, means))  # Poisson's limit, and always 0
        return torch.poisson(means.clamp(max=LARGEST_MEAN))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), of each element: shape of value and the batch, broadcast; float32 (float64 for float64)."""
        shape = self._check(value)
        if not self._validate_args and self._warns and is_readable(value):
            whole = not value.is_floating_point() or torch.equal(value, value.round())
            if not whole:
                _warn()
        try:
            return self._evaluate(value, shape)
        except ValueError:
            if not (is_readable(value) and bool((value < 0).any())):
                raise
        _warn()
        exact = value if value.is_floating_point() else value.to(self.mu.dtype)
        return self._evaluate(torch.where(exact < 0, torch.nan, exact), shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """A distribution of this batch shape; its parameters stay as they are."""
        new = carried(self, _instance)
        Distribution.__init__(new, torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def __repr__(self) -> str:
        shapes = (f"{name}: {tuple(getattr(self, name).shape)}" for name in self.arg_constraints)
        return f"{type(self).__name__}({', '.join(shapes)})"


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """0 with probability sigmoid(zi_logits), else counts as of `NegativeBinomial`.

    Args:
        zi_logits: logits of an extra 0, a tensor or a number; required.
        total_count, probs, logits, mu, theta, scale, eps: as of `NegativeBinomial`.
        validate_args: as of `NegativeBinomial`; where it is False, values that are not whole give a warning, too.

    Example:
        >>> import torch, pyvae
        >>> counts = pyvae.distributions.ZeroInflatedNegativeBinomial(mu=torch.ones(3), theta=1.0, zi_logits=0.0)
        >>> counts.log_prob(torch.zeros(3)).exp()
        tensor([0.7500, 0.7500, 0.7500])
    """

    arg_constraints = NegativeBinomial.arg_constraints | {"zi_logits": constraints.real}
    _kind = likelihoods.ZeroInflatedNegativeBinomial
    _warns = True

    def __init__(
        self,
        total_count: Tensor | float | None = None,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        mu: Tensor | float | None = None,
        theta: Tensor | float | None = None,
        zi_logits: Tensor | float | None = None,
        scale: Tensor | None = None,
        validate_args: bool | None = False,
        *,
        eps: float = 1e-8,
    ) -> None:
        if zi_logits is None:
            raise ValueError(f"{type(self).__name__}: `zi_logits` is missing")
        given = {"total_count": total_count, "probs": probs, "logits": logits, "mu": mu, "theta": theta}
        self._make(given, {"zi_logits": zi_logits}, scale, validate_args, eps)

    @property
    def zi_logits(self) -> Tensor:
        """Logits of an extra 0, in the batch shape."""
        zi_logits: Tensor = self._likelihood.zi_logits
        return zi_logits.expand(self._batch_shape)

    @property
    def zi_probs(self) -> Tensor:
        """Probability of an extra 0."""
        return torch.sigmoid(self.zi_logits)

    @property
    def mean(self) -> Tensor:
        return self.mu * torch.sigmoid(-self.zi_logits)

    @property
    def variance(self) -> Tensor:
        pi = self.zi_probs
        return self.mean * (1 + self.mu * (1 / self.theta + pi))

    def _draw(self, shape: torch.Size) -> Tensor:
        counts = super()._draw(shape)
        return torch.where(torch.rand_like(counts) < torch.sigmoid(self.zi_logits.to(counts.dtype)), 0, counts)


def _warn() -> None:
    warnings.warn("The value argument must be within the support of the distribution", UserWarning, stacklevel=3)
