"""A GPU's pictures: bandwidth of the kernels, and times relative to pyvae, over the number of elements."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import Environment, Row
from .style import INK
from .targets import IN_GRAPH, PASSES, PLAIN, elements

TYPES = ("float32", "bfloat16")
COLORS = {name: f"C{index}" for index, name in enumerate(dict.fromkeys([*PASSES, *PLAIN.values(), *IN_GRAPH.values()]))}


def curve(axes: Axes, rows: Sequence[Row], key: tuple[str, str, str], value: str, **style: Any) -> None:
    """Of what, competitor and type: the value against the number of elements."""
    own = [row for row in rows if (row.what, row.competitor, row.dtype) == key and getattr(row, value)]
    if points := sorted((elements(row), getattr(row, value)) for row in own if not isnan(row.value)):
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3.5, **style)


def finish(figure: Figure, title: str) -> None:
    """One legend for all panels."""
    figure.suptitle(title)
    handles = {}
    for axes in figure.axes:
        axes.set_xscale("log", base=2)
        axes.set_xlabel("elements")
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right center")


def bandwidth(rows: Sequence[Row], where: Environment, figure: Figure) -> None:
    """Bandwidth of each kernel against the number of elements, beside that of a copy of as many bytes."""
    copy = {"label": "copy of as many bytes", "linestyle": ":", "alpha": 0.6}
    figure.set_size_inches(13, 4.6)
    for axes, dtype in zip(figure.subplots(1, len(TYPES), sharey=True), TYPES, strict=True):
        for what, name in PASSES.items():
            for competitor, style in (("fused", {"label": name}), ("copy", copy)):
                curve(axes, rows, (what, competitor, dtype), "gb_per_s", color=COLORS[what], **style)
        axes.set(title=dtype, ylim=(0, None), ylabel="GB/s, read and written")
    finish(figure, f"{where.processor}: bandwidth by size")


def speed_up(rows: Sequence[Row], where: Environment, figure: Figure) -> None:
    """How many times longer forward + backward take without pyvae, against the number of elements."""
    cases = [("loss", "float32"), ("loss", "bfloat16"), ("sample_kl", "float32")]
    figure.set_size_inches(15, 8)
    for column, (what, dtype) in zip(figure.subplots(2, len(cases), sharey=True).T, cases, strict=True):
        for axes, names, how in zip(column, (PLAIN, IN_GRAPH), ("", ", all in CUDA graphs"), strict=True):
            for competitor, name in names.items():
                curve(axes, rows, (what, competitor, dtype), "ratio_to_fused", label=name, color=COLORS[name])
            axes.set(title=f"{'loss' if what == 'loss' else 'sampler with KL'}, {dtype}{how}")
            axes.axhline(1, color=INK, linewidth=0.8)
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter("{x:g}×")
    about = "time relative to pyvae by size, forward + backward (above 1×, pyvae is faster)"
    finish(figure, f"{where.processor}: {about}")
