"""What the logs of `make gpu-check` say: the key numbers of each of its steps, or why it did not do what it should."""

from __future__ import annotations

import re
from collections import Counter

PRINTED = 100  # reports of a sanitizer


class Failed(Exception):
    """A step that did not do what it should, in words."""


def last_line(text: str, status: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if status:
        raise Failed(f"exit status {status}: {lines[-1][:150] if lines else 'no output'}")
    return lines[-1][:400] if lines else ""


def made_of(text: str, status: int) -> str:
    """What `python -m pyvae` says: the architectures, without which nothing below shows anything."""
    last_line(text, status)
    found = re.search(r"^cuda_architectures\s+(\S.*)$", text, re.MULTILINE)
    if not found or found[1].strip() == "-":
        raise Failed("the build has no CUDA kernels")
    return found[1].strip()


def outcome(text: str) -> str:
    """pytest's last word: `3 failed, 120 passed in 9.51s`."""
    found = re.findall(r"^=* ?(\d+ (?:passed|failed|error|skipped|deselected).*? in [\d.]+s)", text, re.MULTILINE)
    if not found:
        raise Failed(f"pytest did not come to its end{so_far(text)}")
    return found[-1]


def so_far(text: str) -> str:
    """`: 3 failed, 120 passed by then`, from the lines of single tests; nothing where there are none."""
    line = r"^(?:\[gw\d+\] \[ *\d+%\] |\S+::.* )(PASSED|FAILED|ERROR|SKIPPED)\b"
    counts = Counter(found.lower() for found in re.findall(line, text, re.MULTILINE))
    return ": " + ", ".join(f"{counts[word]} {word}" for word in sorted(counts)) + " by then" if counts else ""


def tested(text: str, status: int) -> str:
    note = outcome(text)
    if status:
        raise Failed(note)
    header = re.search(r"^pyvae: .*$", text, re.MULTILINE)
    if not header or "not tested" in header[0]:
        raise Failed(f"CUDA was not tested: {header[0] if header else 'pytest printed no header of pyvae'}")
    return note


def sanitized(tool: str, text: str, status: int) -> str:
    """Any report of memcheck's counts; of the others only those of pyvae's kernels, because torch's are not ours."""
    note = outcome(text)
    if status or " passed" not in note:
        raise Failed(note)
    totals = re.findall(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (\d+)", text, re.MULTILINE)
    if not totals:
        raise Failed("no summary of the sanitizer")
    total = sum(map(int, totals))
    # A report is a block of lines between two that have nothing but the prefix.
    reports = re.split(r"^=+[ \t]*$", text, flags=re.MULTILINE)
    own = sum("pyvae::" in report for report in reports)
    if own or (total and tool == "memcheck") or total > PRINTED:
        raise Failed(f"{total} reports, {own} of them about pyvae's kernels")
    return f"{note.split(' in ')[0]}, {total} reports" + (" about other kernels" if total else "")


def measured(text: str, status: int) -> str:
    lines = text.splitlines()
    reached = sum(line.endswith("| yes |") for line in lines)
    missed = sum(line.endswith("| **no** |") for line in lines)
    left_out = sum("left out: no time" in line for line in lines)
    note = f"{reached} of {reached + missed} targets reached" + (f", {left_out} rows left out" if left_out else "")
    if status:
        raise Failed(f"{note}; exit status {status}: {lines[-1][:150] if lines else 'no output'}")
    return note
