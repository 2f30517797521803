"""The refusals of the public functions: what was expected of an argument, and what came instead.

Plain Python over shapes, dtypes and devices, so that it costs nothing on the device, reads no data (what
`reference.refuse_data` asks for excepted) and can be traced by torch.compile. Every message has one form: the function,
the argument in backticks, what was expected, what came. Those of the encoder side alone are in _latent_checks.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import _latent_checks
from ._arguments import ObjectiveArguments, Posterior
from ._codes import KL_REDUCTIONS, LIKELIHOODS, NAMES, REDUCTIONS, SCALES
from ._expect import (
    FLOATS,
    INTEGERS,
    batched,
    broadcasts,
    choice,
    floating,
    is_number,
    number,
    same_device,
    tensor,
    what,
)
from ._objects import example
from .likelihoods import CLASSES, OBJECTS, OTHER_NAMES, resolve, with_own_numbers


def reduction(function: str, reduction: str, options: tuple[str, ...] = REDUCTIONS) -> None:
    """Check that `reduction` is one of the options; "mean" is refused in words of its own."""
    if isinstance(reduction, str) and reduction == "mean":
        raise ValueError(
            f'{function}: `reduction` must be "sum", "batchmean" or "none", but is "mean", which over all elements '
            'would divide the KL and the reconstruction by different counts and so re-weight them; use "batchmean" '
            'for the mean over the batch of each sample\'s sum, or "sum" for the sum over everything'
        )
    if isinstance(reduction, str) and reduction == "elements" and reduction not in options:
        raise ValueError(
            f'{function}: `reduction` must be "sum", "batchmean" or "none", but is "elements", which both terms '
            "have in shapes of their own; use `pyvae.reconstruction_loss` or `pyvae.kl_divergence` with "
            'reduction="elements"'
        )
    choice(function, "reduction", reduction, options)


def likelihood(function: str, likelihood: Any, pos_weight: Tensor | float | None) -> None:
    """Check that `likelihood` is the name of one without parameters, or an object, and that it is the one that takes
    `pos_weight`, if given."""
    if isinstance(likelihood, CLASSES):
        likelihood._check(function)
    else:
        if isinstance(likelihood, type) and issubclass(likelihood, CLASSES):
            raise TypeError(
                f"{function}: `likelihood` must be a name or an object, but is the class {likelihood.__name__}; make "
                f"an object of it: `likelihood={example(likelihood)}`"
            )
        if isinstance(likelihood, str) and likelihood in LIKELIHOODS and LIKELIHOODS[likelihood].parameters:
            names, made = ", ".join(LIKELIHOODS[likelihood].parameters), example(OBJECTS[likelihood])
            if likelihood.endswith("_mean"):
                made = made.replace("(", '(link="identity", ').replace(", )", ")")
            raise ValueError(
                f'{function}: `likelihood` "{likelihood}" has parameters ({names}), so it must be given as an object: '
                f"`likelihood={made}`"
            )
        if isinstance(likelihood, str) and likelihood in OTHER_NAMES:
            raise ValueError(
                f'{function}: `likelihood` must be one of pyvae\'s own, but is "{likelihood}"; that is '
                f"{OTHER_NAMES[likelihood]}"
            )
        objects = ", ".join(f"pyvae.{each.__name__}" for each in CLASSES)
        choice(function, "likelihood", likelihood, NAMES, f", or an object: {objects}")
    likelihood = resolve(likelihood).name
    if pos_weight is not None and not LIKELIHOODS[likelihood].takes_pos_weight:
        takers = " or ".join(f'likelihood="{name}"' for name, member in LIKELIHOODS.items() if member.takes_pos_weight)
        raise ValueError(f'{function}: `pos_weight` must come with {takers}, but likelihood is "{likelihood}"')


def objective(
    function: str, given: ObjectiveArguments, samples: bool = False
) -> tuple[ObjectiveArguments, Posterior | None]:
    """Check a call of the objective, and give it with Python's own numbers; the posterior is None where the KL comes as
    `kl` or not at all. `samples`: recon's rows are several for each of target's, as _samples.py makes them."""
    call = given._replace(**{name: number(getattr(given, name)) for name in ("beta", "weight", "pos_weight")})
    call = call._replace(likelihood=with_own_numbers(call.likelihood, call.recon))
    settings(function, call.likelihood, call.beta, call.weight, call.pos_weight, call.reduction)
    recon = call.recon
    _data(function, recon, call.target, samples)
    _fits(function, call)
    return call, _divergence(function, call)


def samples(function: str, call: ObjectiveArguments) -> ObjectiveArguments:
    """Check, of a call whose recon is (S, B, ...) and whose target (B, ...), what belongs to recon's own shape."""
    floating(function, "recon", call.recon, ".float()")
    settings(function, call.likelihood, call.beta, call.weight, call.pos_weight, call.reduction)
    library, (samples, batch) = resolve(call.likelihood).log_library, call.recon.shape[:2]
    if not isinstance(library, Tensor):
        _fits(function, call)
        return call
    allowed = ((batch,), (batch, 1), (samples, batch), (samples, batch, 1))
    if tuple(library.shape) not in allowed:
        shapes = ", ".join(map(str, allowed[:-1]))
        raise ValueError(
            f"{function}: `log_library` must have shape {shapes} or {allowed[-1]}, one number a row or a sample, but "
            f"has shape {tuple(library.shape)}"
        )
    _fits(function, call._replace(likelihood=replace(call.likelihood, log_library=0.0)))
    return call


