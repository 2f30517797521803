"""`import pyvae` always succeeds: without the extension, with one for another torch, with a broken one.

Each case is a process of its own over a copy of the package, since a process imports pyvae once.
"""

from __future__ import annotations

import ast
import json
import os
import re
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
from pyvae._codes import KL_REDUCTIONS, LIKELIHOODS, SCALES

pytestmark = pytest.mark.torch_sensitive("what `import torch` brings, and that the extension is this torch's")

TRAITS = tuple((name, member.traits) for name, member in LIKELIHOODS.items())
CODES: dict[str, tuple[Any, ...]] = {"LIKELIHOODS": TRAITS, "SCALES": SCALES, "REDUCTIONS": KL_REDUCTIONS}
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


def test_compiling_without_the_extension_warns_once_and_keeps_one_graph(tmp_path: Path) -> None:
    caught, kl = run_copy(tmp_path, {}, COMPILED)
    assert len(caught) == 1 and "not built" in caught[0]
    assert kl == [25.0, 9.0]


# The real extension, as if built without OpenMP: what two calls warn of, eager or compiled.
WITHOUT_OPENMP = """
import sys, types, warnings
import torch
record = types.ModuleType("pyvae._build")
exec(open({record!r}).read(), record.__dict__)
record.OPENMP = False
sys.modules["pyvae._build"] = record
torch.set_num_threads({threads})
import pyvae
def call(mu): return 2 * pyvae.kl_divergence(mu, torch.zeros(1, 2))
if {compiled}:
    call = torch.compile(call, fullgraph=True, backend="eager")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    kl = [call(torch.tensor([[3.0, 4.0]])).item()]
    with torch.compiler.set_stance("fail_on_recompile"):
        kl.append(call(torch.tensor([[3.0, 0.0]])).item())
assert kl == [25.0, 9.0], kl
print([str(w.message) for w in caught if "pyvae" in str(w.message) and w.category is RuntimeWarning])
"""


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("threads", "compiled"), [(1, True), (2, False), (2, True)])
def test_a_build_without_openmp_says_so_once(threads: int, compiled: bool) -> None:
    """Unless one thread is what was asked for."""
    program = WITHOUT_OPENMP.format(record=str(PACKAGE / "_build.py"), threads=threads, compiled=compiled)
    done = subprocess.run([sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = ast.literal_eval(done.stdout)
    assert len(said) == threads - 1
    assert all("built without OpenMP" in words and "libomp-dev" in words and "`CXX=g++ pip" in words for words in said)


TORCH = str(torch.__version__)
RUNNING = ".".join(TORCH.split(".")[:2])
RUNNING_CUDA = f"CUDA {torch.version.cuda.split('.')[0]}" if torch.version.cuda else "no CUDA"
REBUILD = r"rebuild with `pip install --no-build-isolation --force-reinstall --no-deps \.`"
ENDS = "raise SystemExit(3)"  # the process: refused before it is loaded
FAILS = "raise ImportError('undefined symbol: x')"
# The record in _build.py and what _C.py does; the answer.
BROKEN: dict[str, tuple[dict[str, Any] | None, str, str]] = {
    "not built": (None, "", ".*not built.*pip install --no-build-isolation.*"),
    "other torch": ({"torch": "1.99.3+cpu", "cuda": None}, ENDS, f"built for torch 1.99, running {RUNNING}: {REBUILD}"),
    "other CUDA": (
        {"torch": TORCH, "cuda": "99.1"},
        ENDS,
        f"built with CUDA 99, but this torch has {RUNNING_CUDA}: {REBUILD}",
    ),
    "does not load": ({"torch": TORCH, "cuda": None}, FAILS, ".*does not load.*undefined symbol: x.*rebuild.*"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_without_a_usable_extension(case: str, tmp_path: Path) -> None:
    """One warning, at the first call that would have used it, and the reference's result."""
    record, extension, answer = BROKEN[case]
    files = {"_build.py": RECORD.format(**record), "_C.py": extension} if record else {}
    at_import, when_asked_for, caught, kl, info = run_copy(tmp_path, files, PROGRAM)
    assert at_import == when_asked_for == []
    assert kl == [12.5] * 3
    assert info["instruction_set"] is None
    assert len(caught) == 1 and info["why_missing"] in caught[0]
    assert re.fullmatch(answer, info["why_missing"])
    built_for = record or {"torch": None, "cuda": None}
    assert (info["built_for_torch"], info["cuda"]) == (built_for["torch"], built_for["cuda"])
    assert info["instruction_sets"] == (["baseline"] if record else [])


def load(monkeypatch: pytest.MonkeyPatch, torch_of_the_build: str, codes: dict[str, Any]) -> str | None:
    """Why an extension with these codes is not loaded."""
    extension = SimpleNamespace(**codes)
    monkeypatch.setattr(_extension, "import_module", lambda name: extension)
    record = SimpleNamespace(TORCH=torch_of_the_build, CUDA=None)
    loaded, why_missing = _extension._load(record)  # type: ignore[arg-type]
    assert loaded is (extension if why_missing is None else None)
    return why_missing


@pytest.mark.parametrize(
    ("running", "loads"), [("2.13.0+cpu", True), ("2.13.1+cu130", True), ("2.14.0a0+git1", False), ("3.13.0", False)]
)
def test_only_the_minor_version_of_torch_matters(monkeypatch: pytest.MonkeyPatch, running: str, loads: bool) -> None:
    monkeypatch.setattr(torch, "__version__", running)
    assert (load(monkeypatch, "2.13.0+cpu", CODES) is None) == loads


@pytest.mark.parametrize("changed", list(CODES))
def test_an_extension_with_other_codes_is_refused(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    """A code is a place in a list: it would mean another formula."""
    why_missing = load(monkeypatch, TORCH, CODES | {changed: CODES[changed][::-1]})
    assert f"other {changed.lower()}: rebuild" in str(why_missing)


def test_an_extension_from_before_the_traits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for codes in (CODES | {"LIKELIHOODS": tuple(LIKELIHOODS)}, {}):
        assert "other likelihoods: rebuild" in str(load(monkeypatch, TORCH, codes))


@pytest.mark.parametrize("trait", [*TRAITS[0][1], "is_new"])
def test_an_extension_with_other_traits_is_refused(monkeypatch: pytest.MonkeyPatch, trait: str) -> None:
    """It would be checked for another likelihood than is computed."""
    for name, traits in TRAITS:
        for there in ({**traits, trait: "other"}, {key: value for key, value in traits.items() if key != trait}):
            if there == traits:
                continue
            changed = tuple((each, there if each == name else own) for each, own in TRAITS)
            why_missing = str(load(monkeypatch, TORCH, CODES | {"LIKELIHOODS": changed}))
            assert f"another `{trait}` of the likelihood {name!r}" in why_missing
            assert f"({there.get(trait)!r} there, {traits.get(trait)!r} here): rebuild" in why_missing


@pytest.mark.usefixtures("kernels")
def test_this_extension_says_all_that_python_says() -> None:
    """A trait that C++ kept for itself would be compared with nothing."""
    assert _extension._C.LIKELIHOODS == TRAITS


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
def test_one_warning_per_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none hides another."""
    without_cuda = ["built without CUDA kernels", "nvcc", "`FORCE_CUDA=1 pip install --no-build-isolation"]
    monkeypatch.setattr(_extension, "_isa", "none")
    for device, words in (("cpu", ["FMA"]), ("cuda", without_cuda), ("mps", ["'mps'", "CPU"])):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert [_extension.kernels_for(torch.device(device, index)) for index in (0, 0)] == [False, False]
        assert len(caught) == 1
        assert all(word in str(caught[0].message) for word in words)


# Image, then the GPUs that run it and those that do not.
IMAGES = {
    "sm_80": ([(8, 0), (8, 9)], [(9, 0)]),
    "sm_86": ([], [(8, 0)]),
    "sm_90": ([], [(8, 9)]),
    "sm_100": ([(10, 3)], [(12, 0)]),
    "compute_80": ([(9, 0), (12, 1)], []),
    "compute_90": ([], [(8, 9)]),
    "sm_90a": ([(9, 0)], []),
    "sm_100a": ([], [(10, 3)]),
    "compute_90a": ([], [(10, 0)]),
}


def test_what_runs_on_which_gpu() -> None:
    for image, gpus in IMAGES.items():
        for runs, capabilities in zip((True, False), gpus, strict=True):
            assert [gpu for gpu in capabilities if _extension._runs_on(image, gpu) != runs] == [], image


def test_each_gpu_is_asked_for_its_image(monkeypatch: pytest.MonkeyPatch, built: SimpleNamespace) -> None:
    gpus = [(8, 6), (7, 5)]
    built.CUDA, built.CUDA_ARCHITECTURES = "13.0", ("sm_80", "sm_90")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: gpus[index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
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
    gpus.clear()  # a driver that does not work
    built.CUDA_ARCHITECTURES = ("sm_80", "compute_80")
    _extension._gpu_unsupported.cache_clear()
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
