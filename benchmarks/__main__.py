"""`python -m benchmarks`: measure everything, write the CSV, print the table of targets last.

On a GPU (`--device cuda`) the CSV is named after it, and rows that time was too short for say so.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from . import Environment, Row, report, runs, write
from .cases import Shape
from .environment import environment
from .timing import Cuda
from .turns import LEFT_OUT, TimeLimit, reason


def shape(text: str) -> Shape:
    try:
        return Shape(*map(int, text.split("x")))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"expected BATCHxFEATURESxLATENT, as 128x784x20, not {text!r}") from None


def arguments() -> argparse.Namespace:
    epilog = "PYVAE_COMMIT names the commit where the sources came without their repository."
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, epilog=epilog)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the CSV (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="smoke run, into *-quick.csv")
    parser.add_argument("--seconds", type=float, help="for each measurement at each shape (CPU 5, GPU 1)")
    on_cpu = parser.add_argument_group("with --device cpu")
    on_cpu.add_argument(
        "--shapes",
        type=shape,
        nargs="+",
        metavar="BxDxL",
        help="instead of the four of the table, without counts and likelihoods with parameters",
    )
    on_cpu.add_argument("--threads", type=int, help="of the speed rows (torch's default, which the others use)")
    on_gpu = parser.add_argument_group("with --device cuda")
    on_gpu.add_argument("--steps", action="store_true", help="whole training steps instead, into *-steps.csv")
    on_gpu.add_argument("--budget", type=float, help="seconds for everything (240; --quick 60)")
    options = parser.parse_args()
    wrong = (options.shapes or options.threads) if options.device == "cuda" else (options.steps or options.budget)
    if wrong:
        parser.error("--shapes and --threads are for the CPU, --steps and --budget for a GPU")
    return options


def slug(processor: str) -> str:
    """`NVIDIA H200` -> `h200`: what the files of its results are called."""
    return re.sub(r"[^a-z0-9]+", "-", processor.lower().removeprefix("nvidia ")).strip("-")


def guarded(name: str, part: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of `part`; if it breaks off, a row of pyvae's that says why, since nobody knows whose fault it is."""
    try:
        yield from part()
    except (Exception, TimeLimit) as error:
        traceback.print_exc()
        yield Row(name, "fused", math.nan, note=reason(error))


def measure(parts: Iterable[runs.Part], path: Path, where: Environment) -> list[Row]:
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
    on_gpu = options.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("benchmarks: torch sees no CUDA device here")
    where = environment(options.device)
    if where.instruction_set == "reference" and (on_gpu or not options.quick):
        sys.exit(f"benchmarks: pyvae has no {options.device} kernels here, and timing the reference says nothing")
    effort = (runs.QUICK if options.quick else runs.FULL)[options.device]
    effort = effort._replace(seconds=options.seconds or effort.seconds, budget=options.budget or effort.budget)
    if on_gpu:
        parts = (runs.of_steps if options.steps else runs.on_gpu)(effort, Cuda())
    else:
        effort = effort.at(options.shapes) if options.shapes else effort
        parts = runs.on_cpu(effort, options.threads or torch.get_num_threads())
    name = slug(where.processor) if on_gpu else "cpu"
    path = options.out / f"{name}{'-steps' * options.steps}{'-quick' * options.quick}.csv"
    measured = measure(parts, path, where)
    likelihoods = [] if on_gpu else [report.of_parameters(measured), report.of_counts(measured)]
    print(f"\n{path}", *likelihoods, report.render(measured, where), sep="\n\n")
    missing = [row for row in measured if math.isnan(row.value)]
    failed = [row for row in missing if row.competitor.startswith("fused") and row.note != LEFT_OUT]
    if missing:
        print(f"\n{len(missing)} rows without a value, {len(failed)} of them failures of pyvae")
    if failed:
        sys.exit("\n".join(["benchmarks: pyvae failed:", *map(describe, failed)]))


if __name__ == "__main__":
    main()
