"""Likelihoods with parameters, and those they are compared with, on short and long rows: as pyvae has them, and as
plain PyTorch; summed over the batch, and a loss per sample whose mean is taken afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import ContinuousBernoulli

import pyvae

from .counts import log_nb


class ParameterInputs(NamedTuple):
    """[B, D] unless stated."""

    recon: Tensor
    real: Tensor  # targets: real numbers,
    counts: Tensor  # counts,
    share: Tensor  # and numbers in [0, 1]
    scalar: Tensor  # []: a logarithm, of a scale for example
    features: Tensor  # [D], one for each feature


def make_inputs(shape: tuple[int, int, int], device: str, dtype: torch.dtype) -> ParameterInputs:
    batch, features, _ = shape
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.empty(size, device=device, dtype=dtype).normal_(generator=generator)

    share = torch.empty(batch, features, device=device, dtype=dtype).uniform_(generator=generator)
    return ParameterInputs(
        recon=normal(batch, features).requires_grad_(),
        real=normal(batch, features),
        counts=torch.poisson(share, generator=generator),
        share=share,
        scalar=normal().mul_(0.1).requires_grad_(),
        features=normal(features).mul_(0.1).requires_grad_(),
    )


def gaussian(recon: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (recon - target) ** 2


def mse(recon: Tensor, target: Tensor) -> Tensor:
    """The same by torch's own function, which is faster."""
    return 0.5 * F.mse_loss(recon, target, reduction="none")


def gaussian_logvar(recon: Tensor, target: Tensor, logvar: Tensor) -> Tensor:
    return 0.5 * (recon - target) ** 2 * torch.exp(-logvar) + 0.5 * logvar


def laplace(recon: Tensor, target: Tensor, logscale: Tensor) -> Tensor:
    return (recon - target).abs() * torch.exp(-logscale) + logscale


def poisson(recon: Tensor, counts: Tensor) -> Tensor:
    return torch.exp(recon) - counts * recon + torch.lgamma(counts + 1)


def negative_binomial(recon: Tensor, counts: Tensor, log_theta: Tensor) -> Tensor:
    return -log_nb(counts, torch.exp(recon), torch.exp(log_theta))


def bernoulli_logits(recon: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(recon, target, reduction="none")


def continuous_bernoulli_logits(recon: Tensor, target: Tensor) -> Tensor:
    return -ContinuousBernoulli(logits=recon, validate_args=False).log_prob(target)


class Compared(NamedTuple):
    arguments: str  # names among the inputs: recon, target and the parameters
    likelihood: Any  # pyvae's: a name, or a class that takes the parameters
    terms: Callable[..., Tensor]  # of each element, in plain PyTorch
    other_terms: Callable[..., Tensor] | None = None  # by a function of torch's own


LIKELIHOODS = {
    "gaussian": Compared("recon real", "gaussian", gaussian, mse),
    "gaussian_scalar": Compared("recon real scalar", pyvae.Gaussian, gaussian_logvar),
    "gaussian_features": Compared("recon real features", pyvae.Gaussian, gaussian_logvar),
    "laplace_features": Compared("recon real features", pyvae.Laplace, laplace),
    "poisson": Compared("recon counts", "poisson", poisson),
    "negative_binomial": Compared("recon counts features", pyvae.NegativeBinomial, negative_binomial),
    "bernoulli_logits": Compared("recon share", "bernoulli_logits", bernoulli_logits),
    "continuous_bernoulli_logits": Compared("recon share", "continuous_bernoulli_logits", continuous_bernoulli_logits),
}


def functions(compared: Compared) -> dict[str, Callable[..., Tensor]]:
    """All ways to a loss, by competitor. The mean over the batch is made in three ways: two of pyvae's and eager's."""

    def fused(recon: Tensor, target: Tensor, *parameters: Tensor, reduction: Any = "sum") -> Tensor:
        likelihood = compared.likelihood(*parameters) if parameters else compared.likelihood
        return pyvae.elbo_loss(recon, target, likelihood=likelihood, reduction=reduction)

    found: dict[str, Callable[..., Tensor]] = {
        "eager": lambda *inputs: compared.terms(*inputs).sum(),
        "eager_none": lambda *inputs: compared.terms(*inputs).sum(1).mean(),
        "fused": fused,
        "fused_batch": lambda recon, *others: fused(recon, *others) / len(recon),
        "fused_none": lambda *inputs: fused(*inputs, reduction="none").mean(),
    }
    if other := compared.other_terms:
        found["eager_function"] = lambda *inputs: other(*inputs).sum()
    return found
