"""What can be seen only in a process of its own: an import's time, a call's peak of memory, torch with huge pages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyvae

from .cases import CONTESTS, Shape, make_cases, make_inputs
from .device import Device
from .rows import ROOT, Row
from .speed import cpu_bandwidth
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
    p20, median, p80 = spread([1e3 * run_python("-c", IMPORT) for _ in range(repeats)])
    return Row("import", "fused", median, "ms", p20=p20, p80=p80)


def huge_page_rows(elements: int, seconds: float) -> list[Row]:
    """The bandwidth rows again, with torch's allocator asking for huge pages as pyvae does for its large outputs.

    What is left of the difference then is the kernel's.
    """
    rows = run_python("-m", "benchmarks.isolated", "bandwidth", str(elements), str(seconds), THP_MEM_ALLOC_ENABLE="1")
    return [Row(**{**row, "what": "bandwidth_huge_pages"}) for row in rows]


def memory_rows(elements: int, device: Device) -> Iterator[Row]:
    """Peak beyond the inputs, in buffers of the size of recon (loss, forward + backward) or of z (sampler).

    Outputs count: the loss makes one buffer, its gradient; the sampler one forward, z, and two more backward.
    """
    device.release()
    for what, shape, stage in (
        ("loss", Shape(64, elements // 64, 1), None),
        ("sample_kl", Shape(64, 1, elements // 64), None),
        ("sample_kl", Shape(64, 1, elements // 64), "both"),
    ):
        for name in CONTESTS[what] if device.counts_memory else ("eager", "fused"):  # a process takes seconds
            call = (what, name, stage or "forward", *shape)
            if device.counts_memory:
                bytes_ = peak_bytes(*call, device)
            else:
                bytes_ = run_python("-m", "benchmarks.isolated", *map(str, call))
            yield Row(f"{what}_memory", name, bytes_ / (4 * elements), "buffers", stage, *shape)


def peak_bytes(what: str, name: str, stage: str, batch: int, features: int, latent: int, device: Device) -> int:
    """How far one call raises the peak.

    Arrays must be larger than what start-up took and gave back, or the call stays below an older peak.
    """

    def call(shape: Shape) -> int:
        inputs = make_inputs(shape, device.name)  # kept to the end: one that goes makes room below the peak
        (case,) = (case for case in make_cases(what, inputs) if case.name == name)
        return device.peak_bytes(case.forward if (what, stage) == ("sample_kl", "forward") else case.step)

    call(Shape(2, 64, 64))  # loads what is loaded once: libraries, threads
    return call(Shape(batch, features, latent))


if __name__ == "__main__" and sys.argv[1] == "bandwidth":
    print(json.dumps([asdict(row) for row in cpu_bandwidth(int(sys.argv[2]), float(sys.argv[3]))]))
elif __name__ == "__main__":
    print(peak_bytes(*sys.argv[1:4], *map(int, sys.argv[4:7]), Device()))
