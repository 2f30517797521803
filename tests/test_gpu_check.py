"""`make gpu-check`: how it runs its stages, what it makes of their logs, and the table at its end."""

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

import cuda_toolkit
import gpu_check
from gpu_check import Failed, Result, Stage, run

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
MEMCHECK, RACECHECK, INITCHECK = (partial(gpu_check.sanitized, tool) for tool in ("memcheck", "racecheck", "initcheck"))


def python(code: str, **environment: str) -> Stage:
    return Stage("stage", [sys.executable, "-c", code], "stage.log", gpu_check.last_line, tuple(environment.items()))


def test_a_stage_runs_into_its_log(tmp_path: Path) -> None:
    result = run(python("import os; print('said', os.environ['PYVAE_SAYS'])", PYVAE_SAYS="so"), tmp_path, 60)
    assert result.good and result.note == "said so"
    second = run(python("print('more')"), tmp_path, 60)
    assert second.note == "more" and (tmp_path / "stage.log").read_text() == "said so\nmore\n"


@pytest.mark.parametrize(
    ("stage", "allowed", "note"),
    [
        (python("import sys; print('why'); sys.exit(3)"), 60, "exit status 3: why"),
        (python("import time; time.sleep(600)"), 0.2, "took more than 0 s"),
        (python(""), 0, "no time was left"),
        (python("")._replace(command=["no-such-program"]), 60, "No such file or directory: 'no-such-program'"),
    ],
)
def test_a_stage_that_fails_says_why(stage: Stage, allowed: float, note: str, tmp_path: Path) -> None:
    result = run(stage, tmp_path, allowed)
    assert not result.good and result.note.endswith(note)


def test_what_a_stage_started_ends_with_it(tmp_path: Path) -> None:
    """A sanitizer's own child, say, which would keep the GPU."""
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {child!r}], check=True))"
    result = run(python(parent), tmp_path, 5)
    assert not result.good and ended((tmp_path / "stage.log").read_text())


