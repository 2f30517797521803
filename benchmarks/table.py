"""The CSV as Markdown: speed by shape, and every target with what was measured.

`python -m benchmarks.table` puts it between the markers in README.md; `--check` only tells whether it is in step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .rows import ROOT, Environment, Row, read

RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
START, END = "<!-- benchmark:start -->", "<!-- benchmark:end -->"

NAMES = {
    "loss": "`elbo_loss(recon, x, mu, logvar)`",
    "loss_given_kl": "`elbo_loss(recon, x, kl=kl)`",
    "sample": "`reparameterize`",
    "sample_kl": "`reparameterize_kl`",
}
# Of `recon` as logits, but for the second.
COMPETITORS = {"eager": "eager", "eager_probabilities": "eager probabilities", "compiled": "torch.compile"}


class Result(NamedTuple):
    measured: str
    reached: bool


class Target(NamedTuple):
    what: str
    target: str
    judge: Callable[[Sequence[Row]], Result]


def pick(rows: Sequence[Row], what: str, competitor: str, stage: str | None = None) -> list[Row]:
    """The matching rows; LookupError if the run has none."""
    found = [row for row in rows if (row.what, row.competitor, row.stage) == (what, competitor, stage)]
    if not found:
        raise LookupError(what)
    return found


def ratio(row: Row) -> float:
    if row.ratio_to_fused is None:
        raise LookupError(row.what)
    return row.ratio_to_fused


def speed_up(what: str, competitor: str, least: float) -> Target:
    """At every shape: judged by the smallest ratio."""

    def judge(rows: Sequence[Row]) -> Result:
        found = pick(rows, what, competitor, "both")
        worst = min(found, key=ratio)
        most = max(map(ratio, found))
        return Result(f"{ratio(worst):.1f}× (at {worst.shape}) to {most:.1f}×", ratio(worst) >= least)

    return Target(f"{NAMES[what]} forward + backward, against {COMPETITORS[competitor]}", f"≥ {least:g}×", judge)


def at_most(label: str, target: str, what: str, limit: float, form: str) -> Target:
    """Judged by the largest value of pyvae's own rows, the probabilities' too where there are any."""

    def judge(rows: Sequence[Row]) -> Result:
        own = [row for row in rows if row.what == what and row.competitor.startswith("fused")]
        worst = max(row.value for row in own or pick(rows, what, "fused"))
        return Result(form.format(worst), worst <= limit)

    return Target(label, target, judge)


def copy_share(label: str, what: str) -> Target:
    def judge(rows: Sequence[Row]) -> Result:
        (fused,), (copy,) = pick(rows, what, "fused", "both"), pick(rows, what, "copy", "both")
        share = copy.value / fused.value
        return Result(f"{share:.0%} ({fused.gb_per_s or 0:.1f} of {copy.gb_per_s or 0:.1f} GB/s)", share >= 0.8)

    return Target(f"one large array: objective forward with gradient{label}", "≥ 80 % of a three-stream copy", judge)


def call_overhead(call: str, competitor: str) -> Target:
    def judge(rows: Sequence[Row]) -> Result:
        (fused,), (bce,) = pick(rows, "overhead", competitor, "both"), pick(rows, "overhead", "bce_alone", "both")
        return Result(f"{fused.value:.1f} against {bce.value:.1f} µs", fused.value <= bce.value)

    return Target(f"{call} forward + backward, 1×64", "≤ `binary_cross_entropy_with_logits` alone", judge)


TARGETS = (
    at_most("loss, any float32 size, against float64", "relative error ≤ 1e-6", "loss_error", 1e-6, "{:.1e}"),
    at_most("gradient against float64, tails included", "≤ 4 ulp", "gradient_error", 4, "{:.2f} ulp"),
    at_most("normal draw against exact Box–Muller", "≤ 4 ulp", "normal_error", 4, "{:.2f} ulp"),
    speed_up("loss", "eager", 5),
    speed_up("loss", "eager_probabilities", 8),
    speed_up("loss", "compiled", 3),
    speed_up("sample", "eager", 3),
    speed_up("sample", "compiled", 3),
    speed_up("sample_kl", "eager", 3),
    speed_up("sample_kl", "compiled", 3),
    copy_share("", "bandwidth"),
    copy_share(", the copy's output in huge pages as well", "bandwidth_huge_pages"),
    call_overhead("`elbo_loss(recon, x)`", "fused_reconstruction"),
    call_overhead(NAMES["loss"], "fused"),
    # A tenth of a buffer for what the peak of a process's memory is rounded to.
    at_most("memory beyond inputs, `elbo_loss` with its gradient", "1 × recon", "loss_memory", 1.1, "{:.2f} × recon"),
    at_most("memory beyond inputs, `reparameterize_kl`", "1 × z: no noise", "sample_kl_memory", 1.1, "{:.2f} × z"),
    at_most("`import pyvae` beyond torch", "≤ 50 ms", "import", 50, "{:.0f} ms"),
)


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def targets(rows: Sequence[Row]) -> str:
    body = []
    for what, target, judge in TARGETS:
        try:
            measured, reached = judge(rows)
            body.append([what, target, measured, "yes" if reached else "**no**"])
        except LookupError:
            body.append([what, target, "not measured", "**no**"])
    return markdown(["what", "target", "measured", "reached"], body)


def speeds(rows: Sequence[Row]) -> str:
    """Forward + backward: pyvae's time, and how many times longer the others take."""
    body = []
    for what, name in NAMES.items():
        both = [row for row in rows if row.what == what and row.stage == "both"]
        for shape in dict.fromkeys(row.shape for row in both):
            at = {row.competitor: row for row in both if row.shape == shape}
            others = [at.get(competitor) for competitor in COMPETITORS]
            times = [f"{row.value:,.0f} µs, {ratio(row):.1f}×" if row else "" for row in others]
            body.append([name, shape, f"{at['fused'].value:,.0f} µs", f"{at['fused'].gb_per_s or 0:.1f}", *times])
    return markdown(["", "B×D, latent L", "pyvae", "GB/s", *COMPETITORS.values()], body)


def render(rows: Sequence[Row], where: Environment) -> str:
    threads = max((row.threads or 1 for row in rows), default=1)
    return (
        f"{where.processor}, {threads} threads, {where.instruction_set}, torch {where.torch}, pyvae {where.pyvae} "
        f"({where.commit}). Forward + backward, medians; × is the time relative to pyvae on the same inputs.\n\n"
        f"{speeds(rows)}\n\n{targets(rows)}"
    )


def insert(text: str, rendered: str) -> str:
    """`text` with what stands between its markers replaced."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"expected {START} and, after it, {END}")
    return f"{before}{START}\n{rendered}\n{END}{after}"


def main() -> None:
    text = README.read_text(encoding="utf-8")
    current = insert(text, render(*read(RESULTS / "cpu.csv")))
    if "--check" not in sys.argv[1:]:
        README.write_text(current, encoding="utf-8")
    elif current != text:
        sys.exit("README.md's benchmark table is not that of benchmarks/results: run `python -m benchmarks.table`")


if __name__ == "__main__":
    main()
