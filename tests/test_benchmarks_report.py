"""The CSV, and the tables that are made of it. The numbers are made up."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import Environment, Row, names, read, report, write
from benchmarks.timing import LEFT_OUT

WHERE = {
    "cpu": Environment("cpu", "Example CPU", "avx2", "2.13.0", "0.1.0", "abc1234"),
    "cuda": Environment("cuda", "Example 200", "sm_90", "2.11.0", "0.2.0", "abc1234", "580.1", "13.0"),
}
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


VERY_LARGE = (64, 196608, 4096)
FIXED = {
    "cpu": [
        timed("loss", "fused", 60.0, 1.0, SMALL, stage="forward"),  # parts of a whole are in the CSV only
        timed("loss", "eager", 60.0, 1.0, SMALL, stage="forward"),
        timed("loss", "fused", 20000.0, 1.0, VERY_LARGE),
        timed("loss", "eager", 100000.0, 5.0, VERY_LARGE),
        timed("loss", "eager_probabilities", 160000.0, 8.0, VERY_LARGE),
        timed("loss", "compiled", 60000.0, 3.0, VERY_LARGE),
        timed("loss", "fused", 100.0, 1.0, SMALL),
        timed("loss", "eager", 600.0, 6.0, SMALL),
        timed("loss", "eager_probabilities", 2000.0, 20.0, SMALL),
        timed("loss", "compiled", 250.0, 2.5, SMALL),
        *(timed("nb", "fused", 100.0 * scale, 1.0, (128, 2000 * scale, 0)) for scale in (1, 10)),
        *(timed("nb", "eager", 500.0 * scale, 5.0 + scale / 5, (128, 2000 * scale, 0)) for scale in (1, 10)),
        timed("nb", "compiled", 3990.0, 3.99, (128, 20000, 0)),
        Row("nb_memory", "eager", 12.0, "buffers", "both", 128, 512),
        Row("nb_memory", "fused", 1.05, "buffers", "both", 128, 512),
        timed("overhead", "eager", 124.0, 3.4, (1, 64, 2)),
        timed("overhead", "fused", 36.5, 1.0, (1, 64, 2)),
        Row("loss_error", "eager", 1e-3, "relative", None, *SMALL),
        Row("loss_error", "fused", 1e-7, "relative", None, *SMALL),
        Row("loss_error", "fused", 2e-7, "relative", None, *VERY_LARGE),
        Row("import", "fused", 12.4, "ms"),
    ],
    "cuda": [
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
        timed("loss", "compiled_autotuned", math.nan, None, LARGE, "float32", note="RuntimeError: no"),
        timed("loss", "eager", math.nan, None, LARGE, "float32", note=LEFT_OUT),
        Row("gradient_error", "fused", math.nan, "ulp", note="RuntimeError: no"),
    ],
}
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


# scvi-tools' training of two models: the first faster by the patch, the second hardly, and with another loss.
SIZE: dict[str, int] = {"batch": 128, "features": 2000}
OF_SCVI = [
    *(Row("scvi_zinb", name, value, "us", "both", ratio_to_fused=ratio, **SIZE)
      for name, value, ratio in (("eager", 9000.0, 3.0), ("fused", 3000.0, None))),
    Row("scvi_zinb_loss", "fused", 1e-7, "relative", **SIZE),
    Row("scvi_zinb_share", "fused", 0.25, "of an epoch", note=report.LOG_PROBABILITIES, **SIZE),
    *(Row("scvi_nb", name, value, "us", "both", ratio_to_fused=ratio, **SIZE)
      for name, value, ratio in (("eager", 4000.0, 1.25), ("fused", 3200.0, None))),
    Row("scvi_nb_loss", "fused", 1e-3, "relative", **SIZE),
    Row("scvi_nb_share", "fused", 0.5, "of an epoch", note=report.LOG_PROBABILITIES, **SIZE),
]  # fmt: skip


# A density, fast enough but against two products, and a step that is not.
OF_MIXTURES = [
    *(Row("mixture", name, value, "us", "both", 3840, 10, 20, ratio_to_fused=value / 1000)
      for name, value in (("eager", 15000.0), ("eager_products", 1200.0), ("fused", 1000.0))),
    *(Row("step_scvi_mixture", name, value, "us", "both", 3840, 10, 50, ratio_to_fused=value / 2000)
      for name, value in (("eager", 8000.0), ("fused", 2000.0))),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The results of both devices, of a quick run, by themselves, and of the errors over theta and over the logit."""
    write(tmp_path / report.SCVI_CSV, OF_SCVI, WHERE["cpu"])
    write(tmp_path / report.MIXTURES_CSV, OF_MIXTURES, WHERE["cpu"])
    write(tmp_path / report.COUNT_ERRORS_CSV, COUNT_ERRORS, WHERE["cpu"])
    write(tmp_path / report.LOGIT_ERRORS_CSV, LOGIT_ERRORS, WHERE["cpu"])
    for device, name in (("cpu", "cpu"), ("cuda", "example-200"), ("cuda", "example-200-quick")):
        write(tmp_path / f"{name}.csv", FIXED[device], WHERE[device])
    return tmp_path


