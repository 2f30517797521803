"""The CPU's CSV as Markdown: speed by shape, and every target with what was measured.

`python -m benchmarks.table` puts it, and what there is of GPUs, between the markers in README.md; `--check` only tells
whether README.md is in step.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from . import gpu_table, judge
from .judge import ERRORS, MEMORY, NAMES, OVERHEAD, Result, Target, at_most, judged, markdown, pick, ratio
from .rows import ROOT, Environment, Row, read

RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
CPU, GPU = "benchmark", "benchmark-gpu"  # names of the markers

# Of `recon` as logits, but for the second.
COMPETITORS = {"eager": "eager", "eager_probabilities": "eager probabilities", "compiled": "torch.compile"}


def speed_up(what: str, competitor: str, least: float) -> Target:
    """At every shape."""
    return judge.speed_up(what, competitor, f"against {COMPETITORS[competitor]}", least)


def copy_share(label: str, what: str) -> Target:
    def result(rows: Sequence[Row]) -> Result:
        (fused,), (copy,) = pick(rows, what, "fused", "both"), pick(rows, what, "copy", "both")
        share = copy.value / fused.value
        return Result(f"{share:.0%} ({fused.gb_per_s or 0:.1f} of {copy.gb_per_s or 0:.1f} GB/s)", share >= 0.8)

    return Target(f"one large array: objective forward with gradient{label}", "≥ 80 % of a three-stream copy", result)


TARGETS = (
    *ERRORS,
    speed_up("loss", "eager", 5),
    speed_up("loss", "eager_probabilities", 8),
    speed_up("loss", "compiled", 3),
    speed_up("sample", "eager", 3),
    speed_up("sample", "compiled", 3),
    speed_up("sample_kl", "eager", 3),
    speed_up("sample_kl", "compiled", 3),
    copy_share("", "bandwidth"),
    copy_share(", the copy's output in huge pages as well", "bandwidth_huge_pages"),
    *OVERHEAD,
    *MEMORY,
    at_most("`import pyvae` beyond torch", "≤ 50 ms", "import", 50, "{:.0f} ms"),
)


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
        f"{speeds(rows)}\n\n{judged(TARGETS, rows)}"
    )


def gpu_results(folder: Path) -> str:
    """The tables of all GPUs that `folder` has a CSV of."""
    found = [read(path) for path in sorted(folder.glob("*.csv")) if not path.stem.endswith("-quick")]
    rendered = [gpu_table.render(rows, where) for rows, where in found if where.device == "cuda"]
    return "\n\n".join(rendered) or "GPU: not measured yet. The CUDA kernels have not run on a GPU so far."


def insert(text: str, name: str, rendered: str) -> str:
    """`text` with what stands between the markers of `name` replaced."""
    first, last = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, start, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (start and end):
        raise ValueError(f"expected {first} and, after it, {last}")
    return f"{before}{first}\n{rendered}\n{last}{after}"


def main() -> None:
    text = README.read_text(encoding="utf-8")
    current = insert(text, CPU, render(*read(RESULTS / "cpu.csv")))
    current = insert(current, GPU, gpu_results(RESULTS))
    if "--check" not in sys.argv[1:]:
        README.write_text(current, encoding="utf-8")
    elif current != text:
        sys.exit("README.md's benchmark tables are not those of benchmarks/results: run `python -m benchmarks.table`")


if __name__ == "__main__":
    main()
