"""A CSV as pictures, which are written beside it: `python -m benchmarks.plots benchmarks/results/cpu.csv`.

Of a CPU the times relative to pyvae and the memory held; of a GPU (h200.csv, say) the bandwidth and the times; of
counts_accuracy.csv and logits_accuracy.csv the errors. Needs matplotlib, but no GPU. All are transparent, and are read
on a white page and on a dark one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from . import Environment, Row, plots_cpu, plots_errors, plots_gpu, read
from .style import STYLE

Draw = Callable[[Sequence[Row], Environment, Figure], None]


def drawings(rows: Sequence[Row], where: Environment) -> dict[str, Draw]:
    """Those that the rows are for, by what is put behind the CSV's name."""
    if any(row.theta for row in rows):
        return {"": plots_errors.over_theta}
    if any(row.logit for row in rows):
        return {"": plots_errors.over_logit}
    if where.device == "cuda":
        return {"-bandwidth": plots_gpu.bandwidth, "-speed-up": plots_gpu.speed_up}
    return {"-speed-up": plots_cpu.speed_up, "-memory": plots_cpu.memory}


def pictures(path: Path, folder: Path) -> list[Path]:
    """Writes them; their paths."""
    rows, where = read(path)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with rc_context(STYLE):
        for suffix, draw in drawings(rows, where).items():
            figure = Figure(layout="constrained")
            draw(rows, where, figure)
            written.append(folder / f"{path.stem}{suffix}.png")
            figure.savefig(written[-1])
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the pictures (that of the CSV)")
    options = parser.parse_args()
    print(*pictures(options.csv, options.out or options.csv.parent), sep="\n")
