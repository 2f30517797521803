"""Errors against float64, of pyvae and of what it replaces, on the same float32 inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

import pyvae
import pyvae.reference

from .cases import Shape, eager_loss, fused_loss, make_cases, make_inputs
from .rows import Row


def ulps(value: Tensor, exact: Tensor, scale: Tensor) -> float:
    """Largest error in float32 units in the last place of `scale`."""
    magnitude = scale.abs().float()
    unit = torch.nextafter(magnitude, torch.full_like(magnitude, torch.inf)) - magnitude
    return float(((value.double() - exact).abs() / unit).max())


def loss_rows(shape: Shape, device: str) -> list[Row]:
    """Relative error of the whole loss."""
    inputs = make_inputs(shape, device)
    with torch.no_grad():
        losses = {case.name: case.forward() for case in make_cases("loss", inputs)}
        x, p, t, m, v = (tensor.double() for tensor in inputs[:5])
        kl = 0.5 * (m * m + torch.expm1(v) - v).sum()
        from_logits = (x.clamp(min=0) - x * t + torch.log1p(torch.exp(-x.abs()))).sum() + kl
        from_probabilities = kl - (t * p.log().clamp(min=-100) + (1 - t) * torch.log1p(-p).clamp(min=-100)).sum()
    rows = []
    for name, loss in losses.items():
        exact = from_probabilities if name.endswith("_probabilities") else from_logits
        rows.append(Row("loss_error", name, float(abs(loss.double() - exact) / exact), "relative", None, *shape))
    return rows


def gradient_rows(device: str) -> list[Row]:
    """Largest error of the gradient of logits over the range where float32 has one, for targets 0, 1 and between.

    With 0 < t < 1 the gradient is a difference that may cancel to any smallness: the unit is that of its larger term.
    """
    steps = 300_000
    x = torch.linspace(-104, 104, steps).repeat(3).view(3, steps).to(device)
    between = torch.linspace(0, 1, steps)[torch.randperm(steps)]
    t = torch.stack([torch.zeros(steps), torch.ones(steps), between]).to(device)
    up, down = torch.sigmoid(x.double()) * (1 - t.double()), torch.sigmoid(-x.double()) * t.double()
    logits = x.requires_grad_()
    nothing = torch.zeros(3, 1, device=device)
    rows = []
    for name, function in (("eager", eager_loss), ("fused", fused_loss)):
        (gradient,) = torch.autograd.grad(function(logits, t, nothing, nothing), logits)
        rows.append(Row("gradient_error", name, ulps(gradient, up - down, torch.maximum(up, down)), "ulp"))
    return rows


def normal_row(draws: int, device: str) -> Row:
    """Largest error of a draw against the exact Box-Muller transform of the same uniforms."""
    seed = 2014
    mu = torch.zeros(1, draws, device=device)
    drawn = pyvae.reparameterize(mu, std=torch.ones_like(mu), seed=seed).cpu()
    exact = pyvae.reference.normal(torch.tensor([seed]), (1, draws), torch.float32).double()  # float64, rounded once
    return Row("normal_error", "fused", ulps(drawn, exact, exact), "ulp")


def error_rows(shapes: Sequence[Shape], draws: int, device: str) -> Iterator[Row]:
    for shape in shapes:
        yield from loss_rows(shape, device)
    yield from gradient_rows(device)
    yield normal_row(draws, device)
