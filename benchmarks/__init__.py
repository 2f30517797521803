"""Side-by-side measurements of pyvae: `python -m benchmarks --help`. Here: the rows that come of them, where they were
measured, and their CSV.

cases.py        what is compared: the same function of the same inputs, written in several ways
formulas.py     its part for counts and likelihoods with parameters
timing.py       the CPU and the GPU: clock, graphs, memory; and competitors in turns
speed.py        speed, bandwidth, call overhead and memory, on either device
bayes.py        a step of Bayes by backprop, by bayesian-torch's formulas and by pyvae
accuracy.py     by itself: errors of counts over theta, and of the Bernoulli losses over the logit
mixtures.py     by itself: densities under mixtures, and steps with them
scvi_train.py   by itself: scvi-tools' own training with and without the patch
names.py        what rows are called, in words
report.py       tables, and putting them into the two README.md
plots.py        a CSV as pictures
"""

from __future__ import annotations

import csv
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

import pyvae

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
COUNT_ERRORS_CSV, LOGIT_ERRORS_CSV = "counts_accuracy.csv", "logits_accuracy.csv"  # in RESULTS
SCVI_CSV, MIXTURES_CSV = "scvi.csv", "mixtures.csv"


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


def printed(*command: str) -> str:
    """What `command` prints, or nothing where it is missing or fails."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def environment(device: str) -> Environment:
    """Of the CPU or of the current CUDA device."""
    info = pyvae.build_info()
    commit = printed("git", "describe", "--always", "--dirty", "--exclude=*") or os.environ.get("PYVAE_COMMIT")
    versions = info["torch"], info["pyvae"], commit or "unknown"
    if device == "cpu":
        models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        kernels = info["instruction_set"] if info["instruction_set"] not in (None, "none") else "reference"
        return Environment("cpu", models[0] if models else platform.machine(), kernels, *versions)
    kernels = "sm_{}{}".format(*torch.cuda.get_device_capability()) if info["cuda_architectures"] else "reference"
    driver = printed("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines() or ["unknown"]
    return Environment("cuda", torch.cuda.get_device_name(), kernels, *versions, driver[0], torch.version.cuda)


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
