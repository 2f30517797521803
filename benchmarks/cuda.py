"""What is measured on a GPU, and how much of each: launches, memory, errors, call overhead, bandwidth, speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import nan
from typing import Any, NamedTuple

import torch

from . import accuracy, isolated
from .cases import KERNELS, ONE_LARGE, SHAPES, Inputs, Shape, make_cases, make_inputs
from .device import Device
from .rows import Row
from .speed import BF16, COMPILED, F32, ONLY_COMPILED, Cell, bandwidth, overhead, speed
from .timing import Budget, Case, reason

HOST_BOUND = 2**24  # elements: below, launches take longer than their work, and bandwidth is measured inside a graph
LATENT = 4 * 32 * 32  # of the sampler's bandwidth rows
AUTOTUNED = {"compiled_autotuned": "max-autotune-no-cudagraphs", "compiled_max_autotune": "max-autotune"}

# Recon (or latent) and target as the small and the large step of every day, the ones between, and one large array.
LOSS_SHAPES = (*SHAPES, Shape(512, ONE_LARGE // 512, 4096))
SAMPLE_SHAPES = (*SHAPES, Shape(ONE_LARGE // 65536, 1, 65536))


class Effort(NamedTuple):
    """How much of everything a run does."""

    cells: Sequence[Cell]
    sizes: Sequence[int]  # elements, of the bandwidth rows
    errors: Sequence[Shape]
    draws: int
    memory: int  # elements
    step: Shape  # of which launches are counted
    seconds: float  # for each comparison
    budget: float  # seconds for everything
    each: float  # seconds to prepare one competitor


ALL = COMPILED | AUTOTUNED
LOSS_ENDS, SAMPLE_ENDS, BETWEEN = LOSS_SHAPES[::4], SAMPLE_SHAPES[::4], SHAPES[1:]

FULL = Effort(
    cells=(  # what targets are set for comes first: time may run out
        *(Cell("loss", shape, modes=ALL) for shape in LOSS_ENDS),
        *(Cell("sample_kl", shape, modes=ALL) for shape in SAMPLE_ENDS),
        *(Cell("loss", shape, BF16, target) for shape in LOSS_ENDS for target in (None, F32)),
        *(Cell(what, shape) for shape in BETWEEN for what in ("loss", "sample_kl")),
        *(Cell("loss", shape, BF16) for shape in BETWEEN),
        *(Cell("sample_kl", shape, BF16) for shape in SAMPLE_ENDS),
    ),
    sizes=(ONE_LARGE, 2 * ONE_LARGE, 4 * ONE_LARGE, *(2**exponent for exponent in range(12, 27, 2))),
    errors=LOSS_SHAPES,
    draws=2**22,
    memory=2**25,
    step=SHAPES[0],
    seconds=1.0,
    budget=240.0,
    each=45.0,
)
QUICK = FULL._replace(
    cells=[Cell("loss", shape, modes=ONLY_COMPILED) for shape in LOSS_ENDS]
    + [Cell("sample_kl", shape, modes=ONLY_COMPILED) for shape in SAMPLE_ENDS],
    sizes=(ONE_LARGE,),
    errors=LOSS_SHAPES[:1],
    draws=2**18,
    seconds=0.5,
    budget=60.0,
    each=30.0,
)


def launch_rows(shape: Shape, device: Device) -> Iterator[Row]:
    """Launches of a step's sampler and objective, and how often the host waits for the GPU in it."""
    device.release()
    compilers = {"compiled": partial(device.compile, mode="default")}
    for case in make_cases("both_sides", make_inputs(shape, device.name), compilers):
        try:
            for _ in range(3):  # what is done only once, by torch, pyvae or the profiler, is not in the last
                forward, kept = _launched(case.forward, device)
                backward, _ = _launched(partial(case.backward, kept), device)
            note = None if forward[0] or backward[0] else "the profiler saw no launch"
        except Exception as error:
            forward = backward = [], []
            note = reason(error)
        for stage, counted in (("forward", forward), ("backward", backward)):
            for what, names in zip(("launches", "waits"), counted, strict=True):
                listed = note or "; ".join(name[:60] for name in names) or None
                yield Row(what, case.name, nan if note else len(names), what, stage, *shape, note=listed)


def _launched(call: Callable[[], Any], device: Device) -> tuple[tuple[list[str], list[str]], Any]:
    """What it launches and waits for, and what it returns."""
    kept: list[Any] = []
    return device.launched(lambda: kept.append(call())), kept[-1]


def bandwidths(elements: int, seconds: float, device: Device, budget: Budget) -> Iterator[Row]:
    """All kernels, each in turns with a device-to-device copy of as many bytes."""
    device.release()
    for what in KERNELS:
        rows = min(elements // LATENT, 2**16) if what.startswith("sampler") else 64
        shape = Shape(rows, 1, elements // rows) if what.startswith("sampler") else Shape(rows, elements // rows, 0)
        cells = [Cell(what, shape), Cell(what, shape, BF16)]
        if what == "objective_forward" and elements >= ONE_LARGE:
            cells.append(Cell(what, shape, BF16, F32))
        for cell in cells:

            def copy(_: Inputs, cell: Cell = cell) -> Case:
                return Case("copy", torch.randn(cell.bytes // 8, device=device.name).clone)  # half of them read

            yield from bandwidth(cell, copy, seconds, device, budget, graphs=elements < HOST_BOUND)


def parts(effort: Effort, device: Device) -> Iterator[tuple[str, Callable[[], Iterable[Row]]]]:
    """The parts of a run by name, each measured when it is called."""
    budget = Budget(effort.budget, effort.each)
    yield "launches", lambda: launch_rows(effort.step, device)
    yield "memory", lambda: isolated.memory_rows(effort.memory, device)
    yield "accuracy", lambda: accuracy.error_rows(effort.errors, effort.draws, device.name)
    yield "call overhead", lambda: overhead(effort.seconds, device)
    for elements in effort.sizes:
        yield f"bandwidth, {elements:,} elements", partial(bandwidths, elements, effort.seconds / 5, device, budget)
    for cell in effort.cells:
        name = " ".join((cell.what, "x".join(map(str, cell.shape)), cell.dtypes))
        yield f"speed, {name}", partial(speed, cell, effort.seconds, device, budget)
