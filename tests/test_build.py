"""The build: what the sdist holds, what is recorded, what setup.py says where it cannot build."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import cuda_toolkit
import pyvae

pytestmark = pytest.mark.torch_sensitive("what torch's build rules and setuptools make of setup.py")

ROOT = Path(__file__).parents[1]
FOLDERS = (".ci", "benchmarks", "csrc", "examples", "pyvae", "tests", "tools")
FILES = (".clang-format", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "MANIFEST.in", "README.md")
BUILD_FILES = ("noxfile.py", "pyproject.toml", "setup.py")
UNWANTED = shutil.ignore_patterns("__pycache__", ".*_cache")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project: building an sdist writes next to setup.py."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / "project" / folder, ignore=UNWANTED)
    for file in FILES + BUILD_FILES:
        shutil.copy(ROOT / file, tmp_path / "project" / file)
    return tmp_path / "project"


def setup(checkout: Path, torch_there: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs setup.py with a `torch` of this text in front of the real one."""
    front = checkout.parent / "front"
    (front / "torch" / "utils").mkdir(parents=True)
    (front / "torch" / "__init__.py").write_text(torch_there, encoding="utf-8")
    (front / "torch" / "utils" / "cpp_extension.py").write_text(
        "from setuptools import Extension as CppExtension\n"
        "from setuptools.command.build_ext import build_ext as BuildExtension\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(front), **variables}
    command = [sys.executable, "setup.py", "-q", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)


def test_sdist_has_every_source_and_needs_no_torch(checkout: Path, tmp_path: Path) -> None:
    (checkout / "pyvae" / "_build.py").touch()
    (checkout / "pyvae" / "_C.cpython-310-x86_64-linux-gnu.so").touch()
    bytecode = checkout / "tests" / "__pycache__" / "cases.cpython-310.pyc"  # as importing leaves it
    bytecode.parent.mkdir()
    bytecode.touch()
    run = setup(checkout, "raise ImportError", "sdist", "--dist-dir", str(tmp_path))
    assert run.returncode == 0, run.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        top = f"pyvae-{pyvae.__version__}/"
        held = {name.removeprefix(top) for name in tar.getnames()}
        metadata = tar.extractfile(f"{top}PKG-INFO")
        assert metadata is not None
        assert f"\nVersion: {pyvae.__version__}\n" in metadata.read().decode()
    files = (path for folder in FOLDERS for path in (checkout / folder).rglob("*") if path.is_file())
    sources = {str(path.relative_to(checkout)) for path in files}
    built = {name for name in sources if name == "pyvae/_build.py" or name.endswith((".so", ".pyc"))}
    assert [path for path in checkout.rglob("*.pyc") if path != bytecode] == []  # setup.py itself leaves none
    assert {Path(source).suffix for source in sources} >= {".cpp", ".cu", ".cuh", ".h", ".py"}
    assert sources - built <= held
    assert {*FILES, *BUILD_FILES} <= held
    assert not built & held


@pytest.mark.parametrize(
    ("there", "variables", "words"),
    [
        ("raise ImportError", {}, ["pip install --no-build-isolation"]),
        ("__version__ = '2.10.1+cpu'", {}, ["needs torch >= 2.11", "2.10.1+cpu"]),
        (
            "__version__ = '2.13.0+cpu'\nclass version: cuda = None",
            {"FORCE_CUDA": "1"},
            ["FORCE_CUDA=1, but torch is a build for the CPU"],
        ),
    ],
    ids=["no torch", "an old torch", "a torch without CUDA"],
)
def test_building_with_another_torch_says_what_to_do(
    there: str, variables: dict[str, str], words: list[str], checkout: Path
) -> None:
    run = setup(checkout, there, "build_ext", **variables)
    assert run.returncode != 0
    assert all(word in run.stderr for word in words) and "Traceback" not in run.stderr


def test_a_compiler_without_openmp_is_told_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ("compiler_command", "openmp_missing")
    body = ast.parse((ROOT / "setup.py").read_text()).body
    functions = [node for node in body if getattr(node, "name", "") in wanted]
    scope = {"os": os, "shlex": shlex, "subprocess": subprocess, "torch": torch}
    exec(compile(ast.Module(functions, []), "setup.py", "exec"), scope)
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho \"<stdin>:1:10: fatal error: 'omp.h' file not found\" >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(torch.backends.openmp, "is_available", lambda: True)
    monkeypatch.setenv("CXX", str(compiler))
    for name, remedy in (("Debian clang 14", "libomp-dev"), ("g++ 12", "build with g++")):
        reason = scope["openmp_missing"](name)
        assert "'omp.h' file not found" in reason and remedy in reason
    compiler.write_text("#!/bin/sh\n")
    assert scope["openmp_missing"]("g++ 12") is None
    monkeypatch.setattr(torch.backends.openmp, "is_available", lambda: False)
    assert scope["openmp_missing"]("g++ 12") == "this torch was built without it"


def test_a_kernel_is_compiled_again_where_nvcc_is_given_other_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = ast.parse((ROOT / "setup.py").read_text()).body
    (builder,) = (node for node in body if getattr(node, "name", "") == "BuildKernels")
    wanted = [node for node in builder.body if getattr(node, "name", "") == "compile_cuda"]
    flags = [node for node in body if "CUDA_FLAGS" in ast.dump(node) and isinstance(node, (ast.Assign, ast.If))]
    nvcc, source = tmp_path / "nvcc", tmp_path / "some.cu"
    nvcc.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho > {tmp_path}/cuda/some.o\n')
    nvcc.chmod(0o755)
    source.touch()
    os.utime(source, (0, 0))
    (tmp_path / "cuda").mkdir()

    def compile_all() -> list[str]:
        names = {"os": os, "Path": Path, "shlex": shlex, "subprocess": subprocess, "cuda_toolkit": cuda_toolkit}
        scope = {**names, "jobs": lambda: 1, "compiler_command": lambda: ["c++"], "INCLUDE": "csrc"}
        scope |= {"CUDA_KERNELS": [source], "CUDA_HEADERS": []}
        exec(compile(ast.Module([*flags, *wanted], []), "setup.py", "exec"), scope)
        toolkit = cuda_toolkit.Toolkit(str(nvcc), "13.0", "")
        here = SimpleNamespace(verbose=1)
        build = SimpleNamespace(build_temp=tmp_path, toolkit=toolkit, architectures=["sm_90"], distribution=here)
        scope["compile_cuda"](build, str(source))
        return (tmp_path / "calls").read_text().splitlines()

    monkeypatch.delenv("PYVAE_WERROR", raising=False)
    monkeypatch.delenv("NVCC_APPEND_FLAGS", raising=False)
    assert len(compile_all()) == len(compile_all()) == 1
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-DPYVAE_kPackedVector=4")
    assert len(compile_all()) == len(compile_all()) == 2
    monkeypatch.setenv("PYVAE_WERROR", "1")
    *before, last = compile_all()
    assert len(before) == 2 and "--warn-on-spills" in last and not any("warn" in call for call in before)


def test_variants_share_no_inline_function(tmp_path: Path) -> None:
    """The linker keeps one copy of an inline function. Were it shared, older CPUs could be left with AVX-512 code."""
    object_file = tmp_path / "kernels.o"
    # Without optimization every function that could be shared is emitted; the namespace does not depend on -m flags.
    compiler = [*shlex.split(os.environ.get("CXX", "c++")), "-O0", "-std=c++17", f"-I{ROOT / 'csrc'}"]
    source = ROOT / "csrc" / "cpu" / "kernels.cpp"
    subprocess.run([*compiler, "-DPYVAE_ISA=baseline", "-c", str(source), "-o", str(object_file)], check=True)
    listing = subprocess.run(["nm", "-C", str(object_file)], capture_output=True, text=True, check=True).stdout
    defined = [line.split(maxsplit=2)[1:] for line in listing.splitlines() if not line.startswith(" ")]
    names = [name for kind, name in defined if kind not in "rtbd"]  # lower case: local to the file
    assert names
    assert [name for name in names if "pyvae::baseline::" not in name] == []


@pytest.mark.usefixtures("kernels")
def test_build_info() -> None:
    info = pyvae.build_info()
    start = ["pyvae", "torch", "built_for_torch", "compiler", "instruction_sets", "instruction_set"]
    assert list(info) == [*start, "openmp", "cuda", "cuda_architectures", "why_missing", "patched"]
    assert info["pyvae"] == pyvae.__version__
    assert info["torch"] == torch.__version__
    assert info["built_for_torch"].split(".")[:2] == torch.__version__.split(".")[:2]
    assert info["compiler"]
    assert info["instruction_set"] in info["instruction_sets"]
    assert info["openmp"] in (True, False)
    assert (info["cuda"] is None) == (info["cuda_architectures"] == [])
    if info["cuda"] is not None:
        assert info["cuda"].split(".")[0] == str(torch.version.cuda).split(".")[0]
    assert all(re.fullmatch(r"(sm|compute)_\d+a?", architecture) for architecture in info["cuda_architectures"])
    assert info["why_missing"] is None
    assert info["patched"] == []


def test_python_m_pyvae_prints_build_info(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pyvae"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    printed = dict(line.split(maxsplit=1) for line in run.stdout.splitlines())
    assert list(printed) == [*pyvae.build_info(), "can_patch"]
    assert printed["torch"] == torch.__version__
    assert printed["pyvae"] == pyvae.__version__
    assert printed["patched"] == "-"
    assert ("scvi-tools" in printed["can_patch"]) == (find_spec("scvi") is not None)
