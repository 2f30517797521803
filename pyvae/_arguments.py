"""A call's arguments under one name, for the ways that are not the eager entry's: checks, operators, reference."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class LatentArguments(NamedTuple):
    """Of the encoder side, in the order of `pyvae.reparameterize`."""

    mu: Tensor
    logvar: Tensor | None = None
    std: Tensor | None = None
    logstd: Tensor | None = None
    eps: Tensor | None = None
    seed: int | Tensor | None = None
    row_offset: int = 0
    generator: torch.Generator | None = None


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
    weight: Tensor | None
    pos_weight: Tensor | float | None
    reduction: str


class Posterior(NamedTuple):
    """The diagonal Gaussian q(z|x): its mean, its scale, and which of `SCALES` the scale is."""

    mu: Tensor
    scale: Tensor
    kind: str
