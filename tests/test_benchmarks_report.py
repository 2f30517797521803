"""The CSV, and the tables and targets that are made of it. The numbers are made up."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import Environment, Row, read, report, write
from benchmarks.turns import LEFT_OUT

WHERE = {
    "cpu": Environment("cpu", "Example CPU", "avx2", "2.13.0", "0.1.0", "abc1234"),
    "cuda": Environment("cuda", "Example 200", "sm_90", "2.11.0", "0.2.0", "abc1234", "580.1", "13.0"),
}
SMALL, LARGE, LATENT = (128, 784, 20), (512, 2**18, 4096), (2**27 // 4096, 1, 4096)


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
        Row("nb_memory", "fused", 1.05, "buffers", "both", 128, 512),
        Row("zinb_memory", "fused", 2.2, "buffers", "both", 128, 512),
        timed("bandwidth", "copy", 80.0, 0.8, (64, 1024, 0)),
        timed("bandwidth_huge_pages", "copy", 60.0, 0.6, (64, 1024, 0)),
        timed("overhead", "bce_alone", 30.0, 0.97, (1, 64, 2)),
        timed("overhead", "fused_reconstruction", 30.0, 0.97, (1, 64, 2)),
        timed("overhead", "fused", 36.5, 1.0, (1, 64, 2)),
        Row("loss_error", "eager", 1e-3, "relative", None, *SMALL),
        Row("loss_error", "fused", 1e-7, "relative", None, *SMALL),
        Row("loss_error", "fused_probabilities", 2e-6, "relative", None, *VERY_LARGE),
        Row("gradient_error", "fused", 4.0, "ulp"),
        Row("import", "fused", 12.4, "ms"),
    ],
    "cuda": [
        *kernel("objective_forward", (64, 2**20, 0), 400, 100),  # too small to count
        *kernel("objective_forward", (64, 2**21, 0), 400, 380),
        *kernel("objective_forward", (64, 2**22, 0), 800, 720),
        *kernel("objective_forward", (64, 2**21, 0), 400, 200, "bfloat16"),  # shown, but no target
        *kernel("sampler_forward", LATENT, 400, 316),
        timed("loss", "fused", 20.0, 1.0, SMALL, "float32"),
        timed("loss", "fused_graph", 5.0, 1.0, SMALL, "float32"),
        timed("loss", "eager", 90.0, 4.5, SMALL, "float32"),
        timed("loss", "compiled", 38.0, 1.9, SMALL, "float32"),
        timed("loss", "compiled_reduce_overhead", 10.0, 2.0, SMALL, "float32"),
        timed("loss", "fused", 20.0, 1.0, SMALL, "bfloat16"),
        timed("loss", "compiled", 10.0, 0.5, SMALL, "bfloat16"),  # shown, but no target
        timed("loss", "fused", 1000.0, 1.0, LARGE, "float32"),
        timed("loss", "compiled", 1500.0, 1.5, LARGE, "float32"),
        timed("loss", "compiled_autotuned", math.nan, None, LARGE, "float32", note="RuntimeError: no"),
        timed("loss", "eager", math.nan, None, LARGE, "float32", note=LEFT_OUT),
        *(Row("launches", "fused", 2.0, "launches", stage, *SMALL) for stage in ("forward", "backward")),
        Row("waits", "fused", 0.0, "waits", "forward", *SMALL),
        Row("waits", "fused", 1.0, "waits", "backward", *SMALL, note="cudaStreamSynchronize"),
        Row("loss_error", "fused", 1e-7, "relative"),
        Row("gradient_error", "fused", math.nan, "ulp", note="RuntimeError: no"),
        Row("sample_kl_memory", "fused", 1.0, "buffers", None, 64, 1, 512),
        Row("sample_kl_memory", "fused", 4.0, "buffers", "both", 64, 1, 512),
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
    for competitor, error in zip(report.LOGIT_COMPETITORS, (1e-7, 1e-2, 2e-1, 4e-1), strict=True)
    for logit in (0.5, -0.5, 5.0, 50.0, -5.0, -50.0)
]
CALL = "`elbo_loss(recon, x, mu, logvar)`"
LOSS = f"{CALL} forward + backward"


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
    table, targets = report.of_mixtures(OF_MIXTURES).split("\n\n")
    assert "| `mixture_log_prob` | 3840×10 | 20 | 1,000 µs | 15,000 µs, 15.0× |  | 1,200 µs, 1.2× |" in table
    assert "| step of an scVI with a mixture as prior | 3840×10 | 50 | 2,000 µs | 8,000 µs, 4.0× |  |  |" in table
    reached = [line.endswith("yes |") for line in targets.splitlines()[2:]]
    assert reached == [True, False, False, False, False, False]
    assert targets.count("not measured") == 3  # of its dimensions, a step of 20 components, beta-TCVAE


def test_scvi_tools_training() -> None:
    table, targets = report.of_scvi(OF_SCVI).split("\n\n")
    assert "| `SCVI`, zero-inflated | 2,000 | 9,000 µs | 3,000 µs, **3.0×** | 25% | 1e-07 |" in table
    assert "| `SCVI`, negative binomial | 2,000 | 4,000 µs | 3,200 µs, **1.2×** | 50% | 1e-03 |" in table
    reached = {line.split(" | ")[0].strip("| "): line.endswith("yes |") for line in targets.splitlines()[2:]}
    of_time = "{}, {} genes, an epoch's wall time"
    assert reached[of_time.format("`SCVI`, zero-inflated", "2,000")]
    assert not reached[of_time.format("`SCVI`, negative binomial", "2,000")]
    assert not reached[of_time.format("`SCVI`, zero-inflated", "20,000")]  # not measured
    assert reached["`SCVI`, zero-inflated, loss of the same weights and noise"]
    assert not reached["`SCVI`, negative binomial, loss of the same weights and noise"]


@pytest.mark.parametrize(("device", "name"), [("cpu", "cpu"), ("cuda", "example-200")])
def test_a_csv_gives_back_what_was_measured(folder: Path, device: str, name: str) -> None:
    again, where = read(folder / f"{name}.csv")
    assert where == WHERE[device]
    for before, after in zip(FIXED[device], again, strict=True):
        for field, value in vars(before).items():  # the CSV keeps six digits
            same = pytest.approx(value, rel=1e-5, nan_ok=True) if isinstance(value, float) else value
            assert getattr(after, field) == same, (field, before)


@pytest.mark.parametrize(
    ("device", "target", "measured", "reached"),
    [
        ("cpu", f"{LOSS}, against eager |", "5.0× (at 64x196608 L4096) to 6.0×", "yes"),
        ("cpu", f"{LOSS}, against torch", "2.5× (at 128x784 L20) to 3.0×", "**no**"),
        ("cpu", "`reparameterize_kl` forward + backward, against torch.compile", "not measured", "**no**"),
        ("cpu", "one large array: objective forward with gradient |", "80% (10,000.0 of 12,500.0 GB/s)", "yes"),
        ("cpu", "one large array: objective forward with gradient, the", "60% (10,000.0 of 16,666.7 GB/s)", "**no**"),
        ("cpu", "`elbo_loss(recon, x)` forward", "30.0 against 30.0 µs", "yes"),
        ("cpu", f"{LOSS}, 1×64", "36.5 against 30.0 µs", "**no**"),
        ("cpu", "loss, any float32 size", "2.0e-06", "**no**"),
        ("cpu", "`import pyvae` beyond torch", "12 ms", "yes"),
        # At 2,000 genes it is less, and no target.
        ("counts", "`NegativeBinomial` forward + backward, against eager, at 128×20000", "7.0× (at 128x20000)", "yes"),
        ("counts", "`NegativeBinomial` forward + backward, against torch", "4.0× (at 128x20000)", "**no**"),
        ("counts", "`ZeroInflatedNegativeBinomial` forward + backward, against eager", "not measured", "**no**"),
        ("counts", "memory beyond inputs, `NegativeBinomial`", "1.05 × scores", "yes"),
        ("counts", "memory beyond inputs, `ZeroInflatedNegativeBinomial`", "2.20 × scores", "**no**"),
        ("errors", "value, θ 1e-2 … 1e8", "2.0e-06", "yes"),
        ("errors", "derivative by log θ, θ 1e-2 … 1e8", "2.0e-05", "**no**"),
        ("cuda", "objective forward, with its gradient, float32, at", "90% (1,250.0 of 1,388.9 GB/s)", "yes"),
        ("cuda", "sampler forward, float32, at", "79% (2,500.0 of 3,164.6 GB/s)", "**no**"),
        ("cuda", f"{LOSS}, against torch.compile, at 128×784", "1.9× (at 128x784 L20)", "**no**"),
        ("cuda", f"{LOSS}, against torch.compile, when large", "1.5× (at 512x262144 L4096)", "yes"),
        ("cuda", f"{LOSS}, against reduce-overhead, both in CUDA graphs", "2.0× (at 128x784 L20)", "yes"),
        ("cuda", f"{LOSS}, against max-autotune-no-cudagraphs, when large", "not measured", "**no**"),
        ("cuda", "launches, sampler + objective, forward", "2", "yes"),
        ("cuda", "waits of the host, sampler + objective, backward", "1", "**no**"),
        ("cuda", "gradient against float64", "not measured", "**no**"),
        ("cuda", "memory beyond inputs, `reparameterize_kl` |", "1.00 × z", "yes"),
        ("cuda", "memory beyond inputs, `reparameterize_kl` forward + backward", "4.00 × z", "**no**"),
    ],
)
def test_targets_are_judged(rendered: dict[str, str], device: str, target: str, measured: str, reached: str) -> None:
    assert line_of(rendered[device], target)[-2:] == [measured, reached]


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
    assert "NegativeBinomial" not in rendered["cpu"]
    assert report.of_counts([]).splitlines()[0] == "| what | target | measured | reached |"


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


def test_whole_steps_have_tables_of_their_own() -> None:
    times = {"fused": 500.0, "eager": 600.0, "fused_graph": 80.0, "eager_graph": 90.0}
    found = [
        timed("step_mlp", name, time, time / (80 if name.endswith("graph") else 500), SMALL, "autocast bfloat16")
        for name, time in times.items()
    ]
    _, plain, graph = report.render(found, WHERE["cuda"]).split("\n\n")  # and no targets
    assert plain.splitlines()[0] == "| training step | B×D, latent L | types | pyvae | GB/s | eager |"
    assert plain.splitlines()[2] == "| MLP | 128x784 L20 | autocast bfloat16 | 500 µs | 2,000.0 | 600 µs, 1.2× |"
    assert graph.splitlines()[2] == "| MLP | 128x784 L20 | autocast bfloat16 | 80 µs | 12,500.0 | 90 µs, 1.1× |"


def test_readme_is_rewritten_between_its_markers(
    folder: Path, rendered: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    readme, whole = folder / "README.md", folder / "WHOLE.md"
    names = (report.CPU, report.GPU, report.OF_COUNTS, report.ERRORS_OF_COUNTS, report.ERRORS_OF_LOGITS)
    names += (report.OF_PARAMETERS, report.OF_SCVI, report.OF_DENSITIES)
    blocks = (f"<!-- {name}:start -->\n{{}}\n<!-- {name}:end -->" for name in names)
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
    assert "| what | target |" not in short.partition("after")[0].partition("between")[0]
    assert rendered["counts"].partition("\n\n")[0] in short

    monkeypatch.setattr(sys, "argv", ["report", "--check"])
    report.main()


@pytest.mark.parametrize("text", ["", "<!-- some:start -->", "<!-- some:end -->\n<!-- some:start -->"])
def test_readme_without_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"some:start.*some:end"):
        report.insert(text, "some", "new")


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    assert "not measured yet" in report.gpu_results(tmp_path)
