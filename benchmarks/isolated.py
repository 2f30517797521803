"""What can be seen only in a process of its own: an import's time, a call's peak of memory, torch with huge pages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyvae

from . import cpu
from .competitors import CASES, Shape, make_inputs
from .rows import ROOT, Row
from .timing import spread

IMPORT = "import time, torch; start = time.perf_counter(); import pyvae; print(time.perf_counter() - start)"


def run_python(*arguments: str, **variables: str) -> Any:
    """The JSON that a fresh interpreter prints, with this process's pyvae and this folder importable."""
    paths = [str(Path(pyvae.__file__).parent.parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **variables}
    done = subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def import_row(repeats: int) -> Row:
    """`import pyvae` after `import torch`; the median leaves out that the first reads from disk."""
    times = spread([1e3 * run_python("-c", IMPORT) for _ in range(repeats)])
    return Row("import", "fused", times.median, "ms", p20=times.p20, p80=times.p80)


def huge_page_rows(elements: int, seconds: float) -> list[Row]:
    """The bandwidth rows again, with torch's allocator asking for huge pages as pyvae does for its large outputs.

    What is left of the difference then is the kernel's.
    """
    rows = run_python("-m", "benchmarks.isolated", "bandwidth", str(elements), str(seconds), THP_MEM_ALLOC_ENABLE="1")
    return [Row(**{**row, "what": "bandwidth_huge_pages"}) for row in rows]


def memory_rows(elements: int) -> list[Row]:
    """Peak beyond the inputs, in buffers of the size of recon (loss, forward + backward) or of z (sampler, forward)."""
    rows = []
    for what, shape in (
        ("loss", Shape(64, elements // 64, 1)),
        ("sample_kl", Shape(64, 1, elements // 64)),
    ):
        for name in ("eager", "fused"):
            value = run_python("-m", "benchmarks.isolated", what, name, *map(str, shape))
            rows.append(Row(f"{what}_memory", name, value, "buffers", None, *shape))
    return rows


def peak_buffers(what: str, name: str, shape: Shape) -> float:
    """How far one call raises this process's peak, in float32 buffers of its larger side.

    Arrays must be larger than what start-up took and gave back, or the call stays below an older peak.
    """

    def peak_bytes() -> int:
        # Not getrusage: its peak starts from that of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])

    def call(shape: Shape) -> int:
        inputs = make_inputs(shape)  # kept to the end: one that goes makes room below the peak
        (case,) = (case for case in CASES[what](inputs, {}) if case.name == name)
        before = peak_bytes()
        outputs = case.forward()
        if what == "loss" and case.backward is not None:
            case.backward(outputs)
        return peak_bytes() - before

    call(Shape(2, 64, 64))  # loads what is loaded once: libraries, threads
    return call(shape) / (4 * shape.batch * max(shape.features, shape.latent))


if __name__ == "__main__" and sys.argv[1] == "bandwidth":
    print(json.dumps([asdict(row) for row in cpu.bandwidth(int(sys.argv[2]), float(sys.argv[3]))]))
elif __name__ == "__main__":
    print(peak_buffers(sys.argv[1], sys.argv[2], Shape(*map(int, sys.argv[3:6]))))
