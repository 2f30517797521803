"""`python -m benchmarks`: measure everything, write the CSV, print the tables last.

On a GPU (`--device cuda`) the CSV is named after it, and rows that time was too short for say so.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from . import RESULTS, Environment, Row, bayes, environment, report, write
from .cases import COUNT_SHAPES, COUNTS, ONE_LARGE, PARAMETER_SHAPES, PARAMETERS, SHAPES, SPEEDS, Shape
from .speed import (
    BF16,
    F32,
    F64,
    ONLY_COMPILED,
    Cell,
    bandwidths,
    likelihoods,
    memory_rows,
    overhead,
    speed,
    thread_count,
)
from .timing import LEFT_OUT, Cuda, Device, reason

Part = tuple[str, Callable[[], Iterable[Row]]]


# Recon (or latent) and target as the small and the large step of every day, the ones between, and one large array.
LOSS_SHAPES = (*SHAPES, Shape(512, ONE_LARGE // 512, 4096))
SAMPLE_SHAPES = (*SHAPES, Shape(ONE_LARGE // 65536, 1, 65536))
CELLS_AND_GENES = tuple(Shape(batch, COUNT_SHAPES[-1].features, 0) for batch in (128, 4096))
LOSS_ENDS, SAMPLE_ENDS, BETWEEN = LOSS_SHAPES[::4], SAMPLE_SHAPES[::4], SHAPES[1:]


class Effort(NamedTuple):
    """How much of everything a run does."""

    cells: Sequence[Cell]
    sizes: Sequence[int]  # elements, of a GPU's bandwidth rows
    memory: int  # elements
    seconds: float  # for each comparison, and more where calls are long
    budget: float = 1e6  # seconds for everything
    backend: str = "inductor"  # of torch.compile on the CPU
    parameters: Sequence[tuple[Shape, torch.dtype]] = ()  # of likelihoods with parameters
    bayes: tuple[int, ...] = bayes.SIZES  # of the layers

    def at(self, shapes: Sequence[Shape], of_counts: Sequence[Shape] = ()) -> Effort:
        """The CPU's speed at these shapes, and its speed with counts at those; nothing of parameters."""
        wanted = [(what, shape) for shape in shapes for what in SPEEDS]
        wanted += [(what, shape) for shape in of_counts for what in COUNTS]
        cells = [Cell(what, shape, modes=ONLY_COMPILED) for what, shape in wanted]
        return self._replace(cells=cells, parameters=())


CPU = Effort((), (), 2**25, 5.0).at(SHAPES, COUNT_SHAPES)
CPU = CPU._replace(
    parameters=(*((shape, F32) for shape in PARAMETER_SHAPES), *((shape, F64) for shape in PARAMETER_SHAPES[1::2]))
)
CUDA = Effort(
    cells=(  # what matters most comes first: time may run out
        *(Cell("loss", shape) for shape in LOSS_ENDS),
        *(Cell("sample_kl", shape) for shape in SAMPLE_ENDS),
        *(Cell(what, shape, modes=ONLY_COMPILED) for shape in CELLS_AND_GENES for what in COUNTS),
        *(Cell("loss", shape, BF16, target) for shape in LOSS_ENDS for target in (None, F32)),
        *(Cell(what, shape) for shape in BETWEEN for what in ("loss", "sample_kl")),
        *(Cell("loss", shape, BF16) for shape in BETWEEN),
        *(Cell("sample_kl", shape, BF16) for shape in SAMPLE_ENDS),
    ),
    sizes=(ONE_LARGE, 2 * ONE_LARGE, 4 * ONE_LARGE, *(2**exponent for exponent in range(12, 27, 2))),
    memory=2**25,
    seconds=1.0,
    budget=240.0,
    parameters=tuple((shape, F32) for shape in (Shape(128, 784, 0), Shape(4096, 784, 0), Shape(10**6, 3, 0))),
)
FULL = {"cpu": CPU, "cuda": CUDA}
QUICK = {
    # aot_eager runs no C++ compiler: a quick run shows that everything works, and measures nothing.
    "cpu": Effort((), (), 2**16, 0.02, backend="aot_eager", bayes=(9, 5, 4, 3))
    .at([Shape(4, 33, 3)], [Shape(4, 33, 0)])
    ._replace(parameters=((Shape(4, 33, 0), F32), (Shape(4, 64, 0), F64))),
    "cuda": CUDA._replace(
        cells=[cell._replace(modes=ONLY_COMPILED) for cell in CUDA.cells[:8]],
        parameters=CUDA.parameters[:1],
        sizes=(ONE_LARGE,),
        seconds=0.5,
        budget=60.0,
    ),
}


def on_cpu(effort: Effort, threads: int) -> Iterator[Part]:
    """`threads` are those of the speed rows."""
    device = Device(effort.backend)

    def speeds() -> Iterator[Row]:
        with thread_count(threads):
            for cell in effort.cells:
                yield from speed(cell, effort.seconds, device)

    yield "speed", speeds
    yield "call overhead", partial(overhead, effort.seconds, device)
    yield "a step of Bayes by backprop", partial(bayes.step, effort.seconds, device, effort.bayes)
    for shape, dtype in effort.parameters:
        # Many more competitors than elsewhere: turns of 20 ms.
        seconds = effort.seconds / 2 * len(PARAMETERS)
        name = f"parameters, {shape.batch}x{shape.features} {str(dtype).removeprefix('torch.')}"
        yield name, partial(likelihoods, shape, dtype, seconds, device)
    yield "memory", partial(memory_rows, effort.memory, device)


