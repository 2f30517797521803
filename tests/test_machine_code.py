"""The reading of cuobjdump's text, on a short recording (version 13.1); CI runs the program itself on the extension."""

from __future__ import annotations

from collections import Counter

import pytest

import machine_code
import root_code
from machine_code import Kernel

ANY = "_ZN5pyvae21latent_forward_kernelINS_3AnyIJlEEELb1EEEvfP6float4PKii"
PACKED = "_ZN5pyvae21latent_forward_kernelINS_6PackedIJfdEEELb0EEEvfP6float4PKii"

RESOURCE_USAGE = f"""
Fatbin elf code:
================
arch = sm_80
code version = [1,8]

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
ptxasOptions =

Fatbin elf code:
================
arch = sm_90
 Function {PACKED}:
  REG:14 STACK:0 SHARED:2048 LOCAL:0 CONSTANT[0]:556 TEXTURE:0 SURFACE:0 SAMPLER:0
"""

MACHINE_CODE = f"""
Fatbin elf code:
================
arch = sm_80

\tcode for sm_80
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


def test_resources_and_instructions() -> None:
    kernels, architectures = machine_code.read(RESOURCE_USAGE, MACHINE_CODE)
    assert architectures == {"sm_80", "sm_90", "compute_90"}
    assert kernels == [
        Kernel(ANY, "sm_80", 32, 256, 0, 9, 2, Counter({8: 1, 32: 1}), Counter({16: 1})),
        Kernel(PACKED, "sm_80", 14, 0, 1024, 3, 0, Counter({128: 1}), Counter({128: 1})),
        Kernel(PACKED, "sm_90", 14, 0, 2048, 4, 0, Counter({64: 1}), Counter({128: 1})),
    ]


@pytest.mark.parametrize(
    ("name", "instructions", "faults"),
    [
        ("kernel<Any<long>>", ["STL", "LDL"], ["2 accesses to local memory, 256 bytes of stack"]),
        ("kernel<Any<long>>", ["LDG.E", "STG.E.U16"], []),
        ("kernel<LogVariance, PackedAs<float, float>>", ["LDG.E.LTC128B.128", "STG.E.128"], []),
        ("kernel<LogVariance, PackedAs<float, float>>", ["LDG.E.LTC128B.64", "ST.E.128"], ["no 128-bit load"]),
        ("kernel<PackedAs<float, float>>", ["LDG.E.128.CONSTANT", "STG.E.64"], ["no 128-bit store"]),
    ],
)
def test_faults(name: str, instructions: list[str], faults: list[str]) -> None:
    kernel = Kernel(name, "sm_80", stack=256)
    for instruction in instructions:
        kernel.count(instruction)
    assert kernel.faults() == faults


def test_short_names() -> None:
    demangled = (
        "void pyvae::cuda::(anonymous namespace)::objective_kernel<pyvae::cuda::(anonymous namespace)::Packed"
        "<pyvae::BFloat16>, (int)8, pyvae::Exact<float> >(pyvae::cuda::Objective, float4*, int const*)"
    )
    assert machine_code.short(demangled) == "objective_kernel<Packed<BFloat16>, 8, Exact<float>>"


def test_table_groups_kernels() -> None:
    kernels = [Kernel("a_kernel<X>", "sm_80", 32), Kernel("a_kernel<Y>", "sm_90", 40)]
    lines = [line.split()[:3] for line in machine_code.table(kernels).splitlines() if line]
    assert lines == [["a_kernel", "registers", "shared"], ["<X>", "sm_80", "32"], ["<Y>", "sm_90", "40"]]


# ---- the square root -------------------------------------------------------------------------------------------------

# Of sm_90, shortened: the second has the way to the ends of the range in its middle, and its products turned around.
ROOTS = """
\t\tFunction : ours
        /*0030*/                   LDG.E R7, desc[UR4][R2.64] ;                       /* 0x0000000402007981 */
        /*0050*/                   MUFU.RSQ R0, R7 ;
        /*0060*/                   FSETP.NEU.AND P0, PT, R7.reuse, RZ, PT ;
        /*0070*/                   FMUL R6, R7, R0 ;
        /*0080*/                   FMUL R0, R0, 0.5 ;
        /*0090*/                   FFMA R9, -R6, R6, R7 ;
        /*00a0*/               @P0 FFMA R7, R9, R0, R6 ;
        /*00b0*/                   STG.E desc[UR4][R4.64], R7 ;
\t\tFunction : cudas
        /*0030*/                   LDG.E R0, desc[UR4][R2.64] ;
        /*0040*/                   IADD3 R4, R0, -0xd000000, RZ ;
        /*0050*/                   MUFU.RSQ R5, R0 ;
        /*0070*/              @!P0 BRA 0xb0 ;
        /*0090*/                   CALL.REL.NOINC 0x120 ;
        /*00b0*/                   FMUL.FTZ R3, R5, R0 ;
        /*00c0*/                   FMUL.FTZ R5, R5, 0.5 ;
        /*00d0*/                   FFMA R0, R3, -R3, R0 ;
        /*00e0*/                   FFMA R5, R5, R0, R3 ;
        /*0100*/                   STG.E desc[UR4][R2.64], R5 ;
        /*01f0*/                   MUFU.RSQ R3, R0 ;
"""


def test_two_square_roots_are_compared_by_what_they_compute() -> None:
    assert root_code.value_of(ROOTS, "ours") == root_code.value_of(ROOTS, "cudas")
    for right, wrong in (("-R6, R6, R7", "R6, R6, R7"), ("R0, R0, 0.5", "R0, R0, 0.25"), ("R9, R0, R6", "R9, R0, R7")):
        assert root_code.value_of(ROOTS.replace(right, wrong), "ours") != root_code.value_of(ROOTS, "cudas")
    with pytest.raises(ValueError, match="no store in the function third"):
        root_code.value_of(ROOTS, "third")
