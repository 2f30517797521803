"""A CSV as pictures: `python -m benchmarks.plots benchmarks/results/h200.csv` writes a GPU's beside it, and of
benchmarks/results/counts_accuracy.csv that of the errors over theta.

Needs matplotlib, but no GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import Row, read
from .targets import COUNT_ERRORS, IN_GRAPH, PASSES, PLAIN, elements

TYPES = ("float32", "bfloat16")
INK = "#7f7f7f"  # as far from white as from black
COLORS = {name: f"C{index}" for index, name in enumerate(dict.fromkeys([*PASSES, *PLAIN.values(), *IN_GRAPH.values()]))}


def curve(axes: Axes, rows: Sequence[Row], key: tuple[str, str, str], value: str, **style: Any) -> None:
    """Of what, competitor and type: the value against the number of elements."""
    own = [row for row in rows if (row.what, row.competitor, row.dtype) == key and getattr(row, value)]
    if points := sorted((elements(row), getattr(row, value)) for row in own if not isnan(row.value)):
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3.5, **style)


def bandwidth(rows: Sequence[Row], figure: Figure) -> str:
    """Bandwidth of each kernel against the number of elements, beside that of a copy of as many bytes."""
    copy = {"label": "copy of as many bytes", "linestyle": ":", "alpha": 0.6}
    figure.set_size_inches(13, 4.6)
    for axes, dtype in zip(figure.subplots(1, len(TYPES), sharey=True), TYPES, strict=True):
        for what, name in PASSES.items():
            for competitor, style in (("fused", {"label": name}), ("copy", copy)):
                curve(axes, rows, (what, competitor, dtype), "gb_per_s", color=COLORS[what], **style)
        axes.set(title=dtype, ylim=(0, None), ylabel="GB/s, read and written")
    return "bandwidth by size"


def speed_up(rows: Sequence[Row], figure: Figure) -> str:
    """How many times longer forward + backward take without pyvae, against the number of elements."""
    cases = [("loss", "float32"), ("loss", "bfloat16"), ("sample_kl", "float32")]
    figure.set_size_inches(15, 8)
    for column, (what, dtype) in zip(figure.subplots(2, len(cases), sharey=True).T, cases, strict=True):
        for axes, names, how in zip(column, (PLAIN, IN_GRAPH), ("", ", all in CUDA graphs"), strict=True):
            for competitor, name in names.items():
                curve(axes, rows, (what, competitor, dtype), "ratio_to_fused", label=name, color=COLORS[name])
            axes.set(title=f"{'loss' if what == 'loss' else 'sampler with KL'}, {dtype}{how}")
            axes.axhline(1, color="black", linewidth=0.8)
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter("{x:g}×")
    return "time relative to pyvae by size, forward + backward (above 1×, pyvae is faster)"


def errors_over_theta(rows: Sequence[Row], path: Path) -> Path:
    """Relative errors of the negative binomial's value and derivative for each count, on pages light and dark."""
    names = {"eager": ("with torch.lgamma, as usual", "#e6653c"), "fused": ("pyvae", "#2f8fd8")}
    counts = sorted({row.count for row in rows}, reverse=True)
    figure = Figure((10, 6.4), dpi=150, layout="constrained")
    panels = figure.subplots(len(counts), len(COUNT_ERRORS), sharex=True, sharey=True, squeeze=False)
    for line, count in zip(panels, counts, strict=True):
        for axes, (what, title) in zip(line, COUNT_ERRORS.items(), strict=True):
            for competitor, (label, color) in names.items():
                own = [row for row in rows if (row.what, row.count, row.competitor) == (what, count, competitor)]
                points = sorted((row.theta, row.value) for row in own)
                axes.plot(*zip(*points, strict=True), color=color, label=label)
            axes.set(title=f"{title}, x = {count}", xscale="log", yscale="log")
            axes.grid(alpha=0.25)
    panels[0, 0].legend(framealpha=0, labelcolor=INK)
    figure.supxlabel("θ", color=INK)
    figure.supylabel("relative error in float32", color=INK)
    for axes in figure.axes:
        axes.title.set_color(INK)
        axes.tick_params(which="both", colors=INK)
        axes.spines[:].set_color(INK)
        axes.patch.set_alpha(0)
    figure.savefig(path, transparent=True)
    return path


def pictures(path: Path, folder: Path) -> list[Path]:
    """Writes those that its rows are for, with one legend for all panels; their paths."""
    rows, where = read(path)
    folder.mkdir(parents=True, exist_ok=True)
    if rows[0].theta:
        return [errors_over_theta(rows, folder / f"{path.stem}.png")]
    if where.device != "cuda":
        raise SystemExit(f"{path}: measured on a {where.device}, and the pictures are a GPU's")
    written = []
    for name, draw in (("bandwidth", bandwidth), ("speed-up", speed_up)):
        figure = Figure(dpi=150, layout="constrained")
        figure.suptitle(f"{where.processor}: {draw(rows, figure)}")
        handles = {}
        for axes in figure.axes:
            axes.set_xscale("log", base=2)
            axes.set_xlabel("elements")
            axes.grid(alpha=0.25)
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside right center")
        written.append(folder / f"{path.stem}-{name}.png")
        figure.savefig(written[-1])
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the pictures (that of the CSV)")
    options = parser.parse_args()
    print(*pictures(options.csv, options.out or options.csv.parent), sep="\n")
