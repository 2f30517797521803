"""Likelihoods as objects, which carry what belongs to one: `pyvae.elbo_loss(..., likelihood=pyvae.Gaussian(logvar))`.

Parameters are tensors that broadcast to recon, shapes (), (D,), (B, 1), (B, D) and the like, or numbers; gradients come
back in their own shapes, summed in an order that does not depend on threads. An object holds them and nothing else. It
is immutable (`dataclasses.replace` makes another), equals itself alone, and is a pytree of what it holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from .._expect import number
from .._noise import exact_dtype
from .._objects import Object, held
from ._bernoulli import BERNOULLI, BERNOULLI_LOGITS, CONTINUOUS_BERNOULLI_LOGITS
from ._counts import (
    MULTINOMIAL,
    NEGATIVE_BINOMIAL,
    NEGATIVE_BINOMIAL_MEAN,
    POISSON,
    POISSON_MEAN,
    ZERO_INFLATED_NEGATIVE_BINOMIAL,
    ZERO_INFLATED_NEGATIVE_BINOMIAL_MEAN,
    Multinomial,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from ._member import Likelihood as Likelihood
from ._member import Resolved as Resolved
from ._real import GAUSSIAN, GAUSSIAN_LOGVAR, LAPLACE, LAPLACE_LOGSCALE, Gaussian, Laplace

__all__ = ["Gaussian", "Laplace", "Multinomial", "NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial"]

# By their names. A member's place is its code in the compiled kernels.
LIKELIHOODS: dict[str, Likelihood] = {
    member.name: member
    for member in (
        BERNOULLI,
        BERNOULLI_LOGITS,
        GAUSSIAN,
        LAPLACE,
        GAUSSIAN_LOGVAR,
        LAPLACE_LOGSCALE,
        POISSON,
        NEGATIVE_BINOMIAL,
        ZERO_INFLATED_NEGATIVE_BINOMIAL,
        MULTINOMIAL,
        CONTINUOUS_BERNOULLI_LOGITS,
        POISSON_MEAN,
        NEGATIVE_BINOMIAL_MEAN,
        ZERO_INFLATED_NEGATIVE_BINOMIAL_MEAN,
    )
}
LikelihoodObject = Gaussian | Laplace | Poisson | NegativeBinomial | ZeroInflatedNegativeBinomial | Multinomial
CLASSES: tuple[type[Any], ...] = get_args(LikelihoodObject)
OBJECTS: dict[Any, type[Object]] = {member.name: cls for cls in CLASSES for member in cls._members}
torch.serialization.add_safe_globals([*CLASSES])  # torch.load takes them: they hold what they are given, and do nothing

# What others call a likelihood, and what is meant here. Sums over the features, where losses named so take means.
_SQUARED = (
    '"gaussian", half the squared error, summed over the features: `weight=2` makes it the squared error, and '
    '`weight=2 / features` with `reduction="batchmean"` the mean of `F.mse_loss`'
)
_ABSOLUTE = (
    '"laplace", the absolute error, summed over the features: `weight=1 / features` with `reduction="batchmean"` makes '
    "it the mean of `F.l1_loss`"
)
_BINARY = '{}, as {} with `reduction="sum"`: `weight=1 / features` with `reduction="batchmean"` makes it the mean'
OTHER_NAMES = {
    "mse": _SQUARED,
    "l2": _SQUARED,
    "l1": _ABSOLUTE,
    "bce": _BINARY.format('"bernoulli" for probabilities', "`F.binary_cross_entropy`"),
    "bce_with_logits": _BINARY.format('"bernoulli_logits"', "`F.binary_cross_entropy_with_logits`"),
    "normal": '"gaussian" for unit variance, without the constant 1/2 log(2 pi), or else `pyvae.Gaussian(logvar)`',
    "nb": "`pyvae.NegativeBinomial(log_theta)`, which takes log means and log theta, and sums over the features",
    "zinb": "`pyvae.ZeroInflatedNegativeBinomial(log_theta, zi_logits)`, which takes log means, log theta and a zero's "
    "logits, and sums over the features",
}


def with_own_numbers(likelihood: Any, recon: Any) -> Any:
    """The likelihood with Python's own numbers, as _expect.py's `number` makes them of numpy's."""
    found = {}
    for name, value in held(likelihood).items():
        found[name] = number(value)
        if isinstance(found[name], Tensor) and not isinstance(value, Tensor):  # what it makes while compiling
            found[name] = found[name].to(recon.device).expand(recon.shape[:1] if name == "log_library" else ())
    return replace(likelihood, **found) if found else likelihood


def resolve(likelihood: Any) -> Resolved:
    """A name's or an object's parts; of anything else the name is what it is, to be refused."""
    return likelihood.resolved if isinstance(likelihood, CLASSES) else Resolved(likelihood)


def with_tensors(parts: Resolved, recon: Tensor) -> Resolved:
    """With tensors where recon is in the place of numbers: of log_library one number for each row."""

    def tensor(value: Any, *sizes: int) -> Any:
        if value is None or isinstance(value, Tensor):
            return value
        # A product, which torch.compile can keep symbolic.
        return torch.ones(sizes, dtype=exact_dtype(recon.device), device=recon.device) * value

    parameters = tuple([tensor(value) for value in parts.parameters])
    return Resolved(parts.name, parameters, tensor(parts.log_library, recon.shape[0]))


def restore(parts: Resolved) -> Any:
    """The name or object of a likelihood's parts."""
    cls = OBJECTS.get(parts.name)
    if cls is None:
        return parts.name
    given = dict(zip(LIKELIHOODS[parts.name].parameters, parts.parameters, strict=True))
    if parts.name.endswith("_mean"):
        given["link"] = "identity"
    return cls(**given if parts.log_library is None else given | {"log_library": parts.log_library})
