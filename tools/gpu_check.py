"""`make gpu-check OUT=folder`: build, test, sanitize and measure on this machine's GPU.

In the Python environment that runs it: nothing is downloaded or installed. Every stage has a limit of time, a failing
one does not keep the next from running, and a table of all comes last. Only the standard library is used here, because
pyvae does not exist before the first stage. The folder then holds logs, at most seven, and the benchmark's CSV.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cuda_toolkit

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 525.0  # seconds for everything
BENCHMARK = 160.0  # of them kept for the benchmark
TAIL = 12  # lines of a failed stage's log to show
PRINTED = 100  # reports of a sanitizer
THREADS = [("OMP_NUM_THREADS", "2")]  # of each of the processes that share this machine's cores
# Without the allocator's cache each tensor is an allocation of its own, with borders that the tools know.
NO_CACHE = ("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")

DEVICE = (
    "import torch; assert torch.cuda.is_available(), 'torch sees no CUDA device'; "
    "print('sm_%d%d' % torch.cuda.get_device_capability(), torch.cuda.get_device_name(), 'torch', torch.__version__)"
)
SANITIZED = "tests/test_cuda_sanitized.py"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")

running: set[subprocess.Popen[bytes]] = set()


class Failed(Exception):
    """A stage that did not do what it should, in words."""


class Stage(NamedTuple):
    name: str
    command: Sequence[str]
    log: str
    judge: Callable[[str, int], str]  # of log and exit status: key numbers, or Failed
    environment: Sequence[tuple[str, str]] = ()  # added to the present one


class Result(NamedTuple):
    name: str
    good: bool
    seconds: float
    note: str
    output: str = ""


def run(stage: Stage, folder: Path, allowed: float) -> Result:
    """Runs the stage's command to the end of its log, and ends it, with all that it started, when time is over."""
    print(f"==> {stage.name}: at most {allowed:.0f} s", flush=True)
    path, start, text = folder / stage.log, time.monotonic(), ""
    before = path.stat().st_size if path.exists() else 0
    try:
        if allowed <= 0:
            raise Failed("no time was left")
        with path.open("ab") as log:
            process = subprocess.Popen(
                stage.command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **dict(stage.environment)},
            )  # fmt: skip
            running.add(process)
            try:
                status = process.wait(allowed)
            except subprocess.TimeoutExpired:
                raise Failed(f"took more than {allowed:.0f} s") from None
            finally:
                end_group(process)
                running.discard(process)
                text = path.read_bytes()[before:].decode(errors="replace")
        good, note = True, stage.judge(text, status)
    except (Failed, OSError) as error:
        good, note = False, str(error)
    seconds = time.monotonic() - start
    print(f"==> {stage.name}: {'ok' if good else 'FAILED'} after {seconds:.0f} s: {note}", flush=True)
    return Result(stage.name, good, seconds, note, text)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a stage and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_with_signals() -> None:
    """Ends the stages with this process: being sessions of their own, they do not get its signals."""

    def end(number: int, _: object) -> None:
        for process in list(running):
            end_group(process)
        os._exit(128 + number)  # other threads wait for stages, too

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def last_line(text: str, status: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if status:
        raise Failed(f"exit status {status}: {lines[-1][:150] if lines else 'no output'}")
    return lines[-1][:150] if lines else ""


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
        raise Failed("pytest did not come to its end")
    return found[-1]


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


def sanitizer_stages(python: str) -> list[Stage]:
    program = next(iter(cuda_toolkit.programs("compute-sanitizer")), None)
    if program is None:
        say = f"no compute-sanitizer in CUDA_HOME, on the PATH or in {cuda_toolkit.SYSTEM}: the toolkit brings it"
        command = [python, "-c", f"raise SystemExit({say!r})"]
        return [Stage(tool, command, f"{tool}.log", last_line) for tool in SANITIZERS]
    known = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    stages = []
    for index, tool in enumerate(SANITIZERS):
        # API errors: torch looks for functions that older drivers lack. Launches are checked where they are made.
        options = [*("--tool", tool, "--target-processes", "all", "--print-limit", str(PRINTED))]
        options += ["--report-api-errors", "no"] if tool == "memcheck" else []
        # Only shared memory and barriers within a kernel: those of torch's kernels are not ours. initcheck has to see
        # what other kernels write, and memcheck what they are given.
        if tool in ("racecheck", "synccheck"):
            options += optional(known, ("--kernel-name", "--kernel-regex"), "kns=pyvae")
        # All four run at once.
        options += optional(known, ("--port", "--base-port"), str(49152 + 64 * index))
        tests = [python, "-m", "pytest", "-q", "-m", "sanitizer", "-p", "no:cacheprovider", SANITIZED]
        uncached = tool in ("memcheck", "initcheck")
        tests += ["-k", "not graph"] if uncached else []  # a capture needs the cache
        environment = [*THREADS, NO_CACHE] if uncached else THREADS
        stages.append(Stage(tool, [program, *options, *tests], f"{tool}.log", partial(sanitized, tool), environment))
    return stages


def optional(known: str, names: Sequence[str], value: str) -> list[str]:
    """The first of the option's names, over the versions of the tool, that this one has."""
    return next(([name, value] for name in names if re.search(rf"{name}\b", known)), [])


def tests(python: str) -> Stage:
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", "--durations=10"]
    command += ["--continue-on-collection-errors", "tests"]
    cores = os.cpu_count() or 1
    if importlib.util.find_spec("xdist") and cores > 3:
        command += ["-n", str(min(8, cores // 2))]
    return Stage("tests", command, "tests.log", tested, THREADS)


def check(python: str, folder: Path, limit: float) -> list[Result]:
    end = time.monotonic() + limit

    def left() -> float:
        return end - time.monotonic()

    results = [run(Stage("device", [python, "-c", DEVICE], "build.log", last_line), folder, min(60, left()))]
    gpu = re.match(r"sm_(\d+)(\d)", results[0].note)  # compiled for what is here, which is the quickest to build
    architecture = [("TORCH_CUDA_ARCH_LIST", f"{gpu[1]}.{gpu[2]}")] if gpu else []
    command = [python, "setup.py", "build_ext", "--inplace"]
    build = Stage("build", command, "build.log", last_line, architecture)
    results.append(run(build, folder, min(240, left() - BENCHMARK)))
    results.append(run(Stage("build_info", [python, "-m", "pyvae"], "build.log", made_of), folder, min(30, left())))
    # None of these measures anything, so that they may run beside one another.
    stages = [tests(python), *sanitizer_stages(python)]
    with ThreadPoolExecutor(len(stages)) as pool:
        allowed = left() - BENCHMARK
        results += pool.map(lambda stage: run(stage, folder, allowed), stages)
    # The benchmark has the GPU to itself. Starting and the last comparison under way take some seconds more.
    command = [python, "-m", "benchmarks", "--device", "cuda", "--out", str(folder)]
    command += ["--budget", f"{max(1.0, min(240.0, left() - 25)):.0f}"]
    results.append(run(Stage("benchmark", command, "benchmark.log", measured), folder, left()))
    return results


def report(results: Sequence[Result]) -> str:
    """The ends of what the failed stages printed, the benchmark's targets, and the table."""
    lines = []
    for result in results:
        printed = result.output.splitlines()
        if result.name == "benchmark":
            lines += ["", *(line[:200] for line in printed if line.endswith(("| yes |", "| **no** |")))]
        if printed and not result.good:
            lines += ["", f"--- the end of {result.name}", *(line[:200] for line in printed[-TAIL:])]
    lines += ["", f"{'stage':<12}{'result':<9}{'seconds':>7}  key numbers"]
    lines += [f"{r.name:<12}{'ok' if r.good else 'FAILED':<9}{r.seconds:7.0f}  {r.note}" for r in results]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tools/gpu_check.py", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the logs and the CSV")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for everything (%(default)s)")
    options = parser.parse_args()
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    end_with_signals()
    results = check(sys.executable, folder, options.limit)
    print(report(results), flush=True)
    sys.exit(not all(result.good for result in results))


if __name__ == "__main__":
    main()
