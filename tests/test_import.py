"""`import pyvae` always succeeds: without the extension, with one for another torch, with a broken one.

Each case is a process of its own over a copy of the package, since a process imports pyvae once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pyvae import _extension
from pyvae._checks import LIKELIHOODS, REDUCTIONS, SCALES

CODES = {"LIKELIHOODS": tuple(LIKELIHOODS), "SCALES": SCALES, "REDUCTIONS": REDUCTIONS}

PACKAGE = Path(_extension.__file__).parent

RECORD = """
TORCH = {torch!r}
COMPILER = "c++"
INSTRUCTION_SETS = ("baseline",)
OPENMP = True
CUDA = {cuda!r}
CUDA_ARCHITECTURES = ()
"""

# Prints what a user sees: warnings of the import and of two calls (one of them under backend), and build_info().
PROGRAM = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch
    caught.clear()
    import pyvae
    at_import = [str(w.message) for w in caught]
    mu = torch.tensor([[3.0, 4.0]])
    with pyvae.backend("reference"):
        pyvae.kl_divergence(mu, torch.zeros(1, 2))
    when_asked_for = [str(w.message) for w in caught]
    kl = [pyvae.kl_divergence(mu, torch.zeros(1, 2)).item() for _ in range(3)]
    at_call = [str(w.message) for w in caught]
print(json.dumps([at_import, when_asked_for, at_call, kl, pyvae.build_info()]))
"""


# The same, for one graph under torch.compile.
COMPILED = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch, pyvae
    compiled = torch.compile(lambda mu: 2 * pyvae.kl_divergence(mu, torch.zeros(1, 2)), fullgraph=True, backend="eager")
    kl = [compiled(torch.tensor([[3.0, x]])).item() for x in (4.0, 0.0)]
print(json.dumps([[str(w.message) for w in caught if "pyvae" in str(w.message)], kl]))
"""


# An editable install would find in the sources what the copy leaves out.
NOT_EDITABLE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
"""


def run_copy(folder: Path, files: dict[str, str], program: str) -> Any:
    """What `program` prints, over a copy of the package without its extension but with `files`."""
    ignored = shutil.ignore_patterns("_C*", "_build.py", "__pycache__")
    shutil.copytree(PACKAGE, folder / "pyvae", ignore=ignored)
    for name, text in files.items():
        (folder / "pyvae" / name).write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    run = subprocess.run(
        [sys.executable, "-c", NOT_EDITABLE + program], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def import_copy(folder: Path, files: dict[str, str]) -> tuple[list[str], dict[str, Any]]:
    """Runs PROGRAM as above: its warnings and its build_info."""
    at_import, when_asked_for, at_call, kl, info = run_copy(folder, files, PROGRAM)
    assert at_import == when_asked_for == []
    assert kl == [12.5] * 3
    assert info["instruction_set"] is None
    return at_call, info


def test_without_the_extension(tmp_path: Path) -> None:
    caught, info = import_copy(tmp_path, {})
    assert len(caught) == 1
    assert "not built" in caught[0] and "pip install --no-build-isolation" in caught[0]
    assert info["why_missing"] in caught[0]
    assert info["built_for_torch"] is None and info["instruction_sets"] == []


def test_compiling_without_the_extension_warns_once_and_keeps_one_graph(tmp_path: Path) -> None:
    caught, kl = run_copy(tmp_path, {}, COMPILED)
    assert len(caught) == 1 and "not built" in caught[0]
    assert kl == [25.0, 9.0]


def test_extension_for_another_torch_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    # This _C ends the process if it is imported.
    caught, info = import_copy(
        tmp_path, {"_build.py": RECORD.format(torch="1.99.3+cpu", cuda=None), "_C.py": "raise SystemExit(3)"}
    )
    running = ".".join(torch.__version__.split(".")[:2])
    assert info["why_missing"] == (
        f"built for torch 1.99, running {running}: "
        "rebuild with `pip install --no-build-isolation --force-reinstall --no-deps .`"
    )
    assert len(caught) == 1 and info["why_missing"] in caught[0]
    assert info["built_for_torch"] == "1.99.3+cpu"


def test_extension_for_another_cuda_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    record = RECORD.format(torch=str(torch.__version__), cuda="99.1")
    caught, info = import_copy(tmp_path, {"_build.py": record, "_C.py": "raise SystemExit(3)"})
    running = f"CUDA {torch.version.cuda.split('.')[0]}" if torch.version.cuda else "no CUDA"
    assert info["why_missing"].startswith(f"built with CUDA 99, but this torch has {running}: rebuild with `pip")
    assert len(caught) == 1 and info["why_missing"] in caught[0]
    assert info["cuda"] == "99.1"


def test_extension_that_does_not_load(tmp_path: Path) -> None:
    record = RECORD.format(torch=str(torch.__version__), cuda=None)
    caught, _ = import_copy(tmp_path, {"_build.py": record, "_C.py": "raise ImportError('undefined symbol: x')"})
    assert len(caught) == 1
    assert "does not load" in caught[0] and "undefined symbol: x" in caught[0] and "rebuild" in caught[0]


@pytest.mark.parametrize(
    ("running", "loads"), [("2.13.0+cpu", True), ("2.13.1+cu130", True), ("2.14.0a0+git1", False), ("3.13.0", False)]
)
def test_only_the_minor_version_of_torch_matters(monkeypatch: pytest.MonkeyPatch, running: str, loads: bool) -> None:
    extension = SimpleNamespace(**CODES)
    monkeypatch.setattr(torch, "__version__", running)
    monkeypatch.setattr(_extension, "import_module", lambda name: extension)
    record = SimpleNamespace(TORCH="2.13.0+cpu", CUDA=None)
    loaded, why_missing = _extension._load(record)  # type: ignore[arg-type]
    assert (loaded is extension, why_missing is None) == (loads, loads)


@pytest.mark.parametrize("changed", list(CODES))
def test_an_extension_with_other_codes_is_refused(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    """A code is a place in a list: it would mean another formula."""
    extension = SimpleNamespace(**CODES | {changed: CODES[changed][::-1]})
    monkeypatch.setattr(_extension, "import_module", lambda name: extension)
    record = SimpleNamespace(TORCH=str(torch.__version__), CUDA=None)
    loaded, why_missing = _extension._load(record)  # type: ignore[arg-type]
    assert loaded is None
    assert f"other {changed.lower()}: rebuild" in str(why_missing)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """An extension as if loaded, its record, and no warning given yet."""
    record = SimpleNamespace(CUDA=None, CUDA_ARCHITECTURES=())
    monkeypatch.setattr(_extension, "_warned", set())
    monkeypatch.setattr(_extension, "_loaded", object())
    monkeypatch.setattr(_extension, "_isa", "avx2")
    monkeypatch.setattr(_extension, "_built", record)
    _extension._gpu_unsupported.cache_clear()
    yield record
    _extension._gpu_unsupported.cache_clear()


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    ("device", "isa", "words"),
    [
        ("cpu", "none", ["FMA"]),
        ("cuda", "avx2", ["built without CUDA kernels", "nvcc", "`FORCE_CUDA=1 pip install --no-build-isolation"]),
        ("mps", "avx2", ["'mps'", "CPU"]),
    ],
)
def test_one_warning_per_reason(monkeypatch: pytest.MonkeyPatch, device: str, isa: str, words: list[str]) -> None:
    monkeypatch.setattr(_extension, "_isa", isa)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [_extension.kernels_for(torch.device(device, index)) for index in (0, 0)] == [False, False]
    assert len(caught) == 1
    assert all(word in str(caught[0].message) for word in words)


@pytest.mark.usefixtures("built")
def test_reasons_do_not_hide_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extension, "_isa", "none")
    with pytest.warns(RuntimeWarning, match="FMA"):
        _extension.kernels_for(torch.device("cpu"))
    with pytest.warns(RuntimeWarning, match="without CUDA"):
        _extension.kernels_for(torch.device("cuda"))


