"""Bayes by backprop (Blundell et al. 2015): a classifier whose every weight and bias is a Gaussian, not a number.

Each step draws a network, w = mu + sigma eps with sigma = softplus(rho), and pays for what it has learned: the KL of
all weights from the prior N(0, 0.1^2). That is one call of pyvae for each tensor, which stores no noise. A weight that
the data say nothing about becomes as wide as the prior; one that matters becomes narrow.

python examples/bayes_by_backprop.py
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import pyvae

SIZES = (784, 400, 400, 10)
PRIOR = (0.0, math.log(math.expm1(0.1)))  # mean and rho of N(0, 0.1^2): the prior's scale is a rho, too
START = math.log(math.expm1(0.03))  # rho of the weights before training
# 1437 images cannot pay for the KL of half a million weights. It is tempered: a "cold" posterior.
KL_WEIGHT = 0.01


class BayesianLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        shapes = {"weight": (outputs, inputs), "bias": (1, outputs)}
        start = {"weight": torch.randn(outputs, inputs) / inputs**0.5, "bias": torch.zeros(1, outputs)}
        self.mu = nn.ParameterDict(start)
        self.rho = nn.ParameterDict({name: torch.full(shape, START) for name, shape in shapes.items()})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output of one network that is drawn, and the KL of its weights from the prior in nats."""
        drawn = {name: pyvae.reparameterize_kl(mu, rho=self.rho[name], prior=PRIOR) for name, mu in self.mu.items()}
        (weight, weight_kl), (bias, bias_kl) = drawn["weight"], drawn["bias"]  # the KLs are of each row
        return F.linear(x, weight, bias[0]), weight_kl.sum() + bias_kl.sum()


class BayesianMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(BayesianLinear, SIZES[:-1], SIZES[1:]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(())
        for i, layer in enumerate(self.layers):
            x, kl = layer(F.relu(x) if i else x)
            total = total + kl
        return x, total


class Found(NamedTuple):
    accuracy: float  # of held-out digits, by ten networks' mean
    unused: float  # mean standard deviation of the weights of pixels that are always 0
    used: float  # and of the hundred pixels that vary most


def main(epochs: int = 20) -> Found:
    torch.set_num_threads(1)  # as fast as several, and alike everywhere
    torch.manual_seed(0)
    digits = load_digits()
    images = F.interpolate(torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 16, 28).flatten(1)
    labels, order = torch.as_tensor(digits.target), torch.randperm(len(images))
    held_out, train = order[:360], order[360:]
    model = BayesianMLP()
    means = [p for name, p in model.named_parameters() if ".mu." in name]
    scales = [p for name, p in model.named_parameters() if ".rho." in name]  # they have further to go than a weight
    optimizer = torch.optim.Adam([{"params": means}, {"params": scales, "lr": 0.01}], lr=1e-3)

    for epoch in range(epochs):
        for batch in train[torch.randperm(len(train))].split(128):
            scores, kl = model(images[batch])
            # Of all images and one KL, a batch's share: here divided by the number of images.
            loss = F.cross_entropy(scores, labels[batch]) + KL_WEIGHT * kl / len(train)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3d}: {loss:.3f} nats per image, {kl / 1000:.0f} thousand nats of KL")

    with torch.no_grad():
        probabilities = torch.stack([model(images[held_out])[0].softmax(1) for _ in range(10)]).mean(0)
        accuracy = (probabilities.argmax(1) == labels[held_out]).float().mean().item()
        sigma = F.softplus(model.layers[0].rho["weight"]).mean(0)  # of each pixel
        spread = images[train].std(0)
        found = Found(accuracy, sigma[spread == 0].mean().item(), sigma[spread.topk(100).indices].mean().item())
    print(f"held-out accuracy {found.accuracy:.3f} by the mean of ten networks")
    print(f"sigma of the weights of pixels that are always 0: {found.unused:.3f}; that vary most: {found.used:.3f}")
    return found


if __name__ == "__main__":
    main()
