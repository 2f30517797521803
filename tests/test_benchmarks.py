"""The benchmark runs, and reports what it measured. No time and no ratio is asserted: such a test is a coin toss."""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import rows, table
from benchmarks.rows import Environment, Row

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
    assert sorted(map(str, expected)) == sorted(str((row.what, row.competitor, row.stage)) for row in measured)


def test_a_quick_run_writes_well_formed_rows(quick: tuple[Path, str]) -> None:
    with quick[0].open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert {len(line) for line in lines} == {len(lines[0])}

    measured, where = rows.read(quick[0])
    assert where.device == "cpu" and {name for name, value in vars(where).items() if not value} == {"driver", "cuda"}
    for row in measured:
        assert math.isfinite(row.value) and row.value >= 0, row
        if row.stage:
            assert row.unit == "us" and row.value > 0 and row.threads and row.batch, row
            assert row.p20 is not None and row.p80 is not None and row.p20 <= row.value <= row.p80, row
            assert row.competitor not in ("fused", "fused_probabilities") or row.ratio_to_fused == 1, row
            assert (row.bytes is None) == (row.stage != "both" or row.what == "overhead"), row
        if row.bytes:
            assert row.gb_per_s == pytest.approx(row.bytes / row.value / 1e3, rel=1e-4), row
    # Logits, target and gradient of 4x33, mu, logvar and their gradients of 4x3, in float32.
    assert {row.bytes for row in measured if row.what == "loss" and row.bytes} == {4 * (3 * 4 * 33 + 4 * 4 * 3)}


def test_a_quick_run_prints_every_target_last(quick: tuple[Path, str]) -> None:
    last = quick[1].splitlines()[-len(table.TARGETS) :]
    assert [line.split(" | ")[0] for line in last] == [f"| {target.what}" for target in table.TARGETS]
    assert "not measured" not in quick[1]


LOSS = "`elbo_loss(recon, x, mu, logvar)` forward + backward"
WHERE = Environment("cpu", "Example CPU", "avx2", "2.13.0", "0.1.0", "abc1234")


def timed(what: str, competitor: str, time: float, ratio: float, shape: tuple[int, int, int]) -> Row:
    return Row(what, competitor, time, "us", "both", *shape, ratio_to_fused=ratio, gb_per_s=time / 10, threads=2)


FIXED = [
    timed("loss", "fused", 100.0, 1.0, (128, 784, 20)),
    timed("loss", "eager", 600.0, 6.0, (128, 784, 20)),
    timed("loss", "eager_probabilities", 2000.0, 20.0, (128, 784, 20)),
    timed("loss", "compiled", 250.0, 2.5, (128, 784, 20)),
    timed("loss", "fused", 20000.0, 1.0, (64, 196608, 4096)),
    timed("loss", "eager", 100000.0, 5.0, (64, 196608, 4096)),
    timed("loss", "eager_probabilities", 160000.0, 8.0, (64, 196608, 4096)),
    timed("loss", "compiled", 60000.0, 3.0, (64, 196608, 4096)),
    timed("bandwidth", "copy", 80.0, 0.8, (64, 1024, 0)),
    timed("bandwidth", "fused", 100.0, 1.0, (64, 1024, 0)),
    timed("bandwidth_huge_pages", "copy", 60.0, 0.6, (64, 1024, 0)),
    timed("bandwidth_huge_pages", "fused", 100.0, 1.0, (64, 1024, 0)),
    timed("overhead", "bce_alone", 30.0, 0.97, (1, 64, 2)),
    timed("overhead", "fused_reconstruction", 30.0, 0.97, (1, 64, 2)),
    timed("overhead", "fused", 31.0, 1.0, (1, 64, 2)),
    Row("loss_error", "eager", 1e-3, "relative", None, 128, 784, 20),
    Row("loss_error", "fused", 1e-7, "relative", None, 128, 784, 20),
    Row("loss_error", "fused_probabilities", 2e-6, "relative", None, 64, 196608, 4096),
    Row("gradient_error", "fused", 4.0, "ulp"),
    Row("import", "fused", 12.4, "ms"),
]


