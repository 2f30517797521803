"""Whether everything that includes torch compiles with another torch: `python tools/headers.py torch` tries the newest.

Takes only the headers out of its package, since installing each torch would take minutes and gigabytes. The Python that
runs this has a torch for CUDA, whose toolkit's headers are used.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import cuda_toolkit

ROOT = Path(__file__).parents[1]


def unpack(requirement: str, folder: Path) -> str:
    """Puts torch/include into the folder and returns the C++ standard that this torch's own build rules ask for."""
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, requirement], check=True)
    (package,) = folder.glob("torch-*.whl")
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith("torch/include/")])
        rules = archive.read("torch/utils/cpp_extension.py").decode()
    (standard,) = re.findall(r"cpp_flag_prefix \+ '(c\+\+\d+)'", rules)
    print(f"{package.name}: {standard}", flush=True)
    return standard


def main() -> None:
    toolkit = cuda_toolkit.find_toolkit(torch.version.cuda)
    if isinstance(toolkit, str):
        sys.exit(toolkit)
    sources = [ROOT / "csrc" / "bindings.cpp", *sorted((ROOT / "csrc" / "ops").rglob("*.cpp"))]
    with TemporaryDirectory(dir=ROOT / "build") as name:
        standard = unpack(sys.argv[1], Path(name))
        includes = [f"{name}/torch/include", f"{name}/torch/include/torch/csrc/api/include", toolkit.include]
        command = [
            *shlex.split(os.environ.get("CXX", "c++")),
            *("-fsyntax-only", "-Wall", f"-std={standard}", "-DTORCH_EXTENSION_NAME=_C"),
            f"-I{ROOT / 'csrc'}",
            *(f"-isystem{include}" for include in [*includes, sysconfig.get_path("include")]),
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            codes = list(pool.map(lambda source: subprocess.run([*command, source], check=False).returncode, sources))
    failed = [str(source.relative_to(ROOT)) for source, code in zip(sources, codes, strict=True) if code]
    sys.exit(f"do not compile: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
