"""A CSV as pictures, which are written beside it: `python -m benchmarks.plots benchmarks/results/cpu.csv`.

Of a CPU or a GPU (h200.csv, say) the times relative to pyvae and the memory held; of
counts_accuracy.csv and logits_accuracy.csv the errors. Needs matplotlib, but no GPU. All are transparent, and are read
on a white page and on a dark one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator

from . import Environment, Row, names, read

Draw = Callable[[Sequence[Row], Environment, Figure], None]

# ---- how they look: on a page that may be white or nearly black, and to eyes that may not tell red from green --------

INK = "#7f7f7f"  # as far from white as from black
STYLE = {  # matplotlib's own settings
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.markersize": 6.0,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "savefig.transparent": True,
    "savefig.dpi": 150,
}

# By Okabe and Ito, "Color universal design" (2008), but for a lighter blue: each is in contrast with either page.
COLORS = {"fused": "#2f8fd8", "eager": "#d55e00", "eager_probabilities": "#cc79a7", "compiled": "#009e73"}
MARKERS = {"fused": "o", "eager": "s", "eager_probabilities": "D", "compiled": "^"}


def look(competitor: str) -> dict[str, Any]:
    """What a line of this competitor has in every picture."""
    return {"color": COLORS[competitor], "marker": MARKERS[competitor]}


# ---- times relative to pyvae over the number of elements, and what a call holds in memory ----------------------------

PANELS = {  # what was timed: the title, and what has the elements
    "loss": ("elbo_loss(recon, x, mu, logvar)", "recon"),
    "sample_kl": ("reparameterize_kl(mu, logvar)", "z"),
    "nb": ("NegativeBinomial", "recon"),
    "zinb": ("ZeroInflatedNegativeBinomial", "recon"),
}
RIVALS = ("eager", "eager_probabilities", "compiled")
BARS = {  # peaks of memory, from top to bottom
    ("loss_memory", None): 'elbo_loss,\n"bernoulli_logits"',
    ("nb_memory", "both"): "elbo_loss,\nNegativeBinomial",
    ("zinb_memory", "both"): "elbo_loss, ZeroInflated-\nNegativeBinomial",
    ("sample_kl_memory", "both"): "reparameterize_kl",
    ("sample_kl_memory", None): "reparameterize_kl,\nforward alone",
}


def in_two_digits(number: float, position: int) -> str:
    """With a k or an M behind them."""
    return EngFormatter(sep=" ").format_eng(float(f"{number:.2g}"))


def speed_up(rows: Sequence[Row], where: Environment, figure: Figure) -> None:
    """How many times longer forward + backward take without pyvae, against the number of elements."""
    rows = [row for row in rows if row.stage == "both" and row.ratio_to_fused and names.is_float32(row)]
    panels = [what for what in PANELS if any(row.what == what for row in rows)]
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure.set_size_inches(9, 1.1 + 2.7 * lines)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False).flat
    handles = {}
    for axes, what in zip(grid, panels, strict=False):
        title, tensor = PANELS[what]
        for competitor in RIVALS:
            own = [row for row in rows if (row.what, row.competitor) == (what, competitor)]
            if points := sorted((names.elements(row), row.ratio_to_fused) for row in own):
                axes.plot(*zip(*points, strict=True), label=names.COMPETITORS[competitor], **look(competitor))
        axes.axhline(1, color=COLORS["fused"], linewidth=2, label="pyvae")
        axes.set(title=title, xlabel=f"elements of {tensor}", xscale="log", xmargin=0.08)
        axes.set_xticks(
            sorted({names.elements(row) for row in rows if row.what == what})
        )  # as decades would be too few
        axes.xaxis.set_major_formatter(in_two_digits)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}×")
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    for axes in grid:
        axes.set_axis_off()
    threads = f"{max(row.threads or 1 for row in rows)} threads" if where.device == "cpu" else "a GPU"
    figure.suptitle(f"forward + backward: {where.processor}, {threads}, torch {where.torch}")
    figure.supylabel("time relative to pyvae")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))


def memory(rows: Sequence[Row], where: Environment, figure: Figure) -> None:
    """Peaks beyond the inputs, pyvae's beside eager's."""
    peaks = {(row.what, row.stage, row.competitor): row.value for row in rows if row.what.endswith("_memory")}
    bars = {key: label for key, label in BARS.items() if (*key, "fused") in peaks}
    figure.set_size_inches(9, 1.2 + 0.72 * len(bars))
    axes = figure.subplots()
    for competitor, name, shift in (("fused", "pyvae", -0.2), ("eager", "eager", 0.2)):
        places = [place + shift for place in range(len(bars))]
        widths = [peaks[(*key, competitor)] for key in bars]
        drawn = axes.barh(places, widths, 0.36, color=COLORS[competitor], label=name)
        axes.bar_label(drawn, fmt="{:.1f}", padding=4)
    axes.set_yticks(range(len(bars)), bars.values())
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xmargin=0.08, xlabel="peak of forward + backward beyond the inputs, in sizes of the largest input")
    figure.legend(loc="outside lower center", ncols=2)


# ---- of errors -------------------------------------------------------------------------------------------------------

FLOOR = 1e-9  # a logarithm has no place for an error of 0
WIDTHS = {"eager_probabilities": 4.2, "eager": 2.8, "fused": 1.4}  # from below to above: where lines meet, all are seen
SIDES = {1: "logit on its target's side", -1: "logit on the other side"}


def over_theta(rows: Sequence[Row], where: Environment, figure: Figure) -> None:
    """Relative errors of the negative binomial's value and derivative, for each count."""
    labels = {"eager": "with torch.lgamma, as usual", "fused": "pyvae"}
    counts = sorted({row.count for row in rows if row.count is not None}, reverse=True)
    figure.set_size_inches(10, 6.4)
    panels = figure.subplots(len(counts), len(names.COUNT_ERRORS), sharex=True, sharey=True, squeeze=False)
    for line, count in zip(panels, counts, strict=True):
        for axes, (what, title) in zip(line, names.COUNT_ERRORS.items(), strict=True):
            for competitor, label in labels.items():
                own = [row for row in rows if (row.what, row.count, row.competitor) == (what, count, competitor)]
                points = sorted((row.theta, row.value) for row in own)
                axes.plot(*zip(*points, strict=True), color=COLORS[competitor], label=label)
            axes.set(title=f"{title}, x = {count}", xscale="log", yscale="log")
    panels[0, 0].legend()
    figure.supxlabel("θ")
    figure.supylabel("relative error in float32")


