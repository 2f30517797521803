"""Bayes by backprop: a classifier whose weights and biases are Gaussians, by bayesian-torch's formulas and by pyvae."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import pyvae

SIZES, BATCH = (784, 400, 400, 10), 128
PRIOR_STD = 0.1
PRIOR = (0.0, math.log(math.expm1(PRIOR_STD)))

Draw = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # of mean and rho: a weight, and the sum of its KL


class BayesInputs(NamedTuple):
    """A batch; and of each layer the mean and rho of the weight, [O, I], and of the bias, [1, O]."""

    images: Tensor  # [B, I]
    labels: Tensor  # [B]
    mean_1: Tensor
    rho_1: Tensor
    mean_bias_1: Tensor
    rho_bias_1: Tensor
    mean_2: Tensor
    rho_2: Tensor
    mean_bias_2: Tensor
    rho_bias_2: Tensor
    mean_3: Tensor
    rho_3: Tensor
    mean_bias_3: Tensor
    rho_bias_3: Tensor


ARGUMENTS = " ".join(BayesInputs._fields)


def make_inputs(device: str = "cpu", sizes: tuple[int, ...] = SIZES, batch: int = BATCH) -> BayesInputs:
    generator = torch.Generator(device).manual_seed(0)

    def parameters() -> Iterator[Tensor]:
        for inputs, outputs in pairwise(sizes):
            for rows, columns in ((outputs, inputs), (1, outputs)):
                mean = torch.randn(rows, columns, device=device, generator=generator) / inputs**0.5
                yield mean.requires_grad_()
                yield torch.full((rows, columns), -3.0, device=device).requires_grad_()

    images = torch.rand(batch, sizes[0], device=device, generator=generator)
    labels = torch.randint(sizes[-1], (batch,), device=device, generator=generator)
    return BayesInputs(images, labels, *parameters())


def eager_draw(mean: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    """As bayesian-torch's layers do it; its KL is a mean, which is a sum here."""
    sigma = torch.log1p(torch.exp(rho))
    weight = mean + sigma * torch.randn_like(sigma)
    kl = math.log(PRIOR_STD) - torch.log(sigma) + (sigma**2 + (mean - 0.0) ** 2) / (2 * PRIOR_STD**2) - 0.5
    return weight, kl.sum()


def fused_draw(mean: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    weight, kl = pyvae.reparameterize_kl(mean, rho=rho, prior=PRIOR)
    return weight, kl.sum()


def loss_by(draw: Draw) -> Callable[..., Tensor]:
    """The loss of a step, of the tensors of `BayesInputs`."""

    def loss(images: Tensor, labels: Tensor, *parameters: Tensor) -> Tensor:
        x, total = images, images.new_zeros(())
        for first in range(0, len(parameters), 4):
            (weight, weight_kl), (bias, bias_kl) = (draw(*parameters[i : i + 2]) for i in (first, first + 2))
            x = F.linear(F.relu(x) if first else x, weight, bias[0])
            total = total + weight_kl + bias_kl
        return F.cross_entropy(x, labels, reduction="sum") + total / 469  # batches of an epoch of MNIST

    return loss
