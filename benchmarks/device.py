"""The GPU as the measurements see it: its clock, its graphs, its memory and its profiler.

The measurements take this object as an argument, so that what they do can be tested where there is no GPU.
"""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

Call = Callable[[], object]


class Cuda:
    """The current CUDA device."""

    name = "cuda"

    def cache_bytes(self) -> int:
        return torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size

    def compile(self, function: Callable[..., Any], mode: str) -> Callable[..., Any]:
        return torch.compile(function, mode=mode, fullgraph=True, dynamic=False)

    def skipped_graphs(self) -> int:
        """How often torch.compile has so far decided against a CUDA graph that its mode asked for."""
        from torch._dynamo.utils import counters  # there is no public way to ask

        return counters["inductor"]["cudagraph_skips"]

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def batch(self, calls: Iterator[Call], count: int) -> float:
        """Microseconds per call of `count` calls, launched without waiting for one another.

        Where the GPU is faster than the host launches, this is the host's time: what a step takes.
        """
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        next(calls)()  # keeps the GPU busy while the host gets ahead, so that no launch's latency is timed
        start.record()
        for _ in range(count):
            next(calls)()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3 / count

    def capture(self, make_calls: Callable[[], Sequence[Call]]) -> Call:
        """A replay of one CUDA graph of all calls.

        They are made on the stream of the capture, because a backward pass runs on the stream of its forward.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # also leads back to the present stream if the capture fails
            calls = make_calls()
            for call in calls[:3]:
                call()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                for call in calls:
                    call()
        torch.cuda.current_stream().wait_stream(stream)

        def replay(inputs: Sequence[Call] = calls) -> None:  # the graph reads what the calls hold: keep them
            graph.replay()

        return replay

    def peak_bytes(self, call: Call) -> int:
        """How far one call raises the peak of allocated memory; what it returns counts."""
        call()  # allocates what is allocated once
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        outputs = call()
        torch.cuda.synchronize()
        del outputs
        return torch.cuda.max_memory_allocated() - before

    def trace(self, stages: Mapping[str, Call]) -> list[dict[str, Any]]:
        """The profiler's events of the stages, each within a range of its name."""
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=activities) as profiler:
            for name, call in stages.items():
                with torch.profiler.record_function(name):
                    call()
            torch.cuda.synchronize()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "trace.json")
            profiler.export_chrome_trace(str(path))
            return json.loads(path.read_text(encoding="utf-8"))["traceEvents"]

    def release(self) -> None:
        """Forgets what was compiled and gives memory back."""
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
