"""The refusals of the public functions: what was expected of an argument, and what came instead.

Plain Python over shapes, dtypes and devices, so that it costs nothing on the device, reads no data (what
`reference.refuse_data` asks for excepted) and can be traced by torch.compile. Every message has one form: the function,
the argument in backticks, what was expected, what came. Those of the encoder side alone are in _latent_checks.py.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ._arguments import ObjectiveArguments, Posterior
from ._likelihoods import LIKELIHOODS
from .likelihoods import CLASSES, Resolved, resolve

# The position of a name is its code in the compiled kernels.
SCALES = ("logvar", "std", "logstd")
REDUCTIONS = ("none", "sum", "batchmean")
NAMES = tuple(name for name, member in LIKELIHOODS.items() if not member.parameters)
KL_REDUCTIONS = (*REDUCTIONS, "elements")

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)


def posterior(
    function: str, mu: Tensor | None, logvar: Tensor | None, std: Tensor | None, logstd: Tensor | None
) -> Posterior:
    """Check the encoder's output: a mean and exactly one scale, of one shape (B, ...) and on one device."""
    if mu is None:
        raise TypeError(f"{function}: `mu` must be a Tensor, but is None")
    _floating(function, "mu", mu, ".float()")
    _batched(function, "mu", mu)
    given = [(kind, scale) for kind, scale in zip(SCALES, (logvar, std, logstd), strict=True) if scale is not None]
    if len(given) != 1:
        came = " and ".join(f"`{kind}`" for kind, _ in given) or "none"
        raise ValueError(f"{function}: exactly one of `logvar`, `std`, `logstd` must be given, but got {came}")
    kind, scale = given[0]
    _floating(function, kind, scale, ".to(mu.dtype)")
    _same_shape(function, kind, scale, "mu", mu)
    _same_device(function, kind, scale, "mu", mu)
    return Posterior(mu, scale, kind)


def reduction(function: str, reduction: str, options: tuple[str, ...] = REDUCTIONS) -> None:
    """Check that `reduction` is one of the options; "mean" is refused in words of its own."""
    if isinstance(reduction, str) and reduction == "mean":
        raise ValueError(
            f'{function}: `reduction` must be "sum", "batchmean" or "none", but is "mean", which over all elements '
            'would divide the KL and the reconstruction by different counts and so re-weight them; use "batchmean" '
            'for the mean over the batch of each sample\'s sum, or "sum" for the sum over everything'
        )
    _choice(function, "reduction", reduction, options)


def likelihood(function: str, likelihood: Any, pos_weight: Tensor | float | None) -> None:
    """Check that `likelihood` is the name of one without parameters, or an object, and that it is the one that takes
    `pos_weight`, if given."""
    if not isinstance(likelihood, CLASSES):
        if isinstance(likelihood, str) and likelihood in LIKELIHOODS and LIKELIHOODS[likelihood].parameters:
            names = ", ".join(LIKELIHOODS[likelihood].parameters)
            raise ValueError(
                f'{function}: `likelihood` "{likelihood}" has parameters ({names}), so it must be given as an object, '
                "as pyvae.NegativeBinomial(log_theta) is"
            )
        _choice(function, "likelihood", likelihood, NAMES)
    likelihood = resolve(likelihood).name
    if pos_weight is not None and not LIKELIHOODS[likelihood].takes_pos_weight:
        takers = " or ".join(f'likelihood="{name}"' for name, member in LIKELIHOODS.items() if member.takes_pos_weight)
        raise ValueError(f'{function}: `pos_weight` must come with {takers}, but likelihood is "{likelihood}"')


