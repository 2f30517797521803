"""The CSV, and the tables that are made of it. The numbers are made up."""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import Environment, Row, names, read, report, write
from benchmarks.timing import LEFT_OUT

CPU = Environment("cpu", "Example CPU", "avx2", "2.13.0", "0.1.0", "abc1234")
GPU = Environment("cuda", "Example 200", "sm_90", "2.11.0", "0.2.0", "abc1234", "580.1", "13.0")
SMALL, LARGE = (128, 784, 20), (512, 2**18, 4096)


def timed(
    what: str, competitor: str, time: float, ratio: float | None, shape: tuple[int, int, int], dtype: str | None = None,
    stage: str = "both", note: str | None = None,
) -> Row:  # fmt: skip
    threads = 2 if dtype is None else None
    measured = {"ratio_to_fused": ratio, "gb_per_s": 1e6 / time, "threads": threads, "dtype": dtype, "note": note}
    return Row(what, competitor, time, "us", stage, *shape, **measured)


def kernel(what: str, shape: tuple[int, int, int], time: float, copy: float, dtype: str = "float32") -> list[Row]:
    """A kernel's row and its copy's, in microseconds."""
    own = timed(what, "fused", time, 1.0, shape, dtype, "forward")
    return [own, timed(what, "copy", copy, copy / time, shape, dtype, "forward")]


ON_CPU = [
    *(
        Row("nb_memory", name, value, "buffers", "both", 128, 512)
        for name, value in (("eager", 12.0), ("fused", 1.01), ("fused", 1.05), ("fused", 1.02))
    ),
    timed("overhead", "eager", 124.0, 3.4, (1, 64, 2)),
    timed("overhead", "fused", 36.5, 1.0, (1, 64, 2)),
]
ON_GPU = [
    *kernel("objective_forward", (64, 2**20, 0), 400, 100),  # too small to count
    *kernel("objective_forward", (64, 2**21, 0), 400, 380),
    *kernel("objective_forward", (64, 2**21, 0), 400, 200, "bfloat16"),
    timed("loss", "fused", 20.0, 1.0, SMALL, "float32"),
    timed("loss", "fused_graph", 5.0, 1.0, SMALL, "float32"),
    timed("loss", "eager", 90.0, 4.5, SMALL, "float32"),
    timed("loss", "compiled", 38.0, 1.9, SMALL, "float32"),
    timed("loss", "compiled_reduce_overhead", 10.0, 2.0, SMALL, "float32"),
    timed("loss", "fused", 20.0, 1.0, SMALL, "bfloat16"),
    timed("loss", "compiled", 10.0, 0.5, SMALL, "bfloat16"),
    timed("loss", "fused", 1000.0, 1.0, LARGE, "float32"),
    timed("loss", "compiled", 1500.0, 1.5, LARGE, "float32"),
    timed("loss", "eager_probabilities", math.nan, None, LARGE, "float32", note="RuntimeError: no"),
    timed("loss", "eager", math.nan, None, LARGE, "float32", note=LEFT_OUT),
    Row("gradient_error", "fused", math.nan, "ulp", note="RuntimeError: no"),
]
COUNT_ERRORS = [
    Row(what, name, error * (1 if count else 10), "relative", count=count, theta=theta)
    for what, errors in (("nb_error", (0.5, 2e-7)), ("nb_theta_error", (80.0, 2e-6)))
    for name, error in zip(("eager", "fused"), errors, strict=True)
    for count in (3, 0)
    for theta in (0.1, 1.00001, 10.0, 100.0)
]
LOGIT_ERRORS = [
    Row(what, competitor, scale * error, "relative", logit=logit)
    for what, scale in (("logits_error", 1), ("logits_gradient_error", 2))
    for competitor, error in zip(names.LOGIT_COMPETITORS, (1e-7, 1e-2, 2e-1, 4e-1), strict=True)
    for logit in (0.5, -0.5, 5.0, 50.0, -5.0, -50.0)
]
CALL = "`elbo_loss(recon, x, mu, logvar)`"


def line_of(rendered: str, start: str) -> list[str]:
    (found,) = [line for line in rendered.splitlines() if line.startswith(f"| {start}")]
    return found.removeprefix("| ").removesuffix(" |").split(" | ")