def line_of(rendered: str, start: str) -> list[str]:
    (found,) = [line for line in rendered.splitlines() if line.startswith(f"| {start}")]
    return found.strip("| ").split(" | ")


@pytest.fixture
def rendered(tmp_path: Path) -> str:
    """The fixed rows through a CSV and back."""
    path = tmp_path / "cpu.csv"
    rows.write(path, FIXED, WHERE)
    assert rows.read(path) == (FIXED, WHERE)
    return table.render(*rows.read(path))


@pytest.mark.parametrize(
    ("target", "measured", "reached"),
    [
        (f"{LOSS}, against eager |", "5.0× (at 64x196608 L4096) to 6.0×", "yes"),
        (f"{LOSS}, against eager p", "8.0× (at 64x196608 L4096) to 20.0×", "yes"),
        (f"{LOSS}, against torch", "2.5× (at 128x784 L20) to 3.0×", "**no**"),
        ("`reparameterize_kl` forward + backward, against torch.compile", "not measured", "**no**"),
        ("one large array: objective forward with gradient |", "80% (10.0 of 8.0 GB/s)", "yes"),
        ("one large array: objective forward with gradient, the copy", "60% (10.0 of 6.0 GB/s)", "**no**"),
        ("`elbo_loss(recon, x)` forward", "30.0 against 30.0 µs", "yes"),
        (f"{LOSS}, 1×64", "31.0 against 30.0 µs", "**no**"),
        ("loss, any float32 size", "2.0e-06", "**no**"),
        ("gradient against float64", "4.00 ulp", "yes"),
        ("`import pyvae` beyond torch", "12 ms", "yes"),
    ],
)
def test_targets_are_judged(rendered: str, target: str, measured: str, reached: str) -> None:
    assert line_of(rendered, target)[-2:] == [measured, reached]


def test_speeds_by_shape(rendered: str) -> None:
    assert rendered.startswith("Example CPU, 2 threads, avx2, torch 2.13.0, pyvae 0.1.0 (abc1234).")
    assert line_of(rendered, "`elbo_loss(recon, x, mu, logvar)` | 128x784 L20")[2:] == [
        "100 µs",
        "10.0",
        "600 µs, 6.0×",
        "2,000 µs, 20.0×",
        "250 µs, 2.5×",
    ]


def test_readme_is_rewritten_between_its_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    cpu, gpu = (f"<!-- {name}:start -->\n{{}}\n<!-- {name}:end -->" for name in (table.CPU, table.GPU))
    text = f"before\n{cpu}\nbetween\n{gpu}\nafter\n"
    readme.write_text(text.format("old", "old"), encoding="utf-8")
    rows.write(tmp_path / "cpu.csv", FIXED, WHERE)
    monkeypatch.setattr(table, "README", readme)
    monkeypatch.setattr(table, "RESULTS", tmp_path)

    monkeypatch.setattr(sys, "argv", ["table", "--check"])
    with pytest.raises(SystemExit, match="benchmark tables are not those of"):
        table.main()
    assert "\nold\n" in readme.read_text(encoding="utf-8")

    monkeypatch.setattr(sys, "argv", ["table"])
    table.main()
    expected = text.format(table.render(FIXED, WHERE), table.gpu_results(tmp_path))
    assert readme.read_text(encoding="utf-8") == expected and "not measured yet" in expected

    monkeypatch.setattr(sys, "argv", ["table", "--check"])
    table.main()


@pytest.mark.parametrize("text", ["", "<!-- some:start -->", "<!-- some:end -->\n<!-- some:start -->"])
def test_readme_without_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"some:start.*some:end"):
        table.insert(text, "some", "new")


@pytest.mark.parametrize("text", ["128", "128x784", "axbxc", "1x2x3x4"])
def test_a_malformed_shape_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="BATCHxFEATURESxLATENT"):
        command.shape(text)