def _parameters(function: str, parts: Resolved, recon: Tensor) -> None:
    """Check the tensors of a likelihood: each parameter broadcasts to recon, and log_library is a number a sample."""
    for name, value in zip(LIKELIHOODS[parts.name].parameters, (parts.parameter, parts.second_parameter), strict=False):
        _factor(function, name, value, recon, FLOATS)
        _same_device(function, name, value, "recon", recon)
    library, batch = parts.log_library, recon.shape[0]
    if library is None:
        return
    _floating(function, "log_library", library, ".to(recon.dtype)")
    if tuple(library.shape) not in ((batch,), (batch, 1)):
        raise ValueError(
            f"{function}: `log_library` must have shape ({batch},) or ({batch}, 1), one number a sample, but has shape "
            f"{tuple(library.shape)}"
        )
    _same_device(function, "log_library", library, "recon", recon)


def likelihood_code(name: str) -> int:
    """The likelihood's code in the compiled kernels."""
    return tuple(LIKELIHOODS).index(name)


def objective(function: str, call: ObjectiveArguments) -> Posterior | None:
    """Check a call of the objective; the posterior is None where the KL comes as `kl` or not at all."""
    reduction(function, call.reduction)
    likelihood(function, call.likelihood, call.pos_weight)
    recon = call.recon
    _data(function, recon, call.target)
    _parameters(function, resolve(call.likelihood), recon)
    if call.weight is not None:
        _factor(function, "weight", call.weight, recon)
    if call.pos_weight is not None and not isinstance(call.pos_weight, (int, float)):
        _factor(function, "pos_weight", call.pos_weight, recon)
    _beta(function, call.beta, recon)
    return _divergence(function, call)


def probabilities(function: str, call: ObjectiveArguments) -> None:
    """Refuse a `recon` with values outside [0, 1]; NaN passes, to be seen in the loss. Reads the data."""
    outside = call.recon.detach()[(call.recon < 0) | (call.recon > 1)]
    if outside.numel():
        raise ValueError(
            f'{function}: `recon` must hold probabilities in [0, 1] for likelihood="bernoulli", but holds '
            f'{outside[0].item():g}; logits go with likelihood="bernoulli_logits"'
        )


def unit_target(function: str, call: ObjectiveArguments) -> None:
    """Refuse a `target` with values outside [0, 1]; NaN passes, to be seen in the loss. Reads the data."""
    outside = call.target.detach()[(call.target < 0) | (call.target > 1)]
    if outside.numel():
        name = resolve(call.likelihood).name
        raise ValueError(
            f'{function}: `target` must lie in [0, 1] for likelihood="{name}", but holds {outside[0].item():g}; bytes, '
            "0 ... 255, are to be divided by 255 (`target / 255`)"
        )


def counts(function: str, call: ObjectiveArguments) -> None:
    """Refuse a `target` with negative values; NaN passes, to be seen in the loss. Reads the data."""
    negative = call.target.detach()[call.target < 0]
    if negative.numel():
        raise ValueError(
            f'{function}: `target` must hold counts >= 0 for likelihood="{resolve(call.likelihood).name}", but holds '
            f"{negative[0].item():g}"
        )


def _data(function: str, recon: Tensor, target: Tensor) -> None:
    _floating(function, "recon", recon, ".float()")
    _tensor(function, "target", target, ".float()", (*FLOATS, *INTEGERS))
    _batched(function, "recon", recon)
    _batched(function, "target", target)
    came, expected = tuple(target.shape), tuple(recon.shape)
    if came != expected and came != _flattened(expected) and _flattened(came) != expected:
        raise ValueError(
            f"{function}: `target` must have recon's shape {expected} or its flattened form, but has shape {came}"
        )
    _same_device(function, "target", target, "recon", recon)


def _divergence(function: str, call: ObjectiveArguments) -> Posterior | None:
    recon, mu, kl = call.recon, call.mu, call.kl
    given = [name for name in ("mu", *SCALES) if getattr(call, name) is not None]
    batch = recon.shape[0]
    if kl is not None:
        if given:
            came = " and ".join(f"`{name}`" for name in given)
            raise ValueError(f"{function}: `kl` must be given without a posterior, but came with {came}")
        _tensor(function, "kl", kl, ".float()", (torch.float32, torch.float64))
        if tuple(kl.shape) != (batch,):
            raise ValueError(
                f"{function}: `kl` must have shape ({batch},), one value a sample, but has shape {tuple(kl.shape)}"
            )
        _same_device(function, "kl", kl, "recon", recon)
        return None
    if not given:
        return None
    if mu is None:
        raise ValueError(f"{function}: `mu` must be given with `{given[0]}`, but is None")
    checked = posterior(function, mu, call.logvar, call.std, call.logstd)
    if mu.shape[0] != batch:
        raise ValueError(f"{function}: `mu` must have recon's batch size {batch}, but has shape {tuple(mu.shape)}")
    _same_device(function, "mu", mu, "recon", recon)
    return checked


