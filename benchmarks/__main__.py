"""`python -m benchmarks`: measure everything, write the CSV, print the table of targets last.

On a GPU (`--device cuda`) the CSV is named after it, and rows that time was too short for say so.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from . import accuracy, cpu, cuda, gpu_table, isolated, rows, steps, table
from .competitors import CASES, Shape
from .device import Cuda
from .rounds import LEFT_OUT, Budget, guarded


class Effort(NamedTuple):
    """How much of everything a run does."""

    shapes: tuple[Shape, ...]
    seconds: float  # for each what x shape, and more where calls are long
    backend: str  # of torch.compile
    large: int  # elements of the one large array, and of the arrays of the memory rows
    draws: int
    imports: int


FULL = Effort(cpu.SHAPES, 5.0, "inductor", 2**25, 2**22, 7)
# aot_eager runs no C++ compiler: a quick run shows that everything works, and measures nothing.
QUICK = Effort((Shape(4, 33, 3),), 0.02, "aot_eager", 2**16, 2**12, 2)


def shape(text: str) -> Shape:
    try:
        return Shape(*map(int, text.split("x")))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"expected BATCHxFEATURESxLATENT, as 128x784x20, not {text!r}") from None


EPILOG = "PYVAE_COMMIT names the commit where the sources came without their repository."


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, epilog=EPILOG)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=table.RESULTS, help="folder of the CSV (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="smoke run, into *-quick.csv")
    parser.add_argument("--seconds", type=float, help="for each measurement at each shape (CPU 5, GPU 1)")
    on_cpu = parser.add_argument_group("with --device cpu")
    on_cpu.add_argument("--shapes", type=shape, nargs="+", metavar="BxDxL", help="instead of the four of the table")
    on_cpu.add_argument("--threads", type=int, help="of the speed rows (torch's default, which the others use)")
    on_gpu = parser.add_argument_group("with --device cuda")
    on_gpu.add_argument("--steps", action="store_true", help="whole training steps instead, into *-steps.csv")
    on_gpu.add_argument("--budget", type=float, help="seconds for everything (240; --quick 60)")
    options = parser.parse_args()
    wrong = (options.shapes or options.threads) if options.device == "cuda" else (options.steps or options.budget)
    if wrong:
        parser.error("--shapes and --threads are for the CPU, --steps and --budget for a GPU")
    return options


Part = tuple[str, Callable[[], Iterable[rows.Row]]]


def cpu_parts(effort: Effort, threads: int) -> Iterable[Part]:
    def speeds() -> Iterable[rows.Row]:
        with cpu.thread_count(threads):
            for shape in effort.shapes:
                for what in CASES:
                    yield from cpu.speed(what, shape, effort.seconds, effort.backend)

    yield "accuracy of the loss", lambda: (row for shape in effort.shapes for row in accuracy.loss_rows(shape))
    yield "accuracy of the gradient", accuracy.gradient_rows
    yield "accuracy of the draws", lambda: [accuracy.normal_row(effort.draws)]
    yield "speed", speeds
    yield "bandwidth", lambda: cpu.bandwidth(effort.large, effort.seconds)
    yield "bandwidth, huge pages", lambda: isolated.huge_page_rows(effort.large, effort.seconds)
    yield "call overhead", lambda: cpu.overhead(effort.seconds)
    yield "memory", lambda: isolated.memory_rows(effort.large)
    yield "import", lambda: [isolated.import_row(effort.imports)]


def measure(parts: Iterable[Part], path: Path, where: rows.Environment) -> list[rows.Row]:
    """All rows; those so far are in the CSV after each part, whatever comes of the next."""
    measured: list[rows.Row] = []
    for name, part in parts:
        start = time.monotonic()
        for row in part():
            print(describe(row), flush=True)
            measured.append(row)
        rows.write(path, measured, where)
        print(f"-- {name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return measured


def describe(row: rows.Row) -> str:
    shape = row.shape if row.batch else ""
    ratio = f"{row.ratio_to_fused:8.2f}x fused" if row.ratio_to_fused else ""
    if row.dtype:
        shape += f" {row.dtype}"
    value = f"{row.value:12.4g} {row.unit:8}"
    return f"{row.what:14} {shape:18} {row.stage or '':8} {row.competitor:20} {value} {ratio} {row.note or ''}".rstrip()


def on_cpu(options: argparse.Namespace) -> None:
    effort = QUICK if options.quick else FULL
    effort = effort._replace(shapes=tuple(options.shapes or effort.shapes), seconds=options.seconds or effort.seconds)
    where = rows.environment()
    if where.instruction_set == "reference" and not options.quick:
        sys.exit("benchmarks: pyvae's kernels are not built here, and timing the reference says nothing")
    path = options.out / ("cpu-quick.csv" if options.quick else "cpu.csv")
    measured = measure(cpu_parts(effort, options.threads or torch.get_num_threads()), path, where)
    print(f"\n{path}\n\n{table.render(measured, where)}")


def on_gpu(options: argparse.Namespace) -> None:
    if not torch.cuda.is_available():
        sys.exit("benchmarks: torch sees no CUDA device here")
    where = rows.gpu_environment()
    if where.instruction_set == "reference":
        sys.exit("benchmarks: pyvae is built without CUDA kernels, and timing the reference says nothing")
    effort = cuda.QUICK if options.quick else cuda.FULL
    seconds, budget = options.seconds or effort.seconds, options.budget or effort.budget
    if options.steps:
        parts, kind = steps.measure(seconds, Budget(budget, 2 * effort.each), Cuda()), "-steps"
    else:
        parts, kind = cuda.measure(effort._replace(seconds=seconds, budget=budget), Cuda()), ""
    path = options.out / f"{rows.slug(where.processor)}{kind}{'-quick' if options.quick else ''}.csv"
    measured = measure(((name, partial(guarded, name, part)) for name, part in parts), path, where)
    print(f"\n{path}\n\n{gpu_table.render(measured, where)}")
    missing = [row for row in measured if math.isnan(row.value)]
    failed = [row for row in missing if row.competitor.startswith("fused") and row.note != LEFT_OUT]
    if missing:
        print(f"\n{len(missing)} rows without a value, {len(failed)} of them failures of pyvae")
    if failed:
        sys.exit("\n".join(["benchmarks: pyvae failed:", *map(describe, failed)]))


def main() -> None:
    options = arguments()
    on_gpu(options) if options.device == "cuda" else on_cpu(options)


if __name__ == "__main__":
    main()
