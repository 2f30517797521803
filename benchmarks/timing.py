"""The devices' clocks, graphs and memory; and competitors in turns.

`torch.utils.benchmark.Timer` times one statement in one block. Here forward and backward of one call are timed
separately, and competitors take turns, so that whatever else the machine does hits all of them alike; both need a loop
of our own. A turn is a block of calls, each competitor in its own steady state, as in a training loop: call by call,
one pays for the pages that another gave back to the system. The device is an argument, so that what a GPU's does can be
tested where there is none.
"""

from __future__ import annotations

import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch


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

    def release(self) -> None:
        super().release()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


# ---- turns -----------------------------------------------------------------------------------------------------------

WARM_UP_CALLS = 5  # compile, touch memory for the first time, fill the allocator, record torch's own CUDA graphs
ROUNDS, FEWEST_ROUNDS = 25, 10  # turns of each competitor: fewer where calls take longer than the seconds there are
LEFT_OUT = "left out: no time was left"


class Competitor(NamedTuple):
    name: str
    prepare: Callable[[], Sequence[Case]]  # what is called in turns, each on inputs of its own
    steps: int = 1  # of what is measured, in each call


class Outcome(NamedTuple):
    """Microseconds per step: a sample a turn, of as many as the device tells apart, the whole last. None: see note."""

    samples: list[tuple[float, ...]]
    note: str | None = None


def spread(values: Sequence[float]) -> list[float]:
    """20th, 50th and 80th percentile."""
    return statistics.quantiles(values, n=10, method="inclusive")[1::3]


def reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:200]


def orders(count: int) -> Iterator[list[int]]:
    """Of each round. In 2 x `count` of them each is equally often in every place, and right after every other."""
    # Williams' squares: all steps between neighbours differ, -1, +2, -3 ...; backwards every other time, for odd counts
    zigzag = [place // 2 if place % 2 == 0 else -(place // 2) - 1 for place in range(count)]
    for shift in itertools.count():
        order = [(place + shift) % count for place in zigzag]
        yield order if shift // count % 2 == 0 else order[::-1]


def compete(
    competitors: Sequence[Competitor], seconds: float, device: Device, end: float = math.inf
) -> dict[str, Outcome]:
    """Times all in turns, in another order each round, for about `seconds` in all; whoever fails is told.

    Every competitor gets the same time, but a turn has some calls at least, and there are some rounds at least: large
    shapes take longer than `seconds`. A turn is one sample, since its calls are not independent: they share a layout of
    the memory and whatever else the machine did. After `end`, of time.monotonic(), nothing is begun.
    """
    outcomes: dict[str, Outcome] = {}
    ready: dict[str, tuple[Iterator[Case], int]] = {}  # the cases, and how many calls a turn counts
    round_ = 0.0  # microseconds of one, about
    for competitor in competitors:
        if time.monotonic() > end:
            outcomes[competitor.name] = Outcome([], LEFT_OUT)
            continue
        try:
            skipped = device.skipped_graphs()
            cases, one = _prepare(competitor, device)
            count = max(device.least, int(seconds * 1e6 / ROUNDS / len(competitors) / one) - device.lead)
            ready[competitor.name] = cases, count
            round_ += (device.lead + count) * one
            note = "torch.compile made no CUDA graph" if device.skipped_graphs() > skipped else None
            outcomes[competitor.name] = Outcome([], note)
        except Exception as error:
            outcomes[competitor.name] = Outcome([], reason(error))

    steps = {competitor.name: competitor.steps for competitor in competitors}
    names = list(ready)
    rounds = min(ROUNDS, max(FEWEST_ROUNDS, int(seconds * 1e6 / round_))) if names else 0
    gc.disable()
    gc.freeze()  # makes the collections below, which keep memory from growing, a matter of microseconds
    try:
        for order in itertools.islice(orders(len(names)), rounds):
            gc.collect()
            for name in (names[place] for place in order if names[place] in ready):
                try:
                    lap = device.turn(*ready[name])
                    outcomes[name].samples.append(tuple(whole / steps[name] for whole in lap))
                except Exception as error:
                    outcomes[name] = Outcome([], reason(error))
                    del ready[name]
    finally:
        gc.unfreeze()
        gc.enable()
    return outcomes


def _prepare(competitor: Competitor, device: Device) -> tuple[Iterator[Case], float]:
    """Compiles or captures, warms up, and finds about how many microseconds a call takes."""
    cases = itertools.cycle(competitor.prepare())
    for _ in range(WARM_UP_CALLS):
        next(cases).step()
    device.synchronize()
    return cases, min(device.turn(cases, 2)[-1] for _ in range(2))
