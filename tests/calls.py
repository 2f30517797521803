"""Calls of the objective's data term, of any likelihood: their tensors, what is true of them, comparisons with that."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from cases import assert_ulp, generator, leaf, stored
from families import COUNTS, LIKELIHOODS, PLAIN, WAYS, family
from family_formulas import Shape, Sided, normal
from tolerances import GRADIENT_ULP, IN_UNITS, LOSS, REFERENCE_GRADIENT_ULP, SCALED_GRADIENT_ULP
from torch import Tensor
from truth import exact

import pyvae

# What CUDA computes by tiles; and shapes of several short rows to a warp, one or two warps a row, several slices of a
# row, parts of a normalizer, many rows: of whole vectors and not.
TILED = tuple((name, library) for name, library in WAYS if name in COUNTS or family(name).parameters)
TILED_SHAPES = ((1, 1), (300, 3), (600, 20), (9, 64), (9, 65), (5, 260), (40, 1028), (33, 1030), (3, 70_000), (2100, 8))

# ---- a call ----------------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    loss: Sided  # (B,)
    gradients: list[Sided]  # of `Call.differentiable`, in their shapes


@dataclass(frozen=True)
class Call:
    """The tensors of one call."""

    name: str
    recon: Tensor
    target: Tensor
    parameters: tuple[Tensor, ...] = ()
    log_library: Tensor | None = None
    weight: Tensor | None = None
    pos_weight: Tensor | None = None

    @property
    def likelihood(self) -> Any:
        library = () if self.log_library is None else (self.log_library,)
        return family(self.name).make(*self.parameters, *library)

    @property
    def has_softmax(self) -> bool:
        return self.log_library is not None or family(self.name).softmax == "always"

    @property
    def differentiable(self) -> list[Tensor]:
        return [self.recon, *self.parameters, *([] if self.log_library is None else [self.log_library])]

    def with_differentiable(self, tensors: list[Tensor]) -> Call:
        """The same call of other tensors."""
        recon, *others = tensors
        parameters = tuple(others[: len(self.parameters)])
        return replace(
            self, recon=recon, parameters=parameters, log_library=None if self.log_library is None else others[-1]
        )

    def leaves(self) -> Call:
        return self.with_differentiable([leaf(x) for x in self.differentiable])

    def rows(self, index: Any) -> Call:
        """Some of the samples, where every tensor has one row for each."""
        return replace(self.with_differentiable([x[index] for x in self.differentiable]), target=self.target[index])

    @property
    def options(self) -> dict[str, Any]:
        return {"likelihood": self.likelihood, "weight": self.weight, "pos_weight": self.pos_weight}

    def elbo_loss(self, **others: Any) -> Tensor:
        return pyvae.elbo_loss(self.recon, self.target, **self.options, **others)

    def truth(self, upstream: Tensor | float = 1.0) -> Result:
        """Each sample's loss, and the gradients of upstream's product with them; with the units of their errors."""
        shape = self.recon.shape
        recon, target = exact(self.recon), exact(self.target).reshape(shape)
        weight, positive = (exact(1.0 if x is None else x).expand(shape) for x in (self.weight, self.pos_weight))
        factor = weight * exact(upstream).reshape(-1, *[1] * (len(shape) - 1))
        rows = (shape[0], math.prod(shape[1:]))
        probability = None
        if self.has_softmax:
            recon = torch.log_softmax(recon.reshape(rows), 1).reshape(shape)
            probability = torch.exp(recon).reshape(rows)
        if self.log_library is not None:
            recon = recon + exact(self.log_library).reshape(-1, *[1] * (len(shape) - 1))
        own = [exact(p).expand(shape) for p in self.parameters]
        value, by_recon, *by_own = family(self.name).at(recon, target, *own, pos_weight=positive)
        slope, unit = ((factor * x).reshape(rows) for x in by_recon)
        unit = unit.abs()
        total, total_unit = slope.sum(1, keepdim=True), unit.sum(1, keepdim=True)
        if probability is not None:
            slope, unit = slope - probability * total, unit + probability * total_unit
        gradients = [(slope.reshape(shape), unit.reshape(shape))]
        for sides, parameter in zip(by_own, self.parameters, strict=True):
            slope, unit = (factor * x for x in sides)
            gradients.append((slope.sum_to_size(parameter.shape), unit.abs().sum_to_size(parameter.shape)))
        if self.log_library is not None:
            gradients.append((total.reshape(self.log_library.shape), total_unit.reshape(self.log_library.shape)))
        loss, loss_unit = ((weight * x).reshape(rows) for x in value)
        return Result((loss.sum(1), loss_unit.abs().sum(1)), gradients)


def call(
    name: str,
    shape: Shape,
    parameter_shape: Shape | None = None,
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype] = (torch.float32,) * 3,
    library: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> Call:
    """Of recon, target and parameters in these dtypes; parameters have the features' shape, if none is named."""
    entry, draw = family(name), generator(seed)
    recon, target = entry.draw(shape, draw)
    given = shape[1:] if parameter_shape is None else parameter_shape
    parameters = tuple(make(given, draw).to(device, dtypes[2]) for _, make in entry.parameters)
    log_library = 3 + normal((shape[0],), draw) if library and entry.softmax == "optional" else None
    return Call(
        name,
        recon.to(device, dtypes[0]),
        stored(target, dtypes[1]).to(device),
        parameters,
        None if log_library is None else log_library.to(device, dtypes[2]),
    )


