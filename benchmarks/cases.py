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

from . import formulas
from .timing import Case


class Shape(NamedTuple):
    batch: int
    features: int
    latent: int


# Small, medium, large and very large.
SHAPES = (Shape(128, 784, 20), Shape(128, 3072, 128), Shape(256, 12288, 512), Shape(64, 196608, 4096))
COUNT_SHAPES = (Shape(128, 2000, 0), Shape(128, 20000, 0))  # cells and genes
# Rows from a few features to those of an image, about as many elements in all.
PARAMETER_SHAPES = (Shape(20000, 3, 0), Shape(4096, 16, 0), Shape(1024, 64, 0), Shape(128, 784, 0))
TINY = Shape(1, 64, 2)
ONE_LARGE = 2**27  # elements, from which on tables show a GPU's bandwidth


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
    one: Tensor  # [], the gradient that arrives at a sum


AnyInputs = Inputs | formulas.CountInputs | formulas.ParameterInputs


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
        # Filled in place: a temporary here would hide in the peak that speed.py measures.
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
        one=torch.ones((), device=device, dtype=dtype),
    )


def eager_bce(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum")


def eager_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def eager_loss(logits: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return eager_bce(logits, target) + eager_kl(mu, logvar)


def eager_loss_probabilities(probabilities: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return F.binary_cross_entropy(probabilities, target, reduction="sum") + eager_kl(mu, logvar)


def eager_loss_given_kl(logits: Tensor, target: Tensor, kl: Tensor) -> Tensor:
    return eager_bce(logits, target) + kl.sum()


def eager_sample(mu: Tensor, logvar: Tensor) -> Tensor:
    return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)


def eager_sample_kl(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    return eager_sample(mu, logvar), eager_kl(mu, logvar)


fused_loss = partial(pyvae.elbo_loss, likelihood="bernoulli_logits")


def fused_loss_given_kl(logits: Tensor, target: Tensor, kl: Tensor) -> Tensor:
    return fused_loss(logits, target, kl=kl)


class Way(NamedTuple):
    """How one competitor does it. Gradients are taken of all arguments that have one."""

    function: Callable[..., Any]
    arguments: str  # names among the inputs
    upstream: str = ""  # likewise: the gradients that arrive at the outputs; without any, torch makes that of a sum


RECONSTRUCTION = Way(fused_loss, "logits target")
SAMPLER = Way(pyvae.reparameterize_kl, "mu logvar", "z_grad kl_grad")

CONTESTS: dict[str, dict[str, Way]] = {
    # The drop-in `loss_function(recon_x, x, mu, logvar)`.
    "loss": {
        "eager": Way(eager_loss, "logits target mu logvar"),
        "fused": Way(fused_loss, "logits target mu logvar"),
        "eager_probabilities": Way(eager_loss_probabilities, "probabilities target mu logvar"),
        "fused_probabilities": Way(pyvae.elbo_loss, "probabilities target mu logvar"),
    },
    # The decoder's side of the two-kernel form: the KL comes, per sample, from the sampler.
    "loss_given_kl": {
        "eager": Way(eager_loss_given_kl, "logits target kl"),
        "fused": Way(fused_loss_given_kl, "logits target kl"),
    },
    # Reparameterization alone.
    "sample": {
        "eager": Way(eager_sample, "mu logvar", "z_grad"),
        "fused": Way(pyvae.reparameterize, "mu logvar", "z_grad"),
    },
    # The encoder's side of the two-kernel form. The others sum the KL to a scalar, which is cheaper.
    "sample_kl": {"eager": Way(eager_sample_kl, "mu logvar", "z_grad one"), "fused": SAMPLER},
    # Counts whose means are a softmax over the genes: gradients of everything that is learned.
    "nb": {
        "eager": Way(formulas.eager_nb, "scores counts log_theta log_library"),
        "fused": Way(formulas.fused_counts(pyvae.NegativeBinomial), "scores counts log_theta log_library"),
    },
    "zinb": {
        "eager": Way(formulas.eager_zinb, "scores counts log_theta zi_logits log_library"),
        "fused": Way(
            formulas.fused_counts(pyvae.ZeroInflatedNegativeBinomial), "scores counts log_theta zi_logits log_library"
        ),
    },
    **{
        what: {name: Way(function, compared.arguments) for name, function in formulas.functions(compared).items()}
        for what, compared in formulas.LIKELIHOODS.items()
    },
    # What a call costs when there is next to nothing to compute: with and without a KL, against torch's BCE alone.
    "overhead": {
        "bce_alone": Way(eager_bce, "logits target"),
        "eager": Way(eager_loss, "logits target mu logvar"),
        "fused_reconstruction": RECONSTRUCTION,
        "fused": Way(fused_loss, "logits target mu logvar"),
    },
}
SPEEDS = ("loss", "loss_given_kl", "sample", "sample_kl")
COUNTS = ("nb", "zinb")
PARAMETERS = tuple(formulas.LIKELIHOODS)

KERNELS = {
    "objective_forward": (RECONSTRUCTION, "forward"),
    "sampler_forward": (SAMPLER, "forward"),
    "sampler_backward": (SAMPLER, "backward"),
}

# torch.compile in some modes, each by the name of the competitor that it makes of the eager one.
Compilers = Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]]


def make_inputs_of(what: str, *arguments: Any) -> AnyInputs:
    """Those of a contest; arguments as of `make_inputs`."""
    make = formulas.count_inputs if what in COUNTS else make_inputs
    return (formulas.parameter_inputs if what in PARAMETERS else make)(*arguments)


def make_cases(what: str, inputs: AnyInputs, compilers: Compilers | None = None) -> list[Case]:
    """All competitors of a contest, with the same inputs."""
    ways, eager = CONTESTS[what], CONTESTS[what]["eager"]
    compiled = {name: eager._replace(function=make(eager.function)) for name, make in (compilers or {}).items()}
    return [_case(name, way, inputs) for name, way in (ways | compiled).items()]


def kernel_case(what: str, inputs: Inputs) -> Case:
    """pyvae's call that launches this kernel and no other."""
    way, stage = KERNELS[what]
    whole = _case("fused", way, inputs)
    if stage == "forward":
        return Case("fused", whole.forward)
    return Case("fused", partial(whole.backward, whole.forward(), retain_graph=True))


def _case(name: str, way: Way, inputs: AnyInputs) -> Case:
    arguments = [getattr(inputs, argument) for argument in way.arguments.split()]
    upstream = [getattr(inputs, gradient) for gradient in way.upstream.split()] or None
    wanted = [tensor for tensor in arguments if tensor.requires_grad]
    backward = partial(torch.autograd.grad, inputs=wanted, grad_outputs=upstream)
    return Case(name, partial(way.function, *arguments), backward)


# What has to be read and written once, by forward and backward together or by the one kernel: elements of recon's type,
# of the target's and of the latent's type for each of theirs, and bytes a row.
TRAFFIC = {
    "loss": (2, 1, 4, 0),  # recon, target in, gradient out (made in the forward pass); mu, logvar in, two gradients out
    "loss_given_kl": (2, 1, 0, 8),
    "sample": (0, 0, 7, 0),  # forward: mu, logvar in, z out; backward: g_z, logvar in, two gradients out
    "sample_kl": (0, 0, 8, 8),  # and mu in the backward pass
    # log_library is a row's; log theta and its gradient, one row of the batch's many, are not counted.
    "nb": (2, 1, 0, 4),
    "zinb": (4, 1, 0, 4),  # zi_logits in, their gradient out
    # Of the kernels alone, the KL per sample and its gradient are not counted.
    "objective_forward": (2, 1, 0, 0),
    "sampler_forward": (0, 0, 3, 0),
    "sampler_backward": (0, 0, 5, 0),  # the noise is drawn again
}
