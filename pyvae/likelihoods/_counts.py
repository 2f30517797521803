"""Likelihoods of counts: Poisson, negative binomial with and without extra zeros, and multinomial.

Their formulas are computed in float64, where the terms of large counts cancel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from .._noise import exact_dtype
from .._objects import Object
from ._link import Link, by_link, check, log_of
from ._member import Likelihood, Resolved


def _count(x: Tensor) -> Tensor:
    return torch.where(x < 0, torch.nan, x)


def _times_log(x: Tensor, log: Tensor) -> Tensor:
    """x log p: 0 where x is, whatever p, 0 and inf included. Its slope by x is log p there, too, if that is finite."""
    limit = torch.finfo(log.dtype).max
    return x * torch.where(x == 0, log.clamp(-limit, limit), log)


def _poisson(log_mean: Tensor, x: Tensor, _: Tensor | float) -> Tensor:
    """e^a - x a + lgamma(x + 1), in float64, where the terms of large counts cancel."""
    exact = exact_dtype(x.device)
    a, x = log_mean.to(exact), _count(x.to(exact))
    return (torch.exp(a) - _times_log(x, a) + torch.lgamma(x + 1)).to(log_mean.dtype)


POISSON = Likelihood("poisson", _poisson, is_count=True, softmax="optional")


def _poisson_mean(mean: Tensor, x: Tensor, _: Tensor | float, eps: Tensor) -> Tensor:
    """mu - x log mu + lgamma(x + 1), mu = mean + eps, in float64."""
    exact = exact_dtype(x.device)
    mu, x = _mean(mean.to(exact) + eps.to(exact)), _count(x.to(exact))
    return (mu - _times_log(x, _log_mean(mu, x)) + torch.lgamma(x + 1)).to(mean.dtype)


def _mean(mu: Tensor) -> Tensor:
    return torch.where(mu < 0, torch.nan, mu)


def _log_mean(mu: Tensor, x: Tensor) -> Tensor:
    """log mu; at a mean of 0, whose log has an infinite slope, only where a count above 0 asks for it."""
    return torch.log(torch.where((x == 0) & (mu < torch.finfo(mu.dtype).tiny), 1.0, mu))


POISSON_MEAN = Likelihood("poisson_mean", _poisson_mean, ("eps",), is_count=True)


@dataclass(frozen=True, eq=False, repr=False)
class Poisson(Object):
    """Poisson counts with the mean e^recon, or with log_library e^log_library softmax(recon): mean - target log mean +
    log target!.

    Args:
        log_library: log of each sample's total, shape (B,) or (B, 1), or a number for all of them. With it recon holds
            scores, over all features.
        link: "log", recon holds the log of the mean; "identity", the mean itself, 0 or more: below, results are NaN.
        eps: what is added to such a mean, a number, 1e-8 say, or a tensor: where the mean is 0, the loss of a count
            above 0 is infinite.

    Example:
        >>> import torch, pyvae
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=pyvae.Poisson()).item()
        16.0
    """

    __module__ = "pyvae.likelihoods"  # where pickles find it
    _members = (POISSON, POISSON_MEAN)
    _settings = ("link",)

    log_library: Tensor | float | None = None
    link: Link = field(default="log", kw_only=True)
    eps: Tensor | float = field(default=0.0, kw_only=True)

    def _check(self, function: str) -> None:
        check(function, self)

    @property
    def resolved(self) -> Resolved:
        return by_link(self, POISSON, POISSON_MEAN, ())


def _negative_binomial(log_mean: Tensor, x: Tensor, _: Tensor | float, log_theta: Tensor) -> Tensor:
    """-log of Gamma(x + theta) / (Gamma(theta) x!) (theta / (theta + mu))^theta (mu / (theta + mu))^x, in float64."""
    exact = exact_dtype(x.device)
    return _nb(log_mean.to(exact), _count(x.to(exact)), log_theta.to(exact)).to(log_mean.dtype)


def _negative_binomial_mean(mean: Tensor, x: Tensor, _: Tensor | float, log_theta: Tensor, eps: Tensor) -> Tensor:
    """The same of the mean mu = mean + eps."""
    exact = exact_dtype(x.device)
    mu, x = _mean(mean.to(exact) + eps.to(exact)), _count(x.to(exact))
    return _nb(_log_mean(mu, x), x, log_theta.to(exact), mu).to(mean.dtype)


def _nb(a: Tensor, x: Tensor, r: Tensor, mu: Tensor | None = None) -> Tensor:
    """By lgamma where theta = e^r is below 8. Above, where lgamma(x + theta) - lgamma(theta) loses digits with theta,
    by Stirling's series R(z) = lgamma(z) - (z - 1/2) log z + z - 1/2 log(2 pi), with w = (mu - x) / (theta + x):
    (theta + x) (log1p(w) - w) + mu - x a + 1/2 log1p(x / theta) - R(theta + x) + R(theta) + lgamma(x + 1)."""
    r = torch.where(r > 80, 80.0, r)  # Poisson's limit, for every mean that is a number
    small = r < 2.0794415416798357  # log 8
    near, far = torch.where(small, r, 0.0), torch.where(small, 3.0, r)  # each branch stays finite where it is not used
    theta, log_factorial = torch.exp(near), torch.lgamma(x + 1)
    own = torch.where(x == 0, theta.detach(), theta)  # whose slopes, which may be large, then cancel
    ways = torch.lgamma(x + own) - torch.lgamma(own) - log_factorial
    rise = -F.logsigmoid(near - a) if mu is None else torch.log1p(mu / theta)  # of a mean of 0, whose log has no slope
    by_gamma = theta * rise - _times_log(x, F.logsigmoid(a - near)) - ways
    theta = torch.exp(far)
    total = theta + x
    saturated = torch.log1p(x / theta) / 2 - _stirling(total) + _stirling(theta) + log_factorial
    mean = torch.exp(a) if mu is None else mu
    by_stirling = total * _log1p_excess((mean - x) / total) + mean - _times_log(x, a) + saturated
    return torch.where(small, by_gamma, by_stirling)


def _log1p_excess(w: Tensor) -> Tensor:
    """log1p(w) - w, by its series where the difference, and that of its derivatives, would cancel."""
    near = w.abs() < 0.1
    y = torch.where(near, w, 0.0)
    series = torch.zeros_like(y)
    for k in range(18, 1, -1):
        series = (-1) ** (k + 1) / k + y * series
    return torch.where(near, y * y * series, torch.log1p(torch.where(near, 0.5, w)) - w)


def _stirling(z: Tensor) -> Tensor:
    """R(z) for z >= 8, to 1e-14."""
    y = 1 / z
    s = y * y
    series = 1 / 1188 - s * (691 / 360360 - s * (1 / 156 - s * 3617 / 122400))
    return y * (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s * (1 / 1680 - s * series))))


NEGATIVE_BINOMIAL = Likelihood(
    "negative_binomial", _negative_binomial, ("log_theta",), is_count=True, softmax="optional"
)
NEGATIVE_BINOMIAL_MEAN = Likelihood(
    "negative_binomial_mean", _negative_binomial_mean, ("log_theta", "eps"), is_count=True
)


@dataclass(frozen=True, eq=False, repr=False)
class NegativeBinomial(Object):
    """Negative binomial counts of mean mu = e^recon, or with log_library e^log_library softmax(recon), and variance
    mu + mu^2 / theta. Right to 1e-5 in float32, value and derivatives, for log theta from -80 to 80, counts to 1e6 and
    recon to 87 (e^87 is near float32's largest number); above 80 it is Poisson's limit. Where a derivative is a small
    difference, that is relative to its larger side: by log theta, of a count of 1 where the mean is far below 1.

    Args:
        log_theta: log of the inverse dispersion, broadcastable to recon, (D,) for one a gene, or a number.
        log_library: log of each sample's total, shape (B,) or (B, 1), or a number for all of them. With it recon holds
            scores, over all features.
        theta: the inverse dispersion itself, in place of its log.
        link, eps: as of `Poisson`.

    Source:
        Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018).

    Example:
        >>> import torch, pyvae
        >>> log_theta = torch.zeros(8, requires_grad=True)
        >>> loss = pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=pyvae.NegativeBinomial(log_theta))
        >>> loss.item() / 16  # log 4
        1.3862943649291992
    """

    __module__ = "pyvae.likelihoods"  # where pickles find it
    _members = (NEGATIVE_BINOMIAL, NEGATIVE_BINOMIAL_MEAN)
    _needed, _settings = ("log_theta",), ("link",)

    log_theta: Tensor | float | None = None
    log_library: Tensor | float | None = None
    theta: Tensor | float | None = field(default=None, kw_only=True)
    link: Link = field(default="log", kw_only=True)
    eps: Tensor | float = field(default=0.0, kw_only=True)

    def _check(self, function: str) -> None:
        check(function, self)

    @property
    def resolved(self) -> Resolved:
        return by_link(self, NEGATIVE_BINOMIAL, NEGATIVE_BINOMIAL_MEAN, (log_of(self.log_theta, self.theta),))


def _zero_inflated(log_mean: Tensor, x: Tensor, _: Tensor | float, log_theta: Tensor, zi_logits: Tensor) -> Tensor:
    """Negative binomial, or 0 with probability sigmoid(rho): softplus(rho) + NB for x > 0, and for x = 0, with the
    negative binomial's n, -log(sigmoid(rho) + sigmoid(-rho) e^-n)."""
    exact = exact_dtype(x.device)
    x = _count(x.to(exact))
    return _inflated(_nb(log_mean.to(exact), x, log_theta.to(exact)), x, zi_logits.to(exact)).to(log_mean.dtype)