def of(given: Call, reduction: str = "sum") -> Callable[..., Tensor]:
    """The loss as a function of all that has a gradient."""
    return lambda *tensors: given.with_differentiable(list(tensors)).elbo_loss(reduction=reduction)


# ---- as the operators take it: spelled here alone --------------------------------------------------------------------

LIBRARY_BIT = 2  # of an output_mask


def data_term(given: Call) -> tuple[Any, ...]:
    """The arguments of `elbo_gradient`, but for the upstream gradient and the output_mask."""
    own = (LIKELIHOODS.index(given.name), given.parameters, given.log_library)
    return (given.recon, given.target, *own, given.weight, given.pos_weight)


def operands(
    given: Call,
    reduction: int = 1,
    posterior: tuple[Tensor | None, Tensor | None, int] = (None, None, 0),
    kl: Tensor | None = None,
    beta: float = 1.0,
    beta_tensor: Tensor | None = None,
) -> tuple[Any, ...]:
    """The arguments that the other operators of the objective begin with; of a posterior mu, scale and its kind."""
    recon, target, *own, weight, pos_weight = data_term(given)
    return (recon, target, *posterior, kl, *own, beta, beta_tensor, weight, pos_weight, reduction)


def full_mask(given: Call) -> int:
    """The output_mask of all gradients that the call has."""
    return 1 | (0 if given.log_library is None else LIBRARY_BIT) | sum(4 << k for k in range(len(given.parameters)))


# ---- comparisons -----------------------------------------------------------------------------------------------------


def assert_sided(got: Tensor, want: Sided, bound: dict[torch.dtype, float] = IN_UNITS, **context: Any) -> None:
    """got is within a bound, relative to the unit; in a dtype's subnormal range to the last of its digits."""
    value, unit = want
    assert got.shape == value.shape, context
    error = (exact(got) - value).abs() - bound[got.dtype] * unit - torch.finfo(got.dtype).smallest_normal
    wrong = ~(error <= 0) & ~(exact(got).isnan() & value.isnan()) & ~(exact(got) == value)
    assert not wrong.any(), f"{context} {exact(got)[wrong][:3]} instead of {value[wrong][:3]} of unit {unit[wrong][:3]}"


def is_exact(factor: Tensor) -> bool:
    """Whether products with it are not rounded: powers of two, and 0."""
    return bool(((torch.frexp(factor).mantissa.abs() == 0.5) | (factor == 0)).all())


def assert_gradients(
    got: Sequence[Tensor],
    given: Call,
    upstream: Tensor | float = 1.0,
    *,
    want: Sequence[Sided] | None = None,
    reference: bool = False,
    summands: bool = False,
    slack: float = 0.0,
    **context: Any,
) -> None:
    """got are the gradients of upstream's product with each sample's loss, with the bounds that kernels or reference
    keep: in units in the last place for those likelihoods whose slopes are right to that, with `summands` to those of
    the larger summand; `slack` is an absolute error of the others. `want` is the truth, where it is known already."""
    wide = torch.float64 in (given.recon.dtype, given.target.dtype)
    # Parameters are factors: they follow the type in which recon and target are computed.
    bound = IN_UNITS if wide else IN_UNITS | {torch.float64: IN_UNITS[torch.float32]}
    exactly = is_exact(exact(upstream)) and (given.weight is None or is_exact(exact(given.weight)))
    want = given.truth(upstream).gradients if want is None else want
    for i, (x, source, sided) in enumerate(zip(got, given.differentiable, want, strict=True)):
        assert (x.dtype, x.shape) == (source.dtype, source.shape)
        slope, unit = sided
        if given.name not in PLAIN:
            assert_sided(x, (slope, unit + slack / bound[x.dtype]), bound, gradient=i, **context)
        elif reference:
            assert_ulp(x, slope, REFERENCE_GRADIENT_ULP, unit.clamp(min=1) if x.dtype == torch.float64 else unit)
        else:
            magnitude = slope.abs() if family(given.name).is_factored and not summands else unit
            assert_ulp(x, slope, GRADIENT_ULP if exactly else SCALED_GRADIENT_ULP, magnitude)


def check(
    given: Call,
    upstream: Tensor | None = None,
    reduction: str = "none",
    *,
    reference: bool,
    slack: float = 0.0,
    **context: Any,
) -> tuple[Tensor, ...]:
    """The loss and the gradients by all that has one, as `assert_gradients` compares them; and these gradients."""
    given = given.leaves()
    loss = given.elbo_loss(reduction=reduction)
    batch = given.recon.shape[0]
    factor = {"none": 1.0, "sum": 1.0, "batchmean": 1 / max(batch, 1)}[reduction]
    seed = torch.ones_like(loss) if upstream is None else upstream.to(loss)
    per_sample = exact(seed).expand(batch) * factor
    (value, unit), want = given.truth(per_sample)
    expected = (value, unit) if reduction == "none" else (factor * value.sum(), factor * unit.sum())
    assert loss.dtype == (torch.float64 if torch.float64 in (given.recon.dtype, given.target.dtype) else torch.float32)
    assert loss.device == given.recon.device
    assert_sided(loss, expected, LOSS if given.name in PLAIN else IN_UNITS, output="loss", **context)
    gradients = torch.autograd.grad(loss, given.differentiable, seed)
    assert_gradients(gradients, given, per_sample, want=want, reference=reference, slack=slack, **context)
    return gradients
