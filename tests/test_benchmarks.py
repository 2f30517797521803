"""The benchmark measures, writes and prints what it should. No time and no ratio that was measured is asserted: such a
test is a coin toss."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import ROOT, formulas, names, read
from benchmarks import __main__ as command
from benchmarks.cases import COUNTS, PARAMETERS, Shape, make_cases, make_inputs_of
from benchmarks.speed import BF16, F64, Cell

STAGES = ("forward", "backward", "both")
COMPETITORS = {
    "loss": ("eager", "eager_probabilities", "compiled", "fused", "fused_probabilities"),
    "loss_given_kl": ("eager", "compiled", "fused"),
    "sample": ("eager", "compiled", "fused"),
    "sample_kl": ("eager", "compiled", "fused"),
    "nb": ("eager", "compiled", "fused"),
    "zinb": ("eager", "compiled", "fused"),
    "overhead": ("bce_alone", "eager", "fused_reconstruction", "fused"),
    "step_bayes": ("eager", "fused", "compiled"),
}
UNTIMED = {
    "loss_memory": ("eager", "fused"),
    "sample_kl_memory": ("eager", "fused"),
}


@pytest.mark.parametrize(
    ("what", "dtype", "target_dtype", "expected"),
    [
        (
            "loss",
            torch.float32,
            None,
            12 * 4 * 33 + 16 * 4 * 3,
        ),  # logits, target, gradient; and the latents
        ("loss", BF16, torch.float32, 8 * 4 * 33 + 8 * 4 * 3),
        ("loss_given_kl", torch.float32, None, 12 * 4 * 33 + 8 * 4),
        ("sample", torch.float32, None, 28 * 4 * 3),
        ("sample_kl", BF16, None, 16 * 4 * 3 + 8 * 4),
        ("nb", torch.float32, None, 12 * 4 * 33 + 4 * 4),  # scores, counts, gradient; and log_library
        ("zinb", torch.float32, None, 20 * 4 * 33 + 4 * 4),
        ("objective_forward", BF16, torch.float32, 8 * 4 * 33),
        ("sampler_forward", torch.float32, None, 12 * 4 * 3),
        ("sampler_backward", BF16, None, 10 * 4 * 3),
    ],
)
def test_bytes_that_have_to_be_moved(
    what: str, dtype: torch.dtype, target_dtype: torch.dtype | None, expected: int
) -> None:
    assert Cell(what, Shape(4, 33, 3), dtype, target_dtype).bytes == expected


@pytest.mark.parametrize("what", COUNTS)
def test_losses_of_counts_are_the_same_function(what: str) -> None:
    """In float64, where lgammas still tell them: values and every gradient, but for what eps = 1e-8 makes."""
    eager, fused = make_cases(what, make_inputs_of(what, Shape(8, 400, 0), "cpu", torch.float64))
    (value, gradients), (own_value, own_gradients) = eager.step(), fused.step()
    torch.testing.assert_close(own_value, value, rtol=1e-5, atol=0)
    assert len(gradients) == {"nb": 2, "zinb": 3}[what]
    for own, gradient in zip(own_gradients, gradients, strict=True):
        torch.testing.assert_close(own, gradient, rtol=1e-4, atol=1e-5)


def test_counts_are_as_sparse_as_real_ones() -> None:
    inputs = make_inputs_of("nb", Shape(16, 20000, 0))
    zeros = float((inputs.counts == 0).double().mean())
    assert 0.88 < zeros < 0.92
    assert torch.equal(inputs.counts, make_inputs_of("nb", Shape(16, 20000, 0)).counts)


@pytest.mark.parametrize("what", PARAMETERS)
def test_all_compute_the_same(what: str) -> None:
    """In float64, with the gradients of recon and of the parameter."""
    cases = make_cases(what, formulas.parameter_inputs((8, 5, 0), "cpu", F64))
    made = {case.name: case.step() for case in cases}
    value, gradients = made["eager"]
    assert len(gradients) == len(formulas.LIKELIHOODS[what].arguments.split()) - 1
    for own, own_gradients in made.values():
        # What the eps = 1e-8 of the negative binomial makes; the others agree to 1e-14.
        torch.testing.assert_close(own, value, rtol=1e-5, atol=0)
        torch.testing.assert_close(own_gradients, gradients, rtol=1e-4, atol=1e-6)


def test_every_likelihood_has_a_name_in_the_tables() -> None:
    assert tuple(names.PARAMETERS) == PARAMETERS


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The CSV and the printed output of a quick run on the CPU."""
    out = tmp_path_factory.mktemp("results")
    run = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(out)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "cpu-quick.csv", done.stdout


def test_a_quick_run_measures_every_row_once(quick: tuple[Path, str]) -> None:
    measured, _ = read(quick[0])
    expected: list[tuple[str, str, str | None]] = []
    expected += [(what, name, stage) for what, all_ in COMPETITORS.items() for name in all_ for stage in STAGES]
    for what in PARAMETERS:  # at two shapes
        ways = ("eager", "fused", *(["eager_function"] if what == "gaussian" else []))
        expected += 2 * [(what, name, stage) for name in ways for stage in STAGES]
    expected += [(what, name, None) for what, all_ in UNTIMED.items() for name in all_]
    of_both = ("sample_kl_memory", "nb_memory", "zinb_memory")
    expected += [(what, name, "both") for what in of_both for name in ("eager", "fused")]
    assert sorted(map(str, expected)) == sorted(str((row.what, row.competitor, row.stage)) for row in measured)


def test_a_quick_run_writes_well_formed_rows(quick: tuple[Path, str]) -> None:
    with quick[0].open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert {len(line) for line in lines} == {len(lines[0])}

    measured, where = read(quick[0])
    assert where.device == "cpu" and {name for name, value in vars(where).items() if not value} == {"driver", "cuda"}
    for row in measured:
        assert math.isfinite(row.value) and row.value >= 0, row
        if row.unit == "us":
            assert row.value > 0 and row.stage and row.threads and row.batch, row
            assert row.p20 is not None and row.p80 is not None and row.p20 <= row.value <= row.p80, row
            assert row.competitor not in ("fused", "fused_probabilities") or row.ratio_to_fused == 1, row
            assert (row.bytes is None) == (
                row.stage != "both" or row.what in ("overhead", "step_bayes", *PARAMETERS)
            ), row
        if row.bytes:
            assert row.gb_per_s == pytest.approx(row.bytes / row.value / 1e3, rel=1e-4), row


def test_a_quick_run_prints_its_tables_last(quick: tuple[Path, str]) -> None:
    printed = quick[1]
    assert printed.rstrip().endswith("0 without a value, 0 of them failures of pyvae")
    for head in (
        "| one thread |",
        "| counts, softmax link |",
        "|  | B×D",
        "| what | pyvae | eager |",
    ):
        assert f"\n{head}" in printed
    assert printed.count("\n| the same: ") == 4


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        *((["--shapes", text], "expected BATCHxFEATURESxLATENT") for text in ("128", "axbxc", "1x2x3x4")),
        (["--device", "cuda", "--threads", "2"], "--threads are for the CPU"),
        (["--budget", "5"], "for a GPU"),
        (["--device", "cuda"], "no CUDA device"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    wrong: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *wrong])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert words in f"{capsys.readouterr().err} {ended.value}"
