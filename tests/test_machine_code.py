"""The reading of cuobjdump's text, on a short recording (version 13.1); CI runs the program itself on the extension."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import machine_code
import pytest
from machine_code import Kernel

ANY = "_ZN5pyvae21latent_forward_kernelINS_3AnyIJlEEELb1EEEvfP6float4PKii"
PACKED = "_ZN5pyvae21latent_forward_kernelINS_6PackedIJfdEEELb0EEEvfP6float4PKii"

RESOURCE_USAGE = f"""
Fatbin elf code:
================
arch = sm_80
code version = [1,8]
host = linux
compile_size = 64bit

Resource usage:
 Common:
  GLOBAL:0
 Function {ANY}:
  REG:32 STACK:256 SHARED:0 LOCAL:0 CONSTANT[0]:380 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function {PACKED}:
  REG:14 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:380 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin ptx code:
================
arch = sm_90
code version = [9,0]
host = linux
compile_size = 64bit
compressed
ptxasOptions =

Fatbin elf code:
================
arch = sm_90
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0
 Function {PACKED}:
  REG:14 STACK:0 SHARED:2048 LOCAL:0 CONSTANT[0]:556 TEXTURE:0 SURFACE:0 SAMPLER:0
"""

MACHINE_CODE = f"""
Fatbin elf code:
================
arch = sm_80
code version = [1,8]

\tcode for sm_80
\t.target\tsm_80

\t\tFunction : {ANY}
\t.headerflags\t@"EF_CUDA_SM80 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM80)"
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;            /* 0x00000a00ff017624 */
                                                                                      /* 0x000fc600078e00ff */
        /*0050*/              @!P0 BRA 0x11c0 ;                                       /* 0x0000116000008947 */
                                                                                      /* 0x000fea0003800000 */
        /*0060*/              @P1  LDG.E.U8.CONSTANT R0, [R10.64] ;                   /* 0x000000080a007981 */
        /*0150*/                   LDG.E R0, [R10.64] ;                               /* 0x000000080a007981 */
        /*0160*/              @P2  STG.E.U16 [R10.64], R0 ;                           /* 0x000000080a007981 */
        /*0400*/                   STL [R27], R25 ;                                   /* 0x000000191b007387 */
        /*1250*/                   LDL R7, [R0] ;                                     /* 0x0000000000077983 */
        /*1290*/                   EXIT ;                                             /* 0x000000000000794d */
        /*12a0*/                   BRA 0x12a0;                                        /* 0xfffffff000007947 */
        /*12b0*/                   NOP;                                               /* 0x0000000000007918 */
\t\t..........

\t\tFunction : {PACKED}
        /*0070*/                   LDG.E.LTC128B.128 R4, [R2.64] ;                    /* 0x0000000402047981 */
        /*00f0*/                   STG.E.128 [R2.64], R4 ;                            /* 0x0000000402007986 */
        /*0100*/                   EXIT ;                                             /* 0x000000000000794d */
\t\t..........

Fatbin ptx code:
================
arch = sm_90

Fatbin elf code:
================
arch = sm_90

\tcode for sm_90
\t\tFunction : {PACKED}
        /*0000*/                   LDC R1, c[0x0][0x28] ;                             /* 0x00000a00ff017b82 */
        /*0070*/                   LDG.E.64 R4, desc[UR6][R2.64] ;                    /* 0x0000000602047981 */
        /*0130*/                   ST.E.128 desc[UR6][R2.64], R4 ;                    /* 0x0000000402007986 */
        /*0140*/                   EXIT ;                                             /* 0x000000000000794d */
"""


def recorded() -> dict[str, Kernel]:
    kernels, architectures = machine_code.read(RESOURCE_USAGE, MACHINE_CODE)
    assert architectures == {"sm_80", "sm_90", "compute_90"}
    return dict(zip(("spilled", "packed", "packed for sm_90"), kernels, strict=True))


def test_resources_and_instructions() -> None:
    assert recorded() == {
        "spilled": Kernel(ANY, "sm_80", 32, 256, 0, 0, 9, 2, Counter({8: 1, 32: 1}), Counter({16: 1})),
        "packed": Kernel(PACKED, "sm_80", 14, 0, 1024, 0, 3, 0, Counter({128: 1}), Counter({128: 1})),
        "packed for sm_90": Kernel(PACKED, "sm_90", 14, 0, 1024, 0, 4, 0, Counter({64: 1}), Counter({128: 1})),
    }


@pytest.mark.parametrize(
    ("kernel", "faults"),
    [
        ("spilled", ["2 accesses to local memory, 256 bytes of stack"]),
        ("packed", []),
        ("packed for sm_90", ["no 128-bit load"]),
    ],
)
def test_faults(kernel: str, faults: list[str]) -> None:
    found = recorded()[kernel]
    found.name = "latent_forward_kernel<Packed<float, double>, false>" if "packed" in kernel else "Any<long>"
    assert found.faults() == faults


def test_stores_must_be_wide_as_well() -> None:
    kernel = Kernel("objective_kernel<Packed<float>>", "sm_80")
    kernel.count("LDG.E.128.CONSTANT")
    kernel.count("STG.E.64")
    assert kernel.faults() == ["no 128-bit store"]


# By the CUDA occupancy calculator, for 256 threads a block.
@pytest.mark.parametrize(
    ("architecture", "registers", "shared", "occupancy"),
    [
        ("sm_80", 32, 0, 1),
        ("sm_80", 40, 0, 0.75),
        ("sm_90", 64, 0, 0.5),
        ("sm_90", 65, 0, 0.375),
        ("sm_90", 255, 0, 0.125),
        ("sm_80", 16, 48 * 1024, 0.375),
        ("sm_90", 16, 48 * 1024, 0.5),
        ("sm_86", 40, 0, 1),
        ("sm_75", 64, 0, 1),
        ("sm_999", 64, 0, None),
    ],
)
def test_occupancy(architecture: str, registers: int, shared: int, occupancy: float | None) -> None:
    assert Kernel("", architecture, registers, shared=shared).occupancy() == occupancy


@pytest.mark.parametrize(
    ("demangled", "short"),
    [
        (
            "void pyvae::latent_forward_kernel<pyvae::Packed<float, double>, false>(float, float4*, int const*, int)",
            "latent_forward_kernel<Packed<float, double>, false>",
        ),
        (
            "void pyvae::cuda::(anonymous namespace)::objective_kernel<pyvae::cuda::(anonymous namespace)::Packed"
            "<pyvae::BFloat16>, (int)8, pyvae::Exact<float> >(pyvae::cuda::Objective)",
            "objective_kernel<Packed<BFloat16>, 8, Exact<float>>",
        ),
    ],
)
def test_short_names(demangled: str, short: str) -> None:
    assert machine_code.short(demangled) == short


def test_table_groups_kernels() -> None:
    lines = machine_code.table([Kernel("a_kernel<X>", "sm_80", 32), Kernel("a_kernel<Y>", "sm_999", 40)]).splitlines()
    assert [line.split()[:3] for line in lines if line] == [
        ["a_kernel", "registers", "shared"],
        ["<X>", "sm_80", "32"],
        ["<Y>", "sm_999", "40"],
    ]
    assert "100%" in lines[2]


def test_cuobjdump_is_found_beside_nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "cuobjdump"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert machine_code.find_cuobjdump() == str(program)