def settings(function: str, like: Any, beta: Any, weight: Any, pos_weight: Any, reduce: str) -> None:
    """Check of a call of the objective what can be known without its data."""
    reduction(function, reduce, KL_REDUCTIONS if function == "reconstruction_loss" else REDUCTIONS)
    likelihood(function, like, pos_weight)
    parts = resolve(like)
    for name, value in _own(like):
        _tensor_or_number(function, name, value, FLOATS)
    if parts.log_library is not None:
        _tensor_or_number(function, "log_library", parts.log_library, FLOATS)
    for name, value in (("weight", weight), ("pos_weight", pos_weight)):
        if value is not None:
            _tensor_or_number(function, name, value, (*FLOATS, *INTEGERS))
    _beta(function, beta)


def _own(like: Any) -> list[tuple[str, Any]]:
    """A likelihood's parameters by the names that the caller gave them."""
    parts = resolve(like)
    named = zip(LIKELIHOODS[parts.name].parameters, parts.parameters, strict=True)
    by_theta = getattr(like, "theta", None) is not None
    return [("theta" if by_theta and name == "log_theta" else name, value) for name, value in named]


def probabilities(function: str, call: ObjectiveArguments) -> None:
    """Refuse a `recon` with values outside [0, 1]; NaN passes, to be seen in the loss. Reads the data."""
    recon = _selected(call, call.recon)
    outside = recon[(recon < 0) | (recon > 1)]
    if outside.numel():
        raise ValueError(
            f'{function}: `recon` must hold probabilities in [0, 1] for likelihood="bernoulli", but holds '
            f'{outside[0].item():g}; logits go with likelihood="bernoulli_logits"'
        )


def unit_target(function: str, call: ObjectiveArguments) -> None:
    """Refuse a `target` with values outside [0, 1]; NaN passes, to be seen in the loss. Reads the data."""
    target = _selected(call, call.target)
    outside = target[(target < 0) | (target > 1)]
    if outside.numel():
        name = resolve(call.likelihood).name
        raise ValueError(
            f'{function}: `target` must lie in [0, 1] for likelihood="{name}", but holds {outside[0].item():g}; '
            f"{_not_unit(target)}"
        )


def _not_unit(target: Tensor) -> str:
    """What data are that a Bernoulli cannot explain, and what to do with them."""
    if ((target >= 0) & (target <= 255) & (target == target.round()) | target.isnan()).all():
        return "bytes, 0 ... 255, are to be divided by 255 (`target / 255`)"
    return (
        'real numbers, standardized data say, go with likelihood="gaussian" or `pyvae.Gaussian(logvar)`, or are to be '
        "scaled to [0, 1]"
    )


def counts(function: str, call: ObjectiveArguments) -> None:
    """Refuse a `target` with negative values; NaN passes, to be seen in the loss. Reads the data."""
    target = _selected(call, call.target)
    negative = target[target < 0]
    if negative.numel():
        raise ValueError(
            f'{function}: `target` must hold counts >= 0 for likelihood="{resolve(call.likelihood).name}", but holds '
            f"{negative[0].item():g}"
        )


def _selected(call: ObjectiveArguments, data: Tensor) -> Tensor:
    """Those of recon's or target's elements that are looked at: where a weight of bools is true."""
    data, weight = data.detach(), call.weight
    if not isinstance(weight, Tensor) or weight.dtype != torch.bool:
        return data
    return data.reshape(call.recon.shape)[weight.expand(call.recon.shape)]