def test_a_csv_gives_back_what_was_measured(tmp_path: Path) -> None:
    write(tmp_path / "some.csv", ON_GPU, GPU)
    again, where = read(tmp_path / "some.csv")
    assert where == GPU
    for before, after in zip(ON_GPU, again, strict=True):
        for field, value in vars(before).items():  # the CSV keeps six digits
            same = pytest.approx(value, rel=1e-5, nan_ok=True) if isinstance(value, float) else value
            assert getattr(after, field) == same, (field, before)


def test_what_takes_no_clock() -> None:
    """The largest over shapes of pyvae's and eager's; what was not measured has no line."""
    lines = report.render(ON_CPU, CPU).split("\n\n")[-1].splitlines()
    assert [line.split(" | ")[1:] for line in lines[2:]] == [
        ["1.05 × scores", "12.00 × scores |"],
        ["36 µs", "124 µs |"],
    ]


def test_errors_over_theta_of_a_positive_count() -> None:
    _, _, *lines = report.of_count_errors(COUNT_ERRORS).splitlines()
    assert lines == ["| 1e+00 | 5e-01 | 2e-07 | 8e+01 | 2e-06 |", "| 1e+02 | 5e-01 | 2e-07 | 8e+01 | 2e-06 |"]


def test_errors_over_ranges_of_the_logit() -> None:
    """Each of its own rows; the largest of those within a range."""
    smaller = [replace(row, value=row.value / 10, logit=1.1 * (row.logit or 0)) for row in LOGIT_ERRORS]
    head, _, *lines = report.of_logit_errors([*LOGIT_ERRORS, *smaller]).splitlines()
    assert head.split(" | ")[1:3] == ["below 1", "right, 1 to 10"]
    assert lines[0] == "| pyvae, bernoulli_logits |" + " 1e-07, 2e-07 |" * 5
    assert lines[1] == "| F.binary_cross_entropy_with_logits |" + " 1e-02, 2e-02 |" * 5


def test_times_by_shape_and_type_on_a_gpu(tmp_path: Path) -> None:
    for name in ("example-200", "example-200-quick"):  # of which the second is no result
        write(tmp_path / f"{name}.csv", ON_GPU, GPU)
    rendered = report.gpu_results(tmp_path)
    first, *_ = rendered.splitlines()
    assert first.startswith("Example 200, sm_90, driver 580.1, CUDA 13.0, torch 2.11.0, pyvae 0.2.0 (abc1234). ")
    kernels = "objective forward, with its gradient | 64x2097152 | bfloat16"
    assert line_of(rendered, kernels)[3:] == ["400 µs", "2,500.0", "200 µs, 0.50×"]
    small = f"{CALL} | 128x784 L20 | float32 | 20 µs"
    assert line_of(rendered, small)[4:] == ["50,000.0", "90 µs, 4.5×", "", "38 µs, 1.9×"]
    large = f"{CALL} | 512x262144 L4096"
    assert line_of(rendered, large)[3:] == ["1,000 µs", "1,000.0", "left out", "failed", "1,500 µs, 1.5×"]
    graph = f"{CALL} | 128x784 L20 | 5.0 µs"
    assert line_of(rendered, graph)[3:] == ["200,000.0", "10 µs, 2.0×"]
    assert rendered.splitlines()[-2:] == [
        "- loss 512x262144 L4096 float32 eager_probabilities: RuntimeError: no",
        "- gradient_error fused: RuntimeError: no",
    ]


def test_the_readmes_have_the_tables_of_the_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `--check` says; of others it says which file is not, and leaves it alone, until they are written."""
    monkeypatch.setattr(sys, "argv", ["report", "--check"])
    report.main()

    copy, whole = tmp_path / "README.md", tmp_path / "WHOLE.md"
    text = report.README.read_text(encoding="utf-8")
    copy.write_text(text.replace("| `SCANVI` |", "| old |"), encoding="utf-8")
    shutil.copy(report.WHOLE, whole)
    monkeypatch.setattr(report, "README", copy)
    monkeypatch.setattr(report, "WHOLE", whole)
    with pytest.raises(SystemExit, match=r"tables in .*README.md are not those of"):
        report.main()
    assert "| old |" in copy.read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["report"])
    report.main()
    assert copy.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("text", ["", "<!-- some:start -->", "<!-- some:end -->\n<!-- some:start -->"])
def test_readme_without_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"some:start.*some:end"):
        report.insert(text, "some", "new")


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    assert "not measured yet" in report.gpu_results(tmp_path)
