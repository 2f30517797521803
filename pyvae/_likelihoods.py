"""The likelihoods in pure PyTorch: the specification of each, which csrc/math/likelihood.h computes on the devices.

Differentiable to every order by autograd. A member's place in `LIKELIHOODS` is its code in the compiled kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ._noise import exact_dtype


class Likelihood(NamedTuple):
    """-log p(target | recon) of one element in nats: value(recon, target, pos_weight, *parameters), all of one floating
    dtype."""

    value: Callable[..., Tensor]
    parameters: tuple[str, ...] = ()  # of its own, each of which broadcasts to recon
    takes_pos_weight: bool = False
    is_probability: bool = False  # recon outside [0, 1] is an error
    has_unit_target: bool = False  # a target outside [0, 1] is an error
    is_count: bool = False  # a negative target is an error
    softmax: str = "never"  # or "optional", with a log_library, or "always": recon holds scores


def _unit(t: Tensor) -> Tensor:
    return torch.where((t < 0) | (t > 1), torch.nan, t)


def _logit(p: Tensor) -> Tensor:
    """Not torch.logit, whose backward pass has no forward mode."""
    return torch.log(p) - torch.log1p(-p)


def _bernoulli(p: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """-t log p - (1 - t) log(1 - p) as `F.binary_cross_entropy` has it: logs not below -100, and the gradient
    (p - t) y' with y = logit(p) and y' = 1 / max(p(1-p), 1e-12). Outside of [0, 1] one of the logs is NaN.

    Those clamps make the gradient another function's than the value's, and -t/p + (1-t)/(1-p), which autograd would add
    up, cancels where p is near t. So the value is a constant here, and to it is added (p - t) (y - y0) - integral of
    (y - y0) dp from p0 to p: zero at p = p0, and with the derivative (p - t) y' for every p, that is, to every order.
    """
    t = _unit(t)
    end = p * (1 - p) < 1e-12
    p0 = p.detach()
    value = -t * torch.log(p0).clamp_min(-100) - (1 - t) * torch.log1p(-p0).clamp_min(-100)
    inner = torch.where(end, 0.5, p)
    inner0 = inner.detach()
    step = inner - inner0
    integral = (inner0 + step) * torch.log1p(step / inner0) + (1 - inner0 - step) * torch.log1p(-step / (1 - inner0))
    rise = torch.where(end, (p - p0) / 1e-12, _logit(inner) - _logit(inner0))
    return value + (p - t) * rise - torch.where(end, (p - p0) ** 2 / 2e-12, integral)


def _bernoulli_logits(x: Tensor, t: Tensor, pos_weight: Tensor | float) -> Tensor:
    """(1 - t) softplus(x) + pos_weight t softplus(-x): no cancellation in the tails, gradient
    (1 - t) sigmoid(x) - pos_weight t sigmoid(-x). `F.softplus` itself is linear from 20 on; logsigmoid is exact. An
    infinite logit on its target's side costs nothing."""
    t = _unit(t)
    return _times_finite(t - 1, F.logsigmoid(-x)) - _times_finite(pos_weight * t, F.logsigmoid(x))


def _times_finite(factor: Tensor, log: Tensor) -> Tensor:
    """factor log, where log may be -inf: 0 where the factor is."""
    return factor * torch.where(factor == 0, log.clamp_min(torch.finfo(log.dtype).min), log)