@pytest.fixture
def rendered(folder: Path) -> dict[str, str]:
    on_cpu, where = read(folder / "cpu.csv")
    errors, _ = read(folder / report.COUNT_ERRORS_CSV)
    return {
        "cpu": report.render(on_cpu, where),
        "cuda": report.gpu_results(folder),
        "counts": report.of_counts(on_cpu),
        "parameters": report.of_parameters(on_cpu),
        "errors": report.of_count_errors(errors),
        "scvi": report.of_scvi(OF_SCVI),
        "mixtures": report.of_mixtures(OF_MIXTURES),
    }


def test_mixtures() -> None:
    table = report.of_mixtures(OF_MIXTURES)
    assert "| `mixture_log_prob` | 3840×10 | 20 | 1,000 µs | 15,000 µs, 15.0× |  | 1,200 µs, 1.2× |" in table
    assert "| step of an scVI with a mixture as prior | 3840×10 | 50 | 2,000 µs | 8,000 µs, 4.0× |  |  |" in table


def test_scvi_tools_training() -> None:
    table = report.of_scvi(OF_SCVI)
    assert "| `SCVI`, zero-inflated | 2,000 | 9,000 µs | 3,000 µs, **3.0×** | 25% | 1e-07 |" in table
    assert "| `SCVI`, negative binomial | 2,000 | 4,000 µs | 3,200 µs, **1.2×** | 50% | 1e-03 |" in table


@pytest.mark.parametrize(("device", "name"), [("cpu", "cpu"), ("cuda", "example-200")])
def test_a_csv_gives_back_what_was_measured(folder: Path, device: str, name: str) -> None:
    again, where = read(folder / f"{name}.csv")
    assert where == WHERE[device]
    for before, after in zip(FIXED[device], again, strict=True):
        for field, value in vars(before).items():  # the CSV keeps six digits
            same = pytest.approx(value, rel=1e-5, nan_ok=True) if isinstance(value, float) else value
            assert getattr(after, field) == same, (field, before)


def test_what_takes_no_clock(rendered: dict[str, str]) -> None:
    """The largest over shapes of pyvae's and eager's; what was not measured has no line."""
    lines = rendered["cpu"].split("\n\n")[-1].splitlines()
    assert [line.split(" | ")[1:] for line in lines[2:]] == [
        ["2.0e-07", "1.0e-03 |"],
        ["1.05 × scores", "12.00 × scores |"],
        ["36 µs", "124 µs |"],
        ["12 ms", " |"],
    ]


def test_times_of_means(rendered: dict[str, str]) -> None:
    shape = (20000, 3, 0)
    times = {"fused": 50.0, "eager": 45.0, "eager_function": 30.0, "fused_none": 80.6, "eager_none": 60.0}
    ratios = dict(zip(times, (1.0, 0.9, 0.6, 1.55, 0.75), strict=True))
    rows = [timed("gaussian", name, time, ratios[name], shape, "float64") for name, time in times.items()]
    head, _, line = report.of_parameters([replace(row, gb_per_s=None) for row in rows]).splitlines()
    heads = '`F.mse_loss` | `"none"`, then mean: × of `"sum"` / B | eager so: × of `"none"`, then mean |'
    assert head == f"| one thread | B×D, latent L | types | pyvae | eager | {heads}"
    cells = "50 µs | 45 µs, 0.90× | 30 µs, 0.60× | 81 µs, 1.6× | 60 µs, 0.75× |"
    assert line == f'| `"gaussian"` | 20000x3 | float64 | {cells}'


def test_times_by_shape_on_the_cpu(rendered: dict[str, str]) -> None:
    assert rendered["cpu"].startswith("Example CPU, 2 threads, avx2, torch 2.13.0, pyvae 0.1.0 (abc1234). Forward + ")
    table = rendered["cpu"].split("\n\n")[1].splitlines()
    assert table[0] == "|  | B×D, latent L | pyvae | GB/s | eager | eager probabilities | torch.compile |"
    small = "100 µs | 10,000.0 | 600 µs, 6.0× | 2,000 µs, 20.0× | 250 µs, 2.5× |"
    assert table[2] == f"| {CALL} | 128x784 L20 | {small}"
    assert len(table) == 4 and "64x196608" in table[3]


def test_times_of_counts(rendered: dict[str, str]) -> None:
    table = rendered["counts"].split("\n\n")[0].splitlines()
    assert table[0] == "| counts, softmax link | B×D, latent L | pyvae | GB/s | eager | torch.compile |"
    assert table[2] == "| `NegativeBinomial` | 128x2000 | 100 µs | 10,000.0 | 500 µs, 5.2× |  |"
    assert len(table) == 4 and "128x20000" in table[3]
    assert report.of_counts([]) == ""


