"""Results as Markdown: times beside one another, memory, what a call costs, and errors.

`python -m benchmarks.report` puts them between the markers in benchmarks/README.md and, of scvi-tools' training,
in README.md; `--check` only tells whether both are in step.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from math import inf, isnan, log10
from pathlib import Path

from . import COUNT_ERRORS_CSV, LOGIT_ERRORS_CSV, MIXTURES_CSV, RESULTS, ROOT, SCVI_CSV, Environment, Row, names, read
from .cases import ONE_LARGE
from .timing import LEFT_OUT

LOG_PROBABILITIES = "log-probabilities, or their lgamma"  # a note of scvi-tools' rows
README, WHOLE = ROOT / "README.md", ROOT / "benchmarks" / "README.md"
CPU, GPU = "benchmark", "benchmark-gpu"  # names of the markers
OF_COUNTS, ERRORS_OF_COUNTS = "benchmark-counts", "benchmark-counts-errors"
OF_PARAMETERS, OF_SCVI, OF_DENSITIES = "benchmark-parameters", "benchmark-scvi", "benchmark-mixtures"
ERRORS_OF_LOGITS = "benchmark-logits-errors"


LOGIT_RANGES = {  # as in Row: positive on the target's side
    "below 1": (-1, 1),
    "right, 1 to 10": (1, 10),
    "right, above 10": (10, inf),
    "wrong, 1 to 10": (-10, -1),
    "wrong, above 10": (-inf, -10),
}
FACTS = (  # what else was measured: rows' names and stages, and how the largest value is shown
    ("loss_memory", None, "{:.2f} × recon", "memory beyond inputs: `elbo_loss` with its gradient"),
    ("nb_memory", "both", "{:.2f} × scores", "the same: `NegativeBinomial`"),
    ("zinb_memory", "both", "{:.2f} × scores", "the same: `ZeroInflatedNegativeBinomial`, with its logits' gradient"),
    ("sample_kl_memory", None, "{:.2f} × z", "the same: `reparameterize_kl` forward"),
    ("sample_kl_memory", "both", "{:.2f} × z", "the same: `reparameterize_kl` forward and backward, two gradients"),
    ("overhead", "both", "{:.0f} µs", "`elbo_loss(recon, x, mu, logvar)` of 1×64, forward and backward"),
    ("step_bayes", "both", "{:.0f} µs", "a step of Bayes by backprop, every weight sampled, without the optimizer"),
)


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body))


def insert(text: str, name: str, rendered: str) -> str:
    """`text` with what stands between the markers of `name` replaced."""
    first, last = f"<!-- {name}:start -->\n", f"\n<!-- {name}:end -->"
    new, count = re.subn(f"({first}).*?({last})", lambda found: found[1] + rendered + found[2], text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"expected {first.strip()} and, after it, {last.strip()}")
    return new


def facts(rows: Sequence[Row]) -> str:
    """The largest of each, where it was measured; a failure is told below the tables."""
    body = []
    for what, stage, form, name in FACTS:
        values: dict[str, float] = {}
        for row in rows:
            if (row.what, row.stage) == (what, stage) and not isnan(row.value):
                values[row.competitor] = max(row.value, values.get(row.competitor, 0.0))
        if "fused" in values:
            body.append([name, *(form.format(values[n]) if n in values else "" for n in ("fused", "eager"))])
    return markdown(["what", "pyvae", "eager"], body) if body else ""


def time(row: Row | None) -> str:
    if row is None or isnan(row.value):
        return "" if row is None else "left out" if row.note == LEFT_OUT else "failed"
    return f"{row.value:,.{1 if row.value < 10 else 0}f} µs"


def relative(row: Row | None) -> str:
    ratio = row.ratio_to_fused if row else None
    return f"{time(row)}, {ratio:.{1 if ratio >= 1 else 2}f}×" if ratio else time(row)


def times(rows: Sequence[Row], heading: str, called: Mapping[str, str], competitors: Mapping[str, str]) -> str:
    """pyvae at every size and type, and beside it whichever of the competitors was measured."""
    rows = [row for row in rows if row.what in called]
    own = [row for row in rows if row.competitor == ("fused_graph" if competitors is names.IN_GRAPH else "fused")]
    own.sort(
        key=lambda row: (list(called).index(row.what), not names.is_float32(row), row.dtype or "", names.elements(row))
    )
    at = {(row.what, row.shape, row.dtype, row.competitor): row for row in rows}
    columns: dict[str, Callable[[Row], str]]
    columns = {heading: lambda row: called[row.what], "B×D, latent L": lambda row: row.shape}
    if not all(map(names.is_float32, own)):
        columns["types"] = lambda row: row.dtype or "float32"
    columns["pyvae"] = time
    if any(row.gb_per_s for row in own):
        columns["GB/s"] = lambda row: f"{row.gb_per_s or 0:,.1f}"
    for name in competitors:
        if any(row.competitor == name for row in rows):
            columns[competitors[name]] = lambda row, name=name: relative(at.get((row.what, row.shape, row.dtype, name)))
    return markdown(list(columns), [[cell(row) for cell in columns.values()] for row in own]) if own else ""


def failures(rows: Sequence[Row]) -> str:
    """Every row without a value that was not merely left out, and why."""
    failed = [row for row in rows if isnan(row.value) and row.note != LEFT_OUT]
    cases = [filter(None, (row.what, row.batch and row.shape, row.dtype, row.competitor)) for row in failed]
    lines = [f"- {' '.join(case)}: {row.note}" for case, row in zip(cases, failed, strict=True)]
    return "\n".join(["Failed:", "", *lines]) if lines else ""


def render(rows: Sequence[Row], where: Environment) -> str:
    """What there are rows for."""
    in_parts = {row.what for row in rows if row.stage == "both"}
    rows = [row for row in rows if row.stage in (None, "both") or row.what not in in_parts]
    run = [where.processor, where.instruction_set, f"torch {where.torch}", f"pyvae {where.pyvae} ({where.commit})"]
    if where.device == "cpu":
        run[1:1] = [f"{max((row.threads or 1 for row in rows), default=1)} threads"]
    else:
        run[2:2] = [f"driver {where.driver}", f"CUDA {where.cuda}"]
    parts = [
        f"{', '.join(run)}. Forward + backward, medians; × is the time relative to pyvae on the same inputs.",
        times([row for row in rows if names.elements(row) >= ONE_LARGE], "one kernel", names.PASSES, names.PLAIN),
        times(rows, "", names.CALLS, names.PLAIN),
        times(rows, "in CUDA graphs", names.CALLS, names.IN_GRAPH),
        facts(rows),
        failures(rows),
    ]
    return "\n\n".join(filter(None, parts))


def of_counts(rows: Sequence[Row]) -> str:
    """Times of the count likelihoods where they were measured."""
    return times([row for row in rows if row.stage == "both"], "counts, softmax link", names.COUNTS, names.PLAIN)


def of_parameters(rows: Sequence[Row]) -> str:
    """Times of the likelihoods with parameters where they were measured."""
    return times([row for row in rows if row.stage == "both"], "one thread", names.PARAMETERS, names.PLAIN)


def of_scvi(rows: Sequence[Row]) -> str:
    """A step of scvi-tools' own training, with and without the patch, and how much of it the log-probabilities are."""
    at = {(row.what, row.features, row.competitor, row.note): row for row in rows}
    body = []
    for (what, genes, competitor, _), row in at.items():
        if what not in names.SCVI or competitor != "fused":
            continue
        theirs, share = at[what, genes, "eager", None], at[f"{what}_share", genes, "fused", LOG_PROBABILITIES]
        loss = next(other for other in rows if (other.what, other.features) == (f"{what}_loss", genes))
        cells = [names.SCVI[what], f"{genes:,}", time(theirs), f"{time(row)}, **{theirs.ratio_to_fused:.1f}×**"]
        body.append([*cells, f"{share.value:.0%}", f"{loss.value:.0e}"])
    head = [
        "model, batch of 128",
        "genes",
        "scvi-tools",
        "with pyvae",
        "log-probabilities' share of it",
        "loss differs by",
    ]
    return markdown(head, body)


