"""Fixtures: where a test runs (device), on which implementation (backend), and that it draws the same each time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import calls
import pytest
import torch
from gpu import DEVICES, NO_CUDA

import pyvae
from pyvae import _extension

try:
    import hypothesis
except ImportError:  # on a borrowed machine, say: test_properties.py, which needs it, is then an error
    pass
else:
    # Tests never depend on the clock, and a failing example is found again by the next run.
    hypothesis.settings.register_profile("pyvae", deadline=None, derandomize=True, print_blob=True)
    hypothesis.settings.load_profile("pyvae")


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "of each test its first case and, always the same ones, every Nth or so of the others"
    parser.addoption("--one-in", type=int, default=1, metavar="N", help=words)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Cases by a hash of their names: every Nth would be of one type only where there are N types."""
    share, seen, kept, left_out = config.getoption("--one-in"), set(), [], []
    for item in items:
        test = item.nodeid.partition("[")[0]
        keeps = test not in seen or zlib.crc32(item.nodeid.encode()) % share == 0
        (kept if keeps else left_out).append(item)
        seen.add(test)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_report_header() -> list[str]:
    """Says once, rather than in a skip per test, on which devices the tests run."""
    kernels = "built" if _extension.why_missing is None else f"missing ({_extension.why_missing})"
    return [f"pyvae: kernels {kernels}; cuda {'not tested: ' + NO_CUDA if NO_CUDA else 'tested'}"]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _require_kernels(device: str) -> None:
    """Without kernels the test fails, since passing or skipping would show nothing."""
    if not _extension.kernels_for(torch.empty(0, device=device).device):
        pytest.fail(f"no compiled kernels for {device}: {pyvae.build_info()}", pytrace=False)


@pytest.fixture
def kernels(request: pytest.FixtureRequest) -> None:
    """For tests of the compiled kernels, those of the device on which the test runs."""
    _require_kernels(request.getfixturevalue("device") if "device" in request.fixturenames else "cpu")


@pytest.fixture(params=("kernels", "reference"))
def functions(request: pytest.FixtureRequest, device: str) -> ModuleType:
    """The public functions on the kernels, and those of the specification."""
    if request.param == "reference":
        return pyvae.reference
    request.getfixturevalue("kernels")
    return pyvae


@pytest.fixture
def cuda_kernels() -> None:
    """For tests of the CUDA kernels alone."""
    _require_kernels("cuda")


@pytest.fixture(params=("kernels", "reference"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test twice: on the kernels and on pyvae.reference."""
    if request.param == "kernels":
        request.getfixturevalue("kernels")
        yield "kernels"
    else:
        with pyvae.backend("reference"):
            yield "reference"


@pytest.fixture
def check(backend: str) -> Callable[..., tuple[torch.Tensor, ...]]:
    """calls.check with the bounds that the backend keeps."""
    return partial(calls.check, reference=backend == "reference")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20131220)


@pytest.fixture
def threads() -> Iterator[None]:
    """Lets a test change the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
