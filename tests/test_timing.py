"""The timing of the CUDA kernels: variants and what is made of the compiler's and the programs' output, all of it made
up; CI compiles the program itself."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import cuda_toolkit
import timing
import timing_build
from timing_build import ROOT, SHIPPED, Built, Failed, Kernel

COLUMNS = re.findall(r"\w+", "".join(re.findall(r'"([\w,]+)"', (timing_build.SOURCES / "measure.h").read_text())))
MOVED = "objective_gaussian,float32,64,1024,786432,40,16,1.000,2.500,3.000,314.6,2.250,349.5,0.9000,64,80,3"
NOTHING = "backward_nothing,bfloat16,64,1024,0,40,64,1.000,1.750,2.000,,,,,64,42,6"
PRINTED = ["# a GPU, sm_90\n", ",".join(COLUMNS) + "\n", MOVED + "\n", NOTHING + "\n"]

PTXAS = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN5pyvae13sample_kernelIfEEvv' for 'sm_90'
ptxas info    : Function properties for _ZN5pyvae13sample_kernelIfEEvv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 9344 bytes smem
ptxas info    : Compiling entry function '_ZN5pyvae14rescale_kernelIfEEvv' for 'sm_90'
ptxas info    : Function properties for _ZN5pyvae14rescale_kernelIfEEvv
    24 bytes stack frame, 20 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
"""


def program(folder: Path, lines: Sequence[str], status: int = 0) -> Path:
    """What prints the options that it was given, and then the lines."""
    path = folder / f"program{status}"
    text = "".join(lines)
    path.write_text(f"#!/bin/sh\necho \"# given: $@\"\ncat <<'END'\n{text}END\nexit {status}\n")
    path.chmod(0o755)
    return path


# ---- variants --------------------------------------------------------------------------------------------------------


def test_a_variant_says_what_it_sets() -> None:
    assert timing_build.flags(SHIPPED) == []
    assert timing_build.flags("kSmallPart=512+kLargePart=4096") == ["-DPYVAE_kSmallPart=512", "-DPYVAE_kLargePart=4096"]
    assert all(len(timing_build.flags(variant)) == variant.count("=") for variant in timing.VARIANTS)


@pytest.mark.parametrize("variant", ["", "ship", "kSmallPart", "kSmallPart=0", "kSmallPart=2k", "kThreads=128"])
def test_other_variants_are_refused(variant: str) -> None:
    with pytest.raises(SystemExit, match=rf"expected shipped, or .*kSmallPart.*; got '{variant}'"):
        timing_build.flags(variant)


def test_the_compiler_sees_what_a_variant_sets() -> None:
    """Each constant, and each of the others as it is shipped."""
    shipped = {name: number(name) for name in timing_build.tunable()}
    assert {"kPackedVector", "kPackedBlocks", "kGradientBlocks", "kSmallPart", "kLargePart"} <= set(shipped)
    for name in shipped:
        other = 4 if name == "kPackedVector" else 2 * shipped[name]
        flags = timing_build.flags(f"{name}={other}")
        assert {each: number(each, *flags) for each in shipped} == shipped | {name: other}


def number(constant: str, *flags: str) -> int:
    """A constant's value, from the error of an assertion that it fails."""
    name = f"{constant}<float>" if constant.startswith("kPacked") else constant
    source = f'#include "cuda/tuning.h"\ntemplate <long n> struct Is;\nIs<pyvae::cuda::{name}> value;\n'
    command = [*shlex.split(os.environ.get("CXX", "c++")), "-std=c++17", "-fsyntax-only", *flags, "-Icsrc"]
    done = subprocess.run([*command, "-xc++", "-"], cwd=ROOT, input=source, capture_output=True, text=True, check=False)
    found = re.search(r"Is<(\d+)[lL]*>", done.stderr)
    assert found, done.stderr
    return int(found[1])


def test_kernels_are_compiled_as_in_the_extension() -> None:
    assert {"-O3", "-std=c++17", "-fmad=false"} <= set(timing_build.cuda_flags())


def test_what_a_failed_compilation_says() -> None:
    with pytest.raises(Failed, match=r"(?s)-c.*print.*exit.*\nwrong"):
        timing_build.command_output([sys.executable, "-c", "print('wrong'); exit(2)"])


def test_kernels_that_are_not_measured_are_not_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The program picks kernels by an overload, which a change of the library's may leave behind."""
    toolkit, printed = cuda_toolkit.Toolkit("nvcc", "13.0", "include"), PTXAS
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(timing_build, "BUILD", tmp_path)
    monkeypatch.setattr(cuda_toolkit, "runtime", lambda toolkit: Path("lib/libcudart.so.13"))
    monkeypatch.setattr(timing_build, "command_output", lambda command: commands.append(command) or printed)
    built = timing_build.build(toolkit, ["sm_80", "sm_90"], "kSmallPart=512")
    assert built.program == tmp_path / "sm_80-sm_90" / "kSmallPart=512" / "timing" and len(built.kernels) == 2
    assert all("-DPYVAE_kSmallPart=512" in command for command in commands) and len(commands) == 2
    printed += PTXAS.replace("14rescale_kernelIfEEvv", "14rescale_kernelI9GeneralAsEEvv")
    with pytest.raises(Failed, match="rescale_kernel<GeneralAs> is compiled"):
        timing_build.build(toolkit, ["sm_90"], SHIPPED)


