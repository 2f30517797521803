"""csrc/math over arrays: compiles one of tests/cpp/probe*.cpp for each instruction set and calls it through ctypes."""

from __future__ import annotations

import ast
import ctypes
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from glob import glob
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent


def _build_flags() -> tuple[list[str], dict[str, list[str]]]:
    """The kernels' flags, common and by variant: setup.py's assignments to names in capitals, without running it."""
    setup = ast.parse((ROOT / "setup.py").read_text())
    constants = [node for node in setup.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()]
    scope = {"platform": platform, "glob": glob, "os": os}
    exec(compile(ast.Module(constants, []), "setup.py", "exec"), scope)
    return scope["KERNEL_FLAGS"], scope["VARIANT_FLAGS"]


FLAGS, VARIANTS = _build_flags()
# What /proc/cpuinfo calls the instructions that a variant is compiled for.
NEEDS = {"avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl"}, "avx2": {"avx2", "fma", "f16c"}, "baseline": set()}


def supported() -> list[str]:
    """The variants that this machine can run, widest first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ["baseline"]
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    return [name for name, needs in NEEDS.items() if needs <= set(flags.split())]


def build(variant: str, folder: Path, name: str = "probe") -> Probe:
    """tests/cpp/NAME.cpp for one variant."""
    library = folder / f"{name}_{variant}.so"
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    source, include = ROOT / "tests" / "cpp" / f"{name}.cpp", ROOT / "csrc"
    options = ["-shared", "-fvisibility=default", f"-DPYVAE_ISA={variant}", *VARIANTS[variant], f"-I{include}"]
    subprocess.run([*compiler, *FLAGS, *options, str(source), "-o", str(library)], check=True)
    return Probe(ctypes.CDLL(str(library)))


def _pointer(array: NDArray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


class Probe:
    """One compiled variant."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def __call__(
        self, name: str, *inputs: NDArray, outputs: int = 1, dtype: type | None = None, codes: Sequence[int] = ()
    ) -> list[NDArray]:
        """Calls NAME_float or NAME_double, by the type of the outputs, that of the first input unless stated."""
        kind = np.dtype(dtype or inputs[0].dtype)
        results = [np.empty(inputs[0].shape, dtype=kind) for _ in range(outputs)]
        entry = getattr(self.library, f"{name}_{'float' if kind == np.float32 else 'double'}")
        entry(*codes, ctypes.c_int64(inputs[0].size), *map(_pointer, inputs), *map(_pointer, results))
        return results

    def philox(self, counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Counters (n, 4) and keys (n, 2) to words (n, 4)."""
        words = np.empty_like(counter)
        self.library.philox(ctypes.c_int64(len(counter)), _pointer(counter), _pointer(key), _pointer(words))
        return words

    def draw(self, seed: int, first: int, count: int, dtype: type) -> NDArray:
        """The normals of the global indices from `first` on."""
        normals = np.empty(count, dtype=dtype)
        entry = self.library.draw_float if normals.itemsize == 4 else self.library.draw_double
        words = (ctypes.c_uint64(word % 2**64) for word in (seed, first))
        entry(ctypes.c_int64(count), *words, _pointer(normals))
        return normals


def evenly(low: float, high: float, count: int, dtype: type) -> NDArray:
    """About `count` numbers from low to high, at equal distances in their order: every binade gets its share."""
    integer, sign = (np.int32, 2**31) if np.dtype(dtype) == np.float32 else (np.int64, 2**63)

    def rank(x: float) -> int:  # consecutive floats have consecutive ranks; both zeros have rank 0
        bits = int(np.array(x, dtype).view(integer))
        return bits if bits >= 0 else -(bits + sign)

    first, last = rank(low), rank(high)
    ranks = np.arange(first, last + 1, max(1, (last - first) // count), dtype=np.int64)
    bits = np.where(ranks < 0, -ranks, ranks).astype(integer)
    values = bits.view(dtype)
    return np.where(ranks < 0, -values, values)


def same(a: Sequence[NDArray], b: Sequence[NDArray]) -> bool:
    """Equal bit for bit; one NaN is as good as another."""
    return all(
        np.array_equal(x, y, equal_nan=True) and np.array_equal(np.signbit(x[x == 0]), np.signbit(y[y == 0]))
        for x, y in zip(a, b, strict=True)
    )
