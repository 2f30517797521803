"""Whether the square root of the noise (csrc/math/platform.h) is what CUDA's own computes.

`__fsqrt_rn` is rounded correctly, by an approximate instruction, whose documented error alone would not do, and four
that mend it; for the ends of the number range it branches off. Ours is those five. In the machine code of each
architecture the value that the one computes must be that of the other.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cuda_toolkit

ROOT = Path(__file__).parents[1]
SOURCE = Path(__file__).with_name("root.cu")
LINE = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s+([^;]*);")

Value = str | tuple  # an operand by name, or an operation and its operands


def value_of(machine_code: str, function: str) -> Value:
    """What the function's first store writes, of what its first load reads, as a tree of MUFU.RSQ, FMUL and FFMA.

    Read from top to bottom. What lies between these is moves, and the way to the ends of the range and back.
    """
    values: dict[str, Value] = {}
    _, _, body = machine_code.partition(f"Function : {function}\n")
    for instruction, text in LINE.findall(body):
        operation = instruction.split(".")[0]
        target, *operands = (re.sub(r"\.reuse$", "", operand.strip()) for operand in text.split(","))
        if operation == "LDG" and "x" not in values.values():
            values[target] = "x"
        elif operation == "STG":
            return values[operands[0]]
        elif operation in ("FMUL", "FFMA") or instruction == "MUFU.RSQ":
            known = [negated(operand, values) for operand in operands]
            values[target] = (operation, *sorted(known[:2], key=repr), *known[2:])  # a product has no order
    raise ValueError(f"no store in the function {function}")


def negated(operand: str, values: dict[str, Value]) -> Value:
    register = operand.lstrip("-")
    value = values.get(register, register)
    return ("-", value) if operand.startswith("-") else value


def compiled(nvcc: str, cuobjdump: str, architecture: str) -> str:
    with TemporaryDirectory() as folder:
        target = Path(folder, "root.cubin")
        flags = ["-cubin", "-O3", "-std=c++17", "--expt-relaxed-constexpr", "-fmad=false", f"-I{ROOT / 'csrc'}"]
        command = [nvcc, *flags, f"-arch={architecture}", str(SOURCE), "-o", str(target)]
        subprocess.run(command, check=True)
        return subprocess.run([cuobjdump, "--dump-sass", target], capture_output=True, text=True, check=True).stdout


def faults(architectures: Sequence[str], cuobjdump: str) -> list[str]:
    """For which of these, as "sm_90", the two differ."""
    nvcc = next(filter(cuda_toolkit.examine, cuda_toolkit.programs("nvcc")), None)
    if nvcc is None:
        return ["no nvcc to compile the square root with"]
    found = []
    for architecture in architectures:
        code = compiled(nvcc, cuobjdump, architecture)
        ours, cudas = value_of(code, "ours"), value_of(code, "cudas")
        if ours != cudas:
            found.append(f"the square root for {architecture}: {ours}, but CUDA's is {cudas}")
    return found
