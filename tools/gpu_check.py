"""`make gpu-check OUT=folder STAGE=name`: build, test, measure and sanitize on this machine's GPU, in stages.

The machine may be lent for minutes and taken away at any moment. So each stage is worth a call by itself, the first the
most, and the folder has a log a stage and summary.txt, a line a step, while they run. Nothing is downloaded or
installed. Only the standard library is used here, because pyvae does not exist before the build.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cuda_toolkit

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
LIMIT = 540.0  # seconds for everything
STAMP = ROOT / "build" / "gpu-check" / "built"


class Step(NamedTuple):
    name: str
    seconds: float  # at most
    command: Sequence[str]
    environment: Mapping[str, str] = {}
    never: str = "\0"  # what its output must not have


# ---- a step ----------------------------------------------------------------------------------------------------------


def own_group() -> None:
    """What a process begins with. In the background of a shell SIGINT is ignored, and that is inherited."""
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(step: Step, log: Path, left: float) -> tuple[bool, str]:
    """Runs a step into its stage's log; whether it did what it should, and its last line or what went wrong."""
    allowed = min(step.seconds, left)
    if allowed <= 0:
        return False, "no time was left"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **step.environment}
    with log.open("ab") as file:
        file.write(f"==> {step.name}: {' '.join(step.command)}\n".encode())
        file.flush()
        start = file.tell()
        # A group of its own, to end it by, but no session: where a whole call is killed, it would live on.
        try:
            process = subprocess.Popen(
                step.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                preexec_fn=own_group, env=environment,
            )  # fmt: skip
        except OSError as error:
            return False, str(error)
        try:
            status = process.wait(allowed)
        except subprocess.TimeoutExpired:
            status = None
            os.killpg(process.pid, signal.SIGINT)  # so that pytest explains what failed by then
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    output = log.read_bytes()[start:].decode(errors="replace")
    last = next((line.strip()[:200] for line in reversed(output.splitlines()) if line.strip()), "no output")
    if status is None:
        return False, f"took more than {allowed:.0f} s: {last}"
    if status:
        return False, f"exit status {status}: {last}"
    return (False, f"{step.never!r} is in its log") if step.never in output else (True, last)


# ---- the build -------------------------------------------------------------------------------------------------------

DEVICE = (
    "import torch; assert torch.cuda.is_available(), 'torch sees no CUDA device'; "
    "print(*torch.cuda.get_device_capability(), torch.cuda.get_device_name(), 'torch', torch.__version__)"
)


def fingerprint(device: str) -> str:
    """Of what is built, of what and for what: contents, since a tree that was copied here anew has new times."""
    paths = [ROOT / "setup.py", ROOT / "tools" / "cuda_toolkit.py", *(ROOT / "csrc").rglob("*.*")]
    paths += [*(ROOT / "pyvae").glob("_C.*.so"), *(ROOT / "pyvae").glob("_build.py")]
    digest = hashlib.sha256(f"{device} {sys.version}".encode())
    for path in sorted(paths):
        digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()


def build(do: Callable[[Step], str | None]) -> bool:
    """Builds for the GPU that is here, unless these sources were built for it already."""
    device = do(Step("device", 60, [PYTHON, "-c", DEVICE]))
    if device is None:
        return False
    if not STAMP.exists() or STAMP.read_text() != fingerprint(device):
        here = {"TORCH_CUDA_ARCH_LIST": "native", "FORCE_CUDA": "1"}
        if do(Step("build", 300, [PYTHON, "setup.py", "build_ext", "--inplace"], here)) is None:
            return False
        STAMP.parent.mkdir(parents=True, exist_ok=True)
        STAMP.write_text(fingerprint(device))
    return True


# ---- the stages ------------------------------------------------------------------------------------------------------

# What everything else rests on: the noise, counts against the CPU, streams and graphs with sums over several blocks.
FIRST = (
    "tests/test_noise.py::test_golden_bits",
    "tests/test_cuda_noise.py::test_noise_of_every_width_and_row_offset",
    "tests/test_cuda_noise.py::test_sample_of_every_scale_and_dtype",
    "tests/test_cuda_noise.py::test_the_seed_is_torchs_at_every_state_of_the_generator",
    "tests/test_cuda_tiles.py::test_values_and_gradients",
    "tests/test_likelihoods.py::test_every_dtype_and_reduction",
    "tests/test_values.py::test_objective",
    "tests/test_values.py::test_kl_divergence",
    "tests/test_gradients.py::test_recon_gradient_over_the_whole_range",
    "tests/test_gradients.py::test_kl_gradient_over_the_whole_range",
    "tests/test_gradients.py::test_sampler_gradient",
    "tests/test_cuda_tiles.py::test_many_streams_at_the_same_time",
    "tests/test_cuda_tiles.py::test_replays_are_the_eager_calls",
    "tests/test_cuda_tiles.py::test_a_capture_in_a_fresh_process",
    "tests/test_cuda_graphs.py::test_replays_are_the_eager_calls",
    "tests/test_cuda_graphs.py::test_make_graphed_callables",
    "tests/test_cuda_streams.py::test_kernels_run_on_the_current_stream",
    "tests/test_cuda_streams.py::test_backward_runs_on_the_stream_of_its_forward",
    "tests/test_cuda_streams.py::test_no_call_waits_for_the_gpu",
    "tests/test_cuda_launches.py::test_a_step_has_two_launches_each_way",
    "tests/test_cuda_launches.py::test_the_drop_in_is_one_launch",
    "tests/test_cuda_launches.py::test_likelihoods_by_tiles_are_at_most_three_launches",
    "tests/test_cuda_mixtures.py",
    "tests/test_cuda_sanitized.py",
)
LARGE = "tests/test_cuda_large.py"  # whose tensors fill the GPU's memory, one test at a time
EMULATED = ("tests/test_cuda_emulated.py", "tests/test_ptx.py")  # minutes of compiling, of what the GPU shows better


