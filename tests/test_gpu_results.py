"""A GPU's results: the CSV, the tables and targets made of it, the pictures, the command. The numbers are made up."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from stand_in import EFFORT, Host

from benchmarks import __main__ as command
from benchmarks import cuda, gpu_table, plot, rounds, rows, table
from benchmarks.device import Call
from benchmarks.rounds import LEFT_OUT
from benchmarks.rows import Environment, Row


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "ROUNDS", 3)


WHERE = Environment("cuda", "Example 200", "sm_90", "2.11.0", "0.2.0", "abc1234", "580.1", "13.0")


def kernel(what: str, exponent: int, dtype: str, time: float, copy_time: float) -> list[Row]:
    """A kernel's row and its copy's, which moves the same 12 bytes an element."""
    size = (64, 2**exponent // 64, 0) if what == "objective_forward" else (2**exponent // 4096, 1, 4096)
    stage, bytes_ = ("backward" if what == "sampler_backward" else "forward"), 12 * 2**exponent
    return [
        Row(what, "fused", time, "us", stage, *size, time, time, 1.0, bytes_, bytes_ / time / 1e3, dtype=dtype),
        Row(
            *(what, "copy", copy_time, "us", stage, *size, copy_time, copy_time, copy_time / time, bytes_),
            *(bytes_ / copy_time / 1e3,),
            dtype=dtype,
        ),
    ]


def timed(competitor: str, time: float, ratio: float | None, shape: tuple[int, int, int], dtype: str) -> Row:
    return Row("loss", competitor, time, "us", "both", *shape, ratio_to_fused=ratio, gb_per_s=1.0, dtype=dtype)


SMALL, LARGE = (128, 784, 20), (512, 2**18, 4096)
FIXED = [
    *kernel("objective_forward", 26, "float32", 400, 100),  # too small to count
    *kernel("objective_forward", 27, "float32", 400, 380),
    *kernel("objective_forward", 28, "float32", 800, 720),
    *kernel("objective_forward", 27, "bfloat16", 400, 200),  # shown, but no target
    *kernel("sampler_forward", 27, "float32", 400, 316),
    timed("fused", 20.0, 1.0, SMALL, "float32"),
    timed("fused_graph", 5.0, 1.0, SMALL, "float32"),
    timed("eager", 90.0, 4.5, SMALL, "float32"),
    timed("compiled", 38.0, 1.9, SMALL, "float32"),
    timed("compiled_reduce_overhead", 10.0, 2.0, SMALL, "float32"),
    timed("fused", 20.0, 1.0, SMALL, "bfloat16"),
    timed("compiled", 10.0, 0.5, SMALL, "bfloat16"),  # shown, but no target
    timed("fused", 1000.0, 1.0, LARGE, "float32"),
    timed("compiled", 1500.0, 1.5, LARGE, "float32"),
    Row("loss", "compiled_autotuned", math.nan, "us", "both", *LARGE, dtype="float32", note="RuntimeError: no"),
    Row("loss", "eager", math.nan, "us", "both", *LARGE, dtype="float32", note=LEFT_OUT),
    *(Row("launches", "fused", 2.0, "launches", stage, *SMALL) for stage in ("forward", "backward")),
    Row("waits", "fused", 0.0, "waits", "forward", *SMALL),
    Row("waits", "fused", 1.0, "waits", "backward", *SMALL, note="cudaStreamSynchronize"),
    Row("loss_error", "fused", 1e-7, "relative"),
    Row("gradient_error", "fused", math.nan, "ulp", note="RuntimeError: no"),
    Row("sample_kl_memory", "fused", 1.0, "buffers", None, 64, 1, 512),
    Row("sample_kl_memory", "fused", 4.0, "buffers", "both", 64, 1, 512),
]
LOSS = "`elbo_loss(recon, x, mu, logvar)` forward + backward"


def line_of(rendered: str, start: str) -> list[str]:
    (found,) = [line for line in rendered.splitlines() if line.startswith(f"| {start}")]
    return found.removeprefix("| ").removesuffix(" |").split(" | ")


@pytest.fixture
def rendered(tmp_path: Path) -> str:
    """The fixed rows through a CSV and back."""
    rows.write(tmp_path / "example-200.csv", FIXED, WHERE)
    again, where = rows.read(tmp_path / "example-200.csv")
    assert where == WHERE and len(again) == len(FIXED)
    for before, after in zip(FIXED, again, strict=True):
        for name, value in vars(before).items():  # the CSV keeps six digits
            same = pytest.approx(value, rel=1e-5, nan_ok=True) if isinstance(value, float) else value
            assert getattr(after, name) == same, (name, before)
    return gpu_table.render(again, where)


@pytest.mark.parametrize(
    ("target", "measured", "reached"),
    [
        ("objective forward, with its gradient, float32, at", "90% of 4.47 TB/s at 2^28 elements", "yes"),
        ("sampler forward, float32, at", "79% of 5.10 TB/s at 2^27 elements", "**no**"),
        ("sampler backward, float32, at", "not measured", "**no**"),
        (f"{LOSS}, against torch.compile, at 128×784", "1.9× (at 128x784 L20)", "**no**"),
        (f"{LOSS}, against torch.compile, when large", "1.5× (at 512x262144 L4096)", "yes"),
        (f"{LOSS}, against eager, at 128×784", "4.5× (at 128x784 L20)", "yes"),
        (f"{LOSS}, against reduce-overhead, both in CUDA graphs", "2.0× (at 128x784 L20)", "yes"),
        (f"{LOSS}, against max-autotune-no-cudagraphs, when large", "not measured", "**no**"),
        ("launches, sampler + objective, forward", "2", "yes"),
        ("waits of the host for the GPU, sampler + objective, forward", "0", "yes"),
        ("waits of the host for the GPU, sampler + objective, backward", "1", "**no**"),
        ("gradient against float64", "not measured", "**no**"),
        ("memory beyond inputs, `reparameterize_kl` |", "1.00 × z", "yes"),
        ("memory beyond inputs, `reparameterize_kl` forward + backward", "4.00 × z", "**no**"),
    ],
)
def test_targets_are_judged(rendered: str, target: str, measured: str, reached: str) -> None:
    assert line_of(rendered, target)[-2:] == [measured, reached]


def test_every_line_of_the_tables(rendered: str) -> None:
    assert rendered.startswith("Example 200 (sm_90), driver 580.1, CUDA 13.0, torch 2.11.0, pyvae 0.2.0 (abc1234).")
    kernels = "objective forward, with its gradient | bfloat16 | 2^27"
    assert line_of(rendered, kernels)[3:] == ["400 µs", "4.03", "8.05", "50%"]
    speeds = f"{LOSS.removesuffix(' forward + backward')} | 128x784 L20 | float32 | 20.0"
    assert line_of(rendered, speeds)[3:] == ["20.0 µs", "90.0 µs, 4.5×", "", "38.0 µs, 1.9×", ""]
    large = f"{LOSS.removesuffix(' forward + backward')} | 512x262144 L4096"
    assert line_of(rendered, large)[3:] == ["1,000 µs", "left out", "", "1,500 µs, 1.5×", "failed"]
    assert rendered.splitlines()[-2:] == [
        "- loss 512x262144 L4096 float32 compiled_autotuned: RuntimeError: no",
        "- gradient_error fused: RuntimeError: no",
    ]


def test_whole_steps_have_a_table_of_their_own() -> None:
    where = ("us", "both", 128, 784, 20)
    found = [
        Row("step_mlp", "fused", 500.0, *where, ratio_to_fused=1.0, dtype="float32"),
        Row("step_mlp", "eager", 600.0, *where, ratio_to_fused=1.2, dtype="float32"),
        Row("step_mlp", "eager_graph", 90.0, *where, ratio_to_fused=1.1, dtype="float32"),
    ]
    rendered = gpu_table.render(found, WHERE)
    assert line_of(rendered, "MLP | 128x784 L20 | float32 | no")[4:6] == ["500 µs, 1.0×", "600 µs, 1.2×"]
    assert line_of(rendered, "MLP | 128x784 L20 | float32 | yes")[4:6] == ["", "90.0 µs, 1.1×"]
    assert "target" not in rendered


def test_the_readme_takes_gpus_but_no_quick_runs(rendered: str, tmp_path: Path) -> None:
    rows.write(tmp_path / "example-200-quick.csv", FIXED[:1], WHERE)
    rows.write(tmp_path / "cpu.csv", FIXED[:1], Environment("cpu", "Example CPU", "avx2", "2.13.0", "0.1.0", "abc"))
    assert table.gpu_results(tmp_path) == rendered


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    assert "not measured yet" in table.gpu_results(tmp_path)


@pytest.mark.parametrize(("name", "slug"), [("NVIDIA H200", "h200"), ("NVIDIA RTX A6000/B", "rtx-a6000-b")])
def test_files_are_named_after_the_gpu(name: str, slug: str) -> None:
    assert rows.slug(name) == slug


def test_pictures_are_a_gpus(tmp_path: Path) -> None:
    rows.write(tmp_path / "cpu.csv", FIXED[:1], Environment("cpu", "Example CPU", "avx2", "2.13.0", "0.1.0", "abc"))
    with pytest.raises(SystemExit, match="measured on a cpu"):
        plot.pictures(tmp_path / "cpu.csv", tmp_path)


def test_a_run_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--device", "cuda", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="no CUDA device"):
        command.main()


@pytest.mark.parametrize("wrong", [["--device", "cuda", "--threads", "2"], ["--steps"], ["--budget", "5"]])
def test_options_of_the_other_device_are_refused(wrong: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *wrong])
    with pytest.raises(SystemExit):
        command.arguments()


def gpu_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: Host) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(rows, "gpu_environment", lambda: WHERE)
    monkeypatch.setattr(command, "Cuda", lambda: device)
    monkeypatch.setattr(cuda, "FULL", EFFORT)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--device", "cuda", "--out", str(tmp_path)])
    command.main()


def test_a_whole_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu_run(monkeypatch, tmp_path, Host())
    printed = capsys.readouterr().out
    assert "2 rows without a value, 0 of them failures of pyvae" in printed
    assert table.gpu_results(tmp_path) in printed
    assert "- loss 4x33 L3 float32 compiled_autotuned: RuntimeError: no such mode here" in printed
    written = plot.pictures(tmp_path / "example-200.csv", tmp_path / "pictures")
    assert [path.name for path in written] == ["example-200-bandwidth.png", "example-200-speed-up.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_a_failure_of_pyvae_fails_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Faulty(Host):
        def peak_bytes(self, call: Call) -> int:
            raise RuntimeError("illegal address")

    with pytest.raises(SystemExit, match=r"memory.*RuntimeError: illegal address"):
        gpu_run(monkeypatch, tmp_path, Faulty())
    assert rows.read(tmp_path / "example-200.csv")[0]
