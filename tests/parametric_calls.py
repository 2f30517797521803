"""Calls of the likelihoods that go by rows: their tensors, what is true of them, and comparisons with that."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from cases import generator, leaf
from parametric import ENTRIES, Shape, Sided, normal
from tolerances import BY_ROWS
from torch import Tensor
from truth import exact

import pyvae

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
    parameters: tuple[Tensor, ...]
    log_library: Tensor | None = None
    weight: Tensor | None = None

    @property
    def likelihood(self) -> Any:
        library = () if self.log_library is None else (self.log_library,)
        return ENTRIES[self.name].make(*self.parameters, *library)

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

    def elbo_loss(self, **options: Any) -> Tensor:
        return pyvae.elbo_loss(self.recon, self.target, likelihood=self.likelihood, weight=self.weight, **options)

    def truth(self, upstream: Tensor | float = 1.0) -> Result:
        """Each sample's loss, and the gradients of upstream's product with them; with the units of their errors."""
        shape = self.recon.shape
        recon, target = exact(self.recon), exact(self.target).reshape(shape)
        weight = exact(1.0 if self.weight is None else self.weight).expand(shape)
        factor = weight * exact(upstream).reshape(-1, *[1] * (len(shape) - 1))
        rows = (shape[0], math.prod(shape[1:]))
        probability = None
        if ENTRIES[self.name].softmax == "always" or self.log_library is not None:
            recon = torch.log_softmax(recon.reshape(rows), 1).reshape(shape)
            probability = torch.exp(recon).reshape(rows)
        if self.log_library is not None:
            recon = recon + exact(self.log_library).reshape(-1, *[1] * (len(shape) - 1))
        own = [exact(p).expand(shape) for p in self.parameters]
        value, by_recon, *by_own = ENTRIES[self.name].terms(recon, target, *own)
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
    entry, draw = ENTRIES[name], generator(seed)
    target = entry.target(shape, draw)
    recon = 1.5 * normal(shape, draw)
    if not dtypes[1].is_floating_point:
        limits = (0, 1) if dtypes[1] == torch.bool else (torch.iinfo(dtypes[1]).min, torch.iinfo(dtypes[1]).max)
        target = target.round().clamp(*limits)
    given = shape[1:] if parameter_shape is None else parameter_shape
    parameters = tuple(make(given, draw).to(device, dtypes[2]) for _, make in entry.parameters)
    log_library = 3 + normal((shape[0],), draw) if library and entry.softmax == "optional" else None
    return Call(
        name,
        recon.to(device, dtypes[0]),
        target.to(device, dtypes[1]),
        parameters,
        None if log_library is None else log_library.to(device, dtypes[2]),
    )


# ---- comparisons -----------------------------------------------------------------------------------------------------


def assert_sided(got: Tensor, want: Sided, bound: dict[torch.dtype, float] = BY_ROWS, **context: Any) -> None:
    """got is within a bound, relative to the unit; in a dtype's subnormal range to the last of its digits."""
    value, unit = want
    assert got.shape == value.shape, context
    error = (exact(got) - value).abs() - bound[got.dtype] * unit - torch.finfo(got.dtype).smallest_normal
    wrong = ~(error <= 0) & ~(exact(got).isnan() & value.isnan()) & ~(exact(got) == value)
    assert not wrong.any(), f"{context} {exact(got)[wrong][:3]} instead of {value[wrong][:3]} of unit {unit[wrong][:3]}"


def check(
    given: Call, upstream: Tensor | None = None, reduction: str = "none", slack: float = 0.0, **context: Any
) -> None:
    """The loss and the gradients by all that has one, against the truth; `slack` is an absolute error of gradients."""
    given = given.leaves()
    loss = given.elbo_loss(reduction=reduction)
    batch = given.recon.shape[0]
    factor = {"none": 1.0, "sum": 1.0, "batchmean": 1 / max(batch, 1)}[reduction]
    per_sample = exact(1.0 if upstream is None else upstream).expand(batch) * factor
    result = given.truth(per_sample)
    value, unit = result.loss
    want = result.loss if reduction == "none" else (factor * value.sum(), factor * unit.sum())
    wide = torch.float64 in (given.recon.dtype, given.target.dtype)
    # Parameters are factors: they follow the type in which recon and target are computed.
    bound = BY_ROWS if wide else BY_ROWS | {torch.float64: BY_ROWS[torch.float32]}
    assert loss.dtype == (torch.float64 if wide else torch.float32)
    assert_sided(loss, want, output="loss", **context)
    seed = torch.ones_like(loss) if upstream is None else upstream.to(loss)
    sources = given.differentiable
    for i, (got, source) in enumerate(zip(torch.autograd.grad(loss, sources, seed), sources, strict=True)):
        assert (got.dtype, got.shape) == (source.dtype, source.shape)
        slope, unit = result.gradients[i]
        assert_sided(got, (slope, unit + slack / bound[got.dtype]), bound, gradient=i, **context)
