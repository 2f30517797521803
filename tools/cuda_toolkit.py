"""Finds the CUDA toolkit and decides which GPUs a build is compiled for. Used by setup.py, make and the other tools.

`python tools/cuda_toolkit.py` prints what pip must install for a CUDA build with this environment's torch: nothing if
an nvcc is there already, or if torch is a build for the CPU.

Environment: CUDA_HOME, CUDA_PATH, FORCE_CUDA (1: a CUDA build or an error; 0: a CPU build), TORCH_CUDA_ARCH_LIST.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

MINIMUM = 70  # the kernels use __grid_constant__
SYSTEM = "/usr/local/cuda"


class Toolkit(NamedTuple):
    nvcc: str
    release: str  # "13.0"
    include: str  # the folder of cuda_runtime_api.h


def major(release: str) -> int:
    return int(release.split(".")[0])


def installed(pattern: str) -> list[Path]:
    """Files of packages from PyPI: beside torch, or in a virtual environment on top of torch's."""
    return [path for folder in sys.path for path in sorted(Path(folder).glob(pattern))]


def programs(name: str) -> list[str]:
    """Every `name` of this machine, nvcc or what comes with it, in the order in which they are asked."""
    homes = [os.environ[variable] for variable in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(variable)]
    found = [
        *(os.path.join(home, "bin", name) for home in homes),
        shutil.which(name) or "",
        os.path.join(SYSTEM, "bin", name),
        *map(str, installed(f"nvidia/cu*/bin/{name}")),
        *map(str, installed(f"triton/backends/nvidia/bin/{name}")),
    ]
    return [program for program in dict.fromkeys(found) if os.access(program, os.X_OK)]


def examine(nvcc: str) -> Toolkit | None:
    """What this nvcc is, or None if it does not run. It may be a wrapper: only it knows where its headers are."""
    try:
        shown = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        dry = [nvcc, "--dryrun", "-c", "-x", "cu", os.devnull, "-o", os.devnull]
        plan = subprocess.run(dry, capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return None
    release = re.search(r"release (\d+\.\d+)", shown)
    include = re.search(r'INCLUDES="-I([^"]+)"', plan)
    return Toolkit(nvcc, release[1], os.path.realpath(include[1])) if release and include else None


def find_toolkit(torch_cuda: str) -> Toolkit | str:
    """The first toolkit with torch's major version, within which runtimes are compatible, or why there is none."""
    examined = [(nvcc, examine(nvcc)) for nvcc in programs("nvcc")]
    for _, toolkit in examined:
        if toolkit and major(toolkit.release) == major(torch_cuda):
            return toolkit
    fix = f"install CUDA {torch_cuda}'s toolkit"
    if requirement := pypi_requirement(torch_cuda):
        fix = f"pip install '{requirement}'"
    if not examined:
        return f"torch has CUDA {torch_cuda}, but there is no nvcc: {fix}"
    others = ", ".join(f"{nvcc} is {toolkit.release if toolkit else 'broken'}" for nvcc, toolkit in examined)
    return f"torch has CUDA {torch_cuda}, but {others}: {fix}"


def pypi_requirement(torch_cuda: str) -> str | None:
    """What brings nvcc from PyPI; before CUDA 13 there was none."""
    return f"cuda-toolkit[nvcc,cccl]=={torch_cuda}.*" if major(torch_cuda) >= 13 else None


def choose(torch_cuda: str | None) -> Toolkit | str:
    """The toolkit to build with, or the reason for a build without CUDA.

    Ends the program where FORCE_CUDA=1 asks for what cannot be.
    """
    force = os.environ.get("FORCE_CUDA", "")
    if force not in ("", "0", "1"):
        sys.exit(f"pyvae: FORCE_CUDA must be 0 or 1, but is {force!r}")
    if force == "0":
        return "FORCE_CUDA=0"
    found = find_toolkit(torch_cuda) if torch_cuda else "torch is a build for the CPU: install one for CUDA"
    if force == "1" and isinstance(found, str):
        sys.exit(f"pyvae: FORCE_CUDA=1, but {found}")
    return found


def architectures(toolkit: Toolkit) -> tuple[str, ...]:
    """What to compile for, as ("sm_80", "sm_90", "compute_90"): machine code, and PTX for GPUs yet to come.

    TORCH_CUDA_ARCH_LIST; without it the visible GPUs; without any, what torch was built for.
    """
    import torch

    asked = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    listing = subprocess.run([toolkit.nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    supported = [name for name in listing.split() if number(name) >= MINIMUM]
    if asked and asked != "native":
        chosen = parse(asked)
    elif torch.cuda.is_available():
        capabilities = [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]
        visible = {"sm_{}{}".format(*capability) for capability in capabilities}
        # A GPU that is newer than this nvcc runs the newest PTX.
        chosen = {name if name in supported else ptx_of_newest(supported) for name in visible}
    else:
        # The public torch.cuda.get_arch_list() is empty in some versions where there is no GPU.
        common = {name for name in torch._C._cuda_getArchFlags().split() if name in supported}
        if not common:
            sys.exit(f"pyvae: {toolkit.nvcc} compiles for no GPU that torch was built for: set TORCH_CUDA_ARCH_LIST")
        chosen = common | {ptx_of_newest(common)}
    return tuple(sorted(chosen, key=lambda name: (name.startswith("compute"), number(name))))


def number(architecture: str) -> int:
    """'sm_90' -> 90."""
    return int(re.sub(r"\D", "", architecture))


def ptx_of_newest(architectures: Iterable[str]) -> str:
    return max(architectures, key=number).replace("sm", "compute")


def parse(asked: str) -> set[str]:
    """TORCH_CUDA_ARCH_LIST as torch itself reads it, names such as "Ampere" included."""
    from torch.utils.cpp_extension import _get_cuda_arch_flags

    try:
        chosen = {flag.rsplit("code=", 1)[1] for flag in _get_cuda_arch_flags()}
    except ValueError as error:
        sys.exit(f"pyvae: TORCH_CUDA_ARCH_LIST={asked!r}: {error}")
    if old := sorted(name for name in chosen if number(name) < MINIMUM):
        sys.exit(f"pyvae: TORCH_CUDA_ARCH_LIST={asked!r}: {', '.join(old)} is too old, the kernels need 7.0")
    return chosen


def gencode(architecture: str) -> str:
    """The option by which nvcc compiles for 'sm_90' or 'compute_90'."""
    return f"-gencode=arch={architecture.replace('sm', 'compute')},code={architecture}"


def runtime(toolkit: Toolkit) -> Path:
    """The libcudart to link with: the one that torch brings, or else the toolkit's."""
    name = f"libcudart.so.{major(toolkit.release)}"
    include = Path(toolkit.include)
    homes = [include.parent, *Path(toolkit.nvcc).resolve().parents[1:2]]
    found = [
        *installed(f"nvidia/*/lib/{name}"),
        *(home / folder / name for home in homes for folder in ("lib64", "lib")),
    ]
    for path in found:
        if path.exists():
            return path
    sys.exit(f"pyvae: no {name} beside torch or {toolkit.nvcc}: install the CUDA runtime, or build with FORCE_CUDA=0")


def main() -> None:
    import torch

    torch_cuda = torch.version.cuda
    if torch_cuda and os.environ.get("FORCE_CUDA") != "0" and isinstance(find_toolkit(torch_cuda), str):
        print(pypi_requirement(torch_cuda) or "")


if __name__ == "__main__":
    main()