def _zero_inflated_mean(
    mean: Tensor, x: Tensor, _: Tensor | float, log_theta: Tensor, zi_logits: Tensor, eps: Tensor
) -> Tensor:
    """The same of the mean mu = mean + eps."""
    exact = exact_dtype(x.device)
    mu, x = _mean(mean.to(exact) + eps.to(exact)), _count(x.to(exact))
    n = _nb(_log_mean(mu, x), x, log_theta.to(exact), mu)
    return _inflated(n, x, zi_logits.to(exact)).to(mean.dtype)


def _inflated(n: Tensor, x: Tensor, rho: Tensor) -> Tensor:
    is_near = n < 1  # beyond, the slope of expm1, e^-n, would be a difference
    rest = torch.exp(F.logsigmoid(-rho))  # not sigmoid(-rho), whose slope is 0 where it is 1
    near = -torch.log1p(rest * torch.expm1(-torch.where(is_near, n, 1.0)))  # finite where it is not used
    far = -torch.logaddexp(F.logsigmoid(rho), F.logsigmoid(-rho) - n)
    return torch.where(x == 0, torch.where(is_near, near, far), n - F.logsigmoid(-rho))


ZERO_INFLATED_NEGATIVE_BINOMIAL = Likelihood(
    "zero_inflated_negative_binomial",
    _zero_inflated,
    ("log_theta", "zi_logits"),
    is_count=True,
    softmax="optional",
)
ZERO_INFLATED_NEGATIVE_BINOMIAL_MEAN = Likelihood(
    "zero_inflated_negative_binomial_mean", _zero_inflated_mean, ("log_theta", "zi_logits", "eps"), is_count=True
)


