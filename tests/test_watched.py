"""Tests that hang: each fails by itself, named, and those after it run. And failures that are explained at once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Within C no signal gets through to Python, nor, in the third, does any other thread of it run.
BLOCK = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])"
HANGING = {
    "in_python": "while True: time.sleep(0.01)",
    "within_c": f"{BLOCK}; time.sleep(600)",
    "with_the_lock": f"{BLOCK}; ctypes.PyDLL(None).sleep(600)",
}


def run(folder: Path, hanging: str, *options: str) -> tuple[int, str]:
    """A run of one test that hangs between two that do not."""
    file = folder / "test_it.py"
    file.write_text(
        "import ctypes, signal, time\ndef test_before(): pass\n"
        f"def test_hangs():\n    {HANGING[hanging]}\ndef test_after(): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", f"--rootdir={folder}", f"-c{os.devnull}"]
    command += ["-p", "no:cacheprovider", "-p", "watched", "--seconds-each=1", "--grace=1", *options, str(file)]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_one_that_hangs_in_python_fails_and_the_next_runs(tmp_path: Path) -> None:
    status, printed = run(tmp_path, "in_python")
    assert status == 1 and "1 failed, 2 passed" in printed
    explained = printed.index("Failed: test_it.py::test_hangs took more than 1 s")
    assert explained < printed.index("test_after PASSED")  # and not only at the end


@pytest.mark.parametrize("hanging", ("within_c", "with_the_lock"))
def test_one_that_hangs_elsewhere_ends_its_process_and_is_named(hanging: str, tmp_path: Path) -> None:
    status, printed = run(tmp_path, hanging)
    assert status == 1 and "test_before PASSED" in printed and "test_after" not in printed
    assert "Timeout (0:00:02)!" in printed and "in test_hangs" in printed


@pytest.mark.skipif(not importlib.util.find_spec("xdist"), reason="pytest-xdist is not installed")
@pytest.mark.parametrize("hanging", HANGING)
def test_another_worker_runs_what_comes_after(hanging: str, tmp_path: Path) -> None:
    status, printed = run(tmp_path, hanging, "-n1")
    assert status == 1 and "1 failed, 2 passed" in printed
    if hanging != "in_python":
        assert "crashed while running 'test_it.py::test_hangs'" in printed and "in test_hangs" in printed
