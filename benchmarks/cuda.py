"""The GPU measurements: launches, memory, errors, call overhead, bandwidth and speed, in this order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import nan
from typing import NamedTuple

from . import accuracy, cpu
from .competitors import CASES, Shape, both_sides, make_inputs
from .contests import BF16, COMPILED, F32, PASSES, Cell, bandwidth, dtype_name, speed
from .device import Cuda
from .judge import ONE_LARGE
from .launches import Stage, count
from .rounds import Budget, reason
from .rows import Row
from .timing import Case

AUTOTUNED = {"compiled_autotuned": "max-autotune-no-cudagraphs", "compiled_max_autotune": "max-autotune"}

# Recon (or latent) and target as the small and the large step of every day, the ones between, and one large array.
LOSS_SHAPES = (*cpu.SHAPES, Shape(512, ONE_LARGE // 512, 4096))
SAMPLE_SHAPES = (*cpu.SHAPES, Shape(ONE_LARGE // 65536, 1, 65536))


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


def full_cells() -> Iterator[Cell]:
    """What targets are set for comes first: time may run out."""
    both = COMPILED | AUTOTUNED
    for shape in (LOSS_SHAPES[0], LOSS_SHAPES[-1]):
        yield Cell("loss", shape, modes=both)
    for shape in (SAMPLE_SHAPES[0], SAMPLE_SHAPES[-1]):
        yield Cell("sample_kl", shape, modes=both)
    for shape in (LOSS_SHAPES[0], LOSS_SHAPES[-1]):
        yield Cell("loss", shape, BF16)
        yield Cell("loss", shape, BF16, F32)
    for shape in LOSS_SHAPES[1:-1]:
        yield Cell("loss", shape)
        yield Cell("sample_kl", shape)
    for shape in LOSS_SHAPES[1:-1]:
        yield Cell("loss", shape, BF16)
    for shape in (SAMPLE_SHAPES[0], SAMPLE_SHAPES[-1]):
        yield Cell("sample_kl", shape, BF16)


FULL = Effort(
    cells=tuple(full_cells()),
    sizes=(ONE_LARGE, 2 * ONE_LARGE, 4 * ONE_LARGE, *(2**exponent for exponent in range(12, 27, 2))),
    errors=LOSS_SHAPES,
    draws=2**22,
    memory=2**25,
    step=cpu.SHAPES[0],
    seconds=1.0,
    budget=240.0,
    each=45.0,
)
ONLY_COMPILED = {"compiled": "default"}
QUICK = FULL._replace(
    cells=[Cell("loss", shape, modes=ONLY_COMPILED) for shape in (LOSS_SHAPES[0], LOSS_SHAPES[-1])]
    + [Cell("sample_kl", shape, modes=ONLY_COMPILED) for shape in (SAMPLE_SHAPES[0], SAMPLE_SHAPES[-1])],
    sizes=(ONE_LARGE,),
    errors=LOSS_SHAPES[:1],
    draws=2**18,
    seconds=0.5,
    budget=60.0,
    each=30.0,
)


def launch_rows(shape: Shape, device: Cuda) -> Iterator[Row]:
    """Launches of a step's sampler and objective, and how often the host waits for the GPU in it."""
    device.release()
    for case in both_sides(make_inputs(shape, device.name), {"compiled": partial(device.compile, mode="default")}):
        try:
            counted = launches_of(case, device)
            note = None if any(stage.launches for stage in counted.values()) else "the profiler saw no launch"
        except Exception as error:
            counted, note = {"forward": Stage([], []), "backward": Stage([], [])}, reason(error)
        for stage, (launches, waits) in counted.items():
            for what, names in (("launches", launches), ("waits", waits)):
                listed = note or "; ".join(name[:60] for name in names) or None
                yield Row(what, case.name, nan if note else len(names), what, stage, *shape, note=listed)


def launches_of(case: Case, device: Cuda) -> dict[str, Stage]:
    kept: list[object] = []

    def forward() -> None:
        kept[:] = [case.forward()]

    def backward() -> None:
        if case.backward is not None:
            case.backward(*kept)

    for call in 3 * (forward, backward):
        call()
    # What the profiler does only once falls into the first two ranges.
    ranges = {"first": forward, "second": backward, "measured forward": forward, "measured backward": backward}
    counted = count(device.trace(ranges), list(ranges)[2:])
    return {name.removeprefix("measured "): stage for name, stage in counted.items()}


def memory_rows(elements: int, device: Cuda) -> Iterator[Row]:
    """Peak beyond the inputs, in buffers of the size of recon (loss, forward + backward) or of z (sampler).

    Outputs count: the loss makes one buffer, its gradient; the sampler one forward, z, and two more backward.
    """
    device.release()
    for what, shape, stage in (
        ("loss", Shape(64, elements // 64, 1), None),
        ("sample_kl", Shape(64, 1, elements // 64), None),
        ("sample_kl", Shape(64, 1, elements // 64), "both"),
    ):
        for case in CASES[what](make_inputs(shape, device.name), {}):

            def call(case: Case = case, forward_only: bool = what == "sample_kl" and stage is None) -> object:
                outputs = case.forward()
                return outputs if forward_only or case.backward is None else (outputs, case.backward(outputs))

            buffers = device.peak_bytes(call) / (4 * elements)
            yield Row(f"{what}_memory", case.name, buffers, "buffers", stage, *shape)


def measure(effort: Effort, device: Cuda) -> Iterator[tuple[str, Callable[[], Iterator[Row] | list[Row]]]]:
    """The parts of a run by name, each measured when it is called."""
    budget = Budget(effort.budget, effort.each)
    yield "launches", lambda: launch_rows(effort.step, device)
    yield "memory", lambda: memory_rows(effort.memory, device)
    yield "accuracy", lambda: errors(effort, device)
    yield "call overhead", lambda: cpu.overhead(effort.seconds, device.name)
    for elements in effort.sizes:
        yield f"bandwidth, {elements:,} elements", partial(bandwidths, elements, effort.seconds / 5, device, budget)
    for cell in effort.cells:
        name = " ".join((cell.what, "x".join(map(str, cell.shape)), dtype_name(cell.dtype, cell.target_dtype)))
        yield f"speed, {name}", partial(speed, cell, effort.seconds, device, budget)


def errors(effort: Effort, device: Cuda) -> Iterator[Row]:
    for shape in effort.errors:
        yield from accuracy.loss_rows(shape, device.name)
    yield from accuracy.gradient_rows(device.name)
    yield accuracy.normal_row(effort.draws, device.name)


def bandwidths(elements: int, seconds: float, device: Cuda, budget: Budget) -> Iterator[Row]:
    device.release()
    for what in PASSES:
        kinds = [(F32, None), (BF16, None)]
        if what == "objective_forward" and elements >= ONE_LARGE:
            kinds.append((BF16, F32))
        for dtype, target_dtype in kinds:
            yield from bandwidth(what, elements, dtype, target_dtype, seconds, device, budget)
