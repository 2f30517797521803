"""Other torches and Pythons: `nox -s "tests-3.12(2.14)"`; `nox --list` shows the pairs, words after `--` go to pytest.

A session builds a copy of the sources for the CPU and runs the tests that another torch can change, those with the
marker `torch_sensitive`. It takes minutes, and gigabytes in build/nox, which `make clean` removes: torches come from
PyPI, most of them builds for CUDA. MAX_JOBS and FORCE_CUDA mean what they mean for setup.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
TORCHES = [nox.param(version, id=version) for version in ("2.11", "2.13", "2.14", "2.15")]

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "venv"
nox.options.envdir = "build/nox"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = []  # none without a name


def copy_sources(target: Path) -> None:
    """Copies what git knows, as it is in the work tree: a build in place belongs to one torch."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    shutil.rmtree(target, ignore_errors=True)
    for name in filter(None, listed.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)


@nox.session(python=["3.10", "3.11", "3.12", "3.13", "3.14"])
@nox.parametrize("torch", TORCHES)
def tests(session: nox.Session, torch: str) -> None:
    """The tests that a torch can change; a torch of a minor version is its latest release."""
    copy = Path(session.create_tmp(), "pyvae").resolve()
    copy_sources(copy)
    session.chdir(copy)
    # PYTHONPATH would bring another environment's packages. Threads of OpenMP that wait do not spin, as in `make test`.
    force = os.environ.get("FORCE_CUDA", "0")
    session.env.update(PYTHONPATH="", FORCE_CUDA=force, OMP_WAIT_POLICY="passive")
    session.install("setuptools>=70.1", "ninja", f"torch=={torch}.*")
    # Without isolation: a build is for the torch that it will run with.
    session.install("--no-build-isolation", "-e", ".[test]")
    session.run("python", "-m", "pyvae")
    session.run("python", "-m", "pytest", "-n2", "--dist=loadfile", "-m", "torch_sensitive", *session.posargs)
