"""Rows of tools/versions.py: what came of each pair of a torch and a Python, as CSV and as the README's table."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.markdown import markdown


class Row(NamedTuple):
    """What came of a pair, as it stands in the CSV; empty is what it did not come to."""

    torch: str  # "2.13.0+cpu"; as asked, if it could not be installed
    python: str
    commit: str  # of pyvae
    built_s: str = ""
    tests: str = ""  # "selected" or "all"
    passed: str = ""
    failed: str = ""
    skipped: str = ""
    error: str = ""  # the last line of what ended it, or the first test that failed


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def order(version: str) -> tuple[float, ...]:
    """Sorts versions by their numbers, and words after them."""
    return tuple(map(float, re.findall(r"\d+", version.split("+")[0]))) or (float("inf"),)


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**record) for record in csv.DictReader(file)]


def write(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([Row._fields, *rows])


def merge(rows: Iterable[Row], new: Row) -> list[Row]:
    """The rows with the new one in place of its pair's, by versions."""
    pairs = {(one.torch.split("+")[0], minor(one.python)): one for one in (*rows, new)}
    return sorted(pairs.values(), key=lambda one: (order(one.torch), order(one.python)))


def table(rows: Sequence[Row]) -> str:
    """For the README: without seconds, which tell more of the machine and what else it did than of a torch."""

    def result(one: Row) -> str:
        counts = ", ".join(f"{getattr(one, word)} {word}" for word in ("passed", "failed", "skipped"))
        parts = [counts.replace(", 0 failed", "").replace(", 0 skipped", "") if one.passed else "", one.error]
        return ": ".join(part.replace("|", "\\|") for part in parts if part)

    return markdown(["torch", "Python", "tests"], [[one.torch, one.python, result(one)] for one in rows])