def _data(function: str, recon: Tensor, target: Tensor, samples: bool) -> None:
    floating(function, "recon", recon, ".float()")
    tensor(function, "target", target, ".float()", (*FLOATS, *INTEGERS))
    batched(function, "recon", recon)
    batched(function, "target", target)
    came, expected = tuple(target.shape), tuple(recon.shape)
    if not samples and came != expected and came != _flattened(expected) and _flattened(came) != expected:
        raise ValueError(
            f"{function}: `target` must have recon's shape {expected} or its flattened form, but has shape {came}"
        )
    same_device(function, "target", target, "recon", recon)


def _divergence(function: str, call: ObjectiveArguments) -> Posterior | None:
    recon, mu, kl = call.recon, call.mu, call.kl
    given = [name for name in ("mu", *SCALES, "logvar_range", "prior") if getattr(call, name) is not None]
    batch = recon.shape[0]
    if kl is not None:
        if given:
            came = " and ".join(f"`{name}`" for name in given)
            raise ValueError(f"{function}: `kl` must be given without a posterior, but came with {came}")
        tensor(function, "kl", kl, ".float()", (torch.float32, torch.float64))
        if tuple(kl.shape) != (batch,):
            raise ValueError(
                f"{function}: `kl` must have shape ({batch},), one value a sample, but has shape {tuple(kl.shape)}"
            )
        same_device(function, "kl", kl, "recon", recon)
        return None
    if not given:
        return None
    if mu is None:
        if given[0] in ("logvar_range", "prior"):
            raise ValueError(f"{function}: `{given[0]}` must come with a posterior, `mu` and its scale, but came alone")
        raise ValueError(f"{function}: `mu` must be given with `{given[0]}`, but is None")
    if given == ["mu"] and isinstance(mu, Tensor) and tuple(mu.shape) == (batch,):
        raise ValueError(
            f"{function}: `mu` must come with one of {_latent_checks.EVERY_SCALE}, but came alone; if it is each "
            "sample's KL, give it by name, `kl=kl`"
        )
    checked = _latent_checks.posterior(function, call)
    if mu.shape[0] != batch:
        raise ValueError(
            f"{function}: `mu` must have recon's batch size {batch}, but has shape {tuple(mu.shape)}; with several "
            "samples of one posterior, compute its KL apart, by `pyvae.kl_divergence`, expand it to recon's batch, and "
            "give it as `kl=kl` in place of the posterior"
        )
    same_device(function, "mu", mu, "recon", recon)
    return checked


def _beta(function: str, beta: Any) -> None:
    if is_number(beta) or isinstance(beta, bool):
        return
    if not isinstance(beta, Tensor):
        raise TypeError(f"{function}: `beta` must be a number or a 0-d Tensor, but is {what(beta)}")
    if beta.dtype.is_complex:
        raise TypeError(f"{function}: `beta` must be real, but has dtype {beta.dtype}")
    if beta.ndim:
        raise ValueError(f"{function}: `beta` must be a number or a 0-d Tensor, but has shape {tuple(beta.shape)}")


def _tensor_or_number(function: str, name: str, value: Any, dtypes: tuple[torch.dtype, ...]) -> None:
    if is_number(value):
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{function}: `{name}` must be a Tensor or a number, but is {what(value)}")
    tensor(function, name, value, ".to(recon.dtype)", dtypes)


def _fits(function: str, call: ObjectiveArguments) -> None:
    """Check the shapes and devices of what belongs to recon: the likelihood's parameters, the weights and beta."""
    recon, parts = call.recon, resolve(call.likelihood)
    for name, value in _own(call.likelihood):
        if isinstance(value, Tensor):
            broadcasts(function, name, value, "recon", recon)
            same_device(function, name, value, "recon", recon)
    library, batch = parts.log_library, recon.shape[0]
    if isinstance(library, Tensor):
        if tuple(library.shape) not in ((batch,), (batch, 1)):
            raise ValueError(
                f"{function}: `log_library` must have shape ({batch},) or ({batch}, 1), one number a sample, but has "
                f"shape {tuple(library.shape)}"
            )
        same_device(function, "log_library", library, "recon", recon)
    for name, value in (("weight", call.weight), ("pos_weight", call.pos_weight), ("beta", call.beta)):
        if isinstance(value, Tensor):
            broadcasts(function, name, value, "recon", recon)
            if value.ndim or value.device.type != "cpu":  # as everywhere in torch, a 0-d one goes with any device
                same_device(function, name, value, "recon", recon)


def _flattened(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])
