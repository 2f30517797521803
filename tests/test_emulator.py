"""The emulator that stands in for CUDA (tests/cpp/emulated) computes what a GPU would, and finds mistakes in kernels.

What runs on it: test_cuda_emulated.py, by `make test-cuda`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import emulated
import pytest
from test_cuda_emulated import FILES

ORDERS = ("forward", "reverse", "shuffled")


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


def test_each_test_that_does_not_suit_the_emulator_exists() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in FILES)
    assert all(f"def {name}(" in text for name in emulated.UNSUITED)
