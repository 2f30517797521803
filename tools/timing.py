"""Times the CUDA kernels under several tunings: `python tools/timing.py --out folder`, on a machine with a GPU.

Each variant (tools/timing_build.py) is a program of its own. They run one after another; each checks its kernels'
results before it times them, beside device-to-device copies of as many bytes. `--build-only` needs no GPU: it tells
registers and spills.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import timing_build
from timing_build import Built, Failed, aligned

ARCHITECTURE = "sm_90"  # of a build without a GPU: that for which targets are stated

VARIANTS = (
    timing_build.SHIPPED,
    "kPackedVector=4",
    "kPackedBlocks=2+kGradientBlocks=2",
    "kPackedBlocks=4",
    "kSmallPart=512",
    "kSmallPart=2048",
    "kLargePart=4096",
    "kLargePart=16384",
    "kMostParts=16384",  # of 2^27 elements, this decides how long a part is
)

PASSED_ON = ("sizes", "kernels", "types", "samples")  # options of the program

Row = dict[str, str]  # a line of the program's CSV, by its columns


# ---- the GPU ---------------------------------------------------------------------------------------------------------


def query(fields: str) -> list[str]:
    """What nvidia-smi says of the first GPU; nothing where there is none."""
    if not (program := shutil.which("nvidia-smi")):
        return []
    command = [program, f"--query-gpu={fields}", "--format=csv,noheader"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return shown.stdout.splitlines()[0].split(", ") if shown.returncode == 0 and shown.stdout else []


def architecture(build_only: bool) -> str:
    if capability := query("compute_cap"):
        return f"sm_{capability[0].replace('.', '')}"
    if build_only:
        return ARCHITECTURE
    sys.exit("nvidia-smi finds no GPU to time kernels on: name its --arch, or compile with --build-only")


# ---- running ---------------------------------------------------------------------------------------------------------


def rows_of(lines: Iterable[str]) -> Iterator[Row | str]:
    """The program's output: rows of its CSV, and every other line as it is."""
    columns: list[str] = []
    for line in map(str.rstrip, lines):
        words = line.split(",")
        if line.startswith("kernel,"):
            columns = words
        elif columns and len(words) == len(columns):
            yield dict(zip(columns, words, strict=True))
        elif line:
            yield line


def run(program: Path, options: Sequence[str]) -> Iterator[Row | str]:
    command = [str(program), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        last = ""
        for line in rows_of(process.stdout or ()):
            last = line if isinstance(line, str) else last
            yield line
    if process.returncode:
        raise Failed(last or f"exit status {process.returncode}")


class Output:
    """timing.csv in a folder, a row as each result comes; everything else is printed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.csv = (folder / "timing.csv").open("w", encoding="utf-8")
        self.columns: list[str] = []

    def row(self, variant: str, row: Row) -> None:
        if not self.columns:
            self.columns = list(row)
            print("variant", *self.columns, sep=",", file=self.csv)
        print(variant, *(row[column] for column in self.columns), sep=",", file=self.csv, flush=True)

    def say(self, text: str) -> None:
        print(text, flush=True)


def measure(program: Path, options: Sequence[str], output: Output, variant: str, rows: list[Row]) -> None:
    """Adds one variant's rows as they come."""
    state = "clocks.sm,clocks.mem,temperature.gpu,power.draw,power.limit,driver_version"
    output.say(f"==> {variant}: {', '.join(query(state))}")
    for line in run(program, options):
        if isinstance(line, str):
            output.say(line)
        else:
            rows.append(line)
            output.row(variant, line)
    output.say(f"    {len(rows)} measurements; {', '.join(query(state))}")


# ---- tables ----------------------------------------------------------------------------------------------------------


def table(results: dict[str, list[Row]]) -> str:
    """Kernel x size, and a column for each variant: GB/s and the share of the copy's; or microseconds, where nothing is
    moved. The copy's own column is the first variant's."""
    cells: dict[tuple[str, str, str], dict[str, Row]] = {}
    for variant, rows in results.items():
        for row in rows:
            place = row["kernel"], row["type"], f"{row['rows']}x{row['features']}"
            cells.setdefault(place, {})[variant] = row
    lines = [["kernel", "type", "size", "copy", *results]]
    for place, found in cells.items():
        copy = next(iter(found.values()))["copy_gbps"]
        lines.append([*place, copy or "-", *(cell(found.get(variant)) for variant in results)])
    return aligned(lines)


def cell(row: Row | None) -> str:
    if row is None:
        return "-"
    return f"{row['gbps']} {float(row['share']):.1%}" if row["gbps"] else f"{row['us']} us"


# ---- all of it -------------------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tools/timing.py", description=__doc__)
    parser.add_argument("--variants", nargs="+", default=VARIANTS, metavar="V", help="default: %(default)s")
    parser.add_argument("--arch", nargs="+", metavar="sm_90", help="default: that of the GPU")
    parser.add_argument("--out", type=Path, default=timing_build.BUILD, help="folder of the results: %(default)s")
    parser.add_argument("--build-only", action="store_true", help="compile, and tell registers and spills")
    for name in PASSED_ON:
        parser.add_argument(f"--{name}", metavar="A,B", help="of the program: see tools/timing/main.cpp")
    options = parser.parse_args()
    for variant in options.variants:
        timing_build.flags(variant)  # or an error, before anything is compiled
    return options


def main() -> None:
    options = parse()
    architectures = options.arch or [architecture(options.build_only)]
    toolkit = timing_build.find_toolkit()
    output = Output(options.out)
    output.say(f"{toolkit.release} ({toolkit.nvcc}) for {', '.join(architectures)}: {len(options.variants)} variants")
    failures: list[str] = []

    def attempt(variant: str) -> Built | None:
        try:
            return timing_build.build(toolkit, architectures, variant)
        except Failed as failure:
            failures.append(f"{variant}: {failure}")
            return None

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        outcomes = dict(zip(options.variants, pool.map(attempt, options.variants), strict=True))
    built = {variant: outcome for variant, outcome in outcomes.items() if outcome}
    output.say(timing_build.table(built))

    passed_on = [word for name in PASSED_ON if (value := getattr(options, name)) for word in (f"--{name}", value)]
    results: dict[str, list[Row]] = {variant: [] for variant in built}
    for variant, rows in results.items() if not options.build_only else ():
        try:
            measure(built[variant].program, passed_on, output, variant, rows)
        except Failed as failure:
            failures.append(f"{variant}: {failure}")
    if any(results.values()):
        output.say(f"\n{table(results)}")
    if failures:
        output.say("\n" + "\n".join(failures))
        sys.exit(1)


if __name__ == "__main__":
    main()
