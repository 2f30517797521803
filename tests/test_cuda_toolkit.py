"""Which nvcc a build takes and for which GPUs: the toolkit's finder on machines made of scripts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import cuda_toolkit
from cuda_toolkit import Toolkit

NVCC = """#!/bin/sh
case "$1" in
  --version) echo "Cuda compilation tools, release {release}, V{release}.88" ;;
  --dryrun) echo '#$ INCLUDES="-I{home}/include"  ' >&2 ;;
  --list-gpu-code) echo sm_60; echo sm_75; echo sm_80; echo sm_90 ;;
esac
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any CUDA, in this folder."""
    for name in ("CUDA_HOME", "CUDA_PATH", "FORCE_CUDA", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path" / "bin"))
    monkeypatch.setattr(cuda_toolkit, "SYSTEM", str(tmp_path / "system"))
    monkeypatch.setattr(cuda_toolkit, "installed", lambda pattern: sorted((tmp_path / "site").glob(pattern)))
    return tmp_path


def install(home: Path, release: str = "13.0", script: str = NVCC) -> str:
    nvcc = home / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(script.format(release=release, home=home), encoding="utf-8")
    nvcc.chmod(0o755)
    return str(nvcc)


PLACES = ("named", "path", "system", "site/nvidia/cu13", "site/triton/backends/nvidia")


@pytest.mark.parametrize("missing", range(len(PLACES)))
def test_places_in_their_order(machine: Path, monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
    installed = [install(machine / place) for place in PLACES[missing:]]
    monkeypatch.setenv("CUDA_HOME", str(machine / "named"))
    assert cuda_toolkit.programs("nvcc") == installed
    include = str(machine / PLACES[missing] / "include")
    assert cuda_toolkit.choose("13.0") == Toolkit(installed[0], "13.0", include)


def test_a_toolkit_of_another_major_version_is_passed_over(machine: Path) -> None:
    install(machine / "path", "12.8")
    newer = install(machine / "system", "13.2")
    assert cuda_toolkit.choose("13.0") == Toolkit(newer, "13.2", str(machine / "system" / "include"))


def test_what_comes_with_nvcc_is_found_alike(machine: Path) -> None:
    assert cuda_toolkit.programs("cuobjdump") == []
    program = Path(install(machine / "path")).with_name("cuobjdump")
    program.touch(mode=0o755)
    assert cuda_toolkit.programs("cuobjdump") == [str(program)]


def test_reasons_for_a_cpu_build(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fix = "pip install 'cuda-toolkit[nvcc,cccl]==13.0.*'"
    assert cuda_toolkit.choose("13.0") == f"torch has CUDA 13.0, but there is no nvcc: {fix}"
    assert cuda_toolkit.choose("12.8") == "torch has CUDA 12.8, but there is no nvcc: install CUDA 12.8's toolkit"
    on_path, system = install(machine / "path", "12.8"), install(machine / "system", script="#!/bin/sh\nexit 1\n")
    assert cuda_toolkit.choose("13.0") == f"torch has CUDA 13.0, but {on_path} is 12.8, {system} is broken: {fix}"
    assert cuda_toolkit.choose(None) == "torch is a build for the CPU: install one for CUDA"
    monkeypatch.setenv("FORCE_CUDA", "0")
    assert cuda_toolkit.choose("12.8") == "FORCE_CUDA=0"


@pytest.mark.parametrize(
    ("force", "torch_cuda", "words"),
    [
        ("1", "13.0", "FORCE_CUDA=1, but torch has CUDA 13.0, but there is no nvcc"),
        ("1", None, "FORCE_CUDA=1, but torch is a build for the CPU"),
        ("yes", "13.0", "FORCE_CUDA must be 0 or 1, but is 'yes'"),
    ],
)
def test_force_cuda_is_an_error_where_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch, force: str, torch_cuda: str | None, words: str
) -> None:
    monkeypatch.setenv("FORCE_CUDA", force)
    with pytest.raises(SystemExit, match=words):
        cuda_toolkit.choose(torch_cuda)


@pytest.mark.parametrize(
    ("asked", "visible", "of_torch", "expected"),
    [
        ("8.0;9.0+PTX", [], "", ("sm_80", "sm_90", "compute_90")),
        ("9.0 8.0", [(7, 5)], "", ("sm_80", "sm_90")),
        ("Hopper", [], "", ("sm_90", "compute_90")),
        ("12.0", [], "", ("sm_120",)),
        ("8.0;x", [], "", "TORCH_CUDA_ARCH_LIST='8.0;x': .*x"),
        ("6.0;9.0", [], "", "sm_60 is too old"),
        ("", [(8, 0)], "sm_90", ("sm_80",)),
        ("native", [(9, 0), (8, 0), (9, 0)], "", ("sm_80", "sm_90")),
        ("", [(10, 3)], "", ("compute_90",)),  # newer than this nvcc
        # The first is too old for pyvae, the last two too new for this nvcc.
        ("", [], "sm_60 sm_75 sm_80 sm_120 compute_120", ("sm_75", "sm_80", "compute_80")),
        ("", [], "sm_120", "set TORCH_CUDA_ARCH_LIST"),
    ],
)
def test_architectures(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    visible: list[tuple[int, int]],
    of_torch: str,
    expected: tuple[str, ...] | str,
) -> None:
    """Those asked for; without them the GPUs that torch sees; without any those that torch was built for."""
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(visible))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(visible))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: visible[index])
    monkeypatch.setattr(torch._C, "_cuda_getArchFlags", lambda: of_torch, raising=False)
    toolkit = Toolkit(install(machine / "path"), "13.0", "")
    if isinstance(expected, str):
        with pytest.raises(SystemExit, match=expected):
            cuda_toolkit.architectures(toolkit)
    else:
        assert cuda_toolkit.architectures(toolkit) == expected


def test_the_runtime_is_the_one_that_torch_loads(machine: Path) -> None:
    nvcc = install(machine / "system")
    toolkit = Toolkit(nvcc, "13.0", str(machine / "system" / "include"))
    with pytest.raises(SystemExit, match=r"no libcudart\.so\.13"):
        cuda_toolkit.runtime(toolkit)
    for folder in ("system/lib", "site/nvidia/cu13/lib"):
        library = machine / folder / "libcudart.so.13"
        library.parent.mkdir(parents=True)
        library.touch()
        assert cuda_toolkit.runtime(toolkit) == library


def test_packages_are_found_wherever_python_looks(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # of `machine`
    monkeypatch.setattr(sys, "path", [*sys.path, str(machine / "first"), str(machine / "second")])
    nvcc = install(machine / "second" / "nvidia" / "cu13")
    assert cuda_toolkit.installed("nvidia/cu*/bin/nvcc")[-1:] == [Path(nvcc)]


@pytest.mark.parametrize(
    ("torch_cuda", "force", "present", "expected"),
    [
        ("13.0", "", False, "cuda-toolkit[nvcc,cccl]==13.0.*\n"),
        ("13.0", "1", False, "cuda-toolkit[nvcc,cccl]==13.0.*\n"),
        ("13.0", "0", False, ""),
        ("13.0", "", True, ""),
        ("12.8", "", False, "\n"),
        (None, "", False, ""),
    ],
)
def test_what_pip_must_install(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    torch_cuda: str | None,
    force: str,
    present: bool,
    expected: str,
) -> None:
    if present:
        install(machine / "path")
    monkeypatch.setenv("FORCE_CUDA", force)
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    cuda_toolkit.main()
    assert capsys.readouterr().out == expected
