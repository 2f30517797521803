"""`make gpu-check`: how it runs its steps, what it makes of their logs, and what it leaves when killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import gpu_check
import gpu_logs
from gpu_check import run
from gpu_logs import Failed
from gpu_stages import Step

HEADER = "pyvae: kernels built; cuda tested"
PASSED = "================= 812 passed, 9 deselected in 101.25s (0:01:41) ================="
READ = """
=========
========= Uninitialized __global__ memory read of size 4 bytes
=========     at void {kernel}<float>(float *)+0x90
=========     by thread (0,0,0) in block (0,0,0)
=========
"""
OURS, TORCHS = READ.format(kernel="pyvae::cuda::latent_forward_kernel"), READ.format(kernel="at::native::reduce_kernel")
MEMCHECK, RACECHECK, INITCHECK = (partial(gpu_logs.sanitized, tool) for tool in ("memcheck", "racecheck", "initcheck"))


def python(code: str, **environment: str) -> Step:
    return Step("step", [sys.executable, "-c", code], gpu_logs.last_line, environment=tuple(environment.items()))


def test_a_step_runs_into_its_log(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    result = run(python("import os; print('said', os.environ['PYVAE_SAYS'])", PYVAE_SAYS="so"), log, 3600)
    assert result.good and result.note == "said so"
    assert run(python("print('more')"), log, 3600).note == "more"
    printed = [line for line in log.read_text().splitlines() if not line.startswith("==> step: ")]
    assert printed == ["said so", "more"]


@pytest.mark.parametrize(
    ("step", "allowed", "note"),
    [
        (python("import sys; print('why'); sys.exit(3)"), 3600, "exit status 3: why"),
        (python("import time; time.sleep(600)"), 0.2, "took more than 0 s"),
        (python("import time; print('t.py::a PASSED\\nt.py::b ', flush=True); time.sleep(600)"), 5, "1 passed by then"),
        (python(""), 0, "no time was left"),
        (python("")._replace(command=["no-such-program"]), 3600, "No such file or directory: 'no-such-program'"),
    ],
)
def test_a_step_that_fails_says_why(step: Step, allowed: float, note: str, tmp_path: Path) -> None:
    result = run(step, tmp_path / "stage.log", allowed)
    assert not result.good and result.note.endswith(note)


def test_what_a_step_started_ends_with_it(tmp_path: Path) -> None:
    """A sanitizer's own child, say, which would keep the GPU."""
    parent = f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {SLEEPS!r}], check=True))"
    result = run(python(parent), tmp_path / "stage.log", 5)
    assert not result.good and ended(last_line(tmp_path / "stage.log"))