def test_errors_over_theta_of_a_positive_count(rendered: dict[str, str]) -> None:
    _, _, *lines = rendered["errors"].split("\n\n")[0].splitlines()
    assert lines == ["| 1e+00 | 5e-01 | 2e-07 | 8e+01 | 2e-06 |", "| 1e+02 | 5e-01 | 2e-07 | 8e+01 | 2e-06 |"]


def test_errors_over_ranges_of_the_logit() -> None:
    """Each of its own rows; the largest of those within a range."""
    smaller = [replace(row, value=row.value / 10, logit=1.1 * (row.logit or 0)) for row in LOGIT_ERRORS]
    head, _, *lines = report.of_logit_errors([*LOGIT_ERRORS, *smaller]).splitlines()
    assert head.split(" | ")[1:3] == ["below 1", "right, 1 to 10"]
    assert lines[0] == "| pyvae, bernoulli_logits |" + " 1e-07, 2e-07 |" * 5
    assert lines[1] == "| F.binary_cross_entropy_with_logits |" + " 1e-02, 2e-02 |" * 5


def test_times_by_shape_and_type_on_a_gpu(rendered: dict[str, str]) -> None:
    first, *_ = rendered["cuda"].splitlines()
    assert first.startswith("Example 200, sm_90, driver 580.1, CUDA 13.0, torch 2.11.0, pyvae 0.2.0 (abc1234). ")
    kernels = "objective forward, with its gradient | 64x2097152 | bfloat16"
    assert line_of(rendered["cuda"], kernels)[3:] == ["400 µs", "2,500.0", "200 µs, 0.50×"]
    small = f"{CALL} | 128x784 L20 | float32 | 20 µs"
    assert line_of(rendered["cuda"], small)[4:] == ["50,000.0", "90 µs, 4.5×", "38 µs, 1.9×", ""]
    large = f"{CALL} | 512x262144 L4096"
    assert line_of(rendered["cuda"], large)[3:] == ["1,000 µs", "1,000.0", "left out", "1,500 µs, 1.5×", "failed"]
    graph = f"{CALL} | 128x784 L20 | 5.0 µs"
    assert line_of(rendered["cuda"], graph)[3:] == ["200,000.0", "10 µs, 2.0×"]
    assert rendered["cuda"].splitlines()[-2:] == [
        "- loss 512x262144 L4096 float32 compiled_autotuned: RuntimeError: no",
        "- gradient_error fused: RuntimeError: no",
    ]


def test_readme_is_rewritten_between_its_markers(
    folder: Path, rendered: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    readme, whole = folder / "README.md", folder / "WHOLE.md"
    markers = (report.CPU, report.GPU, report.OF_COUNTS, report.ERRORS_OF_COUNTS, report.ERRORS_OF_LOGITS)
    markers += (report.OF_PARAMETERS, report.OF_SCVI, report.OF_DENSITIES)
    blocks = (f"<!-- {name}:start -->\n{{}}\n<!-- {name}:end -->" for name in markers)
    cpu, gpu, counts, errors, logits, of_parameters, scvi, mixtures = blocks
    text = f"before\n{cpu}\nbetween\n{gpu}\nafter\n{counts}\n{errors}\n{logits}\n{scvi}\n"
    readme.write_text(text.format(*["old"] * 6), encoding="utf-8")
    pattern = f"{cpu}\n{counts}\n{of_parameters}\n{scvi}\n{mixtures}"
    whole.write_text(pattern.format(*["old"] * 5), encoding="utf-8")
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(report, "WHOLE", whole)
    monkeypatch.setattr(report, "RESULTS", folder)

    monkeypatch.setattr(sys, "argv", ["report", "--check"])
    with pytest.raises(SystemExit, match=r"tables in .*README.md are not those of"):
        report.main()
    assert "\nold\n" in readme.read_text(encoding="utf-8")

    monkeypatch.setattr(sys, "argv", ["report"])
    report.main()
    tables = (rendered[name] for name in ("cpu", "counts", "parameters", "scvi", "mixtures"))
    assert whole.read_text(encoding="utf-8") == pattern.format(*tables)
    short = readme.read_text(encoding="utf-8")
    assert rendered["cuda"] in short and rendered["errors"] in short and report.of_logit_errors(LOGIT_ERRORS) in short
    assert rendered["cpu"].splitlines()[0] in short
    of_the_loss = [line for line in rendered["cpu"].splitlines() if line.startswith(f"| {CALL} |") and "×" in line]
    assert of_the_loss and all(line in short for line in of_the_loss[:1])
    assert rendered["counts"] in short

    monkeypatch.setattr(sys, "argv", ["report", "--check"])
    report.main()


@pytest.mark.parametrize("text", ["", "<!-- some:start -->", "<!-- some:end -->\n<!-- some:start -->"])
def test_readme_without_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"some:start.*some:end"):
        report.insert(text, "some", "new")


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    assert "not measured yet" in report.gpu_results(tmp_path)
