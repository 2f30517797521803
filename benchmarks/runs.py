"""What a run measures on each device, and how much of it: parts by name, each measured when it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch

from . import Row, bayes, steps, untimed
from .cases import COUNT_SHAPES, COUNTS, ONE_LARGE, PARAMETER_SHAPES, PARAMETERS, SHAPES, SPEEDS, Shape
from .speed import (
    BF16,
    COMPILED,
    F32,
    F64,
    ONLY_COMPILED,
    Cell,
    bandwidths,
    bayes_step,
    cpu_bandwidth,
    huge_pages,
    likelihoods,
    overhead,
    speed,
    thread_count,
)
from .timing import Device
from .turns import Budget

Part = tuple[str, Callable[[], Iterable[Row]]]

AUTOTUNED = {"compiled_autotuned": "max-autotune-no-cudagraphs", "compiled_max_autotune": "max-autotune"}
ALL = COMPILED | AUTOTUNED

# Recon (or latent) and target as the small and the large step of every day, the ones between, and one large array.
LOSS_SHAPES = (*SHAPES, Shape(512, ONE_LARGE // 512, 4096))
SAMPLE_SHAPES = (*SHAPES, Shape(ONE_LARGE // 65536, 1, 65536))
CELLS_AND_GENES = tuple(Shape(batch, COUNT_SHAPES[-1].features, 0) for batch in (128, 4096))
LOSS_ENDS, SAMPLE_ENDS, BETWEEN = LOSS_SHAPES[::4], SAMPLE_SHAPES[::4], SHAPES[1:]


class Effort(NamedTuple):
    """How much of everything a run does."""

    cells: Sequence[Cell]
    sizes: Sequence[int]  # elements, of the bandwidth rows
    errors: Sequence[Shape]
    draws: int
    memory: int  # elements
    seconds: float  # for each comparison, and more where calls are long
    budget: float = 1e6  # seconds for everything
    each: float = 1e6  # seconds to prepare one competitor
    backend: str = "inductor"  # of torch.compile on the CPU
    imports: int = 7
    bayes: tuple[int, ...] = bayes.SIZES  # of the layers
    parameters: Sequence[tuple[Shape, torch.dtype]] = ()  # of likelihoods with parameters

    def at(self, shapes: Sequence[Shape], of_counts: Sequence[Shape] = ()) -> Effort:
        """The CPU's speed and errors at these shapes, and its speed with counts at those; nothing of parameters."""
        wanted = [(what, shape) for shape in shapes for what in SPEEDS]
        wanted += [(what, shape) for shape in of_counts for what in COUNTS]
        cells = [Cell(what, shape, modes=ONLY_COMPILED) for what, shape in wanted]
        return self._replace(cells=cells, errors=shapes, parameters=())


CPU = Effort((), (2**25,), (), 2**22, 2**25, 5.0).at(SHAPES, COUNT_SHAPES)
CPU = CPU._replace(
    parameters=(*((shape, F32) for shape in PARAMETER_SHAPES), *((shape, F64) for shape in PARAMETER_SHAPES[1::2]))
)
CUDA = Effort(
    cells=(  # what targets are set for comes first: time may run out
        *(Cell("loss", shape, modes=ALL) for shape in LOSS_ENDS),
        *(Cell("sample_kl", shape, modes=ALL) for shape in SAMPLE_ENDS),
        *(Cell(what, shape, modes=ONLY_COMPILED) for shape in CELLS_AND_GENES for what in COUNTS),
        *(Cell("loss", shape, BF16, target) for shape in LOSS_ENDS for target in (None, F32)),
        *(Cell(what, shape) for shape in BETWEEN for what in ("loss", "sample_kl")),
        *(Cell("loss", shape, BF16) for shape in BETWEEN),
        *(Cell("sample_kl", shape, BF16) for shape in SAMPLE_ENDS),
    ),
    sizes=(ONE_LARGE, 2 * ONE_LARGE, 4 * ONE_LARGE, *(2**exponent for exponent in range(12, 27, 2))),
    errors=LOSS_SHAPES,
    draws=2**22,
    memory=2**25,
    seconds=1.0,
    budget=240.0,
    each=45.0,
    parameters=tuple((shape, F32) for shape in (Shape(128, 784, 0), Shape(4096, 784, 0), Shape(10**6, 3, 0))),
)
FULL = {"cpu": CPU, "cuda": CUDA}
QUICK = {
    # aot_eager runs no C++ compiler: a quick run shows that everything works, and measures nothing.
    "cpu": Effort((), (2**16,), (), 2**12, 2**16, 0.02, backend="aot_eager", imports=2, bayes=(9, 5, 4, 3))
    .at([Shape(4, 33, 3)], [Shape(4, 33, 0)])
    ._replace(parameters=((Shape(4, 33, 0), F32), (Shape(4, 64, 0), F64))),
    "cuda": CUDA._replace(
        cells=[cell._replace(modes=ONLY_COMPILED) for cell in CUDA.cells[:8]],
        parameters=CUDA.parameters[:1],
        sizes=(ONE_LARGE,),
        errors=LOSS_SHAPES[:1],
        draws=2**18,
        seconds=0.5,
        budget=60.0,
        each=30.0,
    ),
}


