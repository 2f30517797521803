"""The CUDA kernels run on the CPU (tests/emulated.py) and pass the tests of the others: `make test-cuda`.

What this cannot show: the GPU's memory model and its hardware functions, nvcc's code, speed, streams and graphs. Each
run is hundreds of tests in a process of its own, so it is a whole file that `make test` leaves out. That the emulator
itself finds mistakes: test_emulator.py.
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

TESTS = Path(__file__).parent
LARGE = "test_properties.py::test_more_than_2_to_the_31_elements"  # a minute
BOUNDS = ("either_side_may_be_none", "the_objective_takes_what_the_kl_takes", "an_empty_batch_is_the_same_in_both")
OBJECTIVE = (
    *("test_likelihoods.py", "test_autograd.py", "test_autograd_inputs.py", "test_elements.py"),
    "test_row_gradients.py",
)
MODULES = (
    *("test_values.py", "test_gradients.py", "test_extremes.py", "test_extremes_grid.py", "test_training.py"),
    *("test_noise.py", "test_noise_repeatable.py", "test_properties.py", "emulated_cases.py"),
    *("test_mixture.py", "test_mixture_ends.py", "test_mixture_repeatable.py", "test_mixture_kl.py"),
    *("test_log_prob.py", "test_prior.py", "test_prior_autograd.py", "test_samples.py", "test_recon_samples.py"),
    *("test_clamp_and_elements.py", "test_masks.py"),
    *(f"test_bounds.py::test_{name}" for name in BOUNDS),
)
# Minutes that show little more: in one of the runs, or, of many launches of a few elements, in none.
LEFT_OUT = (
    *(LARGE, "test_likelihoods.py::test_sums_of_gradients_over_every_batch"),
    "test_gradients.py::test_gradcheck_by_parameters_of_every_shape",
    "test_samples.py::test_compiles",
    "test_recon_samples.py::test_compiles",
    "test_recon_samples.py::test_data_are_refused",  # on the CPU alone
)
DESELECTED = [f"--deselect=tests/{name}" for name in LEFT_OUT]
REPEATABLE = ("test_repeatable.py", "test_counts_hard.py")
# A plain likelihood's row is summed by vectors from where it begins: its last bit may depend on that.
BY_PLACE = "--deselect=tests/test_repeatable.py::test_rows_do_not_depend_on_their_place[cpu-kernels-gaussian]"
FILES = tuple(dict.fromkeys(TESTS / name.split("::")[0] for name in (*MODULES, *OBJECTIVE, *REPEATABLE)))
# In which order blocks run and threads begin, which tests, and how many at least; the longest first. A mistake that
# shows in one order alone is one of a kernel, not of a case: of each a share of the cases is enough.
RUNS = {
    "forward": ([*MODULES, *OBJECTIVE, *DESELECTED, "--one-in=3"], 1500),
    "shuffled": ([LARGE, *OBJECTIVE, *REPEATABLE, BY_PLACE], 1500),
    "reverse": ([*MODULES, *DESELECTED, "--one-in=4"], 700),
}


def command_of(plugin: str, order: str, arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """A run of tests in a process of its own, each with pyproject.toml's limit; and its environment."""
    paths = [word if word.startswith("-") else str(TESTS / word) for word in arguments]
    command = [sys.executable, "-m", "pytest", "-q", "-p", plugin, "-p", "no:cacheprovider", "--capture=sys", *paths]
    return command, os.environ | {"PYVAE_EMULATED_ORDER": order, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}


def run_tests(order: str, arguments: list[str]) -> subprocess.CompletedProcess:
    """On kernels that check their addresses."""
    command, environment = command_of("emulated", order, arguments)
    environment |= emulated.address_environment()
    return subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)


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
