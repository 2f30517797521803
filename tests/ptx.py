"""The CUDA kernels as nvcc's own PTX, on the CPU: tests/cpp/ptx makes C++ of it, which runs in the emulator in place of
what g++ made of the sources. A plugin of pytest, as tests/emulated.py, on which it rests:

    PYTHONPATH=tests python -m pytest -p ptx --capture=sys tests/test_values.py

It needs an nvcc (tools/cuda_toolkit.py) and no GPU. What it cannot show: the GPU's memory model, what ptxas makes of
the PTX, the last bits of the approximate instructions, speed.
"""

from __future__ import annotations

import ast
import ctypes
import fcntl
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import emulated
import pytest
from emulated import ROOT, pytest_collection_modifyitems  # noqa: F401

sys.path.insert(0, str(ROOT / "tools"))
import cuda_toolkit

HERE = ROOT / "tests" / "cpp" / "ptx"
FOLDER = ROOT / "build" / "ptx"
ARCHITECTURE = "compute_90"  # its PTX is what newer GPUs are given, too
CXX_FLAGS = ["-O1", "-w", "-std=c++17", "-fPIC", "-ffp-contract=off", f"-I{HERE}", f"-I{ROOT}/tests/cpp/emulated"]
if os.uname().machine in ("x86_64", "amd64"):
    CXX_FLAGS += ["-mfma"]  # or each fma is a call
ALONE = (HERE / "alone.cpp", HERE / "machine.cpp")  # what translations need without the emulator


def cxx() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))


def run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout


# ---- building --------------------------------------------------------------------------------------------------------


def cuda_flags() -> list[str]:
    """setup.py's, which cannot be imported without building."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    found = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(x, ast.Name) and x.id == "CUDA_FLAGS" for x in node.targets)
    ]
    return eval(ast.unparse(found[0]), {})  # a list with starred tuples, which literal_eval does not take


def nvcc() -> str:
    found = next(
        (toolkit for program in cuda_toolkit.programs("nvcc") if (toolkit := cuda_toolkit.examine(program))), None
    )
    if found is None:
        raise RuntimeError("no nvcc in CUDA_HOME, on the PATH or among PyPI's packages")
    return found.nvcc


def newer(target: Path, sources: list[Path]) -> bool:
    return target.exists() and target.stat().st_mtime >= max(source.stat().st_mtime for source in sources)


def make_ptx(source: Path, compiler: str) -> Path:
    """The PTX of a .cu file, and C++ of it."""
    target, csrc = FOLDER / f"{source.stem}.ptx", source.parents[1]
    sources = [ROOT / "setup.py", *csrc.rglob("cuda/*"), *csrc.rglob("math/*")]
    if not newer(target, sources):
        flags = [*cuda_flags(), f"-arch={ARCHITECTURE}", f"-I{csrc}"]
        run([compiler, *flags, "-ptx", str(source), "-o", str(target)])
    for old in FOLDER.glob(f"{source.stem}_[0-9]*.cpp"):
        if not newer(old, [target, HERE / "translate.py", HERE / "instructions.py"]):
            old.unlink()
    if not list(FOLDER.glob(f"{source.stem}_[0-9]*.cpp")):
        run([sys.executable, str(HERE / "translate.py"), str(target), str(FOLDER)])
    return target


def compile_cpp(source: Path) -> Path:
    target = FOLDER / f"{source.stem}.o"
    if not newer(target, [source, HERE / "machine.h", ROOT / "tests/cpp/emulated/cuda_runtime.h"]):
        run([*cxx(), *CXX_FLAGS, "-c", str(source), "-o", str(target)])
    return target


def build() -> Path:
    """The library of all kernels of csrc/cuda."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    compiler, library = nvcc(), FOLDER / "kernels.so"
    with (FOLDER / "lock").open("w") as lock, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one build at a time: tests may run in several processes
        sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"), key=lambda path: -path.stat().st_size)
        list(pool.map(lambda source: make_ptx(source, compiler), sources))
        translated = [path for source in sources for path in sorted(FOLDER.glob(f"{source.stem}_[0-9]*.cpp"))]
        objects = list(pool.map(compile_cpp, [*translated, HERE / "machine.cpp"]))
        if not newer(library, objects):
            run([*cxx(), "-shared", *map(str, objects), "-o", str(library)])
    return library


def build_elements(folder: Path) -> Path:
    """The program of elements.cpp."""
    csrc, text, program = ROOT / "csrc", folder / "elements.ptx", folder / "elements"
    run(
        [
            nvcc(),
            *cuda_flags(),
            f"-arch={ARCHITECTURE}",
            f"-I{csrc}",
            "-ptx",
            str(HERE / "elements.cu"),
            "-o",
            str(text),
        ]
    )
    run([sys.executable, str(HERE / "translate.py"), str(text), str(folder)])
    sources = map(str, (folder / "elements_0.cpp", HERE / "elements.cpp", *ALONE))
    run([*cxx(), *CXX_FLAGS, "-O2", f"-I{csrc}", *sources, "-o", str(program)])
    return program


# ---- standing in for the emulated kernels ----------------------------------------------------------------------------


def symbols(library: Path) -> dict[str, tuple[str, int]]:
    """Of each kernel as C++ writes it: its name in the library, and its address there."""
    listed = [line.split() for line in run(["nm", str(library)]).splitlines()]
    names = [(words[2], int(words[0], 16)) for words in listed if len(words) == 3 and words[1] in "tTwW"]
    shown = subprocess.run(
        ["c++filt"], input="\n".join(name for name, _ in names), capture_output=True, text=True, check=True
    )
    plain = [line.removeprefix("void ") for line in shown.stdout.splitlines()]
    return dict(zip(plain, names, strict=True))


def replace(kernels: ctypes.CDLL) -> ctypes.CDLL:
    """Lets every launch run the kernel's PTX, of which each kernel must have some."""
    library = build()
    translated = ctypes.CDLL(str(library))
    of_sources, of_ptx = symbols(Path(kernels._name)), symbols(library)
    names = {text for text in of_sources if re.match(r"pyvae::cuda::\(anonymous namespace\)::\w+_kernel[<(]", text)}
    assert names and names <= of_ptx.keys(), names - of_ptx.keys()
    base = address(kernels.emulated_translate) - of_sources["emulated_translate"][1]
    for text in names:
        name = of_ptx[text][0]
        both = (address(getattr(translated, name + ending)) for ending in ("", "_block_ended"))
        kernels.emulated_translate(*map(ctypes.c_void_p, (base + of_sources[text][1], *both)))
    return translated


def address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


# ---- the plugin ------------------------------------------------------------------------------------------------------

_kernels: ctypes.CDLL


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    global _kernels
    _kernels = emulated.install()
    replace(_kernels)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    launches, translated = (
        ctypes.c_long.in_dll(_kernels, name).value for name in ("emulated_launches", "emulated_translated")
    )
    terminalreporter.write_line(f"launches: {launches}, of PTX: {translated}")
