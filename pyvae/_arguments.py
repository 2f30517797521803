"""A call's arguments under one name, for the ways that are not the eager entry's: checks, operators, reference; and the
result that has a name."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

# The forms of a posterior's scale. The place of a name is its code in the compiled kernels.
SCALES = ("logvar", "std", "logstd", "rho")

# What `reconstruction_loss` has not: mu and its scale, logvar_range, prior and kl.
NO_POSTERIOR = (None,) * (len(SCALES) + 4)

Range = tuple[float | None, float | None]  # low and high, either of which may be missing

# What an editor and a type checker offer; _codes.py makes its lists of the reductions, and test_typing.py compares.
LikelihoodName = Literal[
    "bernoulli", "bernoulli_logits", "gaussian", "laplace", "poisson", "multinomial", "continuous_bernoulli_logits"
]
Reduction = Literal["none", "sum", "batchmean"]
ElementReduction = Literal["none", "sum", "batchmean", "elements"]
DensityReduction = Literal["none", "elements"]


class LatentArguments(NamedTuple):
    """Of the encoder side, in the order of `pyvae.reparameterize_kl`."""

    mu: Tensor
    logvar: Tensor | None = None
    std: Tensor | None = None
    logstd: Tensor | None = None
    rho: Tensor | None = None
    logvar_range: Range | None = None
    eps: Tensor | None = None
    seed: int | Tensor | None = None
    row_offset: int = 0
    generator: torch.Generator | None = None
    samples: int | None = None
    prior: Any = None  # a pair, (mean, scale), or a Mixture


class ObjectiveArguments(NamedTuple):
    """Of the decoder side, in the order of `pyvae.elbo_loss`."""

    recon: Tensor
    target: Tensor
    mu: Tensor | None
    logvar: Tensor | None
    std: Tensor | None
    logstd: Tensor | None
    rho: Tensor | None
    logvar_range: Range | None
    prior: tuple[Tensor | float, Tensor | float] | None
    kl: Tensor | None
    likelihood: Any  # a name, or an object of likelihoods/
    beta: float | Tensor
    weight: Tensor | float | None
    pos_weight: Tensor | float | None
    reduction: str


def without_posterior(
    recon: Tensor, target: Tensor, likelihood: Any, weight: Any, pos_weight: Any, reduction: str
) -> ObjectiveArguments:
    """Those of `reconstruction_loss`."""
    every: list[Any] = [recon, target, *NO_POSTERIOR, likelihood, 1.0, weight, pos_weight, reduction]
    return ObjectiveArguments(*every)


def scales_of(call: LatentArguments | ObjectiveArguments) -> list[tuple[str, Tensor]]:
    """The scales of the posterior that are given, and which of `SCALES` they are; there is to be one."""
    found = [(kind, getattr(call, kind)) for kind in SCALES]
    return [(kind, scale) for kind, scale in found if scale is not None]


class Prior(NamedTuple):
    """The diagonal Gaussian p(z): its mean, and its scale in the posterior's form, both broadcastable to its mu."""

    mean: Tensor
    scale: Tensor


class Posterior(NamedTuple):
    """The diagonal Gaussian q(z|x): its mean, its scale, and which of `SCALES` the scale is.

    With it comes what is asked of it: the range that the scale is clamped to, and the prior, if it is not N(0, I).
    """

    mu: Tensor
    scale: Tensor
    kind: str
    range: Range | None = None
    prior: Prior | None = None


class ELBO(NamedTuple):
    """The negative ELBO and its two terms in nats, all reduced alike: loss = recon + beta * kl."""

    loss: Tensor
    recon: Tensor
    kl: Tensor


_of_three = ELBO.__new__


def _of_terms(cls: type[ELBO], loss: Any, recon: Any = None, kl: Any = None) -> ELBO:
    """Of three terms, or of an iterable of them, as torch's own named tuples are made: `Tensor.__torch_function__` does
    so with a subclass's results, `type(result)(terms)`."""
    others = [term for term in (recon, kl) if term is not None]
    return _of_three(cls, loss, *others) if others else _of_three(cls, *loss)


ELBO.__new__ = _of_terms  # type: ignore[method-assign,assignment]
