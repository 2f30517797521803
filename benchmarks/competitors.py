"""What is compared: one function of the same inputs, as training scripts write it, compiled by torch, and by pyvae.

Gradients are taken with `torch.autograd.grad`, because neither recon, mu nor logvar is a leaf in a model: there, too,
nothing accumulates into a `.grad`. Every competitor allocates its outputs anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import pyvae

from .timing import Case

# A competitor's ratio is taken to the fused call on the same inputs: probabilities to probabilities, logits to logits.
COUNTERPART = {"eager_probabilities": "fused_probabilities", "fused_probabilities": "fused_probabilities"}


# torch.compile in some modes, each by the name of the competitor that it makes of the eager one.
Compilers = Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]]


class Shape(NamedTuple):
    batch: int
    features: int
    latent: int


class Inputs(NamedTuple):
    """What a decoder and an encoder hand over; [B, D] or [B, L] unless stated."""

    logits: Tensor
    probabilities: Tensor
    target: Tensor
    mu: Tensor
    logvar: Tensor
    kl: Tensor  # [B], float32
    z_grad: Tensor  # gradient that arrives at z from the decoder
    kl_grad: Tensor  # [B], float32


def make_inputs(
    shape: Shape,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    target_dtype: torch.dtype | None = None,
) -> Inputs:
    """Random ones, of `dtype` but for the target, where another is given for it."""
    batch, features, latent = shape
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        # Filled in place: a temporary here would hide in the peak that isolated.py measures.
        return torch.empty(size, device=device, dtype=dtype).normal_(generator=generator)

    logits = normal(batch, features).mul_(2.0)
    return Inputs(
        logits=logits.requires_grad_(),
        probabilities=torch.sigmoid(logits.detach()).requires_grad_(),
        target=torch.empty(batch, features, device=device, dtype=target_dtype or dtype).uniform_(generator=generator),
        mu=normal(batch, latent).requires_grad_(),
        logvar=normal(batch, latent).mul_(0.5).requires_grad_(),
        kl=torch.ones(batch, device=device).requires_grad_(),
        z_grad=normal(batch, latent),
        kl_grad=torch.ones(batch, device=device),
    )


def eager_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def eager_loss(logits: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") + eager_kl(mu, logvar)


def eager_loss_probabilities(probabilities: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return F.binary_cross_entropy(probabilities, target, reduction="sum") + eager_kl(mu, logvar)


def eager_loss_given_kl(logits: Tensor, target: Tensor, kl: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") + kl.sum()


def eager_sample(mu: Tensor, logvar: Tensor) -> Tensor:
    return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)


def eager_sample_kl(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    return eager_sample(mu, logvar), eager_kl(mu, logvar)


def fused_loss(logits: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return pyvae.elbo_loss(logits, target, mu, logvar, likelihood="bernoulli_logits")


def fused_loss_probabilities(probabilities: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return pyvae.elbo_loss(probabilities, target, mu, logvar, likelihood="bernoulli")


def fused_loss_given_kl(logits: Tensor, target: Tensor, kl: Tensor) -> Tensor:
    return pyvae.elbo_loss(logits, target, kl=kl, likelihood="bernoulli_logits")


def competing(
    eager: Callable[..., Any],
    fused: Callable[..., Any],
    arguments: tuple[Tensor, ...],
    backward: Callable[[Any], object],
    compilers: Compilers,
) -> list[Case]:
    """`eager` as it is, compiled, and `fused`, all with the same arguments."""
    functions = {"eager": eager, "fused": fused, **{name: compiler(eager) for name, compiler in compilers.items()}}
    return [Case(name, partial(function, *arguments), backward) for name, function in functions.items()]


def loss(inputs: Inputs, compilers: Compilers) -> list[Case]:
    """The drop-in `loss_function(recon_x, x, mu, logvar)`: reconstruction and KL, gradients of recon, mu and logvar."""
    logits, probabilities, target, mu, logvar, *_ = inputs

    def gradients(loss: Tensor) -> object:
        return torch.autograd.grad(loss, (logits, mu, logvar))

    def gradients_probabilities(loss: Tensor) -> object:
        return torch.autograd.grad(loss, (probabilities, mu, logvar))

    arguments = (probabilities, target, mu, logvar)
    return [
        *competing(eager_loss, fused_loss, (logits, target, mu, logvar), gradients, compilers),
        Case("eager_probabilities", lambda: eager_loss_probabilities(*arguments), gradients_probabilities),
        Case("fused_probabilities", lambda: fused_loss_probabilities(*arguments), gradients_probabilities),
    ]


def loss_given_kl(inputs: Inputs, compilers: Compilers) -> list[Case]:
    """The decoder's side of the two-kernel form: the KL comes, per sample, from the sampler."""
    logits, target, kl = inputs.logits, inputs.target, inputs.kl

    def gradients(loss: Tensor) -> object:
        return torch.autograd.grad(loss, (logits, kl))

    return competing(eager_loss_given_kl, fused_loss_given_kl, (logits, target, kl), gradients, compilers)


