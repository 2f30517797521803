"""The likelihoods of counts to many digits, by mpmath: -log p, and its derivatives by recon and by each parameter."""

from __future__ import annotations

import mpmath as mp

DIGITS = 150  # the slope by theta is a difference of numbers near 1, of theta^2 = e^160 the inverse

# Value and derivatives, each with the unit of its error: itself, or where it is a difference that crosses zero, the
# larger of the two summands.
Number = mp.mpf
Exact = list[tuple[Number, Number]]


def difference(positive: Number, negative: Number) -> tuple[Number, Number]:
    return positive - negative, max(positive, negative)


def alone(x: Number) -> tuple[Number, Number]:
    return x, abs(x)


def poisson(a: Number, x: Number) -> Exact:
    return [alone(mp.exp(a) - x * a + mp.loggamma(x + 1)), difference(mp.exp(a), x)]


def multinomial(a: Number, x: Number) -> Exact:
    return [alone(-x * a), alone(-x)]


def negative_binomial(a: Number, x: Number, r: Number) -> Exact:
    """By r: what is left where the mean fits, and how far it does not: both are 0 or more."""
    mean, theta = mp.exp(a), mp.exp(r)
    n, total = theta + x, theta + mean
    value = theta * mp.log1p(mean / theta) + x * mp.log1p(theta / mean)
    value -= mp.loggamma(n) - mp.loggamma(theta) - mp.loggamma(x + 1)
    misfit = mp.log(total / n) - (mean - x) / total
    fitted = (mp.log(theta) - mp.digamma(theta)) - (mp.log(n) - mp.digamma(n))
    by_mean = difference(theta * mean / total, x * theta / total)
    return [alone(value), by_mean, difference(theta * misfit, theta * fitted)]


def zero_inflated_negative_binomial(a: Number, x: Number, r: Number, rho: Number) -> Exact:
    (value, _), *derivatives = negative_binomial(a, x, r)
    inflated, rest = 1 / (1 + mp.exp(-rho)), 1 / (1 + mp.exp(rho))
    if x > 0:
        return [alone(mp.log1p(mp.exp(rho)) + value), *derivatives, alone(inflated)]
    probability = inflated + rest * mp.exp(-value)
    share = rest * mp.exp(-value) / probability
    by_rho = inflated * rest * mp.expm1(-value) / probability
    scaled = [(share * derivative, share * unit) for derivative, unit in derivatives]
    return [alone(-mp.log1p(rest * mp.expm1(-value))), *scaled, alone(by_rho)]
