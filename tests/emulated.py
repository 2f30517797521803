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
import hashlib
import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[1]
EMULATED = ROOT / "tests" / "cpp" / "emulated"
FOLDER = ROOT / "build" / f"emulated-torch-{torch.__version__}-{sys.implementation.cache_tag}"

INCLUDES = [f"-I{EMULATED}", f"-I{ROOT / 'csrc'}"]
SYSTEM_INCLUDES = [*cpp_extension.include_paths(), sysconfig.get_path("include")]
EXTENSION_FLAGS = [
    *("-O1", "-g0", "-std=c++20", "-fPIC", "-fvisibility=hidden"),
    *("-DPYVAE_DEVICE_KEY=CPU", "-DPYVAE_DEVICE_TYPE=kCPU", *INCLUDES),
    "-DPYVAE_SEEDS_FROM_PYTHON",  # as the CPU draws them, whose reference the tests compare with
    *(word for path in SYSTEM_INCLUDES for word in ("-isystem", path)),
]
# As nvcc: contraction off, cuda_runtime.h before everything. fma is one instruction, or the tests would take an hour.
# A misaligned vector is an error on the GPU, and an index past the end of an array is one everywhere.
KERNEL_FLAGS = [
    *("-O1", "-g1", "-std=c++17", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-ffp-contract=off", *INCLUDES),
    *("-mfma" for _ in range(platform.machine().lower() in ("x86_64", "amd64"))),
    *("-fsanitize=alignment,bounds,null,pointer-overflow", "-fno-sanitize-recover=all"),
    *("-include", "cuda_runtime.h", "-x", "c++"),
]
# Addresses, too: reading or writing past the end of a tensor. The process needs address_environment().
ADDRESS_FLAGS = ["-fsanitize=address", "--param=asan-stack=0"]


class Build(NamedTuple):
    extension: Path
    kernels: Path


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))


# ---- building: what has changed, by content --------------------------------------------------------------------------


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")


def _digest(command: list[str], files: Iterable[Path]) -> str:
    content = hashlib.sha256(shlex.join(command).encode())
    for file in files:
        content.update(file.read_bytes() if file.exists() else b"missing")
    return content.hexdigest()


def _make(command: list[str], target: Path, inputs: list[Path]) -> Path:
    """Runs the command, unless target was made by it from the same inputs (and the headers that they included)."""
    note, listing = target.with_suffix(".made"), target.with_suffix(".d")

    def files() -> list[Path]:
        headers = listing.read_text().replace("\\\n", " ").split()[1:] if listing.exists() else []
        return [*inputs, *map(Path, headers)]

    if target.exists() and note.exists() and note.read_text() == _digest(command, files()):
        return target
    note.unlink(missing_ok=True)
    _run(command)
    note.write_text(_digest(command, files()))
    return target


def _compile(source: Path, flags: list[str], folder: Path) -> Path:
    target = folder / (str(source.relative_to(ROOT)).replace("/", "-") + ".o")
    return _make([*compiler(), *flags, "-MMD", "-c", str(source), "-o", str(target)], target, [source])


def _link(target: Path, objects: list[Path], flags: list[str]) -> Path:
    return _make([*compiler(), "-shared", *map(str, objects), *flags, "-o", str(target)], target, objects)


def _emulator() -> Path:  # not sanitized: it jumps between stacks
    return _compile(EMULATED / "emulator.cpp", ["-O2", "-std=c++17", "-fPIC", "-Wall", *INCLUDES], FOLDER)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One build at a time: tests may run in several processes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(address: bool = False) -> Build:
    """Compiles what has changed; with `address`, kernels that check every address."""
    csrc = ROOT / "csrc"
    sources = [
        csrc / "bindings.cpp",
        *sorted(csrc.glob("ops/*.cpp")),
        *sorted(csrc.glob("ops/autograd/*.cpp")),
        EMULATED / "runtime.cpp",
    ]
    sources += [source for source in sorted(csrc.glob("ops/cuda/*.cpp")) if source.name != "runtime.cpp"]
    kernels = sorted(csrc.glob("cuda/*.cu"))
    checks = ADDRESS_FLAGS if address else []
    folder = FOLDER / ("address" if address else "kernels")
    folder.mkdir(parents=True, exist_ok=True)
    libraries = [*(f"-L{path}" for path in cpp_extension.library_paths()), "-ltorch_python", "-ltorch_cpu", "-lc10"]
    with _locked(FOLDER), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = pool.map(lambda source: _compile(source, EXTENSION_FLAGS, FOLDER), sources)
        kernel_objects = pool.map(lambda source: _compile(source, [*checks, *KERNEL_FLAGS], folder), kernels)
        linked = _link(folder / "libkernels.so", [*kernel_objects, _emulator()], [*checks, "-fsanitize=undefined"])
        return Build(_link(FOLDER / "_C.so", list(objects), libraries), linked)


def build_self_test() -> Path:
    """The program that tests the emulator (tests/cpp/emulated/self_test.cu)."""
    with _locked(FOLDER):
        objects = [_compile(EMULATED / "self_test.cu", KERNEL_FLAGS, FOLDER), _emulator()]
        target = FOLDER / "self_test"
        return _make(
            [*compiler(), *map(str, objects), "-rdynamic", "-fsanitize=undefined", "-o", str(target)], target, objects
        )


def address_environment() -> dict[str, str]:
    """What a process needs that loads the kernels of build(address=True)."""
    paths = [
        subprocess.run([*compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
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
    built = build(address=os.environ.get("PYVAE_EMULATED_ADDRESS") == "1")
    kernels = ctypes.CDLL(str(built.kernels), mode=ctypes.RTLD_GLOBAL)  # where the extension finds their symbols
    spec = importlib.util.spec_from_file_location("pyvae._C", built.extension)
    assert spec and spec.loader
    sys.modules["pyvae._C"] = extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    record = ModuleType("pyvae._build")
    record.__dict__.update(TORCH=torch.__version__, COMPILER="emulated", INSTRUCTION_SETS=(), OPENMP=False)
    record.__dict__.update(CUDA=None, CUDA_ARCHITECTURES=())
    sys.modules["pyvae._build"] = record
    return kernels


# ---- the plugin ------------------------------------------------------------------------------------------------------

# Tests that ask of the CPU's kernels what the CUDA kernels do not promise.
UNSUITED = {
    "test_instruction_sets_give_the_same_bits": "there are no instruction sets in this build",
    "test_numbers_of_threads_give_the_same_bits": "launches do not use the CPU's threads",
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
