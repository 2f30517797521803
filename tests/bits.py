"""The CPU kernels write the same bytes everywhere: compiles tests/cpp/bits.cpp and them with each compiler that is
there, and for aarch64, runs what came of it for each instruction set, there in qemu, and compares the hashes.

    make bits

Compilers and instruction sets that are missing are named, and left out; Debian has them all: clang,
g++-aarch64-linux-gnu and qemu-user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from probe import FLAGS, ROOT, VARIANTS, supported

OUT = ROOT / "build" / "bits"
SOURCES = ("csrc/cpu/dispatch.cpp", "tests/cpp/bits.cpp")
KERNELS = "csrc/cpu/kernels.cpp"
CAPABILITIES = {"avx512": "avx512", "avx2": "avx2", "baseline": "default"}  # what ATEN_CPU_CAPABILITY calls them


class Build(NamedTuple):
    """One program: how it is compiled and run, and with which variants of the kernels."""

    compiler: str
    variants: list[str]
    link: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return OUT / Path(self.compiler).name

    @property
    def program(self) -> Path:
        return self.folder / "bits"

    def commands(self) -> list[list[str]]:
        """One for each object file."""
        have = [f"-DPYVAE_HAVE_{variant.upper()}" for variant in self.variants if variant != "baseline"]
        common = [self.compiler, *(flag for flag in FLAGS if not flag.startswith("-DPYVAE_HAVE")), "-Icsrc", "-c"]
        kernels = [
            [*common, f"-DPYVAE_ISA={variant}", *VARIANTS[variant], KERNELS, "-o", str(self.folder / f"{variant}.o")]
            for variant in self.variants
        ]
        others = [[*common, *have, source, "-o", str(self.folder / f"{Path(source).stem}.o")] for source in SOURCES]
        return kernels + others


def builds() -> list[Build]:
    """Those that this machine can make and run."""
    found = [Build(name, supported()) for name in ("g++", "clang++") if shutil.which(name)]
    cross = shutil.which("aarch64-linux-gnu-g++")
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if "avx2" in VARIANTS and cross and qemu and os.uname().machine != "aarch64":
        found.append(Build(Path(cross).name, ["baseline"], link=("-static",), runner=(qemu,)))
    return found


def call(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")


def hashes(build: Build, variant: str) -> dict[str, str]:
    """By kernel."""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": CAPABILITIES[variant]}
    command = [*build.runner, str(build.program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or done.stderr.strip() != variant:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}, instead of {variant} it ran {done.stderr}")
    return dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines())


def main() -> None:
    found = builds()
    names = [Path(build.compiler).name for build in found]
    if missing := [name for name in ("g++", "clang++", "aarch64-linux-gnu-g++") if name not in names]:
        print(f"left out, since they are not here (or no qemu-aarch64 to run the last): {', '.join(missing)}")
    if missing := [variant for variant in VARIANTS if variant not in supported()]:
        print(f"left out, since this CPU lacks them: {', '.join(missing)}")
    for build in found:
        build.folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(call, [command for build in found for command in build.commands()]))
        for build in found:
            objects = [command[-1] for command in build.commands()]
            call([build.compiler, *build.link, *objects, "-o", str(build.program)])
        runs = [(build, variant) for build in found for variant in build.variants]
        results = list(pool.map(hashes, *zip(*runs, strict=True)))
    differ = 0
    for (build, variant), result in zip(runs, results, strict=True):
        print(f"{Path(build.compiler).name:<24}{variant:<10}{result['all']}")
        others = [kernel for kernel in result if kernel != "all" and result[kernel] != results[0].get(kernel)]
        differ += result != results[0]
        for kernel in others:
            print(f"    {kernel} differs: {result[kernel]} instead of {results[0].get(kernel)}")
    if len(runs) < 2:
        sys.exit("one program alone: there is nothing to compare")
    print(f"{len(runs)} runs, {differ} differ from the first; {len(results[0]) - 1} kernels")
    sys.exit(differ > 0)


if __name__ == "__main__":
    main()