@pytest.mark.parametrize(
    ("architecture", "capability", "runs"),
    [
        ("sm_80", (8, 0), True),
        ("sm_80", (8, 9), True),
        ("sm_86", (8, 0), False),
        ("sm_80", (9, 0), False),
        ("sm_90", (8, 9), False),
        ("sm_100", (10, 3), True),
        ("sm_100", (12, 0), False),
        ("compute_80", (9, 0), True),
        ("compute_80", (12, 1), True),
        ("compute_90", (8, 9), False),
        ("sm_90a", (9, 0), True),
        ("sm_100a", (10, 3), False),
        ("compute_90a", (10, 0), False),
    ],
)
def test_what_runs_on_which_gpu(architecture: str, capability: tuple[int, int], runs: bool) -> None:
    assert _extension._runs_on(architecture, capability) == runs


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")


def test_each_gpu_is_asked_for_its_image(monkeypatch: pytest.MonkeyPatch, built: SimpleNamespace) -> None:
    built.CUDA, built.CUDA_ARCHITECTURES = "13.0", ("sm_80", "sm_90")
    pretend_gpus(monkeypatch, (8, 6), (7, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _extension.kernels_for(torch.device("cuda", 0))
        assert _extension.kernels_for(torch.device("cuda"))
    with pytest.warns(RuntimeWarning) as caught:
        assert not _extension.kernels_for(torch.device("cuda", 1))
    assert (
        "built for sm_80, sm_90, this GPU (GPU 1) is sm_75: rebuild with `TORCH_CUDA_ARCH_LIST=7.5 pip install "
        "--no-build-isolation --force-reinstall --no-deps .`" in str(caught[0].message)
    )


def test_a_driver_that_does_not_work_is_said(monkeypatch: pytest.MonkeyPatch, built: SimpleNamespace) -> None:
    built.CUDA, built.CUDA_ARCHITECTURES = "13.0", ("sm_80", "compute_80")
    pretend_gpus(monkeypatch)
    with pytest.warns(RuntimeWarning, match="no usable GPU"):
        assert not _extension.kernels_for(torch.device("cuda", 0))


def test_a_gpu_is_not_touched_unasked(tmp_path: Path) -> None:
    """Initializing CUDA takes memory on the GPU, and forbids it to forked processes."""
    program = """
import torch
def refuse(*_): raise RuntimeError("CUDA was touched")
torch.cuda._lazy_init = torch.cuda.is_available = torch.cuda.get_device_capability = refuse
import pyvae
print(int(pyvae.kl_divergence(torch.ones(1, 2), torch.zeros(1, 2)).item() == 1 and pyvae.build_info() != {}))
"""
    assert run_copy(tmp_path, {}, program) == 1


@pytest.mark.usefixtures("kernels")
def test_kernels_for_the_cpu_and_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extension, "_warned", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _extension.kernels_for(torch.device("cpu"))
        assert _extension.kernels_for(torch.device("meta"))
