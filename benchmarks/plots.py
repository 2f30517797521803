"""A GPU's CSV as pictures: `python -m benchmarks.plots benchmarks/results/h200.csv` writes them beside it.

Needs matplotlib, but no GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: works without a display

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import Environment, Row, read
from .report import IN_GRAPH, PASSES, PLAIN, elements

plt.rcParams.update({"font.size": 11, "axes.titlesize": 12, "figure.dpi": 150})

TYPES = ("float32", "bfloat16")
COLORS = {name: f"C{index}" for index, name in enumerate(dict.fromkeys([*PASSES, *PLAIN.values(), *IN_GRAPH.values()]))}


def curve(axes: Axes, rows: Iterable[Row], value: str, label: str, **style: Any) -> None:
    if points := sorted((elements(row), getattr(row, value)) for row in rows if not isnan(row.value)):
        axes.plot(*zip(*points, strict=True), label=label, marker="o", markersize=3.5, **style)


def finished(figure: Figure, panels: Iterable[Axes], title: str) -> Figure:
    """With sizes along the x axes, and one legend for all panels at their right."""
    handles = {}
    for axes in panels:
        axes.set_xscale("log", base=2)
        axes.set_xlabel("elements")
        axes.grid(alpha=0.25)
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right center")
    figure.suptitle(title)
    return figure


def bandwidth(rows: Sequence[Row], where: Environment) -> Figure:
    """Bandwidth of each kernel against the number of elements, beside that of a copy of as many bytes."""
    figure, panels = plt.subplots(1, len(TYPES), figsize=(13, 4.6), sharey=True, layout="constrained")
    copy = {"label": "copy of as many bytes", "linestyle": ":", "alpha": 0.6}
    for axes, dtype in zip(panels, TYPES, strict=True):
        for what, name in PASSES.items():
            for competitor, style in (("fused", {"label": name}), ("copy", copy)):
                own = [row for row in rows if (row.what, row.competitor, row.dtype) == (what, competitor, dtype)]
                curve(axes, own, "gb_per_s", color=COLORS[what], **style)
        axes.set_title(dtype)
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("GB/s, read and written")
    return finished(figure, panels, f"{where.processor}: bandwidth by size")


def speed_up(rows: Sequence[Row], where: Environment) -> Figure:
    """How many times longer forward + backward take without pyvae, against the number of elements."""
    cases = [("loss", "float32"), ("loss", "bfloat16"), ("sample_kl", "float32")]
    figure, panels = plt.subplots(2, len(cases), figsize=(15, 8), sharey=True, layout="constrained")
    for column, (what, dtype) in zip(panels.T, cases, strict=True):
        chosen = [row for row in rows if row.what == what and row.dtype == dtype and row.ratio_to_fused]
        for axes, names in zip(column, (PLAIN, IN_GRAPH), strict=True):
            for competitor, name in names.items():
                own = (row for row in chosen if row.competitor == competitor)
                curve(axes, own, "ratio_to_fused", name, color=COLORS[name])
            axes.set_title(f"{'loss' if what == 'loss' else 'sampler with KL'}, {dtype}")
            axes.axhline(1, color="black", linewidth=0.8)
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter("{x:g}×")
    panels[0, 0].set_ylabel("time relative to pyvae")
    panels[1, 0].set_ylabel("the same, all in CUDA graphs")
    title = f"{where.processor}: forward + backward by size (above 1×, pyvae is faster)"
    return finished(figure, panels.flat, title)


def pictures(path: Path, folder: Path) -> list[Path]:
    """Writes both; their paths."""
    rows, where = read(path)
    if where.device != "cuda":
        raise SystemExit(f"{path}: measured on a {where.device}, and the pictures are a GPU's")
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in (("bandwidth", bandwidth), ("speed-up", speed_up)):
        figure = draw(rows, where)
        written.append(folder / f"{path.stem}-{name}.png")
        figure.savefig(written[-1])
        plt.close(figure)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the pictures (that of the CSV)")
    options = parser.parse_args()
    for path in pictures(options.csv, options.out or options.csv.parent):
        print(path)


if __name__ == "__main__":
    main()
