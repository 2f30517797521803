"""Compiles the program of tools/timing/ for tools/timing.py, a variant of csrc/cuda/tuning.h at a time.

A variant is `shipped`, the file as it is, or what it sets of the constants there that may be tried:
`kPackedBlocks=2+kGradientBlocks=2`. Without torch and with the measured kernels only, one takes seconds.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cuda_toolkit
import machine_code
from cuda_toolkit import Toolkit

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "tools" / "timing"
BUILD = ROOT / "build" / "timing"
SHIPPED = "shipped"

ENTRY = re.compile(r"Compiling entry function '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


class Failed(Exception):
    """A variant that cannot be compiled or timed, in words."""


class Kernel(NamedTuple):
    name: str
    registers: int
    spilled: int  # bytes stored and loaded

    def __str__(self) -> str:
        return f"{self.registers}, {self.spilled} B spilled" if self.spilled else str(self.registers)


class Built(NamedTuple):
    program: Path
    seconds: float
    kernels: list[Kernel]


def tunable() -> list[str]:
    """The constants that a variant may set."""
    return re.findall(r"PYVAE_TUNED\((k\w+),", machine_code.TUNING.read_text("utf-8"))


def flags(variant: str) -> list[str]:
    """'kSmallPart=512+kLargePart=4096' -> one -D for each."""
    if variant == SHIPPED:
        return []
    known = tunable()
    for setting in variant.split("+"):
        name, _, value = setting.partition("=")
        if name not in known or not re.fullmatch(r"[1-9]\d*", value):
            sys.exit(
                f"--variants: expected {SHIPPED}, or name=number joined by + of {', '.join(known)}; got {variant!r}"
            )
    return [f"-DPYVAE_{setting}" for setting in variant.split("+")]


def cuda_flags() -> list[str]:
    """CUDA_FLAGS of setup.py, which builds when it is imported."""
    setup = ast.parse((ROOT / "setup.py").read_text("utf-8"))
    assigned = [node for node in setup.body if isinstance(node, ast.Assign)]
    value = next(node.value for node in assigned if ast.unparse(node.targets[0]) == "CUDA_FLAGS")
    return eval(compile(ast.Expression(value), "setup.py", "eval"))


def find_toolkit() -> Toolkit:
    nvccs = cuda_toolkit.programs("nvcc")
    if toolkit := next(filter(None, map(cuda_toolkit.examine, nvccs)), None):
        return toolkit
    sys.exit(f"no nvcc that runs ({', '.join(nvccs) or 'none found'}): install a CUDA toolkit, or set CUDA_HOME")


def command_output(command: Sequence[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Failed(f"{shlex.join(command)}\n{done.stdout}")
    return done.stdout


def build(toolkit: Toolkit, architectures: Sequence[str], variant: str) -> Built:
    folder = BUILD / "-".join(architectures) / variant
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    host = ["-ccbin", *compiler] if len(compiler) == 1 else []  # -ccbin takes no arguments
    common = [*flags(variant), f"-I{ROOT / 'csrc'}"]
    kernels, program = folder / "kernels.o", folder / "timing"
    targets = map(cuda_toolkit.gencode, architectures)
    compile_kernels = [toolkit.nvcc, *cuda_flags(), *targets, *host, "-Xptxas=-v", *common]
    printed = command_output([*compile_kernels, "-c", str(SOURCES / "kernels.cu"), "-o", str(kernels)])
    # The runtime library by its path: PyPI's toolkit has it under one name only, which -l does not find.
    runtime = cuda_toolkit.runtime(toolkit)
    link = [str(kernels), str(runtime), f"-Wl,-rpath,{runtime.parent}", "-o", str(program)]
    sources = map(str, sorted(SOURCES.glob("*.cpp")))
    command_output([*compiler, "-O2", "-std=c++17", *common, "-isystem", toolkit.include, *sources, *link])
    made = resources(printed)
    if others := [kernel.name for kernel in made if "General" in kernel.name]:
        raise Failed(f"kernels.cu no longer leaves out what is not measured: {others[0]} is compiled")
    return Built(program, time.monotonic() - start, made)


def resources(ptxas: str) -> list[Kernel]:
    """What `ptxas -v` says of each kernel, of each architecture."""
    found = []
    for part in re.split(r"(?=ptxas info\s*: Compiling entry)", ptxas):
        entry, spills, registers = ENTRY.search(part), SPILLS.search(part), REGISTERS.search(part)
        if entry and spills and registers:
            found.append(Kernel(entry[1], int(registers[1]), int(spills[1]) + int(spills[2])))
    mangled = "\n".join(kernel.name for kernel in found)
    names = subprocess.run(["c++filt"], input=mangled, capture_output=True, text=True, check=True).stdout.splitlines()
    return [kernel._replace(name=machine_code.short(name)) for kernel, name in zip(found, names, strict=True)]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def table(built: dict[str, Built]) -> str:
    """Registers, and what is spilled, of each kernel and variant."""
    names = list(dict.fromkeys(kernel.name for one in built.values() for kernel in one.kernels))
    lines = [["registers", *built], ["compiled in", *(f"{one.seconds:.0f} s" for one in built.values())]]
    for name in names:
        of_name = [[str(kernel) for kernel in one.kernels if kernel.name == name] for one in built.values()]
        lines.append([name, *(" / ".join(found) or "-" for found in of_name)])
    return aligned(lines)
