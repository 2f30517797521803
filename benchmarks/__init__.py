"""Side-by-side measurements of pyvae: `python -m benchmarks --help`. Here: the rows that come of them, and their CSV.

cases.py        what is compared: the same function of the same inputs, written in several ways
counts.py       its part for single-cell models: inputs, and losses as scvi-tools writes them
bayes.py        its part for Bayes by backprop: inputs, and a step by bayesian-torch's formulas
parameters.py   its part for likelihoods with parameters, on short and long rows
timing.py       the CPU and the GPU: clock, graphs, memory, profiler
turns.py        competitors in turns, within a budget of time

speed.py        speed, bandwidth and call overhead, on either device
untimed.py      errors against float64, memory, launches, and the time of an import
accuracy.py     errors of the negative binomial over theta; and, as a command, those of logits.py as well
logits.py       errors of the Bernoulli losses over the magnitude of the logit
mixtures.py     by itself: densities under mixtures, and steps with them
steps.py        whole training steps on a GPU
scvi_train.py   by itself: scvi-tools' own training with and without the patch

environment.py  where rows are measured
runs.py         what a run measures on each device, and how much of it
targets.py      what rows are called, and the targets that they are judged by
report.py       tables of times and of targets, and those of the README
markdown.py     tables as Markdown, and their places in the README
plots.py        a CSV as pictures, all in one style: those of plots_cpu.py, plots_gpu.py or plots_errors.py
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """A measured value. Empty fields (None) do not apply to the row."""

    what: str
    competitor: str
    value: float  # the median where p20 and p80 are given; nan where the note says why there is none
    unit: str = ""
    stage: str | None = None  # "forward", "backward" or "both"
    batch: int | None = None
    features: int | None = None
    latent: int | None = None
    p20: float | None = None
    p80: float | None = None
    ratio_to_fused: float | None = None
    bytes: int | None = None  # necessary traffic, not what the competitor happens to move
    gb_per_s: float | None = None
    threads: int | None = None
    dtype: str | None = None  # "bfloat16" or, where the target has another, "bfloat16, float32 target"; None: float32
    note: str | None = None
    count: int | None = None  # of an error of the negative binomial, and its theta
    theta: float | None = None
    logit: float | None = None  # of an error of the Bernoulli losses; positive where it is on its target's side

    @property
    def shape(self) -> str:
        """`128x784`, and the latent size where there is one: `128x784 L20`."""
        return f"{self.batch}x{self.features}" + (f" L{self.latent}" if self.latent else "")


@dataclass(frozen=True)
class Environment:
    """Where the rows were measured; repeated in every row, so that a row stands by itself."""

    device: str
    processor: str
    instruction_set: str  # of the kernels in use, or the GPU's architecture; "reference" where there are no kernels
    torch: str
    pyvae: str
    commit: str
    driver: str | None = None  # of the GPU
    cuda: str | None = None  # that torch was built with


def write(path: Path, rows: Iterable[Row], where: Environment) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        names = [field.name for field in (*fields(Row), *fields(Environment))]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            values = {**asdict(row), **asdict(where)}
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()})


def read(path: Path) -> tuple[list[Row], Environment]:
    with path.open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    kinds = {"int": int, "float": float, "str": str}

    def values(kind: type, record: dict[str, str]) -> dict[str, Any]:
        there = [field for field in fields(kind) if record.get(field.name)]  # older files lack some columns
        return {field.name: kinds[str(field.type).split(" | ")[0]](record[field.name]) for field in there}

    return [Row(**values(Row, record)) for record in records], Environment(**values(Environment, records[0]))
