"""A CPU in the place of benchmarks.device.Cuda, and as little to measure as there can be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from benchmarks import cuda
from benchmarks.competitors import Shape
from benchmarks.contests import COMPILED, Cell
from benchmarks.device import Call

SMALL = Shape(4, 33, 3)
BROKEN = "max-autotune-no-cudagraphs"


class Host:
    """The CPU in a GPU's place. Compiling changes nothing, and one mode fails; a graph is its calls."""

    name = "cpu"

    def __init__(self) -> None:
        self.skipped = 0

    def cache_bytes(self) -> int:
        return 2**12

    def compile(self, function: Callable[..., Any], mode: str) -> Callable[..., Any]:
        def compiled(*arguments: Any) -> Any:
            if mode == BROKEN:
                raise RuntimeError("no such mode here\nand a second line")
            if mode == "max-autotune":
                self.skipped += 1
            return function(*arguments)

        return compiled

    def skipped_graphs(self) -> int:
        return self.skipped

    def synchronize(self) -> None: ...

    def batch(self, calls: Iterator[Call], count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            next(calls)()
        return (time.perf_counter() - start) * 1e6 / count

    def capture(self, make_calls: Callable[[], Sequence[Call]]) -> Call:
        calls = make_calls()
        return lambda: [call() for call in calls]

    def peak_bytes(self, call: Call) -> int:
        call()
        return 1024

    def trace(self, stages: Mapping[str, Call]) -> list[dict[str, Any]]:
        """One launch in each stage, and a wait in every second."""
        events: list[dict[str, Any]] = []
        for index, (name, call) in enumerate(stages.items()):
            call()
            start = 100 * index
            events.append({"cat": "user_annotation", "name": name, "ts": start, "dur": 50})
            events += launch(start + 10, index, f"kernel_{index}")
            if index % 2:
                events.append({"cat": "cuda_runtime", "name": "cudaStreamSynchronize", "ts": start + 20, "dur": 1})
        return events

    def release(self) -> None: ...


def launch(at: float, correlation: int, kernel: str, cat: str = "kernel") -> list[dict[str, Any]]:
    """The host's call and, later, what the GPU did."""
    arguments = {"correlation": correlation}
    return [
        {"cat": "cuda_runtime", "name": "cudaLaunchKernelExC", "ts": at, "dur": 2, "args": arguments},
        {"cat": cat, "name": kernel, "ts": at + 1000, "dur": 5, "args": arguments},
    ]


EFFORT = cuda.Effort(
    cells=(Cell("loss", SMALL, modes=COMPILED | cuda.AUTOTUNED), Cell("sample_kl", SMALL, torch.bfloat16)),
    sizes=(2**12, 2**14),
    errors=(SMALL,),
    draws=2**8,
    memory=2**10,
    step=SMALL,
    seconds=0.01,
    budget=60,
    each=60,
)
