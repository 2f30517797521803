"""Counts as a single-cell VAE meets them, and likelihoods with parameters: their inputs, and their losses in plain
PyTorch, those of counts as scvi-tools writes them, and by pyvae."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import ContinuousBernoulli

import pyvae

# ---- counts ----------------------------------------------------------------------------------------------------------

EPS = 1e-8  # what scvi-tools adds to mean and theta


class CountInputs(NamedTuple):
    """What such a model's decoder hands over, its data and its parameters."""

    scores: Tensor  # [B, D]: the mean is e^log_library softmax(scores)
    counts: Tensor  # [B, D]
    log_theta: Tensor  # [D], one a gene
    zi_logits: Tensor  # [B, D], of the decoder, too
    log_library: Tensor  # [B, 1], no gradient: scvi-tools takes the observed totals


def count_inputs(
    shape: tuple[int, int, int],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    target_dtype: torch.dtype | None = None,
) -> CountInputs:
    """Gamma-Poisson counts of lognormal expression in cells of e^7 to e^9 counts: 90 % zeros in 20,000 genes, 63 % in
    2,000. They are drawn on the CPU, the same for all devices."""
    batch, genes, _ = shape
    draw = np.random.default_rng(0)
    expression, log_theta, libraries = draw.normal(0, 1.5, genes), draw.normal(0, 1, genes), draw.uniform(7, 9, batch)
    share, theta = np.exp(expression) / np.exp(expression).sum(), np.exp(log_theta)
    # Row by row and in place: a temporary here would hide in the peak that speed.py measures.
    counts = torch.empty(batch, genes, device=device, dtype=target_dtype or dtype)
    for row, library in zip(counts, libraries, strict=True):
        row.copy_(torch.from_numpy(draw.poisson(draw.gamma(theta, np.exp(library) * share / theta))))
    generator = torch.Generator(device).manual_seed(0)

    def noise() -> Tensor:
        return torch.empty(batch, genes, device=device, dtype=dtype).normal_(generator=generator)

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device, dtype)

    return CountInputs(
        scores=noise().mul_(0.3).add_(tensor(expression)).requires_grad_(),
        counts=counts,
        log_theta=tensor(log_theta).requires_grad_(),
        zi_logits=noise().sub_(2).requires_grad_(),
        log_library=tensor(libraries)[:, None],
    )


def log_nb(x: Tensor, mean: Tensor, theta: Tensor) -> Tensor:
    """The terms and eps of scvi-tools' `log_nb_positive`."""
    log_total = torch.log(theta + mean + EPS)
    from_theta = theta * (torch.log(theta + EPS) - log_total)
    from_count = x * (torch.log(mean + EPS) - log_total)
    return from_theta + from_count + torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)


def log_zinb(x: Tensor, mean: Tensor, theta: Tensor, zi_logits: Tensor) -> Tensor:
    """The terms and eps of scvi-tools' `log_zinb_positive`: both cases for every element, then the one that applies."""
    rest = F.softplus(-zi_logits)
    log_total = torch.log(theta + mean + EPS)
    log_nb_zero = theta * (torch.log(theta + EPS) - log_total) - zi_logits
    zero = F.softplus(log_nb_zero) - rest
    ways = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    counted = log_nb_zero - rest + x * (torch.log(mean + EPS) - log_total) + ways
    return (x < EPS) * zero + (x > EPS) * counted


def means(scores: Tensor, log_library: Tensor) -> Tensor:
    return torch.exp(log_library) * torch.softmax(scores, dim=-1)


def eager_nb(scores: Tensor, counts: Tensor, log_theta: Tensor, log_library: Tensor) -> Tensor:
    return -log_nb(counts, means(scores, log_library), torch.exp(log_theta)).sum()


def eager_zinb(scores: Tensor, counts: Tensor, log_theta: Tensor, zi_logits: Tensor, log_library: Tensor) -> Tensor:
    return -log_zinb(counts, means(scores, log_library), torch.exp(log_theta), zi_logits).sum()


def fused_counts(likelihood: Callable[..., pyvae.likelihoods.LikelihoodObject]) -> Callable[..., Tensor]:
    """pyvae's loss of scores, counts and the parameters of a likelihood, of which log_library comes last."""

    def loss(scores: Tensor, counts: Tensor, *parameters: Tensor) -> Tensor:
        return pyvae.elbo_loss(scores, counts, likelihood=likelihood(*parameters))

    return loss


# ---- likelihoods with parameters, on short and long rows -------------------------------------------------------------


class ParameterInputs(NamedTuple):
    """[B, D] unless stated."""

    recon: Tensor
    real: Tensor  # targets: real numbers,
    counts: Tensor  # counts,
    share: Tensor  # and numbers in [0, 1]
    scalar: Tensor  # []: a logarithm, of a scale for example
    features: Tensor  # [D], one for each feature


def parameter_inputs(shape: tuple[int, int, int], device: str, dtype: torch.dtype) -> ParameterInputs:
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
    """All ways to a loss, by competitor."""

    def summed(terms: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *inputs: terms(*inputs).sum()

    def fused(recon: Tensor, target: Tensor, *parameters: Tensor) -> Tensor:
        likelihood = compared.likelihood(*parameters) if parameters else compared.likelihood
        return pyvae.elbo_loss(recon, target, likelihood=likelihood)

    found = {"eager": summed(compared.terms), "fused": fused}
    return found | ({"eager_function": summed(compared.other_terms)} if compared.other_terms else {})
