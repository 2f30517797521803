"""The CUDA kernels run on the CPU (tests/emulated.py): the emulator finds what it should, and the kernels pass tests.

What this cannot show: the GPU's memory model and its hardware functions, nvcc's code, speed, streams and graphs.
"""

from __future__ import annotations

import faulthandler
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import emulated
import pytest

ORDERS = ("forward", "reverse", "shuffled")


# ---- the emulator ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def self_test() -> Path:
    return emulated.build("self_test")[0]


def run_self_test(program: Path, name: str, order: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYVAE_EMULATED_ORDER": order}
    return subprocess.run([program, name], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["sum", "lanes"])
def test_emulator_computes(self_test: Path, name: str, order: str) -> None:
    assert run_self_test(self_test, name, order).returncode == 0


MISTAKES = {
    "divergent_barrier": "128 of 256 threads have exited\n  thread 0: __syncthreads",
    "different_barriers": "threads meet at different places",
    "divergent_shuffle": "128 of 256 threads have exited\n  thread 1: __shfl_xor_sync",
    "different_shuffles": "threads meet at different places",
    "part_of_a_warp": "whole warps only",
    "absent_lane": "no such lane",
    "misaligned": "misaligned address",
    "past_the_end": "out of bounds",
    "missing_barrier": "",  # these three give wrong numbers
    "overwritten_shared": "",
    "stale_shared": "",
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", list(MISTAKES))
def test_emulator_finds(self_test: Path, name: str, order: str) -> None:
    done = run_self_test(self_test, name, order)
    assert done.returncode != 0
    assert MISTAKES[name] in done.stderr
    assert not MISTAKES[name] or f"{name}_kernel" in done.stderr or "self_test.cu" in done.stderr


# ---- the kernels -----------------------------------------------------------------------------------------------------

TESTS = Path(__file__).parent
MODULES = (
    *("test_values.py", "test_gradients.py", "test_autograd.py", "test_extremes.py", "test_training.py"),
    *("test_noise.py", "test_noise_repeatable.py", "test_properties.py", "emulated_cases.py"),
    *("test_prior.py", "test_clamp_and_elements.py", "test_masks.py", "test_extremes_grid.py"),
    *(
        f"test_bounds.py::test_{name}"
        for name in (
            "either_side_may_be_none",
            "the_objective_takes_what_the_kl_takes",
            "an_empty_batch_is_the_same_in_both",
        )
    ),
)
LARGE = "test_properties.py::test_more_than_2_to_the_31_elements"  # a minute
BY_ROWS = ("test_parametric.py", "test_parametric_autograd.py", "test_parametric_hard.py")
SOME_BY_ROWS = [
    f"{BY_ROWS[0]}::test_{name}"
    for name in ("two_parameters_of_different_shapes", "weights", "nan_goes_to_its_sample_alone", "empty")
]
# In which order blocks run and threads begin, which tests, and how many at least.
RUNS = {
    "forward": ([*MODULES, *SOME_BY_ROWS, f"--deselect=tests/{LARGE}"], 800),
    "reverse": ([*MODULES, *SOME_BY_ROWS, f"--deselect=tests/{LARGE}"], 800),
    "shuffled": ([LARGE, *BY_ROWS], 600),
}


def run_tests(order: str, arguments: list[str]) -> subprocess.CompletedProcess:
    """Tests in a process of their own, each with pyproject.toml's limit, on kernels that check their addresses."""
    paths = [word if word.startswith("-") else str(TESTS / word) for word in arguments]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "emulated", "-p", "no:cacheprovider", "--capture=sys"]
    environment = os.environ | emulated.address_environment()
    environment |= {"PYVAE_EMULATED_ORDER": order, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *paths],
        cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future]]:
    """All runs, two at a time."""
    emulated.build("_C.so", "address.so")
    with ThreadPoolExecutor(2) as pool:
        yield {order: pool.submit(run_tests, order, arguments) for order, (arguments, _) in RUNS.items()}


@pytest.mark.parametrize("order", list(RUNS))
def test_tests_pass_on_the_emulated_kernels(runs: dict[str, Future], order: str) -> None:
    faulthandler.cancel_dump_traceback_later()  # that limit is for one test, and this is the time of hundreds
    done = runs[order].result()
    said = f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    assert done.returncode == 0, said
    passed = re.search(r"(\d+) passed", done.stdout)
    launches = re.search(r"emulated launches: (\d+)", done.stdout)
    assert passed and int(passed[1]) >= RUNS[order][1], said
    assert launches and int(launches[1]) >= int(passed[1]), said


def test_what_is_left_out_exists() -> None:
    text = "".join((TESTS / name.split("::")[0]).read_text() for name in (*MODULES, "test_bounds.py", *BY_ROWS))
    assert all(f"def {name}(" in text for name in emulated.UNSUITED)