def test_a_signal_ends_everything(tmp_path: Path) -> None:
    """Stages are sessions of their own, which a terminal's or a timeout's signal does not reach."""
    code = """
import sys
from pathlib import Path
import gpu_check
child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
gpu_check.end_with_signals()
gpu_check.run(gpu_check.Stage("stage", [sys.executable, "-c", child], "stage.log", print), Path(sys.argv[1]), 600)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=gpu_check.ROOT / "tools") as process:
        log = tmp_path / "stage.log"
        while not (log.exists() and log.read_text().endswith("\n")):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert ended(log.read_text())


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
        (gpu_check.made_of, "torch 2.11\ncuda_architectures   sm_90, compute_90\n", "sm_90, compute_90"),
        (gpu_check.tested, f"{HEADER}\n{PASSED}", "812 passed, 9 deselected in 101.25s"),
        (gpu_check.tested, "3 passed in 0.10s\n" + HEADER, "3 passed in 0.10s"),
        (MEMCHECK, f"{SUMMARY} 0 errors", "24 passed, 800 deselected, 0 reports"),
        (RACECHECK, "24 passed in 9.00s\n========= RACECHECK SUMMARY: 0 hazards displayed", "24 passed, 0 reports"),
        (INITCHECK, f"{TORCHS}\n{SUMMARY} 1 error", "24 passed, 800 deselected, 1 reports about other kernels"),
        (gpu_check.measured, TABLE, "2 of 3 targets reached, 1 rows left out"),
    ],
)
def test_what_went_well(judge: Callable[[str, int], str], text: str, note: str) -> None:
    assert judge(text, 0) == note


@pytest.mark.parametrize(
    ("judge", "text", "status", "reason"),
    [
        (gpu_check.made_of, "cuda_architectures   -\n", 0, "no CUDA kernels"),
        (gpu_check.tested, f"{HEADER}\n=== 1 failed, 2 passed in 1.00s ===", 1, "1 failed, 2 passed in 1.00s"),
        (gpu_check.tested, f"pyvae: cuda not tested: no CUDA device\n{PASSED}", 0, "CUDA was not tested"),
        (gpu_check.tested, PASSED, 0, "no header"),
        (gpu_check.tested, HEADER, 2, "did not come to its end"),
        (MEMCHECK, f"{TORCHS}\n{SUMMARY} 1 error", 0, "1 reports, 0 of them"),
        (INITCHECK, f"{OURS}\n{SUMMARY} 1 error", 0, "1 reports, 1 of them"),
        (INITCHECK, f"{SUMMARY} 2000 errors", 0, "2000 reports"),
        (INITCHECK, "24 passed in 9.00s", 0, "no summary"),
        (RACECHECK, "800 deselected in 9.00s\n========= ERROR SUMMARY: 0 errors", 5, "800 deselected"),
        (RACECHECK, "24 skipped in 9.00s\n========= ERROR SUMMARY: 0 errors", 0, "24 skipped"),
        (RACECHECK, "========= Error: Device not supported", 1, "did not come to its end"),
        (gpu_check.measured, TABLE, 1, "2 of 3 targets reached, 1 rows left out; exit status 1"),
    ],
)
def test_what_went_wrong(judge: Callable[[str, int], str], text: str, status: int, reason: str) -> None:
    with pytest.raises(Failed, match=reason):
        judge(text, status)


def test_a_missing_sanitizer_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda_toolkit, "programs", lambda name: [])
    results = [run(stage, tmp_path, 60) for stage in gpu_check.sanitizer_stages(sys.executable)]
    assert [result.name for result in results if not result.good] == list(gpu_check.SANITIZERS)
    assert all("no compute-sanitizer in" in result.note for result in results)


def test_sanitizers_take_the_options_that_they_know(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text("#!/bin/sh\necho '  --kernel-regex arg (=) Filter.  --port arg (=49152)'\n")
    program.chmod(0o755)
    monkeypatch.setattr(cuda_toolkit, "programs", lambda name: [str(program)])
    commands = {stage.name: list(stage.command) for stage in gpu_check.sanitizer_stages("python3")}
    filtered = {tool for tool, command in commands.items() if "kns=pyvae" in command}
    assert filtered == {"racecheck", "synccheck"} and "--kernel-regex" in commands["racecheck"]
    assert "--report-api-errors" in commands["memcheck"]
    assert len({command[command.index("--port") + 1] for command in commands.values()}) == len(gpu_check.SANITIZERS)


def test_every_stage_runs_and_the_table_comes_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With every command replaced; the first stage fails, and the rest runs all the same."""
    ran: dict[str, float] = {}
    logs = set()

    def instead(stage: Stage, folder: Path, allowed: float) -> Result:
        ran[stage.name] = allowed
        logs.add(stage.log)
        return Result(stage.name, stage.name != "device", 1.0, "a note", f"| {stage.name} | yes |\nlast words\n")

    monkeypatch.setattr(gpu_check, "run", instead)
    monkeypatch.setattr(sys, "argv", ["gpu_check", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="True"):
        gpu_check.main()
    names = ["device", "build", "build_info", "tests", *gpu_check.SANITIZERS, "benchmark"]
    assert sorted(ran) == sorted(names) and list(ran)[-1] == "benchmark" and len(logs) <= 7
    assert max(ran.values()) <= gpu_check.LIMIT and ran["benchmark"] >= gpu_check.BENCHMARK

    printed = capsys.readouterr().out.splitlines()
    assert printed[1:6] == ["--- the end of device", "| device | yes |", "last words", "", "| benchmark | yes |"]
    results = [line.split()[:3] for line in printed[-len(names) :]]
    assert results == [[name, "FAILED" if name == "device" else "ok", "1"] for name in names]


def test_gpu_check_wants_a_folder() -> None:
    # Within `make gpu-check OUT=...` these tests run too, and must not start all over.
    environment = {"PATH": os.environ["PATH"]}
    run_make = ["make", "gpu-check", "OUT=", "PYTHON=false"]
    done = subprocess.run(run_make, cwd=gpu_check.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode and "make gpu-check OUT=folder" in done.stdout
