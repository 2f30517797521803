"""The refusals of the encoder side: the posterior with its range and its prior, and where the noise comes from.

As in _checks.py, whose words they share.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._arguments import LatentArguments, Posterior, Prior, Range
from ._expect import broadcasts, floating, is_number, number, same_device, same_shape, what


def posterior(
    function: str,
    mu: Tensor | None,
    logvar: Tensor | None,
    std: Tensor | None,
    logstd: Tensor | None,
    logvar_range: Range | None,
    prior: tuple[Tensor | float, Tensor | float] | None,
) -> Posterior:
    """Check the encoder's output, the range of its logvar, and the prior, whose numbers become tensors."""
    checked = _checks.posterior(function, mu, logvar, std, logstd)
    if logvar_range is not None:
        checked = checked._replace(range=_range(function, logvar_range, checked.kind))
    if prior is not None:
        mean, scale = _pair(function, "prior", "(mean, scale)", prior)
        parts = (_prior_part(function, "prior[0]", mean, checked), _prior_part(function, "prior[1]", scale, checked))
        checked = checked._replace(prior=Prior(*parts))
    return checked


def call(function: str, given: LatentArguments) -> tuple[LatentArguments, Posterior]:
    """Check a call of a sampler, and give it with Python's own numbers: the posterior, and where the noise comes from.

    That is the caller's `eps`, a `seed`, a `generator`, or (none) torch's default.
    """
    given = given._replace(seed=_integer(given.seed), row_offset=_integer(given.row_offset))
    mu, *_, eps, seed, row_offset, generator, prior = given
    checked = posterior(function, *given[:5], prior)
    _row_offset(function, row_offset, mu)
    if eps is not None:
        floating(function, "eps", eps, ".to(mu.dtype)")
        same_shape(function, "eps", eps, "mu", mu)
        same_device(function, "eps", eps, "mu", mu)
        others = (("seed", seed is not None), ("generator", generator is not None), ("row_offset", row_offset))
        for name, there in others:
            if there:
                raise ValueError(f"{function}: `{name}` must not be given with `eps`, which is the noise itself")
    if seed is not None:
        _seed(function, seed, mu)
        if generator is not None:
            raise ValueError(f"{function}: `generator` must not be given with `seed`, which decides the noise alone")
    if generator is not None:
        if not isinstance(generator, torch.Generator):
            raise TypeError(f"{function}: `generator` must be a torch.Generator, but is {what(generator)}")
        if generator.device.type != mu.device.type:
            raise ValueError(
                f"{function}: `generator` must be on mu's device {mu.device}, but is on {generator.device}"
            )
    return given, checked


def _pair(function: str, name: str, parts: str, given: Any) -> tuple[Any, Any]:
    if not isinstance(given, (tuple, list)):
        raise TypeError(f"{function}: `{name}` must be a pair {parts} or None, but is {what(given)}")
    if len(given) != 2:
        raise ValueError(f"{function}: `{name}` must be a pair {parts}, but has length {len(given)}")
    return given[0], given[1]


def _prior_part(function: str, name: str, part: Any, posterior: Posterior) -> Tensor:
    mu, scale, *_ = posterior
    part = number(part)
    if is_number(part):
        dtype = torch.float64 if torch.float64 in (mu.dtype, scale.dtype) else torch.float32
        return torch.full((), part, dtype=dtype, device=mu.device)
    if not isinstance(part, Tensor):
        raise TypeError(f"{function}: `{name}` must be a Tensor or a number, but is {what(part)}")
    floating(function, name, part, ".to(mu.dtype)")
    broadcasts(function, name, part, "mu", mu)
    same_device(function, name, part, "mu", mu)
    return part


def _range(function: str, given: Any, kind: str) -> Range:
    low, high = map(number, _pair(function, "logvar_range", "(low, high)", given))
    for bound in (low, high):
        if not is_number(bound):
            raise TypeError(f"{function}: `logvar_range` must hold two numbers, but holds {what(bound)}")
        if not math.isfinite(bound):
            raise ValueError(f"{function}: `logvar_range` must hold finite numbers, but holds {bound}")
    if low > high:
        raise ValueError(f"{function}: `logvar_range` must be (low, high) with low <= high, but is ({low}, {high})")
    if kind != "logvar":
        raise ValueError(f"{function}: `logvar_range` must come with `logvar`, but came with `{kind}`")
    return low, high


def _integer(value: Any) -> Any:
    """An integer of another library, numpy's say, as Python's own; anything else as it is."""
    return int(value) if isinstance(value, numbers.Integral) and type(value) not in (bool, int) else value


def _row_offset(function: str, row_offset: int, mu: Tensor) -> None:
    if isinstance(row_offset, bool) or not isinstance(row_offset, int):
        raise TypeError(f"{function}: `row_offset` must be an int, but is {what(row_offset)}")
    if not 0 <= row_offset < 2**63:
        raise ValueError(f"{function}: `row_offset` must be in [0, 2**63), but is {row_offset}")
    features = math.prod(mu.shape[1:])
    if row_offset and (row_offset + mu.shape[0]) * features >= 2**63:
        raise ValueError(
            f"{function}: `row_offset` must leave every element an index below 2**63, but is {row_offset} with "
            f"{features} features"
        )


def _seed(function: str, seed: int | Tensor, mu: Tensor) -> None:
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64:
            raise TypeError(f"{function}: `seed` must be an int or an int64 Tensor, but has dtype {seed.dtype}")
        if seed.numel() != 1:
            raise ValueError(f"{function}: `seed` must have one element, but has shape {tuple(seed.shape)}")
        same_device(function, "seed", seed, "mu", mu)
    elif isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"{function}: `seed` must be an int or an int64 Tensor, but is {what(seed)}")
    elif not -(2**63) <= seed < 2**64:
        raise ValueError(f"{function}: `seed` must be in [-2**63, 2**64), but is {seed}")