def on_cpu(effort: Effort, threads: int) -> Iterator[Part]:
    """`threads` are those of the speed rows."""
    device = Device(effort.backend)

    def speeds() -> Iterator[Row]:
        with thread_count(threads):
            for cell in effort.cells:
                yield from speed(cell, effort.seconds, device)

    def of_bayes() -> list[Row]:
        with thread_count(threads):
            return bayes_step(effort.seconds, device, bayes.make_inputs(device.name, effort.bayes))

    yield "accuracy", partial(untimed.error_rows, effort.errors, effort.draws, device.name)
    yield "speed", speeds
    for elements in effort.sizes:
        yield "bandwidth", partial(cpu_bandwidth, elements, effort.seconds)
        yield "bandwidth, huge pages", partial(huge_pages, elements, effort.seconds)
    yield "a step of Bayes by backprop", of_bayes
    yield "call overhead", partial(overhead, effort.seconds, device)
    for shape, dtype in effort.parameters:
        # Many more competitors than elsewhere: turns of 20 ms.
        seconds = effort.seconds / 2 * len(PARAMETERS)
        name = f"parameters, {shape.batch}x{shape.features} {str(dtype).removeprefix('torch.')}"
        yield name, partial(likelihoods, shape, dtype, seconds, device)
    yield "memory", partial(untimed.memory_rows, effort.memory, device)
    yield "import", lambda: [untimed.import_row(effort.imports)]


def on_gpu(effort: Effort, device: Device) -> Iterator[Part]:
    budget = Budget(effort.budget, effort.each)
    yield "launches", partial(untimed.launch_rows, SHAPES[0], device)
    yield "memory", partial(untimed.memory_rows, effort.memory, device)
    yield "accuracy", partial(untimed.error_rows, effort.errors, effort.draws, device.name)
    yield "call overhead", partial(overhead, effort.seconds, device)
    for shape, dtype in effort.parameters:
        name = f"parameters, {shape.batch}x{shape.features}"
        yield name, partial(likelihoods, shape, dtype, effort.seconds * 5, device, budget)
    for elements in effort.sizes:
        yield f"bandwidth, {elements:,} elements", partial(bandwidths, elements, effort.seconds / 5, device, budget)
    for cell in effort.cells:
        name = " ".join((cell.what, "x".join(map(str, cell.shape)), cell.dtypes))
        yield f"speed, {name}", partial(speed, cell, effort.seconds, device, budget)


def of_steps(effort: Effort, device: Device) -> Iterator[Part]:
    budget = Budget(effort.budget, 2 * effort.each)
    for name in steps.MODELS:
        for autocast in (False, True):
            part = partial(steps.rows, name, autocast, effort.seconds, device, budget)
            yield f"{name}{', autocast' if autocast else ''}", part
