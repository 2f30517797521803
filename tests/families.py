"""The registry: all that the suites know of each likelihood and of each scale of the posterior.

A new member of the library needs one entry here, and every suite runs over it; without one, each of them says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import family_formulas as formulas
import softplus_truth
import torch
import torch.nn.functional as F
from family_entries import Entry, Range, Scale, Sweep
from family_formulas import excess, normal
from softplus_truth import softplus
from torch.distributions import Bernoulli, Categorical, Laplace, NegativeBinomial, Normal, Poisson

import pyvae
from pyvae import likelihoods as _likelihoods
from pyvae._checks import SCALES as SCALES

LIKELIHOODS = tuple(_likelihoods.LIKELIHOODS)  # a name's place is its code
_Entry = TypeVar("_Entry")


# ---- the entries -----------------------------------------------------------------------------------------------------

UNIT = Range(0, 1)
REAL = Range(-1024, 1024)
ENTRIES: dict[str, Entry] = {
    "bernoulli": Entry(
        make=lambda: "bernoulli",
        terms=formulas.bernoulli,
        torch=lambda p, t: -Bernoulli(p, validate_args=False).log_prob(t),
        draw=formulas.probabilities,
        probabilities=True,
        is_factored=True,
        sweep=Sweep(UNIT, UNIT, UNIT, (0.0, -0.0, 1.0, 1e-45, 1e-38, 1e-12, 1 - 2**-24, 2**-24, 0.5)),
    ),
    "bernoulli_logits": Entry(
        make=lambda: "bernoulli_logits",
        terms=formulas.bernoulli_logits,
        torch=lambda x, t: -Bernoulli(logits=x, validate_args=False).log_prob(t),
        draw=formulas.logits,
        takes_pos_weight=True,
        sweep=Sweep(
            Range(-2048, 2048),
            UNIT,
            Range(-110, 110),
            (1e4, -1e4, 88.0, -88.0, 103.9, -103.9, 0.0, -0.0, 1e-45, -1e-45, 1e30, -1e30, 1e38, -1e38),
        ),
    ),
    "gaussian": Entry(
        make=lambda: "gaussian",
        terms=formulas.gaussian,
        torch=lambda x, t: F.mse_loss(x, t, reduction="none") / 2,
        draw=formulas.two_normals,
        sweep=Sweep(REAL, REAL, Range(-1e4, 1e4), (1e4, -1e4, 0.0, -0.0, 1e-19, 1e-45, 1e18, -1e18)),
    ),
    "laplace": Entry(
        make=lambda: "laplace",
        terms=formulas.laplace,
        torch=lambda x, t: F.l1_loss(x, t, reduction="none"),
        draw=formulas.apart,
        sweep=Sweep(REAL, REAL, Range(-1e4, 1e4), (1e4, -1e4, 0.0, -0.0, 1e-19, 1e-45, 1e38, -1e38)),
    ),
    "gaussian_logvar": Entry(
        make=pyvae.Gaussian,
        terms=formulas.gaussian_logvar,
        torch=lambda m, x, s: -Normal(m, torch.exp(s / 2)).log_prob(x) - math.log(2 * math.pi) / 2,
        draw=formulas.with_normals,
        parameters=(("logvar", normal),),
    ),
    "laplace_logscale": Entry(
        make=pyvae.Laplace,
        terms=formulas.laplace_logscale,
        torch=lambda m, x, s: -Laplace(m, torch.exp(s)).log_prob(x) - math.log(2),
        draw=formulas.with_normals,
        parameters=(("logscale", normal),),
    ),
    "poisson": Entry(
        make=pyvae.Poisson,
        terms=formulas.poisson,
        torch=lambda a, x: -Poisson(torch.exp(a)).log_prob(x),
        draw=formulas.with_counts,
        softmax="optional",
        counts=True,
    ),
    "negative_binomial": Entry(
        make=pyvae.NegativeBinomial,
        terms=formulas.negative_binomial,
        torch=lambda a, x, r: -NegativeBinomial(torch.exp(r), logits=a - r).log_prob(x),
        draw=formulas.with_counts,
        parameters=(("log_theta", formulas.log_theta),),
        softmax="optional",
        counts=True,
    ),
    "zero_inflated_negative_binomial": Entry(
        make=pyvae.ZeroInflatedNegativeBinomial,
        terms=formulas.zero_inflated_negative_binomial,
        torch=formulas.zero_inflated_by_torch,
        draw=formulas.with_counts,
        parameters=(("log_theta", formulas.log_theta), ("zi_logits", lambda shape, draw: 2 * normal(shape, draw))),
        softmax="optional",
        counts=True,
    ),
    "multinomial": Entry(
        make=pyvae.Multinomial,
        terms=formulas.multinomial,
        torch=lambda a, x: -x * Categorical(logits=a).logits,
        draw=formulas.with_counts,
        softmax="always",
        counts=True,
    ),
    "continuous_bernoulli_logits": Entry(
        make=lambda: "continuous_bernoulli_logits",
        terms=formulas.continuous_bernoulli_logits,
        torch=lambda x, t: formulas.cross_entropy(x, t) - torch.log(x / torch.tanh(x / 2)),
        draw=formulas.logits,
        sweep=Sweep(REAL, UNIT, Range(-110, 110), (1e4, -1e4, 0.0, -0.0, 2.0, -2.0, 1e-45, 1e38, -1e38)),
    ),
    "poisson_mean": Entry(
        make=lambda eps: pyvae.Poisson(link="identity", eps=eps),
        terms=lambda m, x, eps: formulas.of_means(formulas.poisson, m + eps, x),
        torch=lambda m, x, eps: -Poisson(m + eps).log_prob(x),
        draw=formulas.with_means,
        parameters=(("eps", formulas.small),),
        counts=True,
    ),
    "negative_binomial_mean": Entry(
        make=lambda log_theta, eps: pyvae.NegativeBinomial(log_theta, link="identity", eps=eps),
        terms=lambda m, x, r, eps: formulas.of_means(formulas.negative_binomial, m + eps, x, r),
        torch=lambda m, x, r, eps: -NegativeBinomial(torch.exp(r), logits=torch.log(m + eps) - r).log_prob(x),
        draw=formulas.with_means,
        parameters=(("log_theta", formulas.log_theta), ("eps", formulas.small)),
        counts=True,
    ),
    "zero_inflated_negative_binomial_mean": Entry(
        make=lambda log_theta, zi_logits, eps: pyvae.ZeroInflatedNegativeBinomial(
            log_theta, zi_logits, link="identity", eps=eps
        ),
        terms=lambda m, x, r, rho, eps: formulas.of_means(formulas.zero_inflated_negative_binomial, m + eps, x, r, rho),
        torch=lambda m, x, r, rho, eps: formulas.zero_inflated_by_torch(torch.log(m + eps), x, r, rho),
        draw=formulas.with_means,
        parameters=(
            ("log_theta", formulas.log_theta),
            ("zi_logits", lambda shape, draw: 2 * normal(shape, draw)),
            ("eps", formulas.small),
        ),
        counts=True,
    ),
}
# Those whose losses and slopes are held to units in the last place. Of the others value and derivatives are sums of
# functions with bounds of their own: tolerances.IN_UNITS.
PLAIN = tuple(name for name, entry in ENTRIES.items() if entry.sweep)
OTHERS = tuple(name for name in LIKELIHOODS if name not in PLAIN)
WITH_PARAMETERS = tuple(name for name, entry in ENTRIES.items() if entry.parameters)
COUNTS = tuple(name for name, entry in ENTRIES.items() if entry.counts)
WITH_LIBRARY = tuple(name for name, entry in ENTRIES.items() if entry.softmax == "optional")
HOLDING = tuple(name for name in OTHERS if name in WITH_PARAMETERS or name in WITH_LIBRARY)  # objects that hold tensors
WITH_SOFTMAX = tuple(name for name, entry in ENTRIES.items() if entry.softmax != "never")
# Each likelihood, and each that may have a log_library with one.
WAYS = tuple(
    (name, library) for name in LIKELIHOODS for library in (False, True) if not library or name in WITH_LIBRARY
)

SCALE_ENTRIES: dict[str, Scale] = {
    "logvar": Scale(
        of=lambda logvar: logvar,
        std=lambda s: torch.exp(s / 2),
        std_slope=lambda s: torch.exp(s / 2) / 2,
        spread=lambda s: excess(s) / 2,
        spread_slope=lambda s: torch.expm1(s) / 2,
        log_ratio=lambda s, t: s - t,
        log_ratio_slope=torch.ones_like,
        range=Range(-80, 80),
        extremes=(0.0, -0.0, 1e-45, -1e-7, 1.0, -80.0, 80.0, 88.0, 88.7, 177.0, -180.0, -210.0, 1e3, -1e4, -torch.inf),
    ),
    "std": Scale(
        of=lambda logvar: torch.exp(logvar / 2),
        std=lambda s: s,
        std_slope=torch.ones_like,
        spread=lambda s: torch.where(
            (s - 1).abs() < 1e-3, excess(2 * torch.log(s)) / 2, (s - 1) * (s + 1) / 2 - torch.log(s)
        ),
        spread_slope=lambda s: (s - 1) * (s + 1) / s,
        log_ratio=lambda s, t: 2 * torch.where(s > t, torch.log1p((s - t) / t), -torch.log1p((t - s) / s)),
        log_ratio_slope=lambda s: 2 / s,
        range=Range(2**-14, 1024),
        extremes=(0.0, -0.0, 1e-45, 1e-38, 1e-30, 1e-7, 1.0, 1e18, 1e30, 3e38, 6e4),
    ),
    "logstd": Scale(
        of=lambda logvar: logvar / 2,
        std=torch.exp,
        std_slope=torch.exp,
        spread=lambda s: excess(2 * s) / 2,
        spread_slope=lambda s: torch.expm1(2 * s),
        log_ratio=lambda s, t: 2 * (s - t),
        log_ratio_slope=lambda s: torch.full_like(s, 2),
        range=Range(-40, 40),
        extremes=(0.0, -0.0, 1e-45, -1e-7, 1.0, -40.0, 40.0, 44.0, 88.8, -90.0, -105.0, 1e3, -1e4, -torch.inf),
    ),
    "rho": Scale(
        of=lambda logvar: softplus_truth.inverse(torch.exp(logvar / 2)),
        std=softplus,
        std_slope=torch.sigmoid,
        spread=lambda s: torch.where(
            s.abs() < 1,
            excess(2 * softplus_truth.log_std(s)) / 2,
            (softplus(s) ** 2 - 1) / 2 - softplus_truth.log_softplus(s),
        ),
        spread_slope=lambda s: (
            torch.where(
                s.abs() < 1,
                torch.expm1(2 * softplus_truth.log_std(s)),
                (softplus(s) - 1) * (softplus(s) + 1),
            )
            * softplus_truth.relative_slope(s)
        ),
        log_ratio=lambda s, t: 2 * softplus_truth.log_ratio(s, t, s - t),
        log_ratio_slope=lambda s: 2 * softplus_truth.relative_slope(s),
        range=Range(-80, 1024),
        extremes=(
            *(0.0, -0.0, 1e-45, -1e-45, -1e-7, 0.5413248, 1.0, -0.4586, 1.5414, 40.0, -40.0, -87.0, -90.0, -105.0),
            *(1e3, -1e4, 1e18, 1e19, 1e30, 3e38, -1e38, -torch.inf),
        ),
    ),
}


def _entry(entries: Mapping[str, _Entry], kind: str, name: str) -> _Entry:
    if name not in entries:
        raise LookupError(f"{kind} {name!r} has no entry in tests/families.py, which has {', '.join(entries)}")
    return entries[name]


def family(name: str) -> Entry:
    return _entry(ENTRIES, "likelihood", name)


def scaling(name: str) -> Scale:
    return _entry(SCALE_ENTRIES, "scale", name)


def cycled(*lists: tuple) -> list[tuple]:
    """Side by side until each member of each list has been there: shorter lists start again."""
    return [tuple(x[i % len(x)] for x in lists) for i in range(max(map(len, lists)))]
