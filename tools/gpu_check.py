"""`make gpu-check OUT=folder STAGE=name`: build, test, measure and sanitize on this machine's GPU, in stages.

The machine may be lent for minutes and taken away at any moment. So each stage is worth a call by itself, the first the
most; what a step finds is in the folder while it runs: a log a stage, written line by line, and a line in summary.txt
as soon as it ends. With the benchmark's CSV that is seven files, and one may come from the harness. In the Python
environment that runs it: nothing is downloaded or installed. Only the standard library is used here, because pyvae does
not exist before the build.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import gpu_stages
from gpu_logs import Failed, last_line, made_of, so_far
from gpu_stages import PYTHON, STAGES, Result, Step

LIMIT = 540.0  # seconds for everything
SUMMARY = "summary.txt"
SHOWN = {"harness": 60}  # lines of a step's log to show at the end; of one that failed, at least:
TAIL = 12
HEAD = f"{'step':<12}{'result':<9}{'seconds':>7}  key numbers"

DEVICE = (
    "import torch; assert torch.cuda.is_available(), 'torch sees no CUDA device'; "
    "print('sm_%d%d' % torch.cuda.get_device_capability(), torch.cuda.get_device_name(), 'torch', torch.__version__)"
)

running: set[subprocess.Popen[bytes]] = set()


def run(step: Step, log: Path, allowed: float) -> Result:
    """Runs the step's command to the end of its log, and ends it, with all that it started, when time is over."""
    print(f"==> {step.name}: at most {allowed:.0f} s", flush=True)
    start, text = time.monotonic(), ""
    try:
        if allowed <= 0:
            raise Failed("no time was left")
        with log.open("ab") as file:
            file.write(f"==> {step.name}: {' '.join(step.command)}\n".encode())
            file.flush()
            before = file.tell()
            # A group of its own, to end it by, but no session: where a whole call is killed, it would live on.
            process = subprocess.Popen(
                step.command, cwd=step.folder, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                preexec_fn=os.setpgrp, env={**os.environ, "PYTHONUNBUFFERED": "1", **dict(step.environment)},
            )  # fmt: skip
            running.add(process)
            try:
                status = process.wait(allowed)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                end_group(process)
                running.discard(process)
        text = log.read_bytes()[before:].decode(errors="replace")
        if status is None:
            raise Failed(f"took more than {allowed:.0f} s{so_far(text)}")
        good, note = True, step.judge(text, status)
    except (Failed, OSError) as error:
        good, note = False, str(error)
    seconds = time.monotonic() - start
    print(f"==> {step.name}: {'ok' if good else 'FAILED'} after {seconds:.0f} s: {note}", flush=True)
    return Result(step.name, good, seconds, note, text)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a step and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_with_signals() -> None:
    """Ends the steps with this process: being groups of their own, they do not get a terminal's signals."""

    def end(number: int, _: object) -> None:
        for process in list(running):
            end_group(process)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


class Check:
    """One run: where its results go, when its time is over, and what came of its steps so far."""

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.end = folder, time.monotonic() + limit
        self.results: list[Result] = []
        self.is_built: bool | None = None
        self.note(HEAD)

    def left(self) -> float:
        return self.end - time.monotonic()

    def do(self, step: Step, stage: str, share: int = 1) -> Result:
        """Runs a step within its own limit, and within one of so many equal shares of the time that is left."""
        result = run(step, self.folder / f"{stage}.log", min(step.seconds, self.left() / share))
        self.results.append(result)
        self.note(row(result))
        return result

    def note(self, line: str) -> None:
        """Appended, so that no moment is without the lines before it, and several calls may share a folder."""
        with (self.folder / SUMMARY).open("a", encoding="utf-8") as summary:
            summary.write(line + "\n")

    def build(self, stage: str) -> bool:
        """Builds for the GPU that is here, unless what is there was built from these files for it; once a run."""
        if self.is_built is None:
            self.is_built = self._build(stage)
        return self.is_built

    def _build(self, stage: str) -> bool:
        device = self.do(Step("device", [PYTHON, "-c", DEVICE], last_line, 60), stage)
        gpu = re.match(r"sm_(\d+)(\d)", device.note)  # compiled for what is here, which is the quickest to build
        if not device.good or not gpu:
            return False
        if not gpu_stages.is_current(device.note):
            command = [PYTHON, "setup.py", "build_ext", "--inplace"]
            architecture = [("TORCH_CUDA_ARCH_LIST", f"{gpu[1]}.{gpu[2]}"), ("FORCE_CUDA", "1")]
            if not self.do(Step("build", command, last_line, 300, architecture), stage).good:
                return False
            gpu_stages.mark_current(device.note)
        return self.do(Step("build_info", [PYTHON, "-m", "pyvae"], made_of, 30), stage).good

    def stage(self, name: str) -> None:
        stage = STAGES[name]
        if stage.needs_build and not self.build(name):
            return
        steps = stage.steps(self.folder, self.left())
        for index, step in enumerate(steps):
            self.do(step, name, len(steps) - index)


def row(result: Result) -> str:
    return f"{result.name:<12}{'ok' if result.good else 'FAILED':<9}{result.seconds:7.0f}  {result.note}"


def report(results: Sequence[Result]) -> str:
    """The ends of what the failed steps printed, the benchmark's targets, the harness's table, and the table of all."""
    lines = []
    for result in results:
        printed = result.output.splitlines()
        lines += ["", *(line[:200] for line in printed if line.endswith(("| yes |", "| **no** |")))]
        shown = max(SHOWN.get(result.name, 0), 0 if result.good else TAIL)
        if printed and shown:
            lines += [f"--- the end of {result.name}", *(line[:200] for line in printed[-shown:])]
    return "\n".join([*lines, "", HEAD, *map(row, results)])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python tools/gpu_check.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="stages:\n" + "\n".join(f"  {name:<12}{stage.about}" for name, stage in STAGES.items()),
    )  # fmt: skip
    parser.add_argument("out", type=Path, help="folder of the logs, the summary and the CSV")
    parser.add_argument("stages", nargs="*", metavar="stage", help="which ones; all in order, if none is named")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for everything (%(default)s)")
    options = parser.parse_intermixed_args()  # as in `folder --limit 300 first`
    if unknown := [name for name in options.stages if name not in STAGES]:
        parser.error(f"there is no stage {unknown[0]!r}: expected one of {', '.join(STAGES)}")
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    end_with_signals()
    check = Check(folder, options.limit)
    for name in options.stages or STAGES:
        check.stage(name)
    print(report(check.results), flush=True)
    sys.exit(not all(result.good for result in check.results))


if __name__ == "__main__":
    main()
