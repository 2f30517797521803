"""Tables of the pages that are made of a CSV of the repository."""

from __future__ import annotations

import csv
from pathlib import Path


def versions(path: Path) -> str:
    """Which torches and Pythons were tried, as Markdown: tools/versions.py writes the CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = ["| torch | Python | tests |", "| --- | --- | --- |"]
    for row in rows:
        counts = [f"{row[word]} {word}" for word in ("passed", "failed", "skipped") if row[word] not in ("", "0")]
        lines.append(f"| {row['torch']} | {row['python']} | {', '.join(counts) or row['error']} |")
    return "\n".join(lines)
