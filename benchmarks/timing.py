"""The clock and the round-robin.

`torch.utils.benchmark.Timer` times one statement in one block. Here forward and backward of one call are timed
separately, and competitors take turns in short rounds so that whatever else the machine does hits all of them alike;
both need a loop of our own.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

WARM_UP_LAPS = 5  # compiles, touches memory for the first time, fills the allocator
ROUNDS = 25  # turns of each competitor


class Case(NamedTuple):
    """One competitor: `forward()` returns the outputs that `backward(outputs)` starts from."""

    name: str
    forward: Callable[[], Any]
    backward: Callable[[Any], object] | None = None


class Lap(NamedTuple):
    """Microseconds of one call."""

    forward: float
    backward: float
    both: float


class Spread(NamedTuple):
    """20th, 50th and 80th percentile, in microseconds."""

    p20: float
    median: float
    p80: float


def cpu_lap(case: Case) -> Lap:
    """Time one call. Freeing outputs and gradients counts: a step does it, and large ones go back to the system."""
    start = time.perf_counter_ns()
    outputs = case.forward()
    middle = time.perf_counter_ns()
    if case.backward is not None:
        case.backward(outputs)
    del outputs
    end = time.perf_counter_ns()
    return Lap((middle - start) / 1e3, (end - middle) / 1e3, (end - start) / 1e3)


def interleave(cases: Sequence[Case], seconds: float, lap: Callable[[Case], Lap] = cpu_lap) -> dict[str, list[Lap]]:
    """Time `cases` in turns, in a new random order each round, for about `seconds` in all.

    Every competitor gets the same time, but at least one call a turn: large shapes take longer than `seconds`.
    """
    turn = seconds * 1e6 / ROUNDS / len(cases)
    calls = {}
    for case in cases:
        fastest = min(lap(case).both for _ in range(WARM_UP_LAPS))
        calls[case.name] = max(1, int(turn / fastest))

    laps: dict[str, list[Lap]] = {case.name: [] for case in cases}
    order = list(cases)
    shuffle = random.Random(0).shuffle
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            shuffle(order)
            for case in order:
                laps[case.name].extend(lap(case) for _ in range(calls[case.name]))
    finally:
        gc.enable()
    return laps


def spread(values: Sequence[float]) -> Spread:
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return Spread(fifths[0], statistics.median(values), fifths[3])
