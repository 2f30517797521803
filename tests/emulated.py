"""The CUDA kernels on the CPU, where there is no GPU: another `pyvae._C`, whose operators run csrc/cuda on CPU tensors.

It is made of the CUDA half of the extension with tests/cpp/emulated in the place of CUDA's headers and of
csrc/ops/cuda/runtime, and without the CPU's kernels. As a plugin of pytest, with this folder on PYTHONPATH, it stands
in for the extension in the whole process:

    python -m pytest -p emulated --capture=sys tests/test_values.py

What the emulator finds wrong it prints, and then aborts: hence --capture=sys, which leaves stderr's file alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("build") / f"emulated-torch-{torch.__version__}-{sys.implementation.cache_tag}"  # in ROOT


def build(*names: str) -> list[Path]:
    """Compiles what has changed of `_C.so`, the operators; `kernels.so`; `address.so`, kernels that check every
    address; and `self_test`, the program that tests the emulator."""
    includes = [*cpp_extension.include_paths(), sysconfig.get_path("include")]
    libraries = [*(f"-L{path}" for path in cpp_extension.library_paths()), "-ltorch_python", "-ltorch_cpu", "-lc10"]
    given = {
        "FOLDER": str(FOLDER),
        "INCLUDES": shlex.join(word for path in includes for word in ("-isystem", path)),
        "LIBRARIES": shlex.join(libraries),
    }
    command = ["make", f"-j{len(os.sched_getaffinity(0))}", "-f", "tests/cpp/emulated/Makefile"]
    command += [*(f"{name}={value}" for name, value in given.items()), *(str(FOLDER / name) for name in names)]
    (ROOT / FOLDER).mkdir(parents=True, exist_ok=True)
    with (ROOT / FOLDER / "lock").open("w") as lock:  # one build at a time: tests may run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [ROOT / FOLDER / name for name in names]


def address_environment() -> dict[str, str]:
    """What a process needs that loads `address.so`."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    paths = [
        subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
        for name in ("libasan.so", "libstdc++.so")  # the second, or the first does not find what throws exceptions
    ]
    return {
        "PYVAE_EMULATED_ADDRESS": "1",
        "LD_PRELOAD": " ".join(os.path.realpath(path.strip()) for path in paths),
        "ASAN_OPTIONS": "detect_leaks=0",
    }


# ---- standing in for the extension -----------------------------------------------------------------------------------


def install() -> ctypes.CDLL:
    """Makes it `pyvae._C`, before pyvae is imported."""
    assert "pyvae" not in sys.modules
    checked = os.environ.get("PYVAE_EMULATED_ADDRESS") == "1"
    extension_path, kernels_path = build("_C.so", "address.so" if checked else "kernels.so")
    kernels = ctypes.CDLL(str(kernels_path), mode=ctypes.RTLD_GLOBAL)  # where the extension finds their symbols
    spec = importlib.util.spec_from_file_location("pyvae._C", extension_path)
    assert spec and spec.loader
    sys.modules["pyvae._C"] = extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    record = ModuleType("pyvae._build")
    record.__dict__.update(TORCH=torch.__version__, COMPILER="emulated", INSTRUCTION_SETS=(), OPENMP=True)
    record.__dict__.update(CUDA=None, CUDA_ARCHITECTURES=())
    sys.modules["pyvae._build"] = record
    return kernels


# ---- the plugin ------------------------------------------------------------------------------------------------------

# Tests that ask of the CPU's kernels what the CUDA kernels do not promise.
UNSUITED = {
    "test_instruction_sets_give_the_same_bits": "there are no instruction sets in this build",
    "test_numbers_of_threads_give_the_same_bits": "launches do not use the CPU's threads",
    "test_a_likelihood_gives_the_same_bits_with_any_number_of_threads": "likewise",
    "test_negative_counts_are_refused": "without a look at the data they give NaN",
    "test_what_is_selected_is_still_refused": "likewise",
    "test_a_negative_std_is_refused_on_the_cpu": "likewise",
    "test_repeated_runs_give_the_same_bits": "one order of blocks repeats itself",
}
_kernels: ctypes.CDLL


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    global _kernels
    _kernels = install()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def suited(item: pytest.Item) -> bool:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        return parameters.get("backend") != "reference" and item.name.split("[")[0] not in UNSUITED

    config.hook.pytest_deselected(items=[item for item in items if not suited(item)])
    items[:] = [item for item in items if suited(item)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"emulated launches: {ctypes.c_long.in_dll(_kernels, 'emulated_launches').value}")
