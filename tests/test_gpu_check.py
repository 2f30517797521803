"""`make gpu-check`: what it leaves of steps that fail, hang or are killed, and that its tests exist."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import gpu_check
from gpu_check import ROOT, STAGES, Step

HANGS = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


def python(name: str, code: str, seconds: float = 60, never: str = "\0") -> Step:
    return Step(name, seconds, [sys.executable, "-c", code], {"SAYS": "so"}, never)


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["gpu_check", *arguments])
    # The handlers of the check's own end are not for this process; its steps' signals are as always.
    plain = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, do: plain(number, do) if do == signal.SIG_DFL else None)
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    return ended.value.code


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts these steps in the first stage's place, and a build that needs nothing."""
    monkeypatch.setattr(gpu_check, "build", lambda do: do(python("device", "print('a GPU')")) is not None)
    return lambda *steps: monkeypatch.setitem(STAGES, "first", lambda folder, left: list(steps))


def test_steps_that_fail_or_run_into_their_limit(
    stage: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each has its line in the summary, and those after it run; what it started ends with it."""
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HANGS!r}], check=True)"
    stage(
        python("good", "import os; print('said', os.environ['SAYS'])"),
        python("bad", "print('why'); raise SystemExit(3)"),
        python("long", starts, 3),
        python("never", "print('at void pyvae::kernel'); print('end')", never="pyvae::"),
        Step("absent", 60, ["no-such-program"]),
        python("last", ""),
    )
    assert main(monkeypatch, str(tmp_path / "out"), "first") is True
    summary = (tmp_path / "out" / "summary.txt").read_text().splitlines()
    assert [line.split()[:2] for line in summary] == [
        *(["device", "ok"], ["good", "ok"], ["bad", "FAILED"], ["long", "FAILED"]),
        *(["never", "FAILED"], ["absent", "FAILED"], ["last", "ok"]),
    ]
    notes = [line.split(" s  ", 1)[1] for line in summary]
    assert notes[:3] == ["a GPU", "said so", "exit status 3: why"] and notes[3].startswith("took more than 3 s: ")
    assert notes[4] == "'pyvae::' is in its log" and "no-such-program" in notes[5]
    log = (tmp_path / "out" / "first.log").read_text()
    assert log.startswith("==> device: ") and "\nsaid so\n" in log and "KeyboardInterrupt" in log  # as pytest gets it
    assert ended(next(line for line in log.splitlines() if line.isdigit()))


def test_the_limit_is_for_everything(
    stage: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = []
    stage(Step("a", 1e6, []), Step("b", 5, []))
    monkeypatch.setattr(gpu_check, "run", lambda step, log, left: (given.append(left), (True, ""))[1])
    assert main(monkeypatch, str(tmp_path), "--limit", "90", "first") is False  # make's order
    assert given == pytest.approx([90, 90, 90], abs=1)


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_check_that_is_ended_ends_its_step(number: int, tmp_path: Path) -> None:
    command = f"import gpu_check as g, sys; s = g.Step('long', 99, [sys.executable, '-c', {HANGS!r}]); "
    command += "g.build = lambda do: do(s); g.main()"
    log = tmp_path / "first.log"
    with subprocess.Popen([sys.executable, "-c", command, str(tmp_path), "first"], cwd=ROOT / "tools") as process:
        while not (log.exists() and log.read_text().endswith("\n") and log.read_text().count("\n") == 2):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait() == 128 + number
    assert ended(log.read_text().splitlines()[-1])


def ended(pid: str) -> bool:
    """Killing is not waiting: what is killed may take a moment to go. Without a command line it is gone."""
    command = Path("/proc", pid, "cmdline")
    for _ in range(200):
        if not command.exists() or not command.read_bytes():
            return True
        time.sleep(0.05)
    return False


def test_the_build_is_made_once_for_the_same_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("setup.py", "tools/cuda_toolkit.py", "csrc/a.h"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_check, "STAMP", tmp_path / "scratch" / "built")
    names: list[str] = []

    def do(step: Step) -> str | None:
        names.append(step.name)
        return None if step.name == "build" and len(names) == 2 else "sm_90"

    assert not gpu_check.build(do) and gpu_check.build(do) and gpu_check.build(do)
    (tmp_path / "csrc" / "a.h").write_text("int a;")
    assert gpu_check.build(do)
    assert names == ["device", "build", "device", "build", "device", "device", "build"]


def test_the_first_stage_is_short_and_its_tests_exist() -> None:
    assert sum(step.seconds for step in gpu_check.first(Path(), 540)) <= 260  # with a build of a minute, five minutes
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *gpu_check.FIRST]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_names_files_that_are_there(name: str, tmp_path: Path) -> None:
    words = [word for step in STAGES[name](tmp_path, 60) for word in step.command]
    files = {word.partition("::")[0] for word in words if word.startswith(("tests/", "tools/"))}
    assert all((ROOT / file).is_file() for file in files) and (files or name == "benchmark")


def test_an_unknown_stage_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(monkeypatch, str(tmp_path / "out"), "frist") == 2
    assert f"there is no stage 'frist': expected one of {', '.join(STAGES)}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["OUT="], "make gpu-check OUT=folder"),
        (["OUT=somewhere", "STAGE=first", "LIMIT=9"], "somewhere --limit 9 first"),
    ],
)
def test_make(arguments: list[str], says: str) -> None:
    # Within `make gpu-check OUT=...` these tests run too, and must not start all over.
    command = ["make", "gpu-check", *arguments, "PYTHON=echo"]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert says in done.stdout and done.returncode == (2 if arguments == ["OUT="] else 0)