def of_mixtures(rows: Sequence[Row]) -> str:
    """Densities under mixtures, and steps with them; of a row the rows of z, their dimensions, and the components."""
    at = {(row.what, row.batch, row.features, row.latent, row.competitor): row for row in rows}
    body = []
    for (*case, competitor), row in at.items():
        if competitor == "fused":
            what, batch, features, components = case
            cells = [names.MIXTURES[what], f"{batch}×{features}", f"{components}", time(row)]
            body.append([*cells, *(relative(at.get((*case, name))) for name in names.OF_MIXTURES)])
    threads = max((row.threads or 1 for row in rows), default=1)
    head = [f"{threads} thread{'s' * (threads > 1)}", "z", "components", "pyvae", *names.OF_MIXTURES.values()]
    return markdown(head, body)


def of_count_errors(rows: Sequence[Row]) -> str:
    """Errors of the negative binomial at every other power of ten of theta, for counts above 0."""
    at = {(row.theta, row.what, row.competitor): row.value for row in rows if row.count}
    columns = [(what, competitor) for what in names.COUNT_ERRORS for competitor in ("eager", "fused")]
    labels = {"eager": "with torch.lgamma", "fused": "pyvae"}
    head = ["θ", *(f"{names.COUNT_ERRORS[what]}, {labels[competitor]}" for what, competitor in columns)]
    thetas = [theta for theta in sorted({theta for theta, _, _ in at}) if round(log10(theta), 3) % 2 == 0]
    body = [[f"{theta:.0e}", *(f"{at[theta, what, name]:.0e}" for what, name in columns)] for theta in thetas]
    return markdown(head, body)


