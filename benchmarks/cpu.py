"""What is measured on the CPU, and how much of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from . import accuracy, isolated, speed
from .cases import SHAPES, SPEEDS, Shape
from .device import Device
from .rows import Row


class Effort(NamedTuple):
    """How much of everything a run does."""

    shapes: tuple[Shape, ...]
    seconds: float  # for each what x shape, and more where calls are long
    backend: str  # of torch.compile
    large: int  # elements of the one large array, and of the arrays of the memory rows
    draws: int
    imports: int


FULL = Effort(SHAPES, 5.0, "inductor", 2**25, 2**22, 7)
# aot_eager runs no C++ compiler: a quick run shows that everything works, and measures nothing.
QUICK = Effort((Shape(4, 33, 3),), 0.02, "aot_eager", 2**16, 2**12, 2)


def parts(effort: Effort, threads: int) -> Iterator[tuple[str, Callable[[], Iterable[Row]]]]:
    """The parts of a run by name, each measured when it is called; `threads` are those of the speed rows."""
    device = Device(effort.backend)

    def speeds() -> Iterator[Row]:
        with speed.thread_count(threads):
            for shape in effort.shapes:
                for what in SPEEDS:
                    yield from speed.speed(speed.Cell(what, shape, modes=speed.ONLY_COMPILED), effort.seconds, device)

    yield "accuracy", lambda: accuracy.error_rows(effort.shapes, effort.draws, device.name)
    yield "speed", speeds
    yield "bandwidth", lambda: speed.cpu_bandwidth(effort.large, effort.seconds)
    yield "bandwidth, huge pages", lambda: isolated.huge_page_rows(effort.large, effort.seconds)
    yield "call overhead", lambda: speed.overhead(effort.seconds, device)
    yield "memory", lambda: isolated.memory_rows(effort.large, device)
    yield "import", lambda: [isolated.import_row(effort.imports)]
