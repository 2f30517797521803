"""Competitors take turns by blocks of calls. The clock is one that the calls themselves put forward."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from types import SimpleNamespace

import pytest

from benchmarks import Row, timing
from benchmarks.speed import timed_rows
from benchmarks.timing import FEWEST_ROUNDS, ROUNDS, WARM_UP_CALLS, Case, Competitor, Cuda, Device, compete, orders

PREPARED = WARM_UP_CALLS + 2 * (Device.lead + 2)  # calls before the first turn


class Machine:
    """A clock, and a memory whose pages belong to whoever called last; others pay for them in their first calls."""

    def __init__(self) -> None:
        self.now = 0.0  # microseconds
        self.calls: list[str] = []

    def competitor(self, name: str, forward: float, backward: float, faults: tuple[float, ...] = ()) -> Competitor:
        def run() -> None:
            in_a_row = next((i for i, other in enumerate(reversed(self.calls)) if other != name), len(self.calls))
            self.calls.append(name)
            self.now += forward + (faults[in_a_row] if in_a_row < len(faults) else 0)

        def back(_: object) -> None:
            self.now += backward

        return Competitor(name, lambda: [Case(name, run, back)])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(
        timing, "time", SimpleNamespace(perf_counter_ns=lambda: round(made.now * 1e3), monotonic=time.monotonic)
    )
    return made


def test_everyone_is_in_a_steady_state_of_its_own(machine: Machine) -> None:
    """616 us where another had the pages before, 186 in a loop."""
    fused = machine.competitor("fused", 150, 36, faults=(430, 200, 10))
    others = [machine.competitor(name, 500, 500) for name in ("eager", "compiled")]
    outcomes = compete([fused, *others], 1.0, Device())
    assert set(outcomes["fused"].samples) == {(150, 36, 186)} and len(outcomes["fused"].samples) == ROUNDS
    (row, *_) = timed_rows(Row("loss", "", 0.0), {"fused": outcomes["fused"]}, Device.stages)
    assert (row.p20, row.value, row.p80) == (150, 150, 150)


def test_a_turn_is_one_sample_the_mean_of_what_is_counted(machine: Machine) -> None:
    """A loop pays for what happens in only some of the calls."""
    costs = iter([1000.0] * Device.lead + [10, 10, 10, 70])
    case = Case("", lambda: setattr(machine, "now", machine.now + next(costs)))
    assert Device().turn(iter([case] * 100), 4) == (25, 0, 25)


def test_turns_share_the_time(machine: Machine) -> None:
    """1.5 s / 25 / 3 are 20 ms for each, and the calls that are not counted are within them."""
    compete([machine.competitor(name, cost, cost) for name, cost in (("a", 10), ("b", 20), ("c", 500))], 1.5, Device())
    in_turns = {name: (calls - PREPARED) / ROUNDS for name, calls in Counter(machine.calls).items()}
    assert in_turns == {"a": 1000, "b": 500, "c": 20}


def test_long_calls_have_fewer_rounds_and_turns_no_fewer_calls(machine: Machine) -> None:
    a, b = (machine.competitor(name, 100_000, 0) for name in "ab")
    outcomes = compete([a, b], 5.0, Device())
    assert {len(outcome.samples) for outcome in outcomes.values()} == {FEWEST_ROUNDS}
    assert Counter(machine.calls)["a"] == PREPARED + FEWEST_ROUNDS * (Device.lead + Device.least)

    machine.calls.clear()  # 5 s / 2 / 8 calls of 20 ms
    outcomes = compete([machine.competitor(name, 20_000, 0) for name in "ab"], 5.0, Device())
    assert {len(outcome.samples) for outcome in outcomes.values()} == {15}


@pytest.mark.parametrize("count", range(1, 9))
def test_nobody_has_a_place_or_a_neighbour_of_its_own(count: int) -> None:
    found = list(islice(orders(count), 2 * count))
    assert all(sorted(order) == list(range(count)) for order in found)
    assert set(Counter(place for order in found for place in enumerate(order)).values()) == {2}
    neighbours = Counter(pair for order in found for pair in pairwise(order))
    assert len(neighbours) == count * (count - 1) and set(neighbours.values()) <= {2}


def test_who_fails_leaves_the_others_their_turns(machine: Machine) -> None:
    left = iter([None] * PREPARED)

    def fail() -> None:
        machine.now += 10
        if next(left, 0) is not None:
            raise RuntimeError("broken")

    a, c = machine.competitor("a", 10, 0), machine.competitor("c", 9, 1)
    outcomes = compete([a, Competitor("b", lambda: [Case("b", fail)]), c], 0.01, Device())
    assert outcomes["b"] == ([], "RuntimeError: broken")
    assert [len(outcomes[name].samples) for name in "ac"] == [ROUNDS, ROUNDS]


def test_steps_of_one_call_share_its_time(machine: Machine) -> None:
    graph = machine.competitor("graph", 60, 0)._replace(steps=3)
    assert set(compete([graph], 0.01, Device())["graph"].samples) == {(20, 0, 20)}


def test_a_gpu_is_timed_by_its_own_clock(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One event before what is counted and one after it, and no wait in between."""

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = machine.now

        def synchronize(self) -> None:
            machine.calls.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return (end.at - self.at) / 1e3

    def case() -> Iterator[Case]:
        for cost in (500, 20, 30, 40, 1e6):
            yield Case("", lambda cost=cost: setattr(machine, "now", machine.now + cost))

    monkeypatch.setattr(timing.torch.cuda, "Event", Event)
    assert Cuda().turn(case(), 3) == (30,)
    assert machine.calls == ["wait"] and machine.now == 590


def test_nobody_ready_takes_no_turn() -> None:
    def fail() -> list[Case]:
        raise RuntimeError("broken")

    assert compete([Competitor("a", fail)], 1.0, Device()) == {"a": ([], "RuntimeError: broken")}
    assert compete([], 1.0, Device()) == {}
    assert timing.spread([1.0, 2.0, 3.0]) == pytest.approx([1.4, 2.0, 2.6])