def of_logit_errors(rows: Sequence[Row]) -> str:
    """Largest errors of the Bernoulli losses, value and derivative, over ranges of the logit."""

    def largest(competitor: str, low: float, high: float) -> str:
        own = [row for row in rows if row.competitor == competitor and row.logit and low < row.logit < high]
        return ", ".join(f"{max(row.value for row in own if row.what == what):.0e}" for what in names.LOGIT_ERRORS)

    body = [
        [name, *(largest(competitor, *ends) for ends in LOGIT_RANGES.values())]
        for competitor, name in names.LOGIT_COMPETITORS.items()
    ]
    return markdown(["logit", *LOGIT_RANGES], body)


def gpu_results(folder: Path) -> str:
    """The tables of all GPUs that `folder` has a CSV of."""
    found = [read(path) for path in sorted(folder.glob("*.csv")) if not path.stem.endswith("-quick")]
    rendered = [render(rows, where) for rows, where in found if where.device == "cuda"]
    return "\n\n".join(rendered) or "GPU: not measured yet. The CUDA kernels have not run on a GPU so far."


def main() -> None:
    on_cpu, where = read(RESULTS / "cpu.csv")
    errors, _ = read(RESULTS / COUNT_ERRORS_CSV)
    logit_errors, _ = read(RESULTS / LOGIT_ERRORS_CSV)
    (scvi, _), (mixtures, _) = read(RESULTS / SCVI_CSV), read(RESULTS / MIXTURES_CSV)
    pages = {
        README: {OF_SCVI: of_scvi(scvi)},
        WHOLE: {
            CPU: render(on_cpu, where),
            OF_COUNTS: of_counts(on_cpu),
            OF_PARAMETERS: of_parameters(on_cpu),
            OF_SCVI: of_scvi(scvi),
            OF_DENSITIES: of_mixtures(mixtures),
            ERRORS_OF_COUNTS: of_count_errors(errors),
            ERRORS_OF_LOGITS: of_logit_errors(logit_errors),
            GPU: gpu_results(RESULTS),
        },
    }
    for page, tables in pages.items():
        current = text = page.read_text(encoding="utf-8")
        for name, table in tables.items():
            current = insert(current, name, table)
        if "--check" not in sys.argv[1:]:
            page.write_text(current, encoding="utf-8")
        elif current != text:
            sys.exit(f"the tables in {page} are not those of benchmarks/results: run `python -m benchmarks.report`")


if __name__ == "__main__":
    main()
