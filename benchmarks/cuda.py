"""What is measured on a GPU, and how much of each: launches, memory, errors, call overhead, bandwidth, speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


# Waits that do not have the word in their names: an ordinary copy and freeing memory wait for the device.
WAITS = ("cudaMemcpy", "cudaFree")


# Names of kernels, copies and fills, in the order of their launch; names of calls that make the host wait for the GPU.
Counted = tuple[list[str], list[str]]


def count(events: Iterable[Mapping[str, Any]], names: Iterable[str]) -> dict[str, Counted]:
    """What was launched from within each range of `names`, from whichever thread: backward runs in one of its own.

    A launch belongs to the range in which the host made it; the GPU may run it later. Host and GPU events of one launch
    share a correlation number.
    """
    events = [event for event in events if "dur" in event]
    host = [event for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver")]
    device = {
        event["args"]["correlation"]: event["name"]
        for event in events
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
    }
    stages = {}
    for name in names:
        (span,) = (event for event in events if event.get("cat") == "user_annotation" and event["name"] == name)
        inside = [event for event in host if span["ts"] <= event["ts"] <= span["ts"] + span["dur"]]
        inside.sort(key=lambda event: event["ts"])
        correlations = [event.get("args", {}).get("correlation") for event in inside]
        stages[name] = (
            [device[correlation] for correlation in correlations if correlation in device],
            [event["name"] for event in inside if "Synchronize" in event["name"] or event["name"] in WAITS],
        )
    return stages


def launch_rows(shape: Shape, device: Device) -> Iterator[Row]:
    """Launches of a step's sampler and objective, and how often the host waits for the GPU in it."""
    device.release()
    compilers = {"compiled": partial(device.compile, mode="default")}
    for case in make_cases("both_sides", make_inputs(shape, device.name), compilers):
        try:
            counted = launches_of(case, device)
            note = None if any(launches for launches, _ in counted.values()) else "the profiler saw no launch"
        except Exception as error:
            counted, note = {"forward": ([], []), "backward": ([], [])}, reason(error)
        for stage, (launches, waits) in counted.items():
            for what, names in (("launches", launches), ("waits", waits)):
                listed = note or "; ".join(name[:60] for name in names) or None
                yield Row(what, case.name, nan if note else len(names), what, stage, *shape, note=listed)


def launches_of(case: Case, device: Device) -> dict[str, Counted]:
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
