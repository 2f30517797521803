"""The CUDA kernels' PTX runs on the CPU (tests/ptx.py), passes the tests of the others, and is no longer than it was:
`make ptx`.

Each run is hundreds of tests in a process of its own, so it is a whole file that `make test` leaves out. With
`--one-in N` each takes a share of its cases. What the translation knows and refuses: test_ptx_translation.py.
"""

from __future__ import annotations

import faulthandler
import re
import subprocess
import sys
from pathlib import Path

import ptx
import pytest
from test_cuda_emulated import BY_PLACE, DESELECTED, MODULES, OBJECTIVE, REPEATABLE, command_of

TESTS = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    faulthandler.cancel_dump_traceback_later()  # that limit is for one test, and these are hundreds
    ptx.build()


@pytest.fixture
def share(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--one-in")


def run_tests(order: str, arguments: list[str], share: int) -> None:
    """In this order of blocks and threads."""
    faulthandler.cancel_dump_traceback_later()
    command, environment = command_of("ptx", order, [*arguments, f"--one-in={share}"])
    done = subprocess.run(command, cwd=ptx.ROOT, env=environment, capture_output=True, text=True, check=False)
    said = f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    assert done.returncode == 0, said
    passed = re.search(r"(\d+) passed", done.stdout)
    launches = re.search(r"launches: (\d+), of PTX: (\d+)", done.stdout)
    assert passed and launches, said
    assert launches[1] == launches[2] and int(launches[1]) >= int(passed[1]) >= 1000 / share, said


def test_forward(share: int) -> None:
    run_tests("forward", [*MODULES, *OBJECTIVE, *DESELECTED], share)


def test_shuffled() -> None:
    run_tests("shuffled", ["emulated_cases.py", *REPEATABLE, BY_PLACE], 1)


def test_reverse(share: int) -> None:
    run_tests("reverse", [*MODULES, *DESELECTED], 4 * share)


def test_no_kernel_executes_more_instructions() -> None:
    program = str(TESTS / "ptx_counts.py")
    done = subprocess.run([sys.executable, program], cwd=ptx.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    print(done.stdout)


# ---- formulas, for whole ranges of numbers ---------------------------------------------------------------------------

ALL = (0, 2**32 - 1)
FROM_1_TO_4 = (0x3F800000, 0x407FFFFF)  # the bits of these floats: the mantissas and parities that a root can have
ELEMENTS = {"radius": ALL, "angle": ALL, "sigma": ALL, "root": FROM_1_TO_4}


@pytest.fixture(scope="module")
def elements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ptx.build_elements(tmp_path_factory.mktemp("elements"))


def compare(elements: Path, name: str, step: int) -> None:
    first, last = ELEMENTS[name]
    command = [str(elements), name, str(first), str(last), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout == f"{len(range(first, last + 1, step))} compared, 0 differ\n"


def test_formulas_of_many_numbers(elements: Path) -> None:
    for name in ELEMENTS:
        compare(elements, name, 1 if name == "root" else 1021)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["radius", "angle", "sigma"])
def test_formulas_of_every_number(elements: Path, name: str) -> None:
    faulthandler.cancel_dump_traceback_later()
    compare(elements, name, 1)
