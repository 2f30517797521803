"""The stages of `make gpu-check`: in which order, with which commands and within what time; their tests all exist."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cuda_toolkit
import gpu_check
import gpu_stages
from gpu_check import Check, run
from gpu_stages import OPTIONAL, ROOT, SANITIZERS, STAGES, Result, Stage, Step

GPU = "sm_90 NVIDIA H100 torch 2.11.0"


class Ran:
    """Stands in for running steps: says which ones, with log and seconds, and that those in `fails` failed."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str, float]] = []
        self.fails: set[str] = set()

    def __call__(self, step: Step, log: Path, allowed: float) -> Result:
        self.steps.append((step.name, log.stem, allowed))
        note = GPU if step.name == "device" else "a note"
        return Result(step.name, step.name not in self.fails, 1.0, note, f"| {step.name} | yes |\nlast words\n")

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.steps]

    @property
    def seconds(self) -> list[float]:
        return [allowed for *_, allowed in self.steps]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ran:
    ran = Ran()
    monkeypatch.setattr(gpu_check, "run", ran)
    monkeypatch.setattr(gpu_stages, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setattr(gpu_stages, "STAMP", tmp_path / "scratch" / "built")
    monkeypatch.setattr(gpu_stages, "missing", list)
    return ran


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["gpu_check", *arguments])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    return ended.value.code


BUILD = ["device", "build", "build_info"]
STEPS = {
    "first": ["correctness", "quick"],
    "harness": ["harness"],
    "tests": ["large", "tests"],
    "benchmark": ["benchmark"],
    "sanitizers": list(SANITIZERS),
}


def test_all_stages_in_order_and_the_table_last(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran.fails.add("correctness")
    assert main(monkeypatch, str(tmp_path / "out")) is True
    names = [*BUILD, *(name for steps in STEPS.values() for name in steps)]
    assert ran.names == names and list(STEPS) == list(STAGES)
    assert max(ran.seconds) <= gpu_check.LIMIT
    logs = {log for _, log, _ in ran.steps}
    assert logs == set(STAGES) and len(logs) + len((gpu_check.SUMMARY, "the CSV", "the harness's")) <= 8

    want = [[name, "FAILED" if name == "correctness" else "ok", "1"] for name in names]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in printed[-len(names) :]] == want
    assert "--- the end of correctness" in printed and "| benchmark | yes |" in printed
    summary = (tmp_path / "out" / gpu_check.SUMMARY).read_text().splitlines()
    assert summary == [gpu_check.HEAD, *printed[-len(names) :]]


