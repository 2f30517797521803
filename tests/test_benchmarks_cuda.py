"""What the benchmark of a GPU does, all but its clock, graphs and profiler, in whose place a CPU stands here."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import Environment, Row, plots, read, report, timing
from benchmarks import __main__ as command
from benchmarks.cases import KERNELS, PARAMETERS, Shape
from benchmarks.names import elements
from benchmarks.speed import BF16, COMPILED, Cell
from benchmarks.timing import LEFT_OUT, Case, Competitor, Device, compete

SMALL = Shape(4, 33, 3)


MODES = COMPILED | {"compiled_broken": "broken"}
EFFORT = command.Effort(
    cells=(Cell("loss", SMALL, modes=MODES), Cell("sample_kl", SMALL, BF16), Cell("nb", SMALL)),
    sizes=(2**12, 2**14),
    memory=2**10,
    seconds=0.01,
    parameters=((SMALL, torch.float32),),
)
WHERE = Environment("cuda", "Example 200", "sm_90", "2.11.0", "0.2.0", "abc1234", "580.1", "13.0")


class Host(Device):
    """The CPU in a GPU's place. Compiling changes nothing, and one mode fails; a graph is its calls."""

    stages = ("both",)
    captures = counts_memory = True
    skipped = 0

    def cache_bytes(self) -> int:
        return 2**12

    def compile(self, function: Callable[..., Any], mode: str) -> Callable[..., Any]:
        def compiled(*arguments: Any) -> Any:
            if mode == "broken":
                raise RuntimeError("no such mode here\nand a second line")
            self.skipped += mode == "reduce-overhead"
            return function(*arguments)

        return compiled

    def skipped_graphs(self) -> int:
        return self.skipped

    def turn(self, cases: Iterator[Case], count: int) -> tuple[float, ...]:
        return super().turn(cases, count)[-1:]

    def capture(self, make_cases: Callable[[], Sequence[Case]]) -> Callable[[], object]:
        cases = make_cases()
        return lambda: [case.step() for case in cases]


@pytest.fixture(autouse=True, scope="module")
def _few_rounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "ROUNDS", 3)
        yield


def run(folder: Path, device: Device) -> Path:
    """The whole command; the CSV that it writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(command, "environment", lambda device: WHERE)
        patch.setattr(command, "Cuda", lambda: device)
        patch.setitem(command.FULL, "cuda", EFFORT)
        patch.setattr("sys.argv", ["benchmarks", "--device", "cuda", "--out", str(folder)])
        command.main()
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The CSV and the printed output."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        path = run(tmp_path_factory.mktemp("results"), Host())
    return path, printed.getvalue()


@pytest.fixture
def measured(whole_run: tuple[Path, str]) -> list[Row]:
    return read(whole_run[0])[0]


def named(found: Sequence[Row], what: str, stage: str | None = "both") -> dict[str, Row]:
    return {row.competitor: row for row in found if (row.what, row.stage) == (what, stage)}


def test_every_part_is_measured(measured: list[Row]) -> None:
    expected = {"loss_memory", "sample_kl_memory", "overhead", "loss", "sample_kl"}
    expected |= {"nb_memory", "zinb_memory", "nb", *PARAMETERS}
    assert {row.what for row in measured} == expected | set(KERNELS)
    lacking = {(row.what, row.competitor) for row in measured if math.isnan(row.value)}
    assert lacking == {("loss", "compiled_broken"), ("loss", "compiled_broken_graph")}


def test_all_competitors_are_compared_also_in_graphs(measured: list[Row]) -> None:
    own_graphs = {"compiled_reduce_overhead"}
    plain = {"eager", "fused", "eager_probabilities", "fused_probabilities", "compiled", "compiled_broken"}
    loss, sample = named(measured, "loss"), named(measured, "sample_kl")
    assert set(loss) == plain | {f"{name}_graph" for name in plain} | own_graphs
    plain = {"eager", "fused", "compiled"}
    assert set(sample) == plain | {f"{name}_graph" for name in plain} | {"compiled_reduce_overhead"}
    assert {row.dtype for row in sample.values()} == {"bfloat16"}

    for name, row in loss.items():
        if "broken" in name:
            assert math.isnan(row.value) and row.note == "RuntimeError: no such mode here"
            continue
        counterpart = "fused_probabilities" if "probabilities" in name else "fused"
        counterpart += "_graph" if name.endswith("_graph") or name in own_graphs else ""
        assert row.ratio_to_fused == pytest.approx(row.value / loss[counterpart].value, rel=1e-4)
        assert row.p20 is not None and row.p80 is not None and 0 < row.p20 <= row.value <= row.p80
        assert row.note == ("torch.compile made no CUDA graph" if name == "compiled_reduce_overhead" else None)


def test_bandwidth_counts_what_has_to_be_moved(measured: list[Row]) -> None:
    bytes_of = {"objective_forward": 12, "sampler_forward": 12, "sampler_backward": 20}  # an element, in float32
    found = [row for row in measured if row.what in KERNELS]
    assert len(found) == 2 * 2 * 2 * len(bytes_of)
    for row in found:
        assert row.bytes == bytes_of[row.what] * elements(row) // (1 if row.dtype == "float32" else 2), row
        assert elements(row) in EFFORT.sizes and row.competitor in ("fused", "copy"), row
        assert row.gb_per_s == pytest.approx(row.bytes / row.value / 1e3, rel=1e-4), row


def test_what_a_run_leaves(whole_run: tuple[Path, str], tmp_path: Path) -> None:
    path, printed = whole_run
    assert path.name == "example-200.csv"
    assert "- loss 4x33 L3 float32 compiled_broken: RuntimeError: no such mode here" in printed
    assert " 2 without a value, 0 of them failures of pyvae" in printed
    assert report.gpu_results(path.parent).splitlines()[0] in printed  # numbers: the CSV keeps six digits
    written = plots.pictures(path, tmp_path / "pictures")
    assert [picture.name for picture in written] == ["example-200-speed-up.png", "example-200-memory.png"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in written)


def test_a_failure_of_pyvae_fails_the_run(tmp_path: Path) -> None:
    class Faulty(Host):
        def peak_bytes(self, call: Callable[[], object]) -> int:
            raise RuntimeError("illegal address")

    with pytest.raises(SystemExit, match=r"memory.*RuntimeError: illegal address"):
        run(tmp_path, Faulty())
    assert read(tmp_path / "example-200.csv")[0]


def does_nothing() -> list[Case]:
    return [Case("", lambda: None)]


def fails_later() -> list[Case]:
    calls = iter(range(20))
    return [Case("", lambda: next(calls))]


def test_who_fails_is_told_and_holds_nobody_up() -> None:
    competitors = [Competitor("one", fails_later), Competitor("other", does_nothing)]
    outcomes = compete(competitors, 0.1, Host())
    assert outcomes["one"] == ([], "StopIteration: ")
    assert outcomes["other"].samples and outcomes["other"].note is None
    over = time.monotonic()
    assert compete(competitors, 0.1, Host(), over) == dict.fromkeys(("one", "other"), ([], LEFT_OUT))


def test_a_part_that_breaks_off_keeps_its_rows() -> None:
    def part() -> Iterator[Row]:
        yield Row("before", "fused", 1.0, "us")
        raise ValueError("broken\nby that")

    first, second = command.guarded("some part", part)
    assert first.what == "before" and second.what == "some part" and math.isnan(second.value)
    assert "broken" in str(second.note) and "by that" not in str(second.note)
