"""What takes no clock: errors against float64, peaks of memory; and the time of an import."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pyvae
import pyvae.reference

from . import Row
from .cases import CONTESTS, COUNTS, Shape, eager_loss, fused_loss, make_cases, make_inputs, make_inputs_of
from .timing import Device, spread

IMPORT = "import time, torch; start = time.perf_counter(); import pyvae; print(time.perf_counter() - start)"


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


def isolated(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns in a process of its own, a copy of one that imported all and did nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def memory_rows(elements: int, device: Device) -> Iterator[Row]:
    """Peak beyond the inputs, in buffers of the size of recon (losses, forward + backward) or of z (sampler).

    Outputs count: a loss makes one buffer, its gradient, and the zero-inflated one another for its logits'; the sampler
    one forward, z, and two more backward. Counts take a quarter of the elements, for drawing them takes time.
    """
    device.release()
    for what, shape, stage in (
        ("loss", Shape(64, elements // 64, 1), None),
        ("sample_kl", Shape(64, 1, elements // 64), None),
        ("sample_kl", Shape(64, 1, elements // 64), "both"),
        *((what, Shape(128, elements // 4 // 128, 0), "both") for what in COUNTS),
    ):
        for name in CONTESTS[what] if device.counts_memory else ("eager", "fused"):
            call = (what, name, stage, shape, device)
            peak = peak_bytes(*call) if device.counts_memory else isolated(peak_bytes, *call)
            buffer = 4 * shape.batch * max(shape.features, shape.latent)
            yield Row(f"{what}_memory", name, peak / buffer, "buffers", stage, *shape)


def peak_bytes(what: str, name: str, stage: str | None, shape: Shape, device: Device) -> int:
    """How far one call raises the peak.

    Arrays must be larger than what start-up took and gave back, or the call stays below an older peak.
    """
    for size in (Shape(2, 64, 64), shape):  # the first loads what is loaded once: libraries, threads
        inputs = make_inputs_of(what, size, device.name)  # kept to the end: one that goes makes room below the peak
        (case,) = (case for case in make_cases(what, inputs) if case.name == name)
        peak = device.peak_bytes(case.step if what == "loss" or stage else case.forward)
    return peak


def import_row(repeats: int) -> Row:
    """`import pyvae` after `import torch`; the median leaves out that the first reads from disk."""
    run = partial(subprocess.run, [sys.executable, "-c", IMPORT], stdout=subprocess.PIPE, check=True)
    folder = Path(pyvae.__file__).parents[1]
    p20, median, p80 = spread([1e3 * float(run(cwd=folder).stdout) for _ in range(repeats)])
    return Row("import", "fused", median, "ms", p20=p20, p80=p80)
