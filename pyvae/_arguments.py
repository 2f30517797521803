"""A call's arguments under one name, for the ways that are not the eager entry's: checks, operators, reference."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

Range = tuple[float, float]  # low and high


class LatentArguments(NamedTuple):
    """Of the encoder side, in the order of `pyvae.reparameterize_kl`."""

    mu: Tensor
    logvar: Tensor | None = None
    std: Tensor | None = None
    logstd: Tensor | None = None
    logvar_range: Range | None = None
    eps: Tensor | None = None
    seed: int | Tensor | None = None
    row_offset: int = 0
    generator: torch.Generator | None = None
    prior: tuple[Tensor | float, Tensor | float] | None = None


class ObjectiveArguments(NamedTuple):
    """Of the decoder side, in the order of `pyvae.elbo_loss`."""

    recon: Tensor
    target: Tensor
    mu: Tensor | None
    logvar: Tensor | None
    std: Tensor | None
    logstd: Tensor | None
    kl: Tensor | None
    likelihood: Any  # a name, or an object of likelihoods.py
    beta: float | Tensor
    weight: Tensor | float | None
    pos_weight: Tensor | float | None
    reduction: str


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
