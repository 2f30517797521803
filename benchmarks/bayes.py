"""Bayes by backprop: a classifier whose weights and biases are Gaussians, by bayesian-torch's formulas and by pyvae."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

import pyvae

SIZES, BATCH = (784, 400, 400, 10), 128
PRIOR_STD = 0.1
PRIOR = (0.0, math.log(math.expm1(PRIOR_STD)))

# Of each layer, a weight, [O, I], and a bias, [1, O]. Mean and rho are learned. The other three are bayesian-torch's
# buffers, of the same shape: the noise is drawn into one, and the prior's mean and standard deviation are full tensors.
PLACES = tuple(f"{kind}_{layer}" for layer in range(1, len(SIZES)) for kind in ("weight", "bias"))
LEARNED = tuple(f"{what}_{place}" for place in PLACES for what in ("mean", "rho"))
BUFFERS = tuple(f"{what}_{place}" for place in PLACES for what in ("noise", "prior_mean", "prior_std"))

Draw = Callable[..., tuple[Tensor, Tensor]]  # of mean, rho and its buffers: a weight, and the sum of its KL

# A batch, images [B, I] and labels [B], and all tensors of these names.
BayesInputs = namedtuple("BayesInputs", ["images", "labels", *LEARNED, *BUFFERS])
FUSED_ARGUMENTS = " ".join(["images", "labels", *LEARNED])
EAGER_ARGUMENTS = " ".join(["images", "labels", *LEARNED, *BUFFERS])


def make_inputs(device: str = "cpu", sizes: tuple[int, ...] = SIZES, batch: int = BATCH) -> BayesInputs:
    generator = torch.Generator(device).manual_seed(0)
    learned, buffers = [], []
    for inputs, outputs in pairwise(sizes):
        for shape in ((outputs, inputs), (1, outputs)):
            mean = torch.randn(shape, device=device, generator=generator) / inputs**0.5
            rho = torch.full(shape, -3.0, device=device)
            learned += [mean.requires_grad_(), rho.requires_grad_()]
            buffers += [torch.full(shape, value, device=device) for value in (0.0, 0.0, PRIOR_STD)]
    images = torch.rand(batch, sizes[0], device=device, generator=generator)
    labels = torch.randint(sizes[-1], (batch,), device=device, generator=generator)
    return BayesInputs(images, labels, *learned, *buffers)


def eager_draw(
    mean: Tensor, rho: Tensor, noise: Tensor, prior_mean: Tensor, prior_std: Tensor
) -> tuple[Tensor, Tensor]:
    """As bayesian-torch's layers do it, step by step."""
    sigma = torch.log1p(torch.exp(rho))
    weight = mean + sigma * noise.data.normal_()
    squares = sigma**2 + (mean - prior_mean) ** 2
    kl = torch.log(prior_std) - torch.log(sigma) + squares / (2 * prior_std**2) - 0.5
    return weight, kl.sum()


def fused_draw(mean: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    weight, kl = pyvae.reparameterize_kl(mean, rho=rho, prior=PRIOR)
    return weight, kl.sum()


def loss_by(draw: Draw) -> Callable[..., Tensor]:
    """The loss of a step, of a batch and the tensors LEARNED, and BUFFERS if `draw` takes its own."""

    def loss(images: Tensor, labels: Tensor, *tensors: Tensor) -> Tensor:
        learned, buffers = tensors[: len(LEARNED)], tensors[len(LEARNED) :]
        own = len(buffers) // len(PLACES)
        drawn = [draw(*learned[2 * i : 2 * i + 2], *buffers[own * i : own * (i + 1)]) for i in range(len(PLACES))]
        x, total = images, images.new_zeros(())
        for layer, ((weight, weight_kl), (bias, bias_kl)) in enumerate(zip(drawn[::2], drawn[1::2], strict=True)):
            x = F.linear(F.relu(x) if layer else x, weight, bias[0])
            total = total + weight_kl + bias_kl
        return F.cross_entropy(x, labels, reduction="sum") + total / 469  # batches of an epoch of MNIST

    return loss
