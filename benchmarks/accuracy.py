"""Errors against float64, of pyvae and of what it replaces, on the same float32 inputs."""

from __future__ import annotations

import torch
from torch import Tensor

import pyvae
import pyvae.reference

from .competitors import Shape, eager_loss, eager_loss_probabilities, fused_loss, fused_loss_probabilities, make_inputs
from .rows import Row


def ulps(value: Tensor, exact: Tensor, scale: Tensor) -> float:
    """Largest error in float32 units in the last place of `scale`."""
    magnitude = scale.abs().float()
    unit = torch.nextafter(magnitude, torch.full_like(magnitude, torch.inf)) - magnitude
    return float(((value.double() - exact).abs() / unit).max())


def loss_rows(shape: Shape, device: str = "cpu") -> list[Row]:
    """Relative error of the whole loss."""
    logits, probabilities, target, mu, logvar, *_ = (tensor.detach() for tensor in make_inputs(shape, device))
    x, p, t, m, v = (tensor.double() for tensor in (logits, probabilities, target, mu, logvar))
    kl = 0.5 * (m * m + torch.expm1(v) - v).sum()
    from_logits = (x.clamp(min=0) - x * t + torch.log1p(torch.exp(-x.abs()))).sum() + kl
    from_probabilities = kl - (t * p.log().clamp(min=-100) + (1 - t) * torch.log1p(-p).clamp(min=-100)).sum()
    losses = {
        "eager": (eager_loss(logits, target, mu, logvar), from_logits),
        "fused": (fused_loss(logits, target, mu, logvar), from_logits),
        "eager_probabilities": (eager_loss_probabilities(probabilities, target, mu, logvar), from_probabilities),
        "fused_probabilities": (fused_loss_probabilities(probabilities, target, mu, logvar), from_probabilities),
    }
    return [
        Row("loss_error", name, float(abs(value.double() - exact) / exact), "relative", None, *shape)
        for name, (value, exact) in losses.items()
    ]


def gradient_rows(device: str = "cpu") -> list[Row]:
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
    losses = {
        "eager": eager_loss(logits, t, nothing, nothing),
        "fused": fused_loss(logits, t, nothing, nothing),
    }
    errors = {
        name: ulps(torch.autograd.grad(loss, logits)[0], up - down, torch.maximum(up, down))
        for name, loss in losses.items()
    }
    return [Row("gradient_error", name, error, "ulp") for name, error in errors.items()]


def normal_row(draws: int, device: str = "cpu") -> Row:
    """Largest error of a draw against the exact Box-Muller transform of the same uniforms."""
    seed = 2014
    mu = torch.zeros(1, draws, device=device)
    drawn = pyvae.reparameterize(mu, std=torch.ones_like(mu), seed=seed).cpu()
    exact = pyvae.reference.normal(torch.tensor([seed]), (1, draws), torch.float32).double()  # float64, rounded once
    return Row("normal_error", "fused", ulps(drawn, exact, exact), "ulp")
