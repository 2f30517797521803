"""Competitors in turns on a GPU, within a budget of time."""

from __future__ import annotations

import gc
import itertools
import math
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from .device import Call, Cuda
from .rows import Row
from .timing import ROUNDS

WARM_UP_CALLS = 5  # compile, fill the allocator; torch's own CUDA graphs are recorded in the second and third
LEFT_OUT = "left out: no time was left"


class TimeLimit(BaseException):
    """Not an Exception: compilers catch those and go on."""


class Budget:
    """Seconds for a whole run, and for the preparation of each competitor."""

    def __init__(self, seconds: float, each: float) -> None:
        self.end, self.each = time.monotonic() + seconds, each

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Ends what runs too long, or does not start it; while C++ code runs, only once it returns."""
        allowed = min(self.each, self.left)
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


class Competitor(NamedTuple):
    name: str
    prepare: Callable[[], Sequence[Call]]  # what is called in turns, each on inputs of its own
    steps: int = 1  # of what is measured, in each call


class Outcome(NamedTuple):
    """Microseconds per step, one of each round; none where the note says why."""

    times: list[float]
    note: str | None = None


class _Ready(NamedTuple):
    calls: Iterator[Call]
    count: int
    steps: int
    note: str | None


def reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    kind = "" if isinstance(error, TimeLimit) else type(error).__name__ + ": "
    return f"{kind}{text[0] if text else ''}"[:200]


def guarded(name: str, part: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of `part`; if it breaks off, a row of pyvae's that says why, since nobody knows whose fault it is."""
    try:
        yield from part()
    except (Exception, TimeLimit) as error:
        traceback.print_exc()
        yield Row(name, "fused", math.nan, "", note=reason(error))


def compete(competitors: Sequence[Competitor], seconds: float, device: Cuda, budget: Budget) -> dict[str, Outcome]:
    """Times all in turns, in a new random order each round, for about `seconds` in all; whoever fails is told."""
    outcomes: dict[str, Outcome] = {}
    ready: dict[str, _Ready] = {}
    for competitor in competitors:
        try:
            with budget.limit():
                ready[competitor.name] = _prepare(competitor, seconds / ROUNDS / len(competitors), device)
        except (Exception, TimeLimit) as error:
            outcomes[competitor.name] = Outcome([], reason(error))

    times: dict[str, list[float]] = {name: [] for name in ready}
    order = list(ready)
    shuffle = random.Random(0).shuffle
    gc.disable()
    gc.freeze()  # makes the collections below, which keep memory from growing, a matter of microseconds
    try:
        for _ in range(ROUNDS):
            gc.collect()
            shuffle(order)
            for name in list(order):
                calls, count, steps, _ = ready[name]
                try:
                    times[name].append(device.batch(calls, count) / steps)
                except Exception as error:
                    outcomes[name] = Outcome([], reason(error))
                    order.remove(name)
    finally:
        gc.unfreeze()
        gc.enable()
    outcomes |= {name: Outcome(times[name], ready[name].note) for name in order}
    return {competitor.name: outcomes[competitor.name] for competitor in competitors}


def _prepare(competitor: Competitor, turn: float, device: Cuda) -> _Ready:
    """Compiles or captures, warms up, and finds how many calls fill a turn of `turn` seconds."""
    skipped = device.skipped_graphs()
    calls = itertools.cycle(competitor.prepare())
    for _ in range(WARM_UP_CALLS):
        next(calls)()
    device.synchronize()
    fastest = min(device.batch(calls, 2) for _ in range(3))
    note = "torch.compile made no CUDA graph" if device.skipped_graphs() > skipped else None
    return _Ready(calls, max(1, int(turn * 1e6 / fastest)), competitor.steps, note)
