"""The CSV: one row for each what x shape x pass x competitor."""

from __future__ import annotations

import csv
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyvae

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """A measured value. Empty fields (None) do not apply to the row."""

    what: str
    competitor: str
    value: float  # the median where p20 and p80 are given
    unit: str
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

    @property
    def shape(self) -> str:
        """`128x784`, and the latent size where there is one: `128x784 L20`."""
        return f"{self.batch}x{self.features}" + (f" L{self.latent}" if self.latent else "")


@dataclass(frozen=True)
class Environment:
    """Where the rows were measured; repeated in every row, so that a row stands by itself."""

    device: str
    processor: str
    instruction_set: str  # of the kernels in use; "reference" where there are none
    torch: str
    pyvae: str
    commit: str


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"


def environment() -> Environment:
    info = pyvae.build_info()
    kernels = info["instruction_set"] if info["instruction_set"] not in (None, "none") else "reference"
    return Environment("cpu", processor_name(), kernels, info["torch"], info["pyvae"], commit())


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
    integers = ("batch", "features", "latent", "bytes", "threads")
    texts = ("what", "competitor", "unit", "stage")

    def convert(name: str, text: str) -> str | int | float | None:
        if not text:
            return None
        return text if name in texts else int(text) if name in integers else float(text)

    rows = [Row(**{f.name: convert(f.name, record[f.name]) for f in fields(Row)}) for record in records]  # type: ignore[arg-type]
    return rows, Environment(**{f.name: records[0][f.name] for f in fields(Environment)})
