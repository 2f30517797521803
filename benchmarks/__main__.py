"""`python -m benchmarks`: measure everything, write the CSV, print the table of targets last."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from . import accuracy, cpu, isolated, rows, table
from .competitors import CASES, Shape


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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, default=table.RESULTS, help="folder of the CSV (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="smoke run into cpu-quick.csv; measures nothing")
    parser.add_argument("--shapes", type=shape, nargs="+", metavar="BxDxL", help="instead of the four of the table")
    parser.add_argument("--seconds", type=float, help="for each measurement at each shape (5)")
    parser.add_argument("--threads", type=int, help="of the speed rows (torch's default, which the others use)")
    return parser.parse_args()


def measure(effort: Effort, threads: int) -> Iterable[rows.Row]:
    def speeds() -> Iterable[rows.Row]:
        with cpu.thread_count(threads):
            for shape in effort.shapes:
                for what in CASES:
                    yield from cpu.speed(what, shape, effort.seconds, effort.backend)

    parts: dict[str, Callable[[], Iterable[rows.Row]]] = {
        "accuracy of the loss": lambda: (row for shape in effort.shapes for row in accuracy.loss_rows(shape)),
        "accuracy of the gradient": accuracy.gradient_rows,
        "accuracy of the draws": lambda: [accuracy.normal_row(effort.draws)],
        "speed": speeds,
        "bandwidth": lambda: cpu.bandwidth(effort.large, effort.seconds),
        "bandwidth, huge pages": lambda: isolated.huge_page_rows(effort.large, effort.seconds),
        "call overhead": lambda: cpu.overhead(effort.seconds),
        "memory": lambda: isolated.memory_rows(effort.large),
        "import": lambda: [isolated.import_row(effort.imports)],
    }
    for name, part in parts.items():
        start = time.monotonic()
        for row in part():
            print(describe(row), flush=True)
            yield row
        print(f"-- {name}: {time.monotonic() - start:.0f} s", file=sys.stderr)


def describe(row: rows.Row) -> str:
    shape = row.shape if row.batch else ""
    ratio = f"{row.ratio_to_fused:8.2f}x fused" if row.ratio_to_fused else ""
    return f"{row.what:14} {shape:18} {row.stage or '':8} {row.competitor:20} {row.value:12.4g} {row.unit:8} {ratio}"


def main() -> None:
    options = arguments()
    effort = QUICK if options.quick else FULL
    effort = effort._replace(shapes=tuple(options.shapes or effort.shapes), seconds=options.seconds or effort.seconds)
    where = rows.environment()
    if where.instruction_set == "reference" and not options.quick:
        sys.exit("benchmarks: pyvae's kernels are not built here, and timing the reference says nothing")
    measured = list(measure(effort, options.threads or torch.get_num_threads()))
    path = options.out / ("cpu-quick.csv" if options.quick else "cpu.csv")
    rows.write(path, measured, where)
    print(f"\n{path}\n\n{table.render(measured, where)}")


if __name__ == "__main__":
    main()
