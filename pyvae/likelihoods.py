"""Likelihoods as objects, which carry what belongs to one: `pyvae.elbo_loss(..., likelihood=pyvae.Gaussian(logvar))`.

Parameters are tensors that broadcast to recon, shapes (), (D,), (B, 1), (B, D) and the like; gradients come back in
their own shapes, summed in an order that does not depend on threads. An object is an immutable tuple of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Resolved(NamedTuple):
    """A likelihood as the kernels take it: its name in `LIKELIHOODS`, its parameters, and log_library."""

    name: Any
    parameter: Any = None
    second_parameter: Any = None
    log_library: Any = None


class Gaussian(NamedTuple):
    """N(recon, e^logvar): 1/2 (target - recon)^2 e^-logvar + 1/2 logvar, without the constant 1/2 log(2 pi).

    Args:
        logvar: log of the observation noise's variance; None is 0, the likelihood "gaussian".

    Example:
        >>> import torch, pyvae
        >>> noise = pyvae.Gaussian(logvar=torch.zeros(8, requires_grad=True))
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=noise).item()
        8.0
    """

    logvar: Tensor | None = None

    @property
    def resolved(self) -> Resolved:
        return Resolved("gaussian") if self.logvar is None else Resolved("gaussian_logvar", self.logvar)


class Laplace(NamedTuple):
    """Laplace(recon, e^logscale): |target - recon| e^-logscale + logscale, without the constant log 2.

    Args:
        logscale: log of the scale; None is 0, the likelihood "laplace".

    Example:
        >>> import torch, pyvae
        >>> likelihood = pyvae.Laplace(logscale=torch.zeros(()))
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=likelihood).item()
        16.0
    """

    logscale: Tensor | None = None

    @property
    def resolved(self) -> Resolved:
        return Resolved("laplace") if self.logscale is None else Resolved("laplace_logscale", self.logscale)


class Poisson(NamedTuple):
    """Poisson counts with the mean e^recon, or with log_library e^log_library softmax(recon): mean - target log mean +
    log target!.

    Args:
        log_library: log of each sample's total, shape (B,) or (B, 1). With it recon holds scores, over all features.

    Example:
        >>> import torch, pyvae
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=pyvae.Poisson()).item()
        16.0
    """

    log_library: Tensor | None = None

    @property
    def resolved(self) -> Resolved:
        return Resolved("poisson", log_library=self.log_library)


class NegativeBinomial(NamedTuple):
    """Negative binomial counts of mean mu = e^recon, or with log_library e^log_library softmax(recon), and variance
    mu + mu^2 / theta. Right to 1e-5 in float32, value and derivatives, for log theta from -80 to 80, counts to 1e6 and
    recon to 87 (e^87 is near float32's largest number); above 80 it is Poisson's limit.

    Args:
        log_theta: log of the inverse dispersion, broadcastable to recon: (D,) is one number a gene.
        log_library: log of each sample's total, shape (B,) or (B, 1). With it recon holds scores, over all features.

    Source:
        Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018).

    Example:
        >>> import torch, pyvae
        >>> log_theta = torch.zeros(8, requires_grad=True)
        >>> loss = pyvae.elbo_loss(torch.zeros(2, 8), torch.ones(2, 8), likelihood=pyvae.NegativeBinomial(log_theta))
        >>> loss.item() / 16  # log 4
        1.3862943649291992
    """

    log_theta: Tensor
    log_library: Tensor | None = None

    @property
    def resolved(self) -> Resolved:
        return Resolved("negative_binomial", self.log_theta, None, self.log_library)


class ZeroInflatedNegativeBinomial(NamedTuple):
    """0 with probability sigmoid(zi_logits), else negative binomial counts as `NegativeBinomial` has them.

    Args:
        log_theta: log of the inverse dispersion, broadcastable to recon.
        zi_logits: logits of an extra 0, broadcastable to recon.
        log_library: log of each sample's total, shape (B,) or (B, 1). With it recon holds scores, over all features.

    Source:
        Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018).

    Example:
        >>> import torch, pyvae
        >>> likelihood = pyvae.ZeroInflatedNegativeBinomial(torch.zeros(8), torch.full((8,), -50.0))
        >>> pyvae.elbo_loss(torch.zeros(2, 8), torch.zeros(2, 8), likelihood=likelihood).item() / 16  # log 2
        0.6931471824645996
    """

    log_theta: Tensor
    zi_logits: Tensor
    log_library: Tensor | None = None

    @property
    def resolved(self) -> Resolved:
        return Resolved("zero_inflated_negative_binomial", self.log_theta, self.zi_logits, self.log_library)


class Multinomial(NamedTuple):
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
LikelihoodObject = Gaussian | Laplace | Poisson | NegativeBinomial | ZeroInflatedNegativeBinomial | Multinomial


def resolve(likelihood: Any) -> Resolved:
    """A name's or an object's parts; of anything else the name is what it is, to be refused."""
    return likelihood.resolved if isinstance(likelihood, CLASSES) else Resolved(likelihood)


def restore(parts: Resolved) -> Any:
    """The name or object of a likelihood's parts."""
    name, parameter, second, library = parts
    if name == "gaussian_logvar":
        return Gaussian(parameter)
    if name == "laplace_logscale":
        return Laplace(parameter)
    if name == "negative_binomial":
        return NegativeBinomial(parameter, library)
    if name == "zero_inflated_negative_binomial":
        return ZeroInflatedNegativeBinomial(parameter, second, library)
    return Poisson(library) if name == "poisson" else name