@dataclass(frozen=True, eq=False, repr=False)
class ZeroInflatedNegativeBinomial(Object):
    """0 with probability sigmoid(zi_logits), else negative binomial counts as `NegativeBinomial` has them.

    Args:
        log_theta: log of the inverse dispersion, broadcastable to recon, or a number.
        zi_logits: logits of an extra 0, broadcastable to recon, or a number; required.
        log_library: log of each sample's total, shape (B,) or (B, 1), or a number for all of them. With it recon holds
            scores, over all features.
        theta: the inverse dispersion itself, in place of its log.
        link, eps: as of `Poisson`.

    Source:
        Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018).

    Example:
        >>> import torch, pyvae
        >>> likelihood = pyvae.ZeroInflatedNegativeBinomial(torch.zeros(8), torch.full((8,), -50.0))
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.zeros(2, 8), likelihood=likelihood).item() / 16  # log 2
        0.6931471824645996
    """

    __module__ = "pyvae.likelihoods"  # where pickles find it
    _members = (ZERO_INFLATED_NEGATIVE_BINOMIAL, ZERO_INFLATED_NEGATIVE_BINOMIAL_MEAN)
    _needed, _settings = ("log_theta", "zi_logits"), ("link",)

    log_theta: Tensor | float | None = None
    zi_logits: Tensor | float | None = None
    log_library: Tensor | float | None = None
    theta: Tensor | float | None = field(default=None, kw_only=True)
    link: Link = field(default="log", kw_only=True)
    eps: Tensor | float = field(default=0.0, kw_only=True)

    def _check(self, function: str) -> None:
        check(function, self)

    @property
    def resolved(self) -> Resolved:
        parameters = (log_of(self.log_theta, self.theta), self.zi_logits)
        members = (ZERO_INFLATED_NEGATIVE_BINOMIAL, ZERO_INFLATED_NEGATIVE_BINOMIAL_MEAN)
        return by_link(self, *members, parameters)


def _multinomial(log_probability: Tensor, x: Tensor, _: Tensor | float) -> Tensor:
    """-x log p, p = softmax of recon: without the multinomial coefficient."""
    return -_times_log(_count(x), log_probability)


MULTINOMIAL = Likelihood("multinomial", _multinomial, is_count=True, softmax="always")


@dataclass(frozen=True, eq=False, repr=False)
class Multinomial(Object):
    """Counts of a row's categories, whose logits recon holds, over all features: -target log softmax(recon), without
    the multinomial coefficient.

    Example:
        >>> import torch, pyvae
        >>> pyvae.elbo_loss(torch.zeros(1, 8), torch.ones(1, 8), likelihood=pyvae.Multinomial()).item() / 8  # log 8
        2.079441547393799
    """

    __module__ = "pyvae.likelihoods"  # where pickles find it
    _members = (MULTINOMIAL,)

    @property
    def resolved(self) -> Resolved:
        return Resolved(MULTINOMIAL.name)