SLEEPS = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
TWO_STEPS = f"""
import sys
from pathlib import Path
import gpu_check
from gpu_stages import STAGES, PYTHON, Stage, Step
commands = {{"quick": "print('quick words')", "long": {SLEEPS!r}}}
steps = [Step(name, [PYTHON, "-c", code], gpu_check.last_line) for name, code in commands.items()]
STAGES["first"] = Stage("stands in", lambda folder, left: steps, needs_build=False)
sys.argv = ["gpu_check", sys.argv[1], "first"]
gpu_check.main()
"""


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT, signal.SIGKILL))
def test_what_was_found_outlives_the_check(number: int, tmp_path: Path) -> None:
    """Ended by a signal it ends its steps; by one that no program sees, whoever sends that has to."""
    command = [sys.executable, "-c", TWO_STEPS, str(tmp_path)]
    log, tools = tmp_path / "first.log", Path(gpu_check.__file__).parent
    with subprocess.Popen(command, cwd=tools, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        while not (log.exists() and last_line(log).isdigit()):
            assert process.poll() is None
            time.sleep(0.05)
        child = int(last_line(log))
        assert os.getsid(child) == process.pid  # found by whoever ends the session
        process.send_signal(number)
        status = process.wait()
    if number == signal.SIGKILL:
        os.kill(child, number)
    assert status == (-number if number == signal.SIGKILL else 128 + number) and ended(str(child))
    assert "quick words" in log.read_text().splitlines()
    assert (tmp_path / gpu_check.SUMMARY).read_text().splitlines()[1].split()[:2] == ["quick", "ok"]


def last_line(log: Path) -> str:
    """If it is whole."""
    text = log.read_text()
    return text.splitlines()[-1] if text.endswith("\n") else ""


def ended(pid: str) -> bool:
    """Killing is not waiting: what is killed may take a moment to go. Without a command line it is gone."""
    command = Path("/proc", pid.strip(), "cmdline")
    for _ in range(200):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if command.read_bytes():
                time.sleep(0.05)
                continue
        return True
    return False


SUMMARY = "24 passed, 800 deselected in 9.00s\n========= ERROR SUMMARY:"
TABLE = "| a | b | c | yes |\n| a | b | c | **no** |\n| a | b | c | yes |\nx left out: no time was left"


@pytest.mark.parametrize(
    ("judge", "text", "note"),
    [
        (gpu_logs.made_of, "torch 2.11\ncuda_architectures   sm_90, compute_90\n", "sm_90, compute_90"),
        (gpu_logs.tested, f"{HEADER}\n{PASSED}", "812 passed, 9 deselected in 101.25s"),
        (gpu_logs.tested, "3 passed in 0.10s\n" + HEADER, "3 passed in 0.10s"),
        (MEMCHECK, f"{SUMMARY} 0 errors", "24 passed, 800 deselected, 0 reports"),
        (RACECHECK, "24 passed in 9.00s\n========= RACECHECK SUMMARY: 0 hazards displayed", "24 passed, 0 reports"),
        (INITCHECK, f"{TORCHS}\n{SUMMARY} 1 error", "24 passed, 800 deselected, 1 reports about other kernels"),
        (gpu_logs.measured, TABLE, "2 of 3 targets reached, 1 rows left out"),
    ],
)
def test_what_went_well(judge: Callable[[str, int], str], text: str, note: str) -> None:
    assert judge(text, 0) == note


@pytest.mark.parametrize(
    ("judge", "text", "status", "reason"),
    [
        (gpu_logs.made_of, "cuda_architectures   -\n", 0, "no CUDA kernels"),
        (gpu_logs.tested, f"{HEADER}\n=== 1 failed, 2 passed in 1.00s ===", 1, "1 failed, 2 passed in 1.00s"),
        (gpu_logs.tested, f"pyvae: cuda not tested: no CUDA device\n{PASSED}", 0, "CUDA was not tested"),
        (gpu_logs.tested, PASSED, 0, "no header"),
        (gpu_logs.tested, HEADER, 2, "did not come to its end"),
        (MEMCHECK, f"{TORCHS}\n{SUMMARY} 1 error", 0, "1 reports, 0 of them"),
        (INITCHECK, f"{OURS}\n{SUMMARY} 1 error", 0, "1 reports, 1 of them"),
        (INITCHECK, f"{SUMMARY} 2000 errors", 0, "2000 reports"),
        (INITCHECK, "24 passed in 9.00s", 0, "no summary"),
        (RACECHECK, "800 deselected in 9.00s\n========= ERROR SUMMARY: 0 errors", 5, "800 deselected"),
        (RACECHECK, "24 skipped in 9.00s\n========= ERROR SUMMARY: 0 errors", 0, "24 skipped"),
        (RACECHECK, "========= Error: Device not supported", 1, "did not come to its end"),
        (gpu_logs.measured, TABLE, 1, "2 of 3 targets reached, 1 rows left out; exit status 1"),
    ],
)
def test_what_went_wrong(judge: Callable[[str, int], str], text: str, status: int, reason: str) -> None:
    with pytest.raises(Failed, match=reason):
        judge(text, status)
