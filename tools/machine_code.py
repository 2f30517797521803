"""What nvcc made of the CUDA kernels: `python tools/machine_code.py [extension]` prints a table and checks it.

Fails where a kernel reads or writes local memory (ptxas does not warn of an array that is indexed at run time), where a
kernel over `Packed` tensors has no 128-bit load or store, where an architecture that was asked for is missing, or where
the square root of the noise is not CUDA's own (root_code.py). Needs no GPU.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import cuda_toolkit
import root_code

PACKAGE = Path(__file__).parents[1] / "pyvae"
WIDTHS = (128, 64, 32, 16, 8)

CODE_KIND = re.compile(r"Fatbin (elf|ptx) code:")
ARCHITECTURE = re.compile(r"(?:code for|arch =) sm_(\w+)")
FUNCTION = re.compile(r"Function\s*:?\s+([\w$.]+)")
RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+\{?\s*(?:@!?\w+\s+)?([A-Z][\w.]*)")


@dataclass
class Kernel:
    """One kernel for one architecture."""

    name: str
    architecture: str
    registers: int = 0
    stack: int = 0  # bytes a thread
    shared: int = 0  # bytes a block
    instructions: int = 0
    local: int = 0  # loads from and stores to local memory
    loads: Counter[int] = field(default_factory=Counter)  # from global memory, by bits
    stores: Counter[int] = field(default_factory=Counter)

    def count(self, instruction: str) -> None:
        operation, *modifiers = instruction.split(".")
        if operation == "NOP":
            return
        self.instructions += 1
        self.local += operation in ("LDL", "STL")
        if operation in ("LDG", "LD", "STG", "ST"):
            width = next((int(m.lstrip("US")) for m in modifiers if m.lstrip("US") in ("128", "64", "16", "8")), 32)
            (self.loads if operation.startswith("L") else self.stores)[width] += 1

    def faults(self) -> list[str]:
        found = [f"{self.local} accesses to local memory, {self.stack} bytes of stack"] if self.local else []
        if "Packed" in self.name:
            counted = {"load": self.loads, "store": self.stores}
            found += [f"no 128-bit {what}" for what, widths in counted.items() if not widths[128]]
        return found


def read(resource_usage: str, machine_code: str) -> tuple[list[Kernel], set[str]]:
    """The kernels in what `cuobjdump --dump-resource-usage` and `cuobjdump --dump-sass` print, names still mangled; and
    the architectures, as in build_info()."""
    kernels: dict[tuple[str, str], Kernel] = {}
    architectures = set()
    kind = architecture = function = ""
    for line in [*resource_usage.splitlines(), *machine_code.splitlines()]:
        if match := CODE_KIND.search(line):
            kind = {"elf": "sm_", "ptx": "compute_"}[match[1]]
        elif match := ARCHITECTURE.search(line):
            architecture = kind + match[1]
            architectures.add(architecture)
        elif match := FUNCTION.search(line):
            function = match[1]
        elif match := RESOURCES.search(line):
            kernels[architecture, function] = Kernel(function, architecture, *map(int, match.groups()))
        elif match := INSTRUCTION.search(line):
            kernels[architecture, function].count(match[1])
    return list(kernels.values()), architectures


def short(demangled: str) -> str:
    """Without namespaces, return type, parameters and casts: 'objective_kernel<Gaussian, Packed<float>, 4>'."""
    name = demangled.removeprefix("void ").replace("(anonymous namespace)::", "").replace(" >", ">")
    name = re.sub(r"\((?:int|bool|long|unsigned int)\)", "", name)
    return re.sub(r"\b\w+::", "", name.split("(")[0])


def cuobjdump() -> str:
    program = next(iter(cuda_toolkit.programs("cuobjdump")), None)
    return program or sys.exit("no cuobjdump: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")


def inspect(extension: Path) -> tuple[list[Kernel], set[str]]:
    def output(option: str) -> str:
        return subprocess.run([cuobjdump(), option, extension], capture_output=True, text=True, check=True).stdout

    kernels, architectures = read(output("--dump-resource-usage"), output("--dump-sass"))
    mangled = "\n".join(kernel.name for kernel in kernels)
    names = subprocess.run(["c++filt"], input=mangled, capture_output=True, text=True, check=True).stdout.splitlines()
    for kernel, name in zip(kernels, names, strict=True):
        kernel.name = short(name)
    return sorted(kernels, key=lambda kernel: (kernel.name, kernel.architecture)), architectures


def table(kernels: Sequence[Kernel]) -> str:
    """A line for each kernel and architecture, grouped by kernel."""
    form = f"{{:<{max((len(kernel.name) for kernel in kernels), default=0)}}}"
    form += " {:<7} {:>9} {:>6} {:>5} {:>5} {:>12} {:>22} {:>14}"
    head = ("", "registers", "shared", "stack", "local", "instructions")
    lines = []
    for name, group in groupby(kernels, lambda kernel: kernel.name.partition("<")[0]):
        lines += ["", form.format(name, *head, f"loads {'/'.join(map(str, WIDTHS))}", "stores")]
        for k in group:
            counts = ("/".join(str(count[width]) for width in WIDTHS) for count in (k.loads, k.stores))
            numbers = k.registers, k.shared, k.stack, k.local, k.instructions
            lines.append(form.format(f"  {k.name.removeprefix(name)}", k.architecture, *numbers, *counts))
    return "\n".join(lines)


def main() -> None:
    extension = Path(sys.argv[1]) if len(sys.argv) > 1 else next(PACKAGE.glob("_C.*.so"), None)
    if extension is None:
        sys.exit(f"no extension in {PACKAGE}: build it in place")
    kernels, architectures = inspect(extension)
    print(table(kernels))
    faults = [f"{kernel.name} for {kernel.architecture}: {fault}" for kernel in kernels for fault in kernel.faults()]
    asked = runpy.run_path(str(extension.parent / "_build.py"))["CUDA_ARCHITECTURES"]
    faults += [f"nothing for {architecture}" for architecture in sorted({*asked} - architectures)]
    faults += root_code.faults([name for name in asked if name.startswith("sm_")], cuobjdump())
    if not kernels:
        faults.append(f"{extension} has no CUDA kernels")
    if faults:
        sys.exit("\n" + "\n".join(faults))
    kept = "no local memory, 128-bit loads and stores where packed, CUDA's square root"
    print(f"\n{len(kernels)} kernels for {', '.join(asked)}: {kept}")


if __name__ == "__main__":
    main()
