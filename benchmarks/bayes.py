"""Bayes by backprop: a classifier whose weights and biases are Gaussians, by bayesian-torch's formulas and by pyvae."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyvae

from . import Row
from .speed import contest
from .timing import Case, Device

SIZES, BATCH = (784, 400, 400, 10), 128
PRIOR_STD = 0.1
PRIOR = (0.0, math.log(math.expm1(PRIOR_STD)))


class Weight(nn.Module):
    """A weight's mean and rho; and what bayesian-torch keeps of it: the noise's and the prior's full tensors."""

    def __init__(self, shape: tuple[int, ...], inputs: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(shape) / inputs**0.5)
        self.rho = nn.Parameter(torch.full(shape, -3.0))
        self.buffers_of_shape = [torch.full(shape, value) for value in (0.0, 0.0, PRIOR_STD)]

    def eager(self) -> tuple[Tensor, Tensor]:
        """As bayesian-torch's layers do it, step by step."""
        noise, prior_mean, prior_std = self.buffers_of_shape
        sigma = torch.log1p(torch.exp(self.rho))
        squares = sigma**2 + (self.mean - prior_mean) ** 2
        kl = torch.log(prior_std) - torch.log(sigma) + squares / (2 * prior_std**2) - 0.5
        return self.mean + sigma * noise.data.normal_(), kl.sum()

    def fused(self) -> tuple[Tensor, Tensor]:
        weight, kl = pyvae.reparameterize_kl(self.mean, rho=self.rho, prior=PRIOR)
        return weight, kl.sum()


def step(seconds: float, device: Device, sizes: tuple[int, ...] = SIZES) -> list[Row]:
    """A whole step, of which nothing but the optimizer is left out."""
    torch.manual_seed(0)
    weights = [Weight(shape, inputs) for inputs, out in pairwise(sizes) for shape in ((out, inputs), (1, out))]
    images, labels = torch.rand(BATCH, sizes[0]), torch.randint(sizes[-1], (BATCH,))
    learned = [x for weight in weights for x in weight.parameters()]

    def loss(way: str) -> Tensor:
        drawn = [getattr(weight, way)() for weight in weights]
        x = images
        for layer, ((matrix, _), (bias, _)) in enumerate(zip(drawn[::2], drawn[1::2], strict=True)):
            x = F.linear(F.relu(x) if layer else x, matrix, bias[0])
        kl = torch.stack([kl for _, kl in drawn]).sum()
        return F.cross_entropy(x, labels, reduction="sum") + kl / 469  # batches of an epoch of MNIST

    ways = {"eager": lambda: loss("eager"), "fused": lambda: loss("fused")}
    ways["compiled"] = device.compile(ways["eager"], mode="default")
    cases = [Case(name, way, lambda out: torch.autograd.grad(out, learned)) for name, way in ways.items()]
    numbers = sum(weight.mean.numel() for weight in weights)
    threads = torch.get_num_threads()
    row = Row("step_bayes", "", math.nan, "us", "both", BATCH, sizes[0], numbers, dtype="float32", threads=threads)
    return contest(row, cases, seconds, device)
