"""tools/versions.py: which pairs it takes, what it makes of their steps, its rows. Nothing is downloaded or built."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import conftest
import pytest

import versions
from gpu_logs import Failed
from gpu_stages import ROOT, Result
from versions import Python, Row

HERE = Python(sys.executable, "3.11.7")
GOOD = Row("2.13.0+cpu", "3.11.7", "abc1234", "100", "selected", "1000", "0", "2")
PASSED = "===== 1000 passed, 2 skipped in 61.50s (0:01:01) ====="
FAILED = "FAILED tests/test_a.py::test_b[1|2] - assert 1 == 2\n===== 3 failed, 997 passed, 1 error in 9.00s ====="
STEPS = ("environment", "install", "torch", "build", "packages", "tests")


@pytest.mark.parametrize(
    ("torch", "expected"),
    [
        ("2.13", "torch==2.13.*"),
        ("2.13.0", "torch==2.13.0"),
        ("2.13.0+cpu", "torch==2.13.0+cpu"),
        ("newest", "torch"),
    ],
)
def test_requirement(torch: str, expected: str) -> None:
    assert versions.requirement(torch) == expected


@pytest.mark.parametrize("torch", ["", "2", "torch", "torch==2.13", "2.13 --index-url x"])
def test_what_is_no_torch_is_refused(torch: str) -> None:
    with pytest.raises(ValueError, match=r"expected a torch as 2\.13, 2\.13\.0 or newest, but got"):
        versions.requirement(torch)


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_pythons_are_those_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shim of pyenv on PATH may run nothing, or another version than its name says."""
    shims, pyenv = tmp_path / "shims", tmp_path / "pyenv"
    program(shims, "python9.1", "exit 127")
    program(shims, "python9.2", "echo 9.1.7")
    program(shims, "python9.3", "echo 9.3.1")
    real = program(pyenv, "versions/9.1.5/bin/python9.1", "echo 9.1.5")
    monkeypatch.setenv("PATH", f"{shims}:/bin:/usr/bin")
    monkeypatch.setenv("PYENV_ROOT", str(pyenv))
    assert versions.find_python("9.1") == Python(str(real), "9.1.5")
    assert versions.find_python("9.2") is None
    assert versions.find_python("9.3") == Python(str(shims / "python9.3"), "9.3.1")
    assert versions.find_python("9.4") is None
    assert versions.find_python(str(real)) == Python(str(real), "9.1.5")
    assert versions.find_python(str(tmp_path / "none")) is None


def test_a_missing_python_that_was_asked_for_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["versions.py", "--python", "9.9"])
    with pytest.raises(SystemExit):
        versions.main()
    assert "no usable Python 9.9 here" in capsys.readouterr().err


