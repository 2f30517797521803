"""The benchmark runs and writes what it measured. No time and no ratio is asserted: such a test is a coin toss."""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import report, rows, steps
from benchmarks.cases import Shape, make_cases, make_inputs, necessary_bytes

STAGES = ("forward", "backward", "both")
COMPETITORS = {
    "loss": ("eager", "eager_probabilities", "compiled", "fused", "fused_probabilities"),
    "loss_given_kl": ("eager", "compiled", "fused"),
    "sample": ("eager", "compiled", "fused"),
    "sample_kl": ("eager", "compiled", "fused"),
    "overhead": ("bce_alone", "eager", "fused_reconstruction", "fused"),
}
UNTIMED = {
    "loss_error": ("eager", "eager_probabilities", "fused", "fused_probabilities"),
    "gradient_error": ("eager", "fused"),
    "normal_error": ("fused",),
    "loss_memory": ("eager", "fused"),
    "sample_kl_memory": ("eager", "fused"),
    "import": ("fused",),
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The CSV and the printed output of a quick run."""
    out = tmp_path_factory.mktemp("results")
    run = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(out)]
    done = subprocess.run(run, cwd=rows.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "cpu-quick.csv", done.stdout


def test_a_quick_run_measures_every_row_once(quick: tuple[Path, str]) -> None:
    measured, _ = rows.read(quick[0])
    expected: list[tuple[str, str, str | None]] = []
    expected += [(what, name, stage) for what, names in COMPETITORS.items() for name in names for stage in STAGES]
    expected += [(what, name, "both") for what in ("bandwidth", "bandwidth_huge_pages") for name in ("copy", "fused")]
    expected += [(what, name, None) for what, names in UNTIMED.items() for name in names]
    expected += [("sample_kl_memory", name, "both") for name in ("eager", "fused")]
    assert sorted(map(str, expected)) == sorted(str((row.what, row.competitor, row.stage)) for row in measured)


def test_a_quick_run_writes_well_formed_rows(quick: tuple[Path, str]) -> None:
    with quick[0].open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert {len(line) for line in lines} == {len(lines[0])}

    measured, where = rows.read(quick[0])
    assert where.device == "cpu" and {name for name, value in vars(where).items() if not value} == {"driver", "cuda"}
    for row in measured:
        assert math.isfinite(row.value) and row.value >= 0, row
        if row.unit == "us":
            assert row.value > 0 and row.stage and row.threads and row.batch, row
            assert row.p20 is not None and row.p80 is not None and row.p20 <= row.value <= row.p80, row
            assert row.competitor not in ("fused", "fused_probabilities") or row.ratio_to_fused == 1, row
            assert (row.bytes is None) == (row.stage != "both" or row.what == "overhead"), row
        if row.bytes:
            assert row.gb_per_s == pytest.approx(row.bytes / row.value / 1e3, rel=1e-4), row


def test_a_quick_run_prints_every_target_last(quick: tuple[Path, str]) -> None:
    targets = report.TARGETS["cpu"]
    last = quick[1].splitlines()[-len(targets) :]
    assert [line.split(" | ")[0] for line in last] == [f"| {target.what}" for target in targets]
    assert "not measured" not in quick[1]


@pytest.mark.parametrize("text", ["128", "128x784", "axbxc", "1x2x3x4"])
def test_a_malformed_shape_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="BATCHxFEATURESxLATENT"):
        command.shape(text)


@pytest.mark.parametrize("wrong", [["--device", "cuda", "--threads", "2"], ["--steps"], ["--budget", "5"]])
def test_options_of_the_other_device_are_refused(wrong: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *wrong])
    with pytest.raises(SystemExit):
        command.arguments()


def test_a_run_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--device", "cuda", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="no CUDA device"):
        command.main()


SMALL = Shape(4, 33, 3)


@pytest.mark.parametrize(
    ("what", "size", "target_size", "expected"),
    [
        ("loss", 4, 4, 12 * 4 * 33 + 16 * 4 * 3),  # logits, target, gradient; mu, logvar and their gradients
        ("loss", 2, 4, 8 * 4 * 33 + 8 * 4 * 3),
        ("loss_given_kl", 4, 4, 12 * 4 * 33 + 8 * 4),
        ("sample", 4, 4, 28 * 4 * 3),
        ("sample_kl", 2, 2, 16 * 4 * 3 + 8 * 4),
        ("objective_forward", 2, 4, 8 * 4 * 33),
        ("sampler_forward", 4, 4, 12 * 4 * 3),
        ("sampler_backward", 2, 2, 10 * 4 * 3),
    ],
)
def test_necessary_bytes(what: str, size: int, target_size: int, expected: int) -> None:
    assert necessary_bytes(what, SMALL, size, target_size) == expected


def test_inputs_have_the_types_asked_for() -> None:
    inputs = make_inputs(SMALL, dtype=torch.bfloat16, target_dtype=torch.float32)
    assert {inputs.logits.dtype, inputs.mu.dtype, inputs.z_grad.dtype} == {torch.bfloat16}
    assert {inputs.target.dtype, inputs.kl.dtype, inputs.kl_grad.dtype} == {torch.float32}
    for case in make_cases("loss", inputs):
        if case.name != "eager_probabilities":  # torch refuses mixed types there
            case.step()


@pytest.mark.parametrize("name", steps.MODELS)
def test_models_map_images_to_images(name: str) -> None:
    build, size = steps.MODELS[name]
    model, x = build(), torch.rand(1, *size[1:])
    mu, logvar = model.encode(x)
    assert mu.shape == logvar.shape and mu.numel() < x.numel() and model.decoder(mu).shape == x.shape