def pytest(name: str, seconds: float, each: float, *arguments: str, workers: int = 6) -> Step:
    """Tests, a line each. One that hangs says where after `each` seconds, and its process ends; xdist goes on."""
    command = [PYTHON, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", "--durations=10"]
    command += ["-o", f"faulthandler_timeout={each:g}", "--continue-on-collection-errors"]
    command += ["-n", str(workers)] if importlib.util.find_spec("xdist") else []
    return Step(name, seconds, [*command, *arguments], {"OMP_NUM_THREADS": "2"})


def benchmarks(name: str, seconds: float, out: Path, *options: str) -> Step:
    """The GPU to itself. Starting, and the comparison that is under way at the end, take some seconds more."""
    budget = f"--budget={max(seconds - 35, 1):.0f}"
    return Step(name, seconds, [PYTHON, "-m", "benchmarks", "--device=cuda", "--out", str(out), budget, *options])


def sanitizer(tool: str, seconds: float, *chosen: str) -> Step:
    """Any report fails it; of initcheck, which sees torch's kernels too, one about ours."""
    program = next(iter(cuda_toolkit.programs("compute-sanitizer")), "compute-sanitizer")
    command = [program, "--tool", tool, "--target-processes", "all"]
    command += [] if tool == "initcheck" else ["--error-exitcode", "1"]
    tests = [PYTHON, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", "tests/test_cuda_sanitized.py"]
    if tool in ("racecheck", "synccheck"):  # what happens within a kernel: only ours are looked at
        return Step(tool, seconds, [*command, "--kernel-name", "kns=pyvae", *tests, *chosen])
    # Without the allocator's cache each tensor is an allocation of its own, with borders that the tools know; a capture
    # needs the cache. API errors: torch looks for functions that older drivers lack.
    command += ["--report-api-errors", "no"] if tool == "memcheck" else []
    return Step(
        tool, seconds, [*command, *tests, "-k", "not graph"], {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, "pyvae::"
    )


def first(folder: Path, left: float) -> list[Step]:
    nvcc = next(filter(cuda_toolkit.examine, cuda_toolkit.programs("nvcc")), "nvcc")
    flags = ["-O3", "-std=c++17", "--expt-relaxed-constexpr", "-fmad=false", "-arch=native", "-Icsrc"]
    tiles = ("-k", "counts_and_parameters and float32")
    return [
        Step("root", 20, [nvcc, "-run", *flags, "tools/root.cu"]),
        pytest("correctness", 100, 60, "-k", "cuda and not reference", *FIRST),
        benchmarks("quick", 80, STAMP.parent, "--quick"),  # its rows are in the log
        sanitizer("racecheck", 30, *tiles),
        sanitizer("synccheck", 30, *tiles),
    ]


def tests(folder: Path, left: float) -> list[Step]:
    names = {f"tests/{path.name}" for path in (ROOT / "tests").glob("test_*.py")} - {*EMULATED, LARGE}
    cuda_first = sorted(names, key=lambda name: ("test_cuda" not in name, name))
    return [pytest("large", 120, 60, LARGE, workers=1), pytest("tests", left, 180, *cuda_first)]


# In the order of what is lost if the time ends; the steps, of the folder and the seconds that are left.
STAGES: dict[str, Callable[[Path, float], list[Step]]] = {
    "first": first,
    "tests": tests,
    "benchmark": lambda folder, left: [benchmarks("benchmark", min(435, left), folder)],
    "sanitizers": lambda _, left: [
        sanitizer(tool, left / 4) for tool in ("memcheck", "racecheck", "initcheck", "synccheck")
    ],
}


def check(folder: Path, names: Sequence[str], limit: float) -> bool:
    """Runs the stages as far as they come in `limit` seconds; whether every step went well."""
    folder.mkdir(parents=True, exist_ok=True)
    end, good, rows = time.monotonic() + limit, [], []
    stage = names[0]

    def do(step: Step) -> str | None:
        """Within its own limit and the time that is left: its last line, or None if it failed."""
        start = time.monotonic()
        print(f"==> {step.name}", flush=True)
        fine, note = run(step, folder / f"{stage}.log", end - start)
        good.append(fine)
        rows.append(f"{step.name:<12}{'ok' if fine else 'FAILED':<9}{time.monotonic() - start:5.0f} s  {note}")
        print(rows[-1], flush=True)
        with (folder / "summary.txt").open("a", encoding="utf-8") as summary:
            summary.write(rows[-1] + "\n")
        return note if fine else None

    if build(do):
        for stage in names:
            for step in STAGES[stage](folder, end - time.monotonic()):
                do(step)
    print("", *rows, sep="\n", flush=True)
    return all(good)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tools/gpu_check.py", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the logs, the summary and the benchmark's CSV")
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"of {', '.join(STAGES)}; all, if none is named")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for everything (%(default)s)")
    options = parser.parse_intermixed_args()  # as in `folder --limit 300 first`
    if unknown := [name for name in options.stages if name not in STAGES]:
        parser.error(f"there is no stage {unknown[0]!r}: expected one of {', '.join(STAGES)}")
    for number in (signal.SIGTERM, signal.SIGINT):  # an exit, so that the step ends, with all that it started
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    sys.exit(not check(options.out.resolve(), options.stages or list(STAGES), options.limit))


if __name__ == "__main__":
    main()
