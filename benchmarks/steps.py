"""Whole training steps at real sizes: what the objective is worth where there is a model around it.

The model is the same on all sides. Each step clears the gradients, runs forward and backward, and Adam; with a CUDA
graph, all of that is one replay.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise

import torch
from torch import Tensor, nn

import pyvae

from . import Row
from .cases import Shape, eager_loss, eager_sample
from .speed import captured, timed_rows
from .timing import Case, Device
from .turns import Budget, Competitor, compete


class Autoencoder(nn.Module):
    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """Mean and log-variance, halves of the encoder's channels."""
        return self.encoder(x).chunk(2, dim=1)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
            *(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def perceptron(image: tuple[int, int, int] = (1, 28, 28), hidden: int = 400, latent: int = 20) -> Autoencoder:
    """The one that tutorials train on MNIST."""
    pixels = math.prod(image)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
    decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, pixels), nn.Unflatten(1, image))
    return Autoencoder(encoder, decoder)


def convolutional(latent: int = 128) -> Autoencoder:
    """Strided convolutions of 64 x 64 images down to one vector, and back."""
    widths, corner = (3, 32, 64, 128, 256), (256, 4, 4)
    down, up = [], []
    for before, after in pairwise(widths):
        down += [nn.Conv2d(before, after, 4, 2, 1), nn.ReLU()]
        up[:0] = [nn.ReLU(), nn.ConvTranspose2d(after, before, 4, 2, 1)]
    flat = math.prod(corner)
    return Autoencoder(
        nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, 2 * latent)),
        nn.Sequential(nn.Linear(latent, flat), nn.Unflatten(1, corner), *up),
    )


def diffusion_sized(latent: int = 4) -> Autoencoder:
    """Residual blocks around a latent image an eighth as wide, as latent diffusion models use."""
    widths = (64, 64, 128, 256)
    down, up = [], []
    for before, after in pairwise(widths):
        down += [nn.Conv2d(before, after, 4, 2, 1), Residual(after)]
        up[:0] = [Residual(after), nn.Upsample(scale_factor=2), nn.Conv2d(after, before, 3, padding=1)]
    return Autoencoder(
        nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), *down, nn.Conv2d(256, 2 * latent, 3, padding=1)),
        nn.Sequential(nn.Conv2d(latent, 256, 3, padding=1), *up, nn.Conv2d(64, 3, 3, padding=1)),
    )


# What is trained, and the batches of images that it is trained on.
MODELS: dict[str, tuple[Callable[[], Autoencoder], tuple[int, int, int, int]]] = {
    "step_mlp": (perceptron, (128, 1, 28, 28)),
    "step_conv": (convolutional, (64, 3, 64, 64)),
    "step_latent_diffusion": (diffusion_sized, (8, 3, 256, 256)),
}


def eager_objective(model: Autoencoder, x: Tensor) -> Tensor:
    mu, logvar = model.encode(x)
    return eager_loss(model.decoder(eager_sample(mu, logvar)), x, mu, logvar)


def eager_plain(model: Autoencoder, x: Tensor) -> Tensor:
    """No noise, no KL and next to no loss: about what the model costs by itself."""
    mu, _ = model.encode(x)
    return (model.decoder(mu) * x).sum()


def fused_objective(model: Autoencoder, x: Tensor) -> Tensor:
    mu, logvar = model.encode(x)
    z, kl = pyvae.reparameterize_kl(mu, logvar)
    return pyvae.elbo_loss(model.decoder(z), x, kl=kl, likelihood="bernoulli_logits")


def training_step(
    model: Autoencoder, x: Tensor, objective: Callable[[Autoencoder, Tensor], Tensor], autocast: bool
) -> Callable[[], None]:
    cuda = x.device.type == "cuda"
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True, capturable=cuda)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        # No weight is used twice; without the cache a captured step leaves no casts behind.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast, cache_enabled=False):
            loss = objective(model, x)
        loss.backward()
        optimizer.step()

    return step


def rows(name: str, autocast: bool, seconds: float, device: Device, budget: Budget) -> list[Row]:
    """One model, all competitors in turns: as they are, and whole steps captured in a CUDA graph."""
    device.release()
    build, size = MODELS[name]
    torch.manual_seed(0)
    model = build().to(device.name)
    # One batch for all steps: what a step writes between two readings of it exceeds the cache by itself, or is tiny.
    x = torch.rand(size, device=device.name)
    compile_ = cache(partial(device.compile, mode="default"))
    objectives = {
        "eager": eager_objective,
        "fused": fused_objective,
        "compiled": lambda model, x: compile_(eager_objective)(model, x),
        "fused_compiled": lambda model, x: compile_(fused_objective)(model, x),
        "model_alone": eager_plain,
    }
    competitors = []
    for competitor, objective in objectives.items():
        step = Case(competitor, training_step(copy.deepcopy(model), x, objective, autocast))
        competitors.append(Competitor(competitor, lambda step=step: [step] * 3))
        competitors.append(captured(competitors[-1], 3, device))
    shape = Shape(len(x), x[0].numel(), model.encode(x[:1])[0].numel())
    row = Row(name, "", math.nan, "us", "both", *shape, dtype="autocast bfloat16" if autocast else "float32")
    return timed_rows(row, compete(competitors, seconds, device, budget), device.stages)
