"""Distributions of counts, with scvi-tools' constructors."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.distributions as torch_distributions
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import probs_to_logits

from .. import likelihoods
from .._expect import is_readable
from ._fused import Fused, tensors

LARGEST_MEAN = 1e8  # of a Poisson draw, beyond which torch's is not to be relied on


class _Normalized:
    """What scvi-tools' models ask of the distribution that a decoder returns."""

    _normalized: tuple[str, str] = ("mu", "scale")

    def get_normalized(self, key: str) -> Tensor | None:
        """The mean, "mu", or the normalized expression, "scale"."""
        if key not in ("mu", "scale"):
            raise ValueError(f'{type(self).__name__}.get_normalized: `key` must be "mu" or "scale", but is {key!r}')
        found: Tensor | None = getattr(self, self._normalized[key == "scale"])
        return found


class Poisson(_Normalized, Fused, torch_distributions.Poisson):
    """Poisson counts of the mean `rate`.

    Args:
        rate: the mean, 0 or more, any shape, a tensor or a number.
        validate_args: as of torch's.
        scale: the normalized expression, which is kept and not used.

    Example:
        >>> import torch, pyvae
        >>> pyvae.distributions.Poisson(torch.tensor([1.0, 2.0])).log_prob(torch.zeros(2))
        tensor([-1., -2.])
    """

    _normalized = ("rate", "scale")

    def __init__(
        self, rate: Tensor | float, validate_args: bool | None = None, scale: Tensor | None = None
    ) -> None:  # in scvi-tools' order
        super().__init__(rate, validate_args=validate_args)
        self.scale = scale
        self._recon, self._likelihood = self.rate, likelihoods.Poisson(link="identity")

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new.scale = self.scale
        return new


class NegativeBinomial(_Normalized, Fused):
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
        self._refuse(total_count, probs, logits, mu, theta)
        if mu is not None:
            recon, theta = tensors(mu, theta)
            likelihood = self._object(theta=theta, link="identity", eps=eps)
        else:
            by_probs = logits is None
            theta, second = tensors(total_count, probs if by_probs else logits)
            validates = Distribution._validate_args if validate_args is None else validate_args
            if by_probs and validates and not bool(((second >= 0) & (second < 1)).all()):
                raise ValueError(f"{type(self).__name__}: `probs` must lie in [0, 1), but do not everywhere")
            log_theta = torch.log(theta)
            recon = (probs_to_logits(second, is_binary=True) if by_probs else second) + log_theta
            likelihood = self._object(log_theta=log_theta)
        self._hold(recon, likelihood, scale, validate_args)

    @classmethod
    def _of(cls, recon: Tensor, likelihood: Any, validate_args: bool | None) -> Any:
        """Of what `elbo_loss` takes: see `_hold`."""
        self = cls.__new__(cls)
        self._hold(recon, likelihood, None, validate_args)
        return self

    def _refuse(self, total_count: Any, probs: Any, logits: Any, mu: Any, theta: Any) -> None:
        """Anything but one of the two ways to say it."""
        values = {"total_count": total_count, "probs": probs, "logits": logits, "mu": mu, "theta": theta}
        given = [name for name, value in values.items() if value is not None]
        if given not in (["mu", "theta"], ["total_count", "probs"], ["total_count", "logits"]):
            raise ValueError(
                f"{type(self).__name__}: expected `mu` and `theta`, or `total_count` and one of `probs` and `logits`, "
                f"but got {', '.join(f'`{name}`' for name in given) or 'none of them'}"
            )

    def _object(self, **parameters: Any) -> Any:
        return likelihoods.NegativeBinomial(**parameters)

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
        """Counts of shape sample_shape + batch_shape: Poisson draws of means from a gamma distribution."""
        with torch.no_grad():
            return self._draw(self._extended_shape(torch.Size(sample_shape or ())))

    def _draw(self, shape: torch.Size) -> Tensor:
        single = torch.promote_types(self.mu.dtype, torch.float32)  # torch draws no 16-bit gammas everywhere
        mu, theta = self.mu.to(single), self.theta.to(single)
        means = torch._standard_gamma(theta.expand(shape).contiguous()) * (mu / theta)
        means = torch.where(theta.isinf(), mu, torch.where(theta == 0, 0.0, means))  # Poisson's limit, and always 0
        return torch.poisson(means.clamp(max=LARGEST_MEAN)).to(self.mu.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), of each element: shape of value and the batch, broadcast."""
        if self._validate_args:
            self._validate_sample(value)
        elif self._warns and isinstance(value, Tensor) and is_readable(value):
            whole = not value.is_floating_point() or torch.equal(value, value.round())
            if not whole:
                _warn()
        try:
            return self._evaluate(value)
        except ValueError:
            if not (isinstance(value, Tensor) and is_readable(value) and bool((value < 0).any())):
                raise
        _warn()
        exact = value if value.is_floating_point() else value.to(self.mu.dtype)
        return self._evaluate(torch.where(exact < 0, torch.nan, exact))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """A distribution of this batch shape; its parameters stay as they are."""
        new = type(self).__new__(type(self)) if _instance is None else _instance
        new.__dict__.update({name: value for name, value in self.__dict__.items() if name.startswith("_")})
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
        beside = [x for x in (mu, theta, total_count, probs, logits) if isinstance(x, Tensor)]
        self._given = tensors(zi_logits, *beside[:1])[0]
        super().__init__(total_count, probs, logits, mu, theta, scale, validate_args, eps=eps)

    def _object(self, **parameters: Any) -> Any:
        return likelihoods.ZeroInflatedNegativeBinomial(zi_logits=self._given, **parameters)

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
        return torch.where(torch.rand_like(counts) < self.zi_probs, 0, counts)


def _warn() -> None:
    warnings.warn("The value argument must be within the support of the distribution", UserWarning, stacklevel=3)
