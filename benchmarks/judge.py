"""Targets: what was measured, and whether it is enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan
from typing import NamedTuple

from .rows import Row

ONE_LARGE = 2**27  # elements, from which on a GPU's bandwidth is judged

NAMES = {
    "loss": "`elbo_loss(recon, x, mu, logvar)`",
    "loss_given_kl": "`elbo_loss(recon, x, kl=kl)`",
    "sample": "`reparameterize`",
    "sample_kl": "`reparameterize_kl`",
}


class Result(NamedTuple):
    measured: str
    reached: bool


class Target(NamedTuple):
    what: str
    target: str
    judge: Callable[[Sequence[Row]], Result]


def pick(rows: Sequence[Row], what: str, competitor: str, stage: str | None = None) -> list[Row]:
    """The matching rows that have a value; LookupError if the run has none."""
    found = [row for row in rows if (row.what, row.competitor, row.stage) == (what, competitor, stage)]
    found = [row for row in found if not isnan(row.value)]
    if not found:
        raise LookupError(what)
    return found


def ratio(row: Row) -> float:
    if row.ratio_to_fused is None:
        raise LookupError(row.what)
    return row.ratio_to_fused


def at_most(label: str, target: str, what: str, limit: float, form: str, stage: str | None = None) -> Target:
    """Judged by the largest value of pyvae's own rows, the probabilities' too where there are any."""

    def judge(rows: Sequence[Row]) -> Result:
        found = [row for row in rows if row.what == what and row.stage == stage]
        own = [row.value for row in found if row.competitor.startswith("fused")]
        if not own or any(map(isnan, own)):
            raise LookupError(what)
        worst = max(own)
        return Result(form.format(worst), worst <= limit)

    return Target(label, target, judge)


def speed_up(
    what: str, competitor: str, label: str, least: float, where: Callable[[Row], bool] = lambda row: True
) -> Target:
    """Judged by the smallest ratio of the shapes that `where` names, all of them if it is not given."""

    def judge(rows: Sequence[Row]) -> Result:
        found = [row for row in pick(rows, what, competitor, "both") if where(row)]
        if not found:
            raise LookupError(what)
        worst, most = min(found, key=ratio), max(map(ratio, found))
        to_most = f" to {most:.1f}×" if len(found) > 1 else ""
        return Result(f"{ratio(worst):.1f}× (at {worst.shape}){to_most}", ratio(worst) >= least)

    return Target(f"{NAMES[what]} forward + backward, {label}", f"≥ {least:g}×", judge)


def call_overhead(call: str, competitor: str) -> Target:
    def judge(rows: Sequence[Row]) -> Result:
        (fused,), (bce,) = pick(rows, "overhead", competitor, "both"), pick(rows, "overhead", "bce_alone", "both")
        return Result(f"{fused.value:.1f} against {bce.value:.1f} µs", fused.value <= bce.value)

    return Target(f"{call} forward + backward, 1×64", "≤ `binary_cross_entropy_with_logits` alone", judge)


# Targets of every device.
ERRORS = (
    at_most("loss, any float32 size, against float64", "relative error ≤ 1e-6", "loss_error", 1e-6, "{:.1e}"),
    at_most("gradient against float64, tails included", "≤ 4 ulp", "gradient_error", 4, "{:.2f} ulp"),
    at_most("normal draw against exact Box–Muller", "≤ 4 ulp", "normal_error", 4, "{:.2f} ulp"),
)
OVERHEAD = (
    call_overhead("`elbo_loss(recon, x)`", "fused_reconstruction"),
    call_overhead(NAMES["loss"], "fused"),
)
# A tenth of a buffer for what the peak of a process's memory is rounded to.
MEMORY = (
    at_most("memory beyond inputs, `elbo_loss` with its gradient", "1 × recon", "loss_memory", 1.1, "{:.2f} × recon"),
    at_most("memory beyond inputs, `reparameterize_kl`", "1 × z: no noise", "sample_kl_memory", 1.1, "{:.2f} × z"),
)


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def judged(targets: Sequence[Target], rows: Sequence[Row]) -> str:
    body = []
    for what, target, judge in targets:
        try:
            measured, reached = judge(rows)
            body.append([what, target, measured, "yes" if reached else "**no**"])
        except LookupError:
            body.append([what, target, "not measured", "**no**"])
    return markdown(["what", "target", "measured", "reached"], body)
