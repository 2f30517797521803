"""Likelihoods as objects, which carry what belongs to one: `pyvae.elbo_loss(..., likelihood=pyvae.Gaussian(logvar))`.

Parameters are tensors that broadcast to recon, shapes (), (D,), (B, 1), (B, D) and the like, or numbers; gradients come
back in their own shapes, summed in an order that does not depend on threads. An object holds them and nothing else. It
is immutable (`dataclasses.replace` makes another), equals itself alone, and is a pytree of what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._expect import number
from ._noise import exact_dtype
from ._objects import Object, held


class Resolved(NamedTuple):
    """A likelihood as the kernels take it: its name in `LIKELIHOODS`, its parameters, and log_library."""

    name: Any
    parameters: tuple[Any, ...] = ()
    log_library: Any = None


@dataclass(frozen=True, eq=False, repr=False)
class Gaussian(Object):
    """N(recon, e^logvar): 1/2 (target - recon)^2 e^-logvar + 1/2 logvar, without the constant 1/2 log(2 pi).

    Args:
        logvar: log of the observation noise's variance, broadcastable to recon, or a number; None is 0, the likelihood
            "gaussian".

    Example:
        >>> import torch, pyvae
        >>> noise = pyvae.Gaussian(logvar=torch.zeros(8, requires_grad=True))
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=noise).item()
        8.0
    """

    logvar: Tensor | float | None = None

    @property
    def resolved(self) -> Resolved:
        return Resolved("gaussian") if self.logvar is None else Resolved("gaussian_logvar", (self.logvar,))


@dataclass(frozen=True, eq=False, repr=False)
class Laplace(Object):
    """Laplace(recon, e^logscale): |target - recon| e^-logscale + logscale, without the constant log 2.

    Args:
        logscale: log of the scale, broadcastable to recon, or a number; None is 0, the likelihood "laplace".

    Example:
        >>> import torch, pyvae
        >>> likelihood = pyvae.Laplace(logscale=torch.zeros(()))
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=likelihood).item()
        16.0
    """

    logscale: Tensor | float | None = None

    @property
    def resolved(self) -> Resolved:
        return Resolved("laplace") if self.logscale is None else Resolved("laplace_logscale", (self.logscale,))


@dataclass(frozen=True, eq=False, repr=False)
class Poisson(Object):
    """Poisson counts with the mean e^recon, or with log_library e^log_library softmax(recon): mean - target log mean +
    log target!.

    Args:
        log_library: log of each sample's total, shape (B,) or (B, 1), or a number for all of them. With it recon holds
            scores, over all features.

    Example:
        >>> import torch, pyvae
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=pyvae.Poisson()).item()
        16.0
    """

    log_library: Tensor | float | None = None

    @property
    def resolved(self) -> Resolved:
        return Resolved("poisson", log_library=self.log_library)


@dataclass(frozen=True, eq=False, repr=False)
class NegativeBinomial(Object):
    """Negative binomial counts of mean mu = e^recon, or with log_library e^log_library softmax(recon), and variance
    mu + mu^2 / theta. Right to 1e-5 in float32, value and derivatives, for log theta from -80 to 80, counts to 1e6 and
    recon to 87 (e^87 is near float32's largest number); above 80 it is Poisson's limit.

    Args:
        log_theta: log of the inverse dispersion, broadcastable to recon, (D,) for one a gene, or a number.
        log_library: log of each sample's total, shape (B,) or (B, 1), or a number for all of them. With it recon holds
            scores, over all features.

    Source:
        Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018).

    Example:
        >>> import torch, pyvae
        >>> log_theta = torch.zeros(8, requires_grad=True)
        >>> loss = pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=pyvae.NegativeBinomial(log_theta))
        >>> loss.item() / 16  # log 4
        1.3862943649291992
    """

    log_theta: Tensor | float
    log_library: Tensor | float | None = None

    @property
    def resolved(self) -> Resolved:
        return Resolved("negative_binomial", (self.log_theta,), self.log_library)


@dataclass(frozen=True, eq=False, repr=False)
class ZeroInflatedNegativeBinomial(Object):
    """0 with probability sigmoid(zi_logits), else negative binomial counts as `NegativeBinomial` has them.

    Args:
        log_theta: log of the inverse dispersion, broadcastable to recon, or a number.
        zi_logits: logits of an extra 0, broadcastable to recon, or a number.
        log_library: log of each sample's total, shape (B,) or (B, 1), or a number for all of them. With it recon holds
            scores, over all features.

    Source:
        Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018).

    Example:
        >>> import torch, pyvae
        >>> likelihood = pyvae.ZeroInflatedNegativeBinomial(torch.zeros(8), torch.full((8,), -50.0))
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.zeros(2, 8), likelihood=likelihood).item() / 16  # log 2
        0.6931471824645996
    """

    log_theta: Tensor | float
    zi_logits: Tensor | float
    log_library: Tensor | float | None = None

    @property
    def resolved(self) -> Resolved:
        parameters = (self.log_theta, self.zi_logits)
        return Resolved("zero_inflated_negative_binomial", parameters, self.log_library)


@dataclass(frozen=True, eq=False, repr=False)
class Multinomial(Object):
    """Counts of a row's categories, whose logits recon holds, over all features: -target log softmax(recon), without
    the multinomial coefficient.

    Example:
        >>> import torch, pyvae
        >>> pyvae.elbo_loss(torch.zeros(1, 8), torch.ones(1, 8), likelihood=pyvae.Multinomial()).item() / 8  # log 8
        2.079441547393799
    """

    @property
    def resolved(self) -> Resolved:
        return Resolved("multinomial")


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

CLASSES = (Gaussian, Laplace, Poisson, NegativeBinomial, ZeroInflatedNegativeBinomial, Multinomial)
WITH_PARAMETERS: dict[Any, type[Object]] = {  # by their names in `LIKELIHOODS`
    "gaussian_logvar": Gaussian,
    "laplace_logscale": Laplace,
    "negative_binomial": NegativeBinomial,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomial,
}
torch.serialization.add_safe_globals([*CLASSES])  # torch.load takes them: they hold what they are given, and do nothing
LikelihoodObject = Gaussian | Laplace | Poisson | NegativeBinomial | ZeroInflatedNegativeBinomial | Multinomial


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
    cls = Poisson if parts.name == "poisson" else WITH_PARAMETERS.get(parts.name)
    library = () if parts.log_library is None else (parts.log_library,)
    return parts.name if cls is None else cls(*parts.parameters, *library)