def test_no_nvcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_toolkit, "programs", lambda name: [])
    with pytest.raises(SystemExit, match="no nvcc that runs"):
        timing_build.find_toolkit()


def test_registers_and_spills() -> None:
    kernels = timing_build.resources(PTXAS)
    assert kernels == [Kernel("sample_kernel<float>", 80, 0), Kernel("rescale_kernel<float>", 40, 36)]
    built = {SHIPPED: Built(Path("a"), 12.3, kernels), "kPackedVector=4": Built(Path("b"), 9.0, kernels[1:])}
    assert [re.split(" {2,}", line) for line in timing_build.table(built).splitlines()] == [
        ["registers", SHIPPED, "kPackedVector=4"],
        ["compiled in", "12 s", "9 s"],
        ["sample_kernel<float>", "80", "-"],
        ["rescale_kernel<float>", "40, 36 B spilled", "40, 36 B spilled"],
    ]


# ---- results ---------------------------------------------------------------------------------------------------------


def test_the_program_s_lines() -> None:
    head, moved, nothing = timing.rows_of(PRINTED)
    assert head == "# a GPU, sm_90"
    assert isinstance(moved, dict) and (moved["us"], moved["gbps"], moved["share"]) == ("2.500", "314.6", "0.9000")
    assert isinstance(nothing, dict) and (nothing["bytes"], nothing["us"], nothing["gbps"]) == ("0", "1.750", "")


def test_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert timing.query("clocks.sm") == [] and timing.architecture(build_only=True) == "sm_90"
    with pytest.raises(SystemExit, match="no GPU to time kernels on"):
        timing.architecture(build_only=False)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '8.6, x'\necho '9.0, y'\n")
    program.chmod(0o755)
    assert timing.query("compute_cap,name") == ["8.6", "x"] and timing.architecture(build_only=True) == "sm_86"


def test_every_variant_is_built_and_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One variant does not compile, one ends early, and the others are measured all the same."""
    wrong = "timing: objective_gaussian in float32 is wrong at 24x4104\n"
    programs = {
        SHIPPED: program(tmp_path, PRINTED),
        "kPackedBlocks=4": program(tmp_path, [*PRINTED[:3], wrong], status=1),
        "kSmallPart=512": program(tmp_path, PRINTED),
    }

    def build(toolkit: object, architectures: Sequence[str], variant: str) -> Built:
        assert architectures == ["sm_80"]
        if variant not in programs:
            raise Failed("nvcc says no")
        return Built(programs[variant], 1.0, timing_build.resources(PTXAS))

    monkeypatch.setattr(timing_build, "build", build)
    monkeypatch.setattr(timing_build, "find_toolkit", lambda: cuda_toolkit.Toolkit("an nvcc", "13.0", "include"))
    monkeypatch.setattr(timing, "query", lambda fields: ["1980 MHz"])
    words = ["timing", "--arch", "sm_80", "--out", str(tmp_path / "out"), "--sizes", "64x1024"]
    words += ["--variants", "kPackedVector=4", *programs]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="1"):
        timing.main()

    csv = (tmp_path / "out" / "timing.csv").read_text().splitlines()
    assert csv[0].split(",") == ["variant", *COLUMNS]
    assert csv[1:] == [
        *(f"shipped,{MOVED}", f"shipped,{NOTHING}", f"kPackedBlocks=4,{MOVED}"),
        *(f"kSmallPart=512,{MOVED}", f"kSmallPart=512,{NOTHING}"),
    ]
    log = capsys.readouterr().out
    assert log.count("# given: --sizes 64x1024") == 3
    assert "    2 measurements; 1980 MHz" in log
    *_, head, moved, nothing, _, first, second = log.splitlines()
    assert head.split() == ["kernel", "type", "size", "copy", *programs]
    assert moved.split() == ["objective_gaussian", "float32", "64x1024", "349.5", *["314.6", "90.0%"] * 3]
    assert nothing.split() == ["backward_nothing", "bfloat16", "64x1024", "-", "1.750", "us", "-", "1.750", "us"]
    assert (first, second) == ("kPackedVector=4: nvcc says no", f"kPackedBlocks=4: {wrong.strip()}")

    monkeypatch.setattr(sys, "argv", ["timing", "--build-only", "--out", str(tmp_path), "--arch", "sm_80"])
    programs.update(dict.fromkeys(timing.VARIANTS, tmp_path / "not run"))
    timing.main()
    assert "rescale_kernel<float>" in capsys.readouterr().out