def _gaussian(mean: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """1/2 (t - mean)^2: unit variance, without the constant 1/2 log(2 pi)."""
    difference = mean - t
    return difference * (difference / 2)


def _absolute(difference: Tensor) -> Tensor:
    """|difference|, whose derivative is 0 at 0 and NaN of NaN: of torch's it is 0 there, which would hide the NaN."""
    return difference * torch.where(difference.isnan(), difference, torch.sign(difference))


def _laplace(median: Tensor, t: Tensor, _: Tensor | float) -> Tensor:
    """|t - median|: unit scale, without the constant log 2. The derivative at 0 is 0."""
    return _absolute(median - t)


def _times_exp(x: Tensor, power: Tensor) -> Tensor:
    """x e^power by four factors, none of which is infinite or 0: the product is so only where it has to be."""
    limit = 4 * math.log(torch.finfo(power.dtype).max) - 4
    within = power.clamp(-limit, limit).detach()
    moved = torch.where(power.isinf(), 0.0, power)
    factor = torch.exp((within + (moved - moved.detach())) / 4)  # of value `within`, and with the slope of `power`
    return x * factor * factor * factor * factor


def _gaussian_logvar(mean: Tensor, t: Tensor, _: Tensor | float, logvar: Tensor) -> Tensor:
    """1/2 (t - mean)^2 e^-logvar + 1/2 logvar, in float64: without the constant 1/2 log(2 pi)."""
    exact = exact_dtype(mean.device)
    logvar = logvar.to(exact)
    residual = _times_exp((mean - t).to(exact), -logvar / 2)
    return ((residual * residual + logvar) / 2).to(mean.dtype)


def _laplace_logscale(median: Tensor, t: Tensor, _: Tensor | float, logscale: Tensor) -> Tensor:
    """|t - median| e^-logscale + logscale, in float64: without the constant log 2."""
    exact = exact_dtype(median.device)
    logscale, difference = logscale.to(exact), (median - t).to(exact)
    # Where they meet, both slopes are 0: of any scale, so that none is 0 times infinity.
    power = torch.where((difference == 0) & ~logscale.isnan(), 0.0, -logscale)
    return (_times_exp(_absolute(difference), power) + logscale).to(median.dtype)


def _count(x: Tensor) -> Tensor:
    return torch.where(x < 0, torch.nan, x)


def _times_log(x: Tensor, log: Tensor) -> Tensor:
    """x log p: 0 where x is, whatever p, 0 and inf included."""
    return x * torch.where(x == 0, log.clamp(-1, 1), log)


def _poisson(log_mean: Tensor, x: Tensor, _: Tensor | float) -> Tensor:
    """e^a - x a + lgamma(x + 1), in float64, where the terms of large counts cancel."""
    exact = exact_dtype(x.device)
    a, x = log_mean.to(exact), _count(x.to(exact))
    return (torch.exp(a) - _times_log(x, a) + torch.lgamma(x + 1)).to(log_mean.dtype)


def _negative_binomial(log_mean: Tensor, x: Tensor, _: Tensor | float, log_theta: Tensor) -> Tensor:
    """-log of Gamma(x + theta) / (Gamma(theta) x!) (theta / (theta + mu))^theta (mu / (theta + mu))^x, in float64."""
    exact = exact_dtype(x.device)
    return _nb(log_mean.to(exact), _count(x.to(exact)), log_theta.to(exact)).to(log_mean.dtype)


def _nb(a: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """By lgamma where theta = e^r is below 8. Above, where lgamma(x + theta) - lgamma(theta) loses digits with theta,
    by Stirling's series R(z) = lgamma(z) - (z - 1/2) log z + z - 1/2 log(2 pi), with w = (mu - x) / (theta + x):
    (theta + x) (log1p(w) - w) + mu - x a + 1/2 log1p(x / theta) - R(theta + x) + R(theta) + lgamma(x + 1)."""
    r = torch.where(r > 80, 80.0, r)  # Poisson's limit, for every mean that is a number
    small = r < 2.0794415416798357  # log 8
    near, far = torch.where(small, r, 0.0), torch.where(small, 3.0, r)  # each branch stays finite where it is not used
    theta, log_factorial = torch.exp(near), torch.lgamma(x + 1)
    own = torch.where(x == 0, theta.detach(), theta)  # whose slopes, which may be large, then cancel
    ways = torch.lgamma(x + own) - torch.lgamma(own) - log_factorial
    by_gamma = -theta * F.logsigmoid(near - a) - _times_log(x, F.logsigmoid(a - near)) - ways
    theta = torch.exp(far)
    total = theta + x
    saturated = torch.log1p(x / theta) / 2 - _stirling(total) + _stirling(theta) + log_factorial
    mean = torch.exp(a)
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


def _zero_inflated(log_mean: Tensor, x: Tensor, _: Tensor | float, log_theta: Tensor, zi_logits: Tensor) -> Tensor:
    """Negative binomial, or 0 with probability sigmoid(rho): softplus(rho) + NB for x > 0, and for x = 0, with the
    negative binomial's n, -log(sigmoid(rho) + sigmoid(-rho) e^-n)."""
    exact = exact_dtype(x.device)
    a, x, r, rho = log_mean.to(exact), _count(x.to(exact)), log_theta.to(exact), zi_logits.to(exact)
    n = _nb(a, x, r)
    is_near = n < 1  # beyond, the slope of expm1, e^-n, would be a difference
    rest = torch.exp(F.logsigmoid(-rho))  # not sigmoid(-rho), whose slope is 0 where it is 1
    near = -torch.log1p(rest * torch.expm1(-torch.where(is_near, n, 1.0)))  # finite where it is not used
    far = -torch.logaddexp(F.logsigmoid(rho), F.logsigmoid(-rho) - n)
    value = torch.where(x == 0, torch.where(is_near, near, far), n - F.logsigmoid(-rho))
    return value.to(log_mean.dtype)


def _multinomial(log_probability: Tensor, x: Tensor, _: Tensor | float) -> Tensor:
    """-x log p, p = softmax of recon: without the multinomial coefficient."""
    return -_times_log(_count(x), log_probability)


LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Likelihood(_bernoulli, is_probability=True, has_unit_target=True),
    "bernoulli_logits": Likelihood(_bernoulli_logits, takes_pos_weight=True, has_unit_target=True),
    "gaussian": Likelihood(_gaussian),
    "laplace": Likelihood(_laplace),
    "gaussian_logvar": Likelihood(_gaussian_logvar, ("logvar",)),
    "laplace_logscale": Likelihood(_laplace_logscale, ("logscale",)),
    "poisson": Likelihood(_poisson, is_count=True, softmax="optional"),
    "negative_binomial": Likelihood(_negative_binomial, ("log_theta",), is_count=True, softmax="optional"),
    "zero_inflated_negative_binomial": Likelihood(
        _zero_inflated, ("log_theta", "zi_logits"), is_count=True, softmax="optional"
    ),
    "multinomial": Likelihood(_multinomial, is_count=True, softmax="always"),
}
