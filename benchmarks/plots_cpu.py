"""A CPU's pictures: times relative to pyvae over the number of elements, and what a call holds in memory."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator

from . import Environment, Row
from .style import COLORS, look
from .targets import COMPETITORS, elements

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
    rows = [row for row in rows if row.stage == "both" and row.ratio_to_fused]
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
            if points := sorted((elements(row), row.ratio_to_fused) for row in own):
                axes.plot(*zip(*points, strict=True), label=COMPETITORS[competitor], **look(competitor))
        axes.axhline(1, color=COLORS["fused"], linewidth=2, label="pyvae")
        axes.set(title=title, xlabel=f"elements of {tensor}", xscale="log", xmargin=0.08)
        axes.set_xticks(sorted({elements(row) for row in rows if row.what == what}))  # as decades would be too few
        axes.xaxis.set_major_formatter(in_two_digits)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}×")
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    for axes in grid:
        axes.set_axis_off()
    threads = max(row.threads or 1 for row in rows)
    figure.suptitle(f"forward + backward on the CPU: {where.processor}, {threads} threads, torch {where.torch}")
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
