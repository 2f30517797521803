"""The compiled module (csrc/bindings.cpp). The entries answer None to anything but a plain eager call."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LIKELIHOODS: tuple[tuple[str, dict[str, Any]], ...]  # names, and what C++ says of them
SCALES: tuple[str, ...]
REDUCTIONS: tuple[str, ...]

def reparameterize(
    with_kl: bool,
    mu: Tensor,
    logvar: Tensor | None,
    std: Tensor | None,
    logstd: Tensor | None,
    rho: Tensor | None,
    logvar_range: tuple[float | None, float | None] | None,
    eps: Tensor | None,
    seed: int | Tensor | None,
    row_offset: int,
    generator: torch.Generator | None,
    samples: int | None,
    prior: tuple[Tensor | float, Tensor | float] | None,
) -> Tensor | tuple[Tensor, Tensor] | None: ...
def kl_divergence(
    mu: Tensor,
    logvar: Tensor | None,
    std: Tensor | None,
    logstd: Tensor | None,
    rho: Tensor | None,
    logvar_range: tuple[float | None, float | None] | None,
    prior: tuple[Tensor | float, Tensor | float] | None,
    reduction: str,
) -> Tensor | None: ...
def gaussian_log_prob(
    z: Tensor,
    mu: Tensor,
    logvar: Tensor | None,
    std: Tensor | None,
    logstd: Tensor | None,
    rho: Tensor | None,
    logvar_range: tuple[float | None, float | None] | None,
    reduction: str,
) -> Tensor | None: ...
def mixture_log_prob(
    z: Tensor,
    mean: Tensor,
    logvar: Tensor | float | None,
    std: Tensor | float | None,
    logstd: Tensor | float | None,
    rho: Tensor | float | None,
    logits: Tensor | None,
    reduction: str,
) -> Tensor | None: ...
def elbo(
    with_terms: bool,
    recon: Tensor,
    target: Tensor,
    mu: Tensor | None,
    logvar: Tensor | None,
    std: Tensor | None,
    logstd: Tensor | None,
    rho: Tensor | None,
    logvar_range: tuple[float | None, float | None] | None,
    prior: tuple[Tensor | float, Tensor | float] | None,
    kl: Tensor | None,
    likelihood: Any,
    beta: float | Tensor,
    weight: Tensor | float | None,
    pos_weight: Tensor | float | None,
    reduction: str,
) -> Tensor | tuple[Tensor, Tensor, Tensor] | None: ...
def elements(
    recon: Tensor,
    target: Tensor,
    likelihood: Any,
    weight: Tensor | float | None,
    pos_weight: Tensor | float | None,
) -> Tensor | None: ...
def set_reference_gradient(
    function: Callable[
        [str, Sequence[Tensor | None], Sequence[int], Sequence[float], Sequence[Tensor | None], Sequence[bool]],
        Sequence[Tensor | None],
    ],
) -> None: ...
def cuda_runnable(index: int) -> bool: ...
def isa() -> str: ...