def sample(inputs: Inputs, compilers: Compilers) -> list[Case]:
    """Reparameterization alone."""
    mu, logvar, z_grad = inputs.mu, inputs.logvar, inputs.z_grad

    def gradients(z: Tensor) -> object:
        return torch.autograd.grad(z, (mu, logvar), z_grad)

    return competing(eager_sample, pyvae.reparameterize, (mu, logvar), gradients, compilers)


def sample_kl(inputs: Inputs, compilers: Compilers) -> list[Case]:
    """The encoder's side of the two-kernel form. The others sum the KL to a scalar, which is cheaper."""
    mu, logvar, z_grad = inputs.mu, inputs.logvar, inputs.z_grad
    one = torch.ones((), device=mu.device, dtype=mu.dtype)

    def gradients(outputs: tuple[Tensor, Tensor]) -> object:
        kl_grad = inputs.kl_grad if outputs[1].dim() else one
        return torch.autograd.grad(outputs, (mu, logvar), (z_grad, kl_grad))

    return competing(eager_sample_kl, pyvae.reparameterize_kl, (mu, logvar), gradients, compilers)


def both_sides(inputs: Inputs, compilers: Compilers) -> list[Case]:
    """Sampler and objective as in a training step with nothing between them: (z, loss), and all their gradients.

    The gradient that arrives at the loss is given: torch would make it with a launch of its own.
    """
    logits, target, mu, logvar = inputs.logits, inputs.target, inputs.mu, inputs.logvar
    one = torch.ones((), device=mu.device)

    def eager(logits: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        return eager_sample(mu, logvar), eager_loss(logits, target, mu, logvar)

    def fused(logits: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        z, kl = pyvae.reparameterize_kl(mu, logvar)
        return z, fused_loss_given_kl(logits, target, kl)

    def gradients(outputs: tuple[Tensor, Tensor]) -> object:
        return torch.autograd.grad(outputs, (logits, mu, logvar), (inputs.z_grad, one))

    return competing(eager, fused, (logits, target, mu, logvar), gradients, compilers)


CASES: dict[str, Callable[[Inputs, Compilers], list[Case]]] = {
    "loss": loss,
    "loss_given_kl": loss_given_kl,
    "sample": sample,
    "sample_kl": sample_kl,
}


def necessary_bytes(what: str, shape: Shape, size: int = 4, target_size: int = 4) -> int:
    """Bytes that forward and backward cannot avoid: each pass reads its inputs and writes its outputs once.

    `size` is that of an element of everything but the target and the KL, which is float32.
    """
    batch, features, latent = shape
    recon = (2 * size + target_size) * batch * features  # recon, target in, gradient out (made in the forward pass)
    return {
        "loss": recon + 4 * size * batch * latent,  # mu, logvar in, two gradients out
        "loss_given_kl": recon + 8 * batch,
        # forward: mu, logvar in, z out; backward: g_z, logvar in, two gradients out
        "sample": 7 * size * batch * latent,
        "sample_kl": 8 * size * batch * latent + 8 * batch,  # and mu in the backward pass
    }[what]
