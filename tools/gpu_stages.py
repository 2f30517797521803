"""The stages of `make gpu-check`: which commands each one runs, and whether the build that they need is current."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cuda_toolkit
from gpu_logs import PRINTED, last_line, measured, sanitized, tested

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
SCRATCH = ROOT / "build" / "gpu-check"
STAMP = SCRATCH / "built"
WORKERS = 6  # processes of tests: they share one GPU and its memory


class Step(NamedTuple):
    name: str
    command: Sequence[str]
    judge: Callable[[str, int], str]  # of log and exit status: key numbers, or Failed
    seconds: float = 1e6  # at most
    environment: Sequence[tuple[str, str]] = ()  # added to the present one
    folder: Path = ROOT  # in which it runs


class Result(NamedTuple):
    name: str
    good: bool
    seconds: float
    note: str
    output: str = ""


class Stage(NamedTuple):
    about: str
    steps: Callable[[Path, float], list[Step]]  # of the folder of results and the seconds left
    needs_build: bool = True


# ---- the build -------------------------------------------------------------------------------------------------------


def fingerprint(device: str) -> str:
    """Of what the build is made of and for, and of what was built: contents, since a copied tree has new times."""
    paths = [ROOT / "setup.py", ROOT / "tools/cuda_toolkit.py", *(ROOT / "csrc").rglob("*.*")]
    paths += [*(ROOT / "pyvae").glob("_C.*.so"), *(ROOT / "pyvae").glob("_build.py")]
    digest = hashlib.sha256(f"{device} {sys.version}".encode())
    for path in sorted(paths):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def is_current(device: str) -> bool:
    return STAMP.exists() and STAMP.read_text() == fingerprint(device)


def mark_current(device: str) -> None:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    STAMP.write_text(fingerprint(device))


# ---- tests -----------------------------------------------------------------------------------------------------------

# What has to be right before anything else is worth a look: a few hundred small tests, on the GPU and the kernels.
FIRST = (
    "tests/test_noise.py::test_golden_bits",
    "tests/test_cuda_noise.py::test_noise_of_every_width_and_row_offset",
    "tests/test_cuda_noise.py::test_sample_of_every_scale_and_dtype",
    "tests/test_cuda_noise.py::test_the_seed_is_torchs_at_every_state_of_the_generator",
    "tests/test_values.py::test_objective",
    "tests/test_values.py::test_kl_divergence",
    "tests/test_gradients.py::test_recon_gradient_over_the_whole_range",
    "tests/test_likelihoods.py::test_every_dtype_and_reduction",
    "tests/test_cuda_tiles.py::test_values_and_gradients",
    "tests/test_gradients.py::test_kl_gradient_over_the_whole_range",
    "tests/test_gradients.py::test_sampler_gradient",
    "tests/test_cuda_sanitized.py",
    "tests/test_cuda_launches.py::test_a_step_has_two_launches_each_way",
    "tests/test_cuda_launches.py::test_the_drop_in_is_one_launch",
    "tests/test_cuda_launches.py::test_likelihoods_by_tiles_are_at_most_three_launches",
    "tests/test_cuda_tiles.py::test_many_streams_at_the_same_time",
    "tests/test_cuda_tiles.py::test_replays_are_the_eager_calls",
    "tests/test_cuda_tiles.py::test_a_capture_in_a_fresh_process",
    "tests/test_cuda_streams.py::test_kernels_run_on_the_current_stream",
    "tests/test_cuda_streams.py::test_backward_runs_on_the_stream_of_its_forward",
    "tests/test_cuda_streams.py::test_no_call_waits_for_the_gpu",
    "tests/test_cuda_graphs.py::test_replays_are_the_eager_calls",
    "tests/test_cuda_graphs.py::test_make_graphed_callables",
)
ON_THE_GPU = "cuda and not reference"
# Minutes of compiling, and nothing that the GPU does not show better.
EMULATED = ("tests/test_cuda_emulated.py", "tests/test_ptx.py")
LARGE = "tests/test_cuda_large.py"  # whose tensors fill the GPU's memory, one test at a time
# Packages that a machine may lack, and what is left out without them. (numpy and mpmath come with torch.)
EXAMPLES = ("tests/test_example.py", "tests/test_example_counts.py")
OPTIONAL = {
    "xdist": ("several tests at a time", "those after one that hangs within C++"),
    "hypothesis": ("tests/test_properties.py",),
    "mypy": ("tests/test_typing.py",),
    "matplotlib": ("tests/test_benchmarks_cuda.py", "tests/test_benchmarks_plots.py", *EXAMPLES),
    "sklearn": ("tests/test_example.py", "tests/test_examples_short.py"),
    "tqdm": EXAMPLES,
}


def missing() -> list[str]:
    return [name for name in OPTIONAL if importlib.util.find_spec(name) is None]


def pytest(name: str, seconds: float, each: float, *arguments: str, workers: int = WORKERS) -> Step:
    """The tests one line each, in the log as they run, and none for longer than `each` seconds."""
    command = [PYTHON, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", "--durations=10"]
    command += ["-p", "watched", f"--seconds-each={each:g}", "--continue-on-collection-errors"]
    command += [] if "xdist" in missing() else ["-n", str(max(1, min(workers, (os.cpu_count() or 1) // 2)))]
    path = os.pathsep.join(filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    return Step(name, [*command, *arguments], tested, seconds, [("PYTHONPATH", path), ("OMP_NUM_THREADS", "2")])


def first(folder: Path, left: float) -> list[Step]:
    # The big shapes, in a minute. Its CSV is no result of its own: its rows are in the log.
    copy = [PYTHON, "-m", "benchmarks", "--device", "cuda", "--quick", "--budget", "60", "--out", str(SCRATCH)]
    return [pytest("correctness", 150, 60, "-k", ON_THE_GPU, *FIRST), Step("quick", copy, measured, 110)]


def tests(folder: Path, left: float) -> list[Step]:
    left_out = {*EMULATED, LARGE}.union(*(OPTIONAL[name] for name in missing()))
    names = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("test_*.py")} - left_out
    cuda_first = sorted(names, key=lambda name: ("test_cuda" not in name, name))
    steps = [pytest("large", 120, 60, LARGE, workers=1), pytest("tests", left, 180, *cuda_first)]
    if missing():
        say = "; ".join(f"no {name}: without {', '.join(OPTIONAL[name])}" for name in missing()).replace("tests/", "")
        steps.insert(0, Step("packages", [PYTHON, "-c", f"print({say!r})"], last_line, 30))
    return steps


# ---- measurements and sanitizers -------------------------------------------------------------------------------------


def failing(name: str, say: str) -> Step:
    return Step(name, [PYTHON, "-c", f"raise SystemExit({say!r})"], last_line)


def harness(folder: Path, left: float) -> list[Step]:
    script = ROOT / "tools" / "timing.py"
    if not script.exists():
        return [failing("harness", "there is no tools/timing.py, which times the kernels without torch")]
    return [Step("harness", [PYTHON, str(script), "--out", str(folder)], last_line)]


def benchmark(folder: Path, left: float) -> list[Step]:
    # It has the GPU to itself. Starting and the last comparison under way take some seconds more.
    budget = max(1.0, min(400.0, left - 60))
    command = [PYTHON, "-m", "benchmarks", "--device", "cuda", "--out", str(folder), "--budget", f"{budget:.0f}"]
    return [Step("benchmark", command, measured)]


# Without the allocator's cache each tensor is an allocation of its own, with borders that the tools know.
NO_CACHE = ("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
SANITIZED = "tests/test_cuda_sanitized.py"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")


def sanitizers(folder: Path, left: float) -> list[Step]:
    """One after another, since beside each other they would take each other's time."""
    program = next(iter(cuda_toolkit.programs("compute-sanitizer")), None)
    if program is None:
        say = f"no compute-sanitizer in CUDA_HOME, on the PATH or in {cuda_toolkit.SYSTEM}: the toolkit brings it"
        return [failing(tool, say) for tool in SANITIZERS]
    known = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    steps = []
    for tool in SANITIZERS:
        # API errors: torch looks for functions that older drivers lack. Launches are checked where they are made.
        options = [*("--tool", tool, "--target-processes", "all", "--print-limit", str(PRINTED))]
        options += ["--report-api-errors", "no"] if tool == "memcheck" else []
        # Only shared memory and barriers within a kernel: those of torch's kernels are not ours. initcheck has to see
        # what other kernels write, and memcheck what they are given.
        if tool in ("racecheck", "synccheck"):
            options += optional(known, ("--kernel-name", "--kernel-regex"), "kns=pyvae")
        command = [program, *options, PYTHON, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", SANITIZED]
        uncached = tool in ("memcheck", "initcheck")
        command += ["-k", "not graph"] if uncached else []  # a capture needs the cache
        steps.append(Step(tool, command, partial(sanitized, tool), environment=[NO_CACHE] if uncached else []))
    return steps


def optional(known: str, names: Sequence[str], value: str) -> list[str]:
    """The first of the option's names, over the versions of the tool, that this one has."""
    return next(([name, value] for name in names if re.search(rf"{name}\b", known)), [])


# In the order of what is lost if the time ends.
STAGES = {
    "first": Stage("correctness in brief, and speed of the big shapes: under five minutes with the build", first),
    "harness": Stage("the kernels by themselves, in variants (tools/timing.py): compiles its own", harness, False),
    "tests": Stage("all tests but those of the emulator", tests),
    "benchmark": Stage("the whole benchmark", benchmark),
    "sanitizers": Stage("memcheck, racecheck, initcheck and synccheck of compute-sanitizer", sanitizers),
}
