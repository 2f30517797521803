"""The refusals of the encoder side: the posterior with its range and its prior, and where the noise comes from.

As in _checks.py, which asks for the posterior of an objective here.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
from torch import Tensor

from ._arguments import SCALES, LatentArguments, ObjectiveArguments, Posterior, Prior, Range, scales_of
from ._expect import (
    batched,
    broadcasts,
    floating,
    is_elsewhere,
    is_number,
    is_readable,
    number,
    same_device,
    same_shape,
    what,
)

EVERY_SCALE = ", ".join(f"`{kind}`" for kind in SCALES)


def posterior(function: str, call: LatentArguments | ObjectiveArguments) -> Posterior:
    """Check the encoder's output, a mean and exactly one scale, of one shape (B, ...) and on one device; the range of
    its logvar; and the prior, whose numbers become tensors."""
    mu = call.mu
    if mu is None:
        raise TypeError(f"{function}: `mu` must be a Tensor, but is None")
    floating(function, "mu", mu, ".float()")
    batched(function, "mu", mu)
    given = scales_of(call)
    if len(given) != 1:
        came = " and ".join(f"`{kind}`" for kind, _ in given) or "none"
        raise ValueError(f"{function}: exactly one of {EVERY_SCALE} must be given, but got {came}")
    kind, scale = given[0]
    floating(function, kind, scale, ".to(mu.dtype)")
    same_shape(function, kind, scale, "mu", mu)
    same_device(function, kind, scale, "mu", mu)
    checked = Posterior(mu, scale, kind)
    if call.logvar_range is not None:
        checked = checked._replace(range=bounds(function, call.logvar_range))
        if kind != "logvar":
            raise ValueError(f"{function}: `logvar_range` must come with `logvar`, but came with `{kind}`")
    if call.prior is not None:
        mean, scale = _pair(function, "prior", "(mean, scale)", call.prior)
        parts = (_prior_part(function, "prior[0]", mean, checked), _prior_part(function, "prior[1]", scale, checked))
        checked = checked._replace(prior=Prior(*parts))
    return checked


def call(function: str, given: LatentArguments) -> tuple[LatentArguments, Posterior]:
    """Check a call of a sampler, and give it with Python's own numbers: the posterior, and where the noise comes from.

    That is the caller's `eps`, a `seed`, a `generator`, or (none) torch's default.
    """
    integers = {name: _integer(getattr(given, name)) for name in ("seed", "row_offset", "samples")}
    given = given._replace(**integers)
    mu, *_, eps, seed, row_offset, generator, samples, _ = given
    checked = posterior(function, given)
    _row_offset(function, row_offset, mu)
    _samples(function, samples)
    if eps is not None:
        floating(function, "eps", eps, ".to(mu.dtype)")
        if samples is None:
            same_shape(function, "eps", eps, "mu", mu)
        elif tuple(eps.shape) != (samples, *mu.shape):
            raise ValueError(
                f"{function}: `eps` must have the samples' shape {(samples, *mu.shape)}, but has shape "
                f"{tuple(eps.shape)}"
            )
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
        if is_elsewhere(generator.device, mu.device):
            raise ValueError(
                f"{function}: `generator` must be on mu's device {mu.device}, but is on {generator.device}"
            )
    return given, checked


def _pair(function: str, name: str, parts: str, given: Any) -> tuple[Any, Any]:
    if type(given).__name__ == "Mixture" and name == "prior":
        raise TypeError(
            f"{function}: `prior` must be a pair {parts} or None, but is a Mixture, from which the KL has no closed "
            "form: `z, kl = pyvae.reparameterize_kl(mu, logvar, prior=mixture)` estimates it from samples, and "
            "elbo_loss takes it as `kl=kl`"
        )
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
        return torch.ones((), dtype=dtype, device=mu.device) * part  # a product, as `scalar` is
    if not isinstance(part, Tensor):
        raise TypeError(f"{function}: `{name}` must be a Tensor or a number, but is {what(part)}")
    floating(function, name, part, ".to(mu.dtype)")
    broadcasts(function, name, part, "mu", mu)
    same_device(function, name, part, "mu", mu)
    return part


def data(function: str, posterior: Posterior, name: str = "std") -> None:
    """Refuse a std below 0, the posterior's, which is `name`, or the prior's; NaN passes, to be seen in the results.
    Reads the data."""
    if posterior.kind != "std":
        return
    given = [(name, posterior.scale)]
    if posterior.prior is not None:
        given.append(("prior[1]", posterior.prior.scale))
    for name, scale in given:
        negative = scale.detach()[scale < 0] if is_readable(scale) else scale.new_empty(0)
        if negative.numel():
            raise ValueError(
                f"{function}: `{name}` must hold standard deviations >= 0, but holds {negative[0].item():g}; "
                "F.softplus or exp makes one of any number"
            )


def refuse_data(function: str, given: LatentArguments) -> None:
    """The same of a call that a kernel has refused."""
    data(function, posterior(function, given))


def bounds(function: str, given: Any) -> Range:
    """Check the range of a logvar: two numbers, or None where there is no bound."""
    low, high = map(number, _pair(function, "logvar_range", "(low, high)", given))
    for bound in (low, high):
        if bound is None or (isinstance(bound, Tensor) and torch.compiler.is_compiling()):  # numpy's, by number()
            continue
        if not is_number(bound):
            raise TypeError(f"{function}: `logvar_range` must hold two numbers or None, but holds {what(bound)}")
        if not -math.inf < bound < math.inf:
            raise ValueError(
                f"{function}: `logvar_range` must hold finite numbers, or None for no bound, but holds {bound}"
            )
    if is_number(low) and is_number(high) and low > high:
        raise ValueError(f"{function}: `logvar_range` must be (low, high) with low <= high, but is ({low}, {high})")
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


def _samples(function: str, samples: int | None) -> None:
    if samples is None:
        return
    if isinstance(samples, bool) or not isinstance(samples, int):
        raise TypeError(f"{function}: `samples` must be an int or None, but is {what(samples)}")
    if not 1 <= samples < 2**31:
        raise ValueError(f"{function}: `samples` must be in [1, 2**31), but is {samples}")


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
