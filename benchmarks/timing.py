"""The devices' clocks, graphs, memory and profiler.

`torch.utils.benchmark.Timer` times one statement in one block. Here forward and backward of one call are timed
separately, and turns.py lets competitors take turns; both need a loop of our own. The device is an argument, so that
what a GPU's does can be tested where there is none.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

CALL = "the call to look at"
# Waits that do not have the word in their names: an ordinary copy and freeing memory wait for the device.
WAITS = ("cudaMemcpy", "cudaFree")


class Case(NamedTuple):
    """One competitor on one set of inputs: `forward()` returns the outputs that `backward(outputs)` starts from."""

    name: str
    forward: Callable[[], Any]
    backward: Callable[..., Any] | None = None

    def step(self) -> Any:
        """Forward and backward; all that they made."""
        outputs = self.forward()
        return outputs, None if self.backward is None else self.backward(outputs)


class Device:
    """The CPU, and what every device has."""

    name = "cpu"
    stages: tuple[str, ...] = ("forward", "backward", "both")  # that its clock tells apart
    captures = False  # whether it has graphs
    counts_memory = False  # whether its peak is its own, and not that of a whole process
    # Of each turn: calls that are not counted, in which it gets back the pages that others gave to the system, and the
    # least number of those that are. Page faults are over after one to three calls.
    lead, least = 3, 5

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend

    def cache_bytes(self) -> int:
        """What the inputs in turn have to exceed; 0: one set of them will do."""
        return 0

    def compile(self, function: Callable[..., Any], mode: str) -> Callable[..., Any]:
        # Each shape compiles afresh and statically: torch.compile at its best.
        return torch.compile(function, mode=mode, backend=self.backend, fullgraph=True, dynamic=False)

    def skipped_graphs(self) -> int:
        """How often torch.compile has so far decided against a CUDA graph that its mode asked for."""
        return 0

    def synchronize(self) -> None: ...

    def turn(self, cases: Iterator[Case], count: int) -> tuple[float, ...]:
        """Microseconds per call of `count` calls, one after another and after some that are not counted: their mean.

        Freeing outputs and gradients counts: a step does it, and large ones go back to the system.
        """
        # The mean, not the median: a training loop pays for what happens in only some of its calls, too, as page faults
        # do. And what interrupts a turn lengthens the means of short and of long calls by the same share; the medians
        # of short calls would leave it out.
        forward = backward = 0
        for index, case in enumerate(itertools.islice(cases, self.lead + count)):
            start = time.perf_counter_ns()
            outputs = case.forward()
            middle = time.perf_counter_ns()
            if case.backward is not None:
                case.backward(outputs)
            del outputs
            end = time.perf_counter_ns()
            if index >= self.lead:
                forward += middle - start
                backward += end - middle
        return tuple(total / 1e3 / count for total in (forward, backward, forward + backward))

    def peak_bytes(self, call: Callable[[], object]) -> int:
        """How far one call raises the peak of allocated memory; what it returns counts."""
        # Not getrusage: its peak starts from that of the process that started this one.
        peaks = []
        for function in (lambda: None, call):
            function()
            peaks.append(1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]))
        return peaks[1] - peaks[0]

    def release(self) -> None:
        """Forgets what was compiled and gives memory back."""
        torch._dynamo.reset()
        gc.collect()


class Cuda(Device):
    """The current CUDA device."""

    name = "cuda"
    stages = ("both",)
    captures = counts_memory = True
    # The first call keeps the GPU busy while the host gets ahead, so that no launch's latency is timed. More are not
    # needed: torch's allocator gives no memory back between turns, and the inputs exceed the cache.
    lead = least = 1

    def cache_bytes(self) -> int:
        return torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size

    def skipped_graphs(self) -> int:
        from torch._dynamo.utils import counters  # there is no public way to ask

        return counters["inductor"]["cudagraph_skips"]

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def turn(self, cases: Iterator[Case], count: int) -> tuple[float, ...]:
        """Microseconds per call of `count` calls, launched without waiting for one another.

        Where the GPU is faster than the host launches, this is the host's time: what a step takes.
        """
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        for case in itertools.islice(cases, self.lead):
            case.step()
        start.record()
        for case in itertools.islice(cases, count):
            case.step()
        end.record()
        end.synchronize()
        return (start.elapsed_time(end) * 1e3 / count,)

    def capture(self, make_cases: Callable[[], Sequence[Case]]) -> Callable[[], object]:
        """A replay of one CUDA graph of all cases.

        They are made on the stream of the capture, because a backward pass runs on the stream of its forward.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # also leads back to the present stream if the capture fails
            cases = make_cases()
            for case in cases[:3]:
                case.step()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                for case in cases:
                    case.step()
        torch.cuda.current_stream().wait_stream(stream)

        def replay(inputs: Sequence[Case] = cases) -> None:  # the graph reads what the cases hold: keep them
            graph.replay()

        return replay

    def peak_bytes(self, call: Callable[[], object]) -> int:
        call()  # allocates what is allocated once
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def launched(self, call: Callable[[], object]) -> tuple[list[str], list[str]]:
        """Names of the kernels, copies and fills that it launches, and of what it calls that waits for the GPU."""
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            with record_function(CALL):
                call()
            torch.cuda.synchronize()
        return launches_and_waits(profiler.events())

    def release(self) -> None:
        super().release()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def launches_and_waits(events: Iterable[FunctionEvent]) -> tuple[list[str], list[str]]:
    """All that ran on the GPU, and what the host did within CALL that made it wait."""
    events = sorted(events, key=lambda event: event.time_range.start)
    on_gpu = [event.name for event in events if event.device_type == DeviceType.CUDA and event.name != CALL]
    host = [event for event in events if event.device_type == DeviceType.CPU]
    (span,) = (event.time_range for event in host if event.name == CALL)
    inside = [event.name for event in host if span.start <= event.time_range.start <= span.end]
    return on_gpu, [name for name in inside if "Synchronize" in name or name in WAITS]
