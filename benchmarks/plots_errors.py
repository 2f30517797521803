"""Pictures of errors: of the negative binomial over theta, and of the Bernoulli losses over the logit."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from . import Environment, Row
from .style import COLORS
from .targets import COUNT_ERRORS, LOGIT_COMPETITORS, LOGIT_ERRORS

FLOOR = 1e-9  # a logarithm has no place for an error of 0
WIDTHS = {"eager_probabilities": 4.2, "eager": 2.8, "fused": 1.4}  # from below to above: where lines meet, all are seen
SIDES = {1: "logit on its target's side", -1: "logit on the other side"}


def over_theta(rows: Sequence[Row], where: Environment, figure: Figure) -> None:
    """Relative errors of the negative binomial's value and derivative, for each count."""
    names = {"eager": "with torch.lgamma, as usual", "fused": "pyvae"}
    counts = sorted({row.count for row in rows if row.count is not None}, reverse=True)
    figure.set_size_inches(10, 6.4)
    panels = figure.subplots(len(counts), len(COUNT_ERRORS), sharex=True, sharey=True, squeeze=False)
    for line, count in zip(panels, counts, strict=True):
        for axes, (what, title) in zip(line, COUNT_ERRORS.items(), strict=True):
            for competitor, label in names.items():
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
    panels = figure.subplots(len(LOGIT_ERRORS), len(SIDES), sharex=True, sharey=True)
    for line, (what, title) in zip(panels, LOGIT_ERRORS.items(), strict=True):
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
                    label=LOGIT_COMPETITORS[competitor],
                )
            axes.set(title=f"{title}, {name}", xscale="log", yscale="log")
    for axes in panels[-1]:
        axes.set_xlabel("magnitude of the logit")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(WIDTHS))
    figure.supylabel(f"relative error in float32 ({FLOOR:g} where it is less)")
