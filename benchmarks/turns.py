"""Competitors in turns, within a budget of time.

They take turns so that whatever else the machine does hits all of them alike. A turn is a block of calls, each
competitor in its own steady state, as in a training loop: call by call, one pays for the pages that another gave back
to the system.
"""

from __future__ import annotations

import gc
import itertools
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from .timing import Case, Device

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


def orders(count: int) -> Iterator[list[int]]:
    """Of each round. In 2 x `count` of them each is equally often in every place, and right after every other."""
    # Williams' squares: all steps between neighbours differ, -1, +2, -3 ...; backwards every other time, for odd counts
    zigzag = [place // 2 if place % 2 == 0 else -(place // 2) - 1 for place in range(count)]
    for shift in itertools.count():
        order = [(place + shift) % count for place in zigzag]
        yield order if shift // count % 2 == 0 else order[::-1]


def compete(
    competitors: Sequence[Competitor], seconds: float, device: Device, budget: Budget | None = None
) -> dict[str, Outcome]:
    """Times all in turns, in another order each round, for about `seconds` in all; whoever fails is told.

    Every competitor gets the same time, but a turn has some calls at least, and there are some rounds at least: large
    shapes take longer than `seconds`. A turn is one sample, since its calls are not independent: they share a layout of
    the memory and whatever else the machine did.
    """
    budget = budget or Budget()
    outcomes: dict[str, Outcome] = {}
    ready: dict[str, tuple[Iterator[Case], int]] = {}  # the cases, and how many calls a turn counts
    round_ = 0.0  # microseconds of one, about
    for competitor in competitors:
        try:
            skipped = device.skipped_graphs()
            with budget.limit():
                cases, one = _prepare(competitor, device)
            count = max(device.least, int(seconds * 1e6 / ROUNDS / len(competitors) / one) - device.lead)
            ready[competitor.name] = cases, count
            round_ += (device.lead + count) * one
            note = "torch.compile made no CUDA graph" if device.skipped_graphs() > skipped else None
            outcomes[competitor.name] = Outcome([], note)
        except (Exception, TimeLimit) as error:
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
                    outcomes[name].samples.append(tuple(time / steps[name] for time in lap))
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