def over_logit(rows: Sequence[Row], where: Environment, figure: Figure) -> None:
    """Relative errors of the Bernoulli losses' value and derivative, with the logit on its target's side and not.

    Of a sigmoid pyvae's are torch's, and have no line of their own.
    """
    figure.set_size_inches(10, 6.8)
    panels = figure.subplots(len(names.LOGIT_ERRORS), len(SIDES), sharex=True, sharey=True)
    for line, (what, title) in zip(panels, names.LOGIT_ERRORS.items(), strict=True):
        for axes, (side, name) in zip(line, SIDES.items(), strict=True):
            for competitor, width in WIDTHS.items():
                own = [row for row in rows if (row.what, row.competitor) == (what, competitor)]
                points = sorted(
                    (side * row.logit, max(row.value, FLOOR)) for row in own if row.logit and side * row.logit > 0
                )
                axes.plot(
                    *zip(*points, strict=True),
                    color=COLORS[competitor],
                    linewidth=width,
                    label=names.LOGIT_COMPETITORS[competitor],
                )
            axes.set(title=f"{title}, {name}", xscale="log", yscale="log")
    for axes in panels[-1]:
        axes.set_xlabel("magnitude of the logit")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(WIDTHS))
    figure.supylabel(f"relative error in float32 ({FLOOR:g} where it is less)")


# ---- all -------------------------------------------------------------------------------------------------------------


def drawings(rows: Sequence[Row], where: Environment) -> dict[str, Draw]:
    """Those that the rows are for, by what is put behind the CSV's name."""
    if any(row.theta for row in rows):
        return {"": over_theta}
    if any(row.logit for row in rows):
        return {"": over_logit}
    return {"-speed-up": speed_up, "-memory": memory}


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