def _beta(function: str, beta: float | Tensor, recon: Tensor) -> None:
    if isinstance(beta, (int, float)):
        return
    if not isinstance(beta, Tensor):
        raise TypeError(f"{function}: `beta` must be a number or a 0-d Tensor, but is {_kind(beta)}")
    if beta.dtype.is_complex:
        raise TypeError(f"{function}: `beta` must be real, but has dtype {beta.dtype}")
    if beta.ndim:
        raise ValueError(f"{function}: `beta` must be a number or a 0-d Tensor, but has shape {tuple(beta.shape)}")
    if beta.device.type != "cpu":  # as everywhere in torch, a 0-d tensor on the CPU goes with any device
        _same_device(function, "beta", beta, "recon", recon)


def _factor(
    function: str, name: str, factor: Tensor, recon: Tensor, dtypes: tuple[torch.dtype, ...] = (*FLOATS, torch.bool)
) -> None:
    _tensor(function, name, factor, ".to(recon.dtype)", dtypes)
    _broadcasts(function, name, factor, "recon", recon)
    if factor.ndim or factor.device.type != "cpu":  # as for beta
        _same_device(function, name, factor, "recon", recon)


def _choice(function: str, name: str, value: Any, options: tuple[str, ...]) -> None:
    listed = ", ".join(f'"{option}"' for option in options)
    if not isinstance(value, str):
        raise TypeError(f"{function}: `{name}` must be one of {listed}, but is {_kind(value)}")
    if value not in options:
        raise ValueError(f'{function}: `{name}` must be one of {listed}, but is "{value}"')


def _floating(function: str, name: str, value: Any, remedy: str) -> None:
    _tensor(function, name, value, remedy, FLOATS)


def _tensor(function: str, name: str, value: Any, remedy: str, dtypes: tuple[torch.dtype, ...]) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{function}: `{name}` must be a Tensor, but is {_kind(value)}")
    if value.dtype not in dtypes:
        listed = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(
            f"{function}: `{name}` must have one of the dtypes {listed}, but has {value.dtype}; "
            f"convert it with `{name}{remedy}`"
        )
    if value.is_nested:
        raise TypeError(f"{function}: `{name}` must be a dense (strided) Tensor, but is a nested one")
    if value.layout != torch.strided:
        raise TypeError(f"{function}: `{name}` must be a dense (strided) Tensor, but has layout {value.layout}")


def _batched(function: str, name: str, value: Tensor) -> None:
    if value.ndim == 0:
        raise ValueError(f"{function}: `{name}` must have a batch dimension, (B, ...), but has shape ()")


def _same_shape(function: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    came, expected = tuple(value.shape), tuple(other.shape)
    if came != expected:
        raise ValueError(f"{function}: `{name}` must have {other_name}'s shape {expected}, but has shape {came}")


def _broadcasts(function: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    came, expected = tuple(value.shape), tuple(other.shape)
    aligned = zip(came, expected[max(len(expected) - len(came), 0) :], strict=False)
    if len(came) > len(expected) or any(n not in (1, m) for n, m in aligned):
        raise ValueError(
            f"{function}: `{name}` must broadcast to {other_name}'s shape {expected}, but has shape {came}"
        )


def _same_device(function: str, name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.device != other.device:
        raise ValueError(
            f"{function}: `{name}` must be on {other_name}'s device {other.device}, but is on {value.device}"
        )


def _flattened(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
