"""What the GPU benchmark does but for its clock, graphs and profiler, which a stand-in on the CPU replaces here.

As in test_benchmarks.py, no time and no ratio that was measured is asserted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from stand_in import EFFORT, SMALL, Host, launch

from benchmarks import cuda, gpu_table, rounds, steps
from benchmarks.competitors import CASES, make_inputs, necessary_bytes
from benchmarks.contests import Cell, speed
from benchmarks.device import Call
from benchmarks.launches import count
from benchmarks.rounds import LEFT_OUT, Budget, Competitor, TimeLimit, compete, guarded
from benchmarks.rows import Row


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "ROUNDS", 3)


@pytest.fixture(scope="module")
def measured() -> list[Row]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "ROUNDS", 3)
        return [row for name, part in cuda.measure(EFFORT, Host()) for row in guarded(name, part)]


def named(found: Sequence[Row], what: str, stage: str | None = "both") -> dict[str, Row]:
    return {row.competitor: row for row in found if (row.what, row.stage) == (what, stage)}


def test_every_part_is_measured(measured: list[Row]) -> None:
    expected = {"launches", "waits", "loss_memory", "sample_kl_memory", "overhead", "loss", "sample_kl"}
    expected |= {"loss_error", "gradient_error", "normal_error"} | set(gpu_table.PASSES)
    assert {row.what for row in measured} == expected
    lacking = {(row.what, row.competitor) for row in measured if math.isnan(row.value)}
    assert lacking == {("loss", "compiled_autotuned"), ("loss", "compiled_autotuned_graph")}


def test_all_competitors_are_compared_also_in_graphs(measured: list[Row]) -> None:
    own_graphs = {"compiled_reduce_overhead", "compiled_max_autotune"}
    plain = {"eager", "fused", "eager_probabilities", "fused_probabilities", "compiled", "compiled_autotuned"}
    loss, sample = named(measured, "loss"), named(measured, "sample_kl")
    assert set(loss) == plain | {f"{name}_graph" for name in plain} | own_graphs
    plain = {"eager", "fused", "compiled"}
    assert set(sample) == plain | {f"{name}_graph" for name in plain} | {"compiled_reduce_overhead"}
    assert {row.dtype for row in sample.values()} == {"bfloat16"}

    for name, row in loss.items():
        if "autotuned" in name:
            assert math.isnan(row.value) and row.note == "RuntimeError: no such mode here"
            continue
        counterpart = "fused_probabilities" if "probabilities" in name else "fused"
        counterpart += "_graph" if name.endswith("_graph") or name in own_graphs else ""
        assert row.ratio_to_fused == pytest.approx(row.value / loss[counterpart].value)
        assert row.p20 is not None and row.p80 is not None and 0 < row.p20 <= row.value <= row.p80
        assert row.note == ("torch.compile made no CUDA graph" if name == "compiled_max_autotune" else None)


def test_bandwidth_counts_what_has_to_be_moved(measured: list[Row]) -> None:
    bytes_of = {
        ("objective_forward", "float32"): 12,
        ("objective_forward", "bfloat16"): 6,
        ("sampler_forward", "float32"): 12,
        ("sampler_forward", "bfloat16"): 6,
        ("sampler_backward", "float32"): 20,
        ("sampler_backward", "bfloat16"): 10,
    }
    found = [row for row in measured if row.what in gpu_table.PASSES]
    assert len(found) == 2 * 2 * len(bytes_of)
    for row in found:
        assert row.bytes == bytes_of[row.what, str(row.dtype)] * gpu_table.elements(row), row
        assert gpu_table.elements(row) in EFFORT.sizes and row.competitor in ("fused", "copy"), row
        assert row.gb_per_s == pytest.approx(row.bytes / row.value / 1e3), row


@pytest.mark.parametrize(
    ("what", "size", "target_size", "expected"),
    [
        ("loss", 4, 4, 12 * 4 * 33 + 16 * 4 * 3),
        ("loss", 2, 4, 8 * 4 * 33 + 8 * 4 * 3),
        ("sample_kl", 2, 2, 16 * 4 * 3 + 8 * 4),
    ],
)
def test_necessary_bytes_by_type(what: str, size: int, target_size: int, expected: int) -> None:
    assert necessary_bytes(what, SMALL, size, target_size) == expected


def test_inputs_have_the_types_asked_for() -> None:
    inputs = make_inputs(SMALL, dtype=torch.bfloat16, target_dtype=torch.float32)
    assert {inputs.logits.dtype, inputs.mu.dtype, inputs.z_grad.dtype} == {torch.bfloat16}
    assert {inputs.target.dtype, inputs.kl.dtype, inputs.kl_grad.dtype} == {torch.float32}
    for case in CASES["loss"](inputs, {}):
        if case.backward is not None and case.name != "eager_probabilities":  # torch refuses mixed types there
            case.backward(case.forward())


def test_launches_are_counted_by_where_the_host_made_them() -> None:
    events: list[dict[str, Any]] = [
        {"cat": "user_annotation", "name": "forward", "ts": 0.0, "dur": 100.0},
        {"cat": "gpu_user_annotation", "name": "forward", "ts": 0.0, "dur": 5000.0},
        {"cat": "user_annotation", "name": "backward", "ts": 200.0, "dur": 100.0},
        *launch(210.0, 3, "third"),  # in the trace, threads follow one another
        *launch(20.0, 1, "first"),
        *launch(30.0, 2, "Memset (Device)", "gpu_memset"),
        *launch(150.0, 4, "between the stages"),
        {"cat": "cuda_runtime", "name": "cudaEventQuery", "ts": 40.0, "dur": 1.0, "args": {"correlation": 9}},
        {"cat": "cuda_runtime", "name": "cudaStreamSynchronize", "ts": 230.0, "dur": 1.0, "args": {"correlation": 8}},
        {"cat": "cuda_runtime", "name": "cudaDeviceSynchronize", "ts": 400.0, "dur": 1.0, "args": {"correlation": 7}},
        {"cat": "cpu_op", "name": "aten::add", "ts": 20.0, "dur": 5.0},
        {"ph": "M", "name": "process_name"},
    ]
    counted = count(events, ("forward", "backward"))
    assert counted["forward"] == (["first", "Memset (Device)"], [])
    assert counted["backward"] == (["third"], ["cudaStreamSynchronize"])


def test_a_profiler_that_sees_nothing_is_no_zero() -> None:
    class Blind(Host):
        def trace(self, stages: Mapping[str, Call]) -> list[dict[str, Any]]:
            return [event for event in super().trace(stages) if event["cat"] != "kernel"]

    found = list(cuda.launch_rows(SMALL, Blind()))
    assert found and all(math.isnan(row.value) and row.note == "the profiler saw no launch" for row in found)


def test_launch_rows_name_what_was_launched(measured: list[Row]) -> None:
    assert {name: row.note for name, row in named(measured, "launches", "backward").items()} == dict.fromkeys(
        ("eager", "fused", "compiled"), "kernel_3"
    )
    waits = [row for row in measured if row.what == "waits" and row.competitor == "fused"]
    assert [(row.stage, row.value, row.note) for row in waits] == [
        ("forward", 0, None),
        ("backward", 1, "cudaStreamSynchronize"),
    ]


def test_time_that_is_spent_leaves_rows_out() -> None:
    found = speed(Cell("loss", SMALL), 0.01, Host(), Budget(0, 10))
    assert found and all(math.isnan(row.value) and row.note == LEFT_OUT for row in found)


def test_a_slow_preparation_is_given_up() -> None:
    def slow() -> list[Call]:
        time.sleep(30)
        return [lambda: None]

    def quick() -> list[Call]:
        return [lambda: None]

    outcomes = compete([Competitor("slow", slow), Competitor("quick", quick)], 0.01, Host(), Budget(60, 0.05))
    assert not outcomes["slow"].times and "to prepare" in str(outcomes["slow"].note)
    assert outcomes["quick"].times and outcomes["quick"].note is None


def test_a_failure_in_the_middle_is_told() -> None:
    calls = 0

    def fails_later() -> None:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise ValueError("later")

    outcomes = compete([Competitor("one", lambda: [fails_later])], 0.1, Host(), Budget(60, 60))
    assert outcomes["one"] == ([], "ValueError: later")


@pytest.mark.parametrize("error", [ValueError("broken\nby that"), TimeLimit("broken")])
def test_a_part_that_breaks_off_keeps_its_rows(error: BaseException) -> None:
    def part() -> Iterator[Row]:
        yield Row("before", "fused", 1.0, "us")
        raise error

    first, second = guarded("some part", part)
    assert first.what == "before" and second.what == "some part" and math.isnan(second.value)
    assert "broken" in str(second.note) and "by that" not in str(second.note)


@pytest.mark.parametrize("autocast", [False, True])
def test_training_steps_of_all_competitors(autocast: bool) -> None:
    found = steps.rows("step_mlp", autocast, 0.01, Host(), Budget(100, 100))
    names = ("eager", "fused", "compiled", "fused_compiled", "model_alone")
    assert {row.competitor for row in found} == {name + graph for name in names for graph in ("", "_graph")}
    assert all(row.value > 0 and (row.batch, row.features, row.latent) == (128, 784, 20) for row in found), found
    assert {row.dtype for row in found} == {"autocast bfloat16" if autocast else "float32"}


@pytest.mark.parametrize("name", steps.MODELS)
def test_models_map_images_to_images(name: str) -> None:
    build, size = steps.MODELS[name]
    model = build(size)
    x = torch.rand(1, *size.image)
    mu, logvar = model.encode(x)
    assert mu.shape == logvar.shape == (1, *size.latent) and model.decoder(mu).shape == x.shape
