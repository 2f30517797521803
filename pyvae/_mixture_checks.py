"""A mixture, and the refusals of the log densities. As in _checks.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from . import _latent_checks
from ._arguments import SCALES, DensityReduction, LatentArguments, Posterior
from ._expect import broadcasts, choice, floating, is_number, number, same_device, what
from ._objects import Object

REDUCTIONS: tuple[DensityReduction, ...] = get_args(DensityReduction)


@dataclass(frozen=True, eq=False, repr=False)
class Mixture(Object):
    """A mixture of K diagonal Gaussians over vectors of L numbers: a prior, as in VampPrior, or an aggregate posterior.

    Args:
        mean: means, shape (K, L), the same for every sample, or (B, K, L), of each sample its own.
        logvar: log sigma^2, or
        std: sigma, 0 or more, or
        logstd: log sigma, or
        rho: sigma = softplus(rho); exactly one of them, a tensor that broadcasts to mean, or a number.
        logits: of the weights pi = softmax(logits), shape (K,) or, with means (B, K, L), (B, K). None: all are equal.
            -inf is the weight 0: that component's gradients are exactly 0.

    All are differentiable. A mixture is immutable and a pytree; two are equal if they are one.

    At the ends it is as torch's `MixtureSameFamily`: a component whose std is 0, or logits that are all -inf, have no
    density, and make NaN of the rows that meet them; a row that is infinitely far from all components, or farther than
    its square is a number, is -inf, and its gradients are NaN. A component of infinite std has no part: gradients of
    exactly 0, where torch's are NaN.

    Raises:
        ValueError: if std is a number below 0. All else is checked where a mixture is used, which tells what it is used
            with: shapes, types, devices, and a std that is a tensor.

    Source:
        VampPrior: Tomczak & Welling, "VAE with a VampPrior" (2018).

    Example:
        >>> import torch, pyvae
        >>> pyvae.Mixture(torch.zeros(3, 2), torch.zeros(3, 2), logits=torch.zeros(3))
        Mixture(mean=Tensor(3, 2), logvar=Tensor(3, 2), logits=Tensor(3,))
    """

    __module__ = "pyvae"  # where pickles find it

    mean: Tensor
    logvar: Tensor | float | None = None
    std: Tensor | float | None = field(default=None, kw_only=True)
    logstd: Tensor | float | None = field(default=None, kw_only=True)
    rho: Tensor | float | None = field(default=None, kw_only=True)
    logits: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.mean, Tensor):  # and not vmap's `in_dims`
            _refuse_negative("Mixture", "std", self.std)


class Components(NamedTuple):
    """Of a checked mixture: mean and scale in one shape, (K, L) or (B, K, L), and the logits."""

    posterior: Posterior
    logits: Tensor | None
    name: str = "mixture"  # of the argument that was it

    def check_data(self, function: str) -> None:
        """Refuse a std below 0. Reads the data."""
        _latent_checks.data(function, self.posterior, f"{self.name}.std")


def gaussian(function: str, z: Tensor, call: LatentArguments, reduction: str) -> Posterior:
    """Check z, the posterior whose density it is to have, and what is asked for."""
    posterior = _latent_checks.posterior(function, call)
    mu = posterior.mu
    floating(function, "z", z, ".float()")
    expected = tuple(mu.shape)
    if tuple(z.shape[max(z.ndim - mu.ndim, 0) :]) != expected:
        raise ValueError(
            f"{function}: `z` must have mu's shape {expected}, after any dimensions of samples, but has shape "
            f"{tuple(z.shape)}"
        )
    same_device(function, "z", z, "mu", mu)
    choice(function, "reduction", reduction, REDUCTIONS)
    return posterior


def mixture(
    function: str, z: Tensor, given: Mixture, reduction: str, name: str = "z", of: str = "mixture"
) -> Components:
    """Check z, which is the argument `name`, the mixture, which is `of`, whose density it is to have, and what is asked
    for."""
    floating(function, name, z, ".float()")
    components = _components(function, of, given)
    mean = components.posterior.mu
    expected = tuple(mean.shape[:-2] + mean.shape[-1:])
    came = tuple(z.shape)
    if z.ndim < 2 or came[z.ndim - len(expected) :] != expected:
        rows = "B" if len(expected) == 1 else expected[0]
        remedy = "; features of more dimensions go with `.flatten(1)`" if len(expected) == 1 and z.ndim > 2 else ""
        raise ValueError(
            f"{function}: `{name}` must have shape (..., {rows}, {expected[-1]}) for means of shape "
            f"{tuple(mean.shape)}, but has shape {came}{remedy}"
        )
    same_device(function, name, z, f"{of}.mean", mean)
    choice(function, "reduction", reduction, REDUCTIONS)
    return components


def _components(function: str, of: str, given: Mixture) -> Components:
    if not isinstance(given, Mixture):
        raise TypeError(f"{function}: `{of}` must be a pyvae.Mixture, but is {what(given)}")
    mean = given.mean
    floating(function, f"{of}.mean", mean, ".float()")
    if mean.ndim not in (2, 3) or mean.shape[-2] == 0:
        raise ValueError(
            f"{function}: `{of}.mean` must have shape (K, L) or (B, K, L) with K > 0, but has shape {tuple(mean.shape)}"
        )
    scales = [(kind, getattr(given, kind)) for kind in SCALES if getattr(given, kind) is not None]
    if len(scales) != 1:
        came = " and ".join(f"`{kind}`" for kind, _ in scales) or "none"
        raise ValueError(
            f"{function}: exactly one of {_latent_checks.EVERY_SCALE} must be given to pyvae.Mixture, but got {came}"
        )
    kind, scale = scales[0]
    posterior = Posterior(mean, _scale(function, of, kind, scale, mean), kind)
    logits = given.logits
    if logits is not None:
        floating(function, f"{of}.logits", logits, ".float()")
        if logits.shape != mean.shape[:-1]:
            raise ValueError(
                f"{function}: `{of}.logits` must have shape {tuple(mean.shape[:-1])}, a number for each component, "
                f"but has shape {tuple(logits.shape)}"
            )
        same_device(function, f"{of}.logits", logits, f"{of}.mean", mean)
    return Components(posterior, logits, of)


def _scale(function: str, of: str, kind: str, scale: Any, mean: Tensor) -> Tensor:
    name, scale = f"{of}.{kind}", number(scale)
    if is_number(scale):  # a product, which a compiler can keep symbolic
        if kind == "std":
            _refuse_negative(function, name, scale)
        dtype = torch.float64 if mean.dtype == torch.float64 else torch.float32
        return (torch.ones((), dtype=dtype, device=mean.device) * scale).expand(mean.shape)
    if not isinstance(scale, Tensor):
        raise TypeError(f"{function}: `{name}` must be a Tensor or a number, but is {what(scale)}")
    floating(function, name, scale, ".float()")
    broadcasts(function, name, scale, f"{of}.mean", mean)
    same_device(function, name, scale, f"{of}.mean", mean)
    return scale.expand(mean.shape)


def _refuse_negative(function: str, name: str, std: Any) -> None:
    """Of a tensor nothing is said here: that reads its data."""
    std = number(std)
    if is_number(std) and std < 0:
        raise ValueError(f"{function}: `{name}` must be a standard deviation >= 0, but is {std:g}")