@pytest.mark.parametrize("name", STAGES)
def test_one_stage_by_itself(name: str, ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert main(monkeypatch, str(tmp_path), name) is False
    assert ran.names == [*(BUILD if STAGES[name].needs_build else []), *STEPS[name]]
    if name == "first":  # with a build of a minute, under five minutes
        assert sum(ran.seconds[len(BUILD) :]) <= 260


def test_an_unknown_stage_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(monkeypatch, str(tmp_path / "out"), "frist") == 2
    assert f"there is no stage 'frist': expected one of {', '.join(STAGES)}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_limit_is_for_everything(ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert main(monkeypatch, str(tmp_path), "--limit", "80", "benchmark", "sanitizers") is False  # make's order
    assert ran.names == [*BUILD, *STEPS["benchmark"], *STEPS["sanitizers"]] and max(ran.seconds) <= 80


@pytest.mark.parametrize("failed", ("device", "build", "build_info"))
def test_what_needs_the_build_does_not_run_without(
    failed: str, ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran.fails.add(failed)
    assert main(monkeypatch, str(tmp_path)) is True
    assert ran.names == [*BUILD[: BUILD.index(failed) + 1], "harness"]


def test_the_build_is_made_once_for_the_same_files(ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Check(tmp_path, 60).build("first") and Check(tmp_path, 60).build("tests")
    assert ran.names == [*BUILD, "device", "build_info"]
    assert gpu_stages.is_current(GPU) and not gpu_stages.is_current(GPU.replace("2.11", "2.12"))
    monkeypatch.setattr(gpu_stages, "ROOT", tmp_path)
    (tmp_path / "tools").mkdir()
    for name in ("setup.py", "tools/cuda_toolkit.py"):
        (tmp_path / name).write_text("")
    assert not gpu_stages.is_current(GPU)
    gpu_stages.mark_current(GPU)
    assert gpu_stages.is_current(GPU)
    (tmp_path / "setup.py").write_text("something else")
    assert not gpu_stages.is_current(GPU)


def test_time_is_shared_by_the_steps_that_are_left(ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = [Step(name, [], str, seconds) for name, seconds in (("a", 1e6), ("b", 5), ("c", 1e6))]
    monkeypatch.setitem(STAGES, "first", Stage("", lambda folder, left: steps, needs_build=False))
    Check(tmp_path, 90).stage("first")
    assert ran.seconds == pytest.approx([30, 5, 90], abs=1)


# ---- the commands ----------------------------------------------------------------------------------------------------


def selected(*arguments: str, path: str = "") -> tuple[int, str]:
    """Exit status and output of a collection, with modules from `path` before all others."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_first_tests_exist() -> None:
    status, printed = selected(*gpu_stages.FIRST)
    assert status == 0, printed
    for name in gpu_stages.FIRST:  # all have cases on the GPU, which this machine's collection need not show
        module, _, function = name.removeprefix("tests/").partition(".py::")
        test = getattr(importlib.import_module(module), function) if function else None
        assert "cuda" in module or "device" in inspect.signature(test).parameters


def test_all_tests_are_collected_without_the_packages_that_may_lack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lacking = [name for name in OPTIONAL if name != "xdist"]
    monkeypatch.setattr(gpu_stages, "missing", lambda: [*lacking, "xdist"])
    packages, large, rest = gpu_stages.tests(Path(), 60)
    note = run(packages, tmp_path / "tests.log", 60).note
    assert "no tqdm: without test_example.py, test_example_counts.py; no xdist: without several tests" in note
    files = [argument for argument in (*large.command, *rest.command) if argument.startswith("tests/")]
    assert files[1].startswith("tests/test_cuda_") and not {*gpu_stages.EMULATED, "tests/test_example.py"} & set(files)
    for name in lacking:
        (tmp_path / f"{name}.py").write_text("raise ImportError('as if it were not there')")
    status, printed = selected("-p", "no:hypothesispytest", *files, path=str(tmp_path))
    assert status == 0, printed


@pytest.mark.parametrize("make", [gpu_stages.first, gpu_stages.tests])
def test_tests_are_watched(make: Callable[[Path, float], list[Step]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    steps = [step for step in make(Path(), 60) if "pytest" in step.command]
    for step in steps:
        assert "watched" in step.command and "-v" in step.command
        assert dict(step.environment)["PYTHONPATH"] == os.pathsep.join([str(ROOT / "tests"), "/elsewhere"])
    assert steps


def test_a_missing_harness_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_stages, "ROOT", tmp_path)
    (step,) = gpu_stages.harness(tmp_path, 60)
    result = run(step, tmp_path / "harness.log", 60)
    assert not result.good and "there is no tools/timing.py" in result.note


def test_a_missing_sanitizer_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda_toolkit, "programs", lambda name: [])
    results = [run(step, tmp_path / "sanitizers.log", 60) for step in gpu_stages.sanitizers(tmp_path, 60)]
    assert [result.name for result in results if not result.good] == list(SANITIZERS)
    assert all("no compute-sanitizer in" in result.note for result in results)


def test_sanitizers_take_the_options_that_they_know(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text("#!/bin/sh\necho '  --kernel-regex arg (=) Filter.'\n")
    program.chmod(0o755)
    monkeypatch.setattr(cuda_toolkit, "programs", lambda name: [str(program)])
    commands = {step.name: list(step.command) for step in gpu_stages.sanitizers(tmp_path, 60)}
    filtered = {tool for tool, command in commands.items() if "kns=pyvae" in command}
    assert filtered == {"racecheck", "synccheck"} and "--kernel-regex" in commands["racecheck"]
    assert "--report-api-errors" in commands["memcheck"]


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