def on_gpu(effort: Effort, device: Device) -> Iterator[Part]:
    end = time.monotonic() + effort.budget
    yield "memory", partial(memory_rows, effort.memory, device)
    yield "call overhead", partial(overhead, effort.seconds, device)
    for shape, dtype in effort.parameters:
        name = f"parameters, {shape.batch}x{shape.features}"
        yield name, partial(likelihoods, shape, dtype, effort.seconds * 5, device, end)
    for elements in effort.sizes:
        yield f"bandwidth, {elements:,} elements", partial(bandwidths, elements, effort.seconds / 5, device, end)
    for cell in effort.cells:
        name = " ".join((cell.what, "x".join(map(str, cell.shape)), cell.dtypes))
        yield f"speed, {name}", partial(speed, cell, effort.seconds, device, end)


# ---- the command -----------------------------------------------------------------------------------------------------


def shape(text: str) -> Shape:
    try:
        return Shape(*map(int, text.split("x")))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"expected BATCHxFEATURESxLATENT, as 128x784x20, not {text!r}") from None


def arguments() -> argparse.Namespace:
    epilog = "PYVAE_COMMIT names the commit where the sources came without their repository."
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, epilog=epilog)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="smoke run, into *-quick.csv")
    parser.add_argument("--seconds", type=float, help="for each measurement at each shape (CPU 5, GPU 1)")
    of_cpu = parser.add_argument_group("with --device cpu")
    of_cpu.add_argument(
        "--shapes",
        type=shape,
        nargs="+",
        metavar="BxDxL",
        help="instead of the four of the table, without counts and likelihoods with parameters",
    )
    of_cpu.add_argument("--threads", type=int, help="of the speed rows (torch's default, which the others use)")
    of_gpu = parser.add_argument_group("with --device cuda")
    of_gpu.add_argument("--budget", type=float, help="seconds for everything (240; --quick 60)")
    options = parser.parse_args()
    wrong = (options.shapes or options.threads) if options.device == "cuda" else options.budget
    if wrong:
        parser.error("--shapes and --threads are for the CPU, --budget for a GPU")
    return options


def slug(processor: str) -> str:
    """`NVIDIA H200` -> `h200`: what the files of its results are called."""
    return re.sub(r"[^a-z0-9]+", "-", processor.lower().removeprefix("nvidia ")).strip("-")


def guarded(name: str, part: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of `part`; if it breaks off, a row of pyvae's that says why, since nobody knows whose fault it is."""
    try:
        yield from part()
    except Exception as error:
        traceback.print_exc()
        yield Row(name, "fused", math.nan, note=reason(error))


def measure(parts: Iterable[Part], path: Path, where: Environment) -> list[Row]:
    """All rows; those so far are in the CSV after each part, whatever comes of the next."""
    measured: list[Row] = []
    for name, part in parts:
        start = time.monotonic()
        for row in guarded(name, part):
            print(describe(row), flush=True)
            measured.append(row)
        write(path, measured, where)
        print(f"-- {name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return measured


def describe(row: Row) -> str:
    shape = row.shape if row.batch else ""
    ratio = f"{row.ratio_to_fused:8.2f}x fused" if row.ratio_to_fused else ""
    if row.dtype:
        shape += f" {row.dtype}"
    value = f"{row.value:12.4g} {row.unit:8}"
    return f"{row.what:17} {shape:18} {row.stage or '':8} {row.competitor:20} {value} {ratio} {row.note or ''}".rstrip()


def main() -> None:
    options = arguments()
    cuda = options.device == "cuda"
    if cuda and not torch.cuda.is_available():
        sys.exit("benchmarks: torch sees no CUDA device here")
    where = environment(options.device)
    if where.instruction_set == "reference" and (cuda or not options.quick):
        sys.exit(f"benchmarks: pyvae has no {options.device} kernels here, and timing the reference says nothing")
    effort = (QUICK if options.quick else FULL)[options.device]
    effort = effort._replace(seconds=options.seconds or effort.seconds, budget=options.budget or effort.budget)
    if cuda:
        parts = on_gpu(effort, Cuda())
    else:
        effort = effort.at(options.shapes) if options.shapes else effort
        parts = on_cpu(effort, options.threads or torch.get_num_threads())
    name = slug(where.processor) if cuda else "cpu"
    path = options.out / f"{name}{'-quick' * options.quick}.csv"
    measured = measure(parts, path, where)
    likelihoods = [] if cuda else [report.of_parameters(measured), report.of_counts(measured)]
    print(f"\n{path}", *likelihoods, report.render(measured, where), sep="\n\n")
    missing = [row for row in measured if math.isnan(row.value)]
    failed = [row for row in missing if row.competitor.startswith("fused") and row.note != LEFT_OUT]
    print(f"\n{len(measured)} rows, {len(missing)} without a value, {len(failed)} of them failures of pyvae")
    if failed:
        sys.exit("\n".join(["benchmarks: pyvae failed:", *map(describe, failed)]))


if __name__ == "__main__":
    main()
