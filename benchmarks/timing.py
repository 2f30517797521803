"""Competitors in turns, within a budget of time.

`torch.utils.benchmark.Timer` times one statement in one block. Here forward and backward of one call are timed
separately, and competitors take turns in short rounds so that whatever else the machine does hits all of them alike;
both need a loop of our own.
"""

from __future__ import annotations

import gc
import itertools
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .device import Device

WARM_UP_CALLS = 5  # compile, touch memory for the first time, fill the allocator, record torch's own CUDA graphs
ROUNDS = 25  # turns of each competitor
LEFT_OUT = "left out: no time was left"


class Case(NamedTuple):
    """One competitor on one set of inputs: `forward()` returns the outputs that `backward(outputs)` starts from."""

    name: str
    forward: Callable[[], Any]
    backward: Callable[..., Any] | None = None

    def step(self) -> Any:
        """Forward and backward; all that they made."""
        outputs = self.forward()
        return outputs, None if self.backward is None else self.backward(outputs)


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
    text = str(error).strip().splitlines()
    kind = "" if isinstance(error, TimeLimit) else type(error).__name__ + ": "
    return f"{kind}{text[0] if text else ''}"[:200]


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
