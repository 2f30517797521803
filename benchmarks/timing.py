"""The devices' clocks, graphs, memory and profiler; and competitors in turns, within a budget of time.

`torch.utils.benchmark.Timer` times one statement in one block. Here forward and backward of one call are timed
separately, and competitors take turns in short rounds so that whatever else the machine does hits all of them alike;
both need a loop of our own. The device is an argument, so that what a GPU's does can be tested where there is none.
"""

from __future__ import annotations

import gc
import itertools
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

WARM_UP_CALLS = 5  # compile, touch memory for the first time, fill the allocator, record torch's own CUDA graphs
ROUNDS = 25  # turns of each competitor
LEFT_OUT = "left out: no time was left"
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

    def turn(self, cases: Iterator[Case], count: int) -> list[tuple[float, ...]]:
        """Microseconds of `count` calls, one after another.

        Freeing outputs and gradients counts: a step does it, and large ones go back to the system.
        """
        laps = []
        for case in itertools.islice(cases, count):
            start = time.perf_counter_ns()
            outputs = case.forward()
            middle = time.perf_counter_ns()
            if case.backward is not None:
                case.backward(outputs)
            del outputs
            end = time.perf_counter_ns()
            laps.append(((middle - start) / 1e3, (end - middle) / 1e3, (end - start) / 1e3))
        return laps

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

    def cache_bytes(self) -> int:
        return torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size

    def skipped_graphs(self) -> int:
        from torch._dynamo.utils import counters  # there is no public way to ask

        return counters["inductor"]["cudagraph_skips"]

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def turn(self, cases: Iterator[Case], count: int) -> list[tuple[float, ...]]:
        """Microseconds per call of `count` calls, launched without waiting for one another.

        Where the GPU is faster than the host launches, this is the host's time: what a step takes.
        """
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        next(cases).step()  # keeps the GPU busy while the host gets ahead, so that no launch's latency is timed
        start.record()
        for _ in range(count):
            next(cases).step()
        end.record()
        end.synchronize()
        return [(start.elapsed_time(end) * 1e3 / count,)]

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


class Competitor(NamedTuple):
    name: str
    prepare: Callable[[], Sequence[Case]]  # what is called in turns, each on inputs of its own
    steps: int = 1  # of what is measured, in each call


class Outcome(NamedTuple):
    """Microseconds per step: a sample has as many as the device tells apart, the whole last. None: see the note."""

    samples: list[tuple[float, ...]]
    note: str | None = None


def spread(values: Sequence[float]) -> list[float]:
    """20th, 50th and 80th percentile."""
    return statistics.quantiles(values, n=10, method="inclusive")[1::3]


class TimeLimit(BaseException):
    """Not an Exception: compilers catch those and go on."""


class Budget:
    """Seconds for a whole run, and for the preparation of each competitor; without arguments, days."""

    def __init__(self, seconds: float = 1e6, each: float = 1e6) -> None:
        self.end, self.each = time.monotonic() + seconds, each

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Ends what runs too long, or does not start it; while C++ code runs, only once it returns."""
        allowed = min(self.each, self.end - time.monotonic())
        if allowed <= 0:
            raise TimeLimit(LEFT_OUT)

        def expire(*_: object) -> None:
            raise TimeLimit(f"took more than {allowed:.0f} s to prepare")

        before = signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, allowed)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def reason(error: BaseException) -> str:
    kind = "" if isinstance(error, TimeLimit) else type(error).__name__ + ": "
    return f"{kind}{str(error).strip().partition(chr(10))[0]}"[:200]


def compete(
    competitors: Sequence[Competitor], seconds: float, device: Device, budget: Budget | None = None
) -> dict[str, Outcome]:
    """Times all in turns, in a new random order each round, for about `seconds` in all; whoever fails is told.

    Every competitor gets the same time, but at least one call a turn: large shapes take longer than `seconds`.
    """
    budget = budget or Budget()
    outcomes: dict[str, Outcome] = {}
    ready: dict[str, tuple[Iterator[Case], int]] = {}  # the cases, and how many a turn takes
    for competitor in competitors:
        try:
            skipped = device.skipped_graphs()
            with budget.limit():
                ready[competitor.name] = _prepare(competitor, seconds / ROUNDS / len(competitors), device)
            no_graph = device.skipped_graphs() > skipped
            outcomes[competitor.name] = Outcome([], "torch.compile made no CUDA graph" if no_graph else None)
        except (Exception, TimeLimit) as error:
            outcomes[competitor.name] = Outcome([], reason(error))

    steps = {competitor.name: competitor.steps for competitor in competitors}
    order = list(ready)
    shuffle = random.Random(0).shuffle
    gc.disable()
    gc.freeze()  # makes the collections below, which keep memory from growing, a matter of microseconds
    try:
        for _ in range(ROUNDS):
            gc.collect()
            shuffle(order)
            for name in list(order):
                try:
                    laps = device.turn(*ready[name])
                    outcomes[name].samples.extend(tuple(time / steps[name] for time in lap) for lap in laps)
                except Exception as error:
                    outcomes[name] = Outcome([], reason(error))
                    order.remove(name)
    finally:
        gc.unfreeze()
        gc.enable()
    return outcomes


def _prepare(competitor: Competitor, turn: float, device: Device) -> tuple[Iterator[Case], int]:
    """Compiles or captures, warms up, and finds how many calls fill a turn of `turn` seconds."""
    cases = itertools.cycle(competitor.prepare())
    for _ in range(WARM_UP_CALLS):
        next(cases).step()
    device.synchronize()
    fastest = min(sample[-1] for _ in range(3) for sample in device.turn(cases, 2))
    return cases, max(1, int(turn * 1e6 / fastest))