def test_a_folder_within_the_sources_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be copied into itself."""
    monkeypatch.setattr(sys, "argv", ["versions.py", "--python", sys.executable, "--folder", str(ROOT / "new")])
    with pytest.raises(SystemExit):
        versions.main()
    assert f"--folder: expected one outside of the sources, but got {ROOT / 'new'}" in capsys.readouterr().err


def test_every_pair_is_tried_and_has_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pythons = {"3.11": HERE, "3.12": Python("other", "3.12.1"), "3.14": None}
    monkeypatch.setattr(versions, "find_python", pythons.__getitem__)
    monkeypatch.setattr(versions, "PYTHONS", tuple(pythons))
    monkeypatch.setattr(versions.signal, "signal", lambda *_: None)
    made = Row("", "", "abc1234")
    monkeypatch.setattr(
        versions, "attempt", lambda torch, python, *_: made._replace(torch=torch, python=python.version)
    )
    out = tmp_path / "rows.csv"
    monkeypatch.setattr(sys, "argv", ["versions.py", "--torch", "2.14", "2.9", "--out", str(out)])
    versions.main()
    made = made._replace(error="build: no")
    with pytest.raises(SystemExit, match="1"):
        versions.main()
    tried = [(one.torch, one.python) for one in versions.read(out)]
    assert tried == [("2.9", "3.11.7"), ("2.9", "3.12.1"), ("2.14", "3.11.7"), ("2.14", "3.12.1")]


def test_the_list_is_of_files_that_are_there(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["versions.py", "--list"])
    versions.main()
    listed = capsys.readouterr().out.split()
    assert len(listed) == len(versions.SELECTED) and all((ROOT / name).exists() for name in listed)


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_run_that_is_ended_leaves_no_gigabytes(number: int, tmp_path: Path) -> None:
    scratch, started = tmp_path / "scratch", tmp_path / "started"
    scratch.mkdir()
    python = program(tmp_path, "python", f"[ $1 = -c ] && echo 9.1.0 && exit\necho $$ > {started}\nexec sleep 600")
    command = [sys.executable, versions.__file__, "--torch", "2.13", "--python", str(python)]
    command += ["--out", str(tmp_path / "rows.csv")]  # not the table of the README

    def in_the_background() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts a program beside others

    given = {"env": {**os.environ, "TMPDIR": str(scratch)}, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **given, preexec_fn=in_the_background) as run:
        while not (started.exists() and started.read_text()):
            assert run.poll() is None
            time.sleep(0.05)
        assert list(scratch.iterdir())
        run.send_signal(number)
        assert run.wait()
    assert not list(scratch.iterdir())
    step = Path("/proc", started.read_text().strip(), "cmdline")
    assert not (step.exists() and step.read_text())


def test_the_copy_has_the_sources_and_nothing_that_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout, copy = tmp_path / "checkout", tmp_path / "copy"
    kept = {".gitignore", ".ci/run", "a.py", "b/build/c.py", "b/_C.cpp"}
    for name in {
        *kept,
        ".git/config",
        "build/c.o",
        "b/_C.x.so",
        "b/d.pyc",
        "x.egg-info/e",
        ".venv-2/f",
        "b/__pycache__/g",
    }:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(name, encoding="utf-8")
    ignored = "# built\n/build/\n/b/_C.*.so\n\n*.pyc\n/*.egg-info/\n/.venv*/\n__pycache__/\n"
    (checkout / ".gitignore").write_text(ignored, encoding="utf-8")
    monkeypatch.setattr(versions, "ROOT", checkout)
    versions.copy_sources(copy)
    assert {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()} == kept
    assert versions.commit() == "unknown"  # of a folder that is not under git


def test_steps_are_those_of_the_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_CUDA", raising=False)
    steps = versions.steps("2.13", HERE, tmp_path, every_test=False)
    assert tuple(step.name for step in steps) == STEPS
    assert {step.folder for step in steps} == {tmp_path / "pyvae"}
    assert all(("FORCE_CUDA", "0") in step.environment for step in steps)
    assert steps[0].command[0] == sys.executable and "torch==2.13.*" in steps[1].command
    tests = [word for word in steps[-1].command if word.startswith("tests/")]
    assert len(tests) > 10 and all((ROOT / test).is_file() for test in tests)
    everything = versions.steps("2.13", HERE, tmp_path, every_test=True)[-1].command
    assert everything[-4:] == ["tests", *(f"--ignore={file}" for file in versions.LEFT_OUT)]
    assert all((ROOT / file).is_file() for file in versions.LEFT_OUT)
    assert versions.steps("2.13", HERE, tmp_path, every_test=False, one_in=4)[-1].command[-1] == "--one-in=4"


def test_a_share_of_the_cases_has_some_of_every_test() -> None:
    def item(name: str) -> SimpleNamespace:
        return SimpleNamespace(nodeid=name)

    grid = [f"test_a.py::test_many[{kind}-{i}]" for kind in "xyz" for i in range(100)]
    names = ["test_a.py::test_one", *grid, "test_b.py::test_many[x]", "test_b.py::test_few[x-1]"]
    items, left_out = [item(name) for name in names], []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    config = SimpleNamespace(getoption={"--one-in": 3}.get, hook=hook)
    conftest.pytest_collection_modifyitems(config, items)
    kept = [one.nodeid for one in items]
    assert sorted(kept + [one.nodeid for one in left_out]) == sorted(names)
    assert {name.partition("[")[0] for name in kept} == {name.partition("[")[0] for name in names}
    assert 80 < len(kept) < 130
    assert all(20 < sum(f"[{kind}-" in name for name in kept) < 50 for kind in "xyz")


def test_force_cuda_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_CUDA", "1")
    assert ("FORCE_CUDA", "1") in versions.steps("2.13", HERE, tmp_path, every_test=False)[0].environment


def results(*, ended_by: str = "tests", note: str = "", output: str = PASSED) -> list[Result]:
    """Steps that went well up to this one, which did not if there is a note."""
    names = STEPS[: STEPS.index(ended_by) + 1]
    notes = {"torch": "2.13.0+cpu", ended_by: note}
    return [
        Result(name, not (note and name == ended_by), 99.6, notes.get(name, ""), output if name == "tests" else "")
        for name in names
    ]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (results(), GOOD),
        (
            results(note="tests/test_a.py::test_b - no", output=FAILED),
            GOOD._replace(passed="997", failed="4", skipped="0", error="tests: tests/test_a.py::test_b - no"),
        ),
        (
            results(note="pytest did not come to its end", output="Segmentation fault"),
            GOOD._replace(passed="", failed="", skipped="", error="tests: pytest did not come to its end"),
        ),
        (
            results(ended_by="build", note="a.cpp:1: error: no"),
            Row("2.13.0+cpu", "3.11.7", "abc1234", error="build: a.cpp:1: error: no"),
        ),
        (
            results(ended_by="install", note="exit status 1: ERROR: No matching distribution"),
            Row("2.13", "3.11.7", "abc1234", error="install: exit status 1: ERROR: No matching distribution"),
        ),
    ],
)
def test_row(steps: list[Result], expected: Row) -> None:
    assert versions.row("2.13", HERE, "abc1234", "selected", steps) == expected


def test_row_says_which_tests_ran() -> None:
    assert versions.row("2.13", HERE, "abc1234", "all", results()).tests == "all"


@pytest.mark.parametrize(
    ("judge", "text", "note"),
    [
        (versions.built, "c++ a.cpp\na.cpp:1:2: error: no x\nRuntimeError: failed", "a.cpp:1:2: error: no x"),
        (versions.built, "no compiler\npyvae: install g++", "exit status 1: pyvae: install g++"),
        (versions.tested, FAILED, "tests/test_a.py::test_b[1|2] - assert 1 == 2"),
        (versions.tested, "===== 3 failed, 997 passed in 9.00s =====", "3 failed, 997 passed in 9.00s"),
        (versions.tested, "Segmentation fault", "pytest did not come to its end"),
    ],
)  # fmt: skip
def test_what_failed_is_named(judge: Callable[[str, int], str], text: str, note: str) -> None:
    with pytest.raises(Failed) as failed:
        judge(text, 1)
    assert str(failed.value) == note


def test_a_row_takes_its_pairs_place(tmp_path: Path) -> None:
    newer, older = GOOD._replace(torch="2.14.1+cu130"), GOOD._replace(torch="2.9.1", python="3.9.1")
    again = GOOD._replace(python="3.11.9", passed="1001", error='a "word", and more')
    rows: list[Row] = []
    for new in (newer, GOOD, older, GOOD._replace(python="3.9.1"), again):
        rows = versions.merge(rows, new)
    assert rows == [older, GOOD._replace(python="3.9.1"), again, newer]
    assert versions.read(tmp_path / "none.csv") == []
    versions.write(tmp_path / "rows.csv", rows)
    assert versions.read(tmp_path / "rows.csv") == rows


def test_table() -> None:
    broken = GOOD._replace(python="3.12.1", passed="997", failed="4", skipped="0", error="tests: a.py::b[1|2] - no")
    none = Row("2.15", "3.10.1", "abc1234", error="install: exit status 1")
    assert versions.table([GOOD, broken, none]).splitlines()[2:] == [
        "| 2.13.0+cpu | 3.11.7 | 1000 passed, 2 skipped |",
        r"| 2.13.0+cpu | 3.12.1 | 997 passed, 4 failed: tests: a.py::b[1\|2] - no |",
        "| 2.15 | 3.10.1 | install: exit status 1 |",
    ]


def test_the_readme_has_the_table_of_the_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = versions.README.read_text(encoding="utf-8")
    copy = tmp_path / "README.md"
    copy.write_text(versions.insert(text, versions.MARKER, "old"), encoding="utf-8")
    monkeypatch.setattr(versions, "README", copy)
    monkeypatch.setattr(sys, "argv", ["versions.py", "--readme"])
    versions.main()
    assert versions.read(versions.CSV) and copy.read_text(encoding="utf-8") == text
