"""tests/cpp/ptx: what the translation of PTX computes, what it refuses, and how it counts. No nvcc is needed."""

from __future__ import annotations

import ctypes
import math
import struct
import sys
from pathlib import Path

import ptx
import ptx_counts
import pytest

sys.path.insert(0, str(ptx.HERE))
import translate

REGISTERS = """
  .reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<9>; .reg .f64 %fd<9>;
"""


def kernel(body: str, name: str = "kernel") -> str:
    registers = REGISTERS.replace("; ", ";\n")
    return f"\n.visible .entry {name}(\n\t.param .u64 {name}_param_0\n)\n{{\n{registers}\n{body}\n\tret;\n}}\n"


def compiled(text: str, folder: Path) -> ctypes.CDLL:
    source, library = folder / "source.cpp", folder / "library.so"
    source.write_text(
        '#include "machine.h"\nusing namespace ptx;\n' + "".join(map(translate.render, translate.translate(text)))
    )
    files = [source, *ptx.ALONE]
    ptx.run([*ptx.cxx(), *ptx.CXX_FLAGS, "-shared", *map(str, files), "-o", str(library)])
    return ctypes.CDLL(str(library))


# ---- what it computes ------------------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
# An instruction, its two operands, and its result as PTX has it. Registers: %f, %fd, %r, %rd, %rs 1 and 2 in, 3 out.
VALUES: list[tuple[str, float, float, float]] = [
    ("add.rn.f32 %f3, %f1, %f2;", 1.0, 2.0**-24, 1.0),
    ("add.rn.f32 %f3, %f1, %f2;", 1.0, 3 * 2.0**-24, 1 + 2.0**-22),
    ("fma.rn.f32 %f3, %f1, %f1, %f2;", 1 + 2.0**-12, -(1 + 2.0**-11), 2.0**-24),
    ("mul.rn.f32 %f3, %f1, %f2;", 2.0**-126, 0.5, 2.0**-127),
    ("rcp.approx.ftz.f32 %f3, %f1;", 2.0**127, 0, 0.0),
    ("rcp.approx.ftz.f32 %f3, %f1;", 2.0**-127, 0, INF),
    ("min.f32 %f3, %f1, %f2;", NAN, 1.0, 1.0),
    ("max.f32 %f3, %f1, %f2;", 2.0, NAN, 2.0),
    ("max.f32 %f3, %f1, %f2;", -0.0, 0.0, 0.0),
    ("neg.f32 %f3, %f1;", 0.0, 0, -0.0),
    ("mov.f32 %f3, 0f3F800000;", 0, 0, 1.0),
    ("setp.lt.f32 %p1, %f1, %f2;\nselp.f32 %f3, 0f3F800000, 0f00000000, %p1;", NAN, 1.0, 0.0),
    ("setp.ltu.f32 %p1, %f1, %f2;\nselp.f32 %f3, 0f3F800000, 0f00000000, %p1;", NAN, 1.0, 1.0),
    ("setp.ne.f32 %p1, %f1, %f2;\nselp.f32 %f3, 0f3F800000, 0f00000000, %p1;", NAN, 1.0, 0.0),
    ("setp.neu.f32 %p1, %f1, %f2;\nselp.f32 %f3, 0f3F800000, 0f00000000, %p1;", NAN, 1.0, 1.0),
    ("setp.equ.f32 %p1, %f1, %f2;\nselp.f32 %f3, 0f3F800000, 0f00000000, %p1;", 2.0, 1.0, 0.0),
    ("setp.num.f32 %p1, %f1, %f2;\nselp.f32 %f3, 0f3F800000, 0f00000000, %p1;", 2.0, NAN, 0.0),
    ("cvt.f64.f32 %fd1, %f1;\nadd.rn.f64 %fd1, %fd1, 0d3E30000000000000;\ncvt.rn.f32.f64 %f3, %fd1;", 1.0, 0, 1.0),
    ("cvt.rn.f16.f32 %rs1, %f1;\ncvt.f32.f16 %f3, %rs1;", 1 + 2.0**-11, 0, 1.0),
    ("cvt.rn.f16.f32 %rs1, %f1;\ncvt.f32.f16 %f3, %rs1;", 65520.0, 0, INF),
    ("cvt.rn.bf16.f32 %rs1, %f1;\nmov.b32 %r1, {0, %rs1};\nmov.b32 %f3, %r1;", 1 + 3 * 2.0**-8, 0, 1 + 2.0**-6),
    ("cvt.rn.f32.s32 %f3, -3;", 0, 0, -3.0),
    ("mov.b32 %r1, %f1;\nshl.b32 %r1, %r1, 32;\nmov.b32 %f3, %r1;", 1.0, 0, 0.0),
    ("mov.u32 %r1, -8;\nshr.s32 %r1, %r1, 40;\ncvt.rn.f32.s32 %f3, %r1;", 0, 0, -1.0),
    ("mov.u32 %r1, -8;\nshr.u32 %r1, %r1, 1;\ncvt.rn.f32.u32 %f3, %r1;", 0, 0, 2.0**31 - 4),
    ("mov.u32 %r1, -3;\nmul.wide.s32 %rd1, %r1, 5;\ncvt.rn.f32.s64 %f3, %rd1;", 0, 0, -15.0),
    ("mov.u16 %rs1, 65535;\nmul.lo.s16 %rs1, %rs1, %rs1;\ncvt.rn.f32.u16 %f3, %rs1;", 0, 0, 1.0),
    ("mov.u16 %rs1, 200;\ncvt.s16.s8 %rs2, %rs1;\ncvt.rn.f32.s16 %f3, %rs2;", 0, 0, -56.0),
    ("mov.b64 %rd1, {7, 9};\nmov.b64 {%r1, %r2}, %rd1;\ncvt.rn.f32.u32 %f3, %r2;", 0, 0, 9.0),
    ("lg2.approx.ftz.f32 %f3, %f1;", 8.0, 0, 3.0),
    ("lg2.approx.ftz.f32 %f3, %f1;", 2.0**-127, 0, -INF),
    ("popc.b32 %r1, 0xf0f0f0f0;\ncvt.rn.f32.u32 %f3, %r1;", 0, 0, 16.0),
    ("brev.b32 %r1, 6;\ncvt.rn.f32.u32 %f3, %r1;", 0, 0, 3 * 2.0**29),
    ("bfind.shiftamt.u32 %r1, 1;\ncvt.rn.f32.u32 %f3, %r1;", 0, 0, 31.0),
    ("bfind.shiftamt.u32 %r1, 0;\ncvt.rn.f32.s32 %f3, %r1;", 0, 0, -1.0),
    ("bfi.b32 %r1, 0xff, 1, 4, 3;\ncvt.rn.f32.u32 %f3, %r1;", 0, 0, 113.0),
    ("bfi.b32 %r1, 0xff, 1, 40, 3;\ncvt.rn.f32.u32 %f3, %r1;", 0, 0, 1.0),
    ("bfi.b32 %r1, 5, 1, 0, 40;\ncvt.rn.f32.u32 %f3, %r1;", 0, 0, 5.0),
    ("setp.lt.f32 %p1, %f1, %f2;\n@!%p1 mov.f32 %f3, %f1;\n@%p1 mov.f32 %f3, %f2;", 1.0, 2.0, 2.0),
]


def same(a: float, b: float) -> bool:
    """To the bit, all NaN alike."""
    return struct.pack("f", a) == struct.pack("f", b) or (math.isnan(a) and math.isnan(b))


def test_instructions_compute_what_ptx_says(tmp_path: Path) -> None:
    """Each reads two numbers and writes one."""
    texts = []
    for number, (code, *_) in enumerate(VALUES):
        name = f"kernel{number}"
        begin = f"\tld.param.u64 %rd8, [{name}_param_0];\n\tcvta.to.global.u64 %rd7, %rd8;\n"
        begin += "\tld.global.f32 %f1, [%rd7];\n\tld.global.f32 %f2, [%rd7+4];\n"
        texts.append(kernel(f"{begin}{code}\n\tst.global.f32 [%rd7+8], %f3;", name))
    library = compiled("".join(texts), tmp_path)
    for number, (code, a, b, want) in enumerate(VALUES):
        memory = (ctypes.c_float * 3)(a, b, NAN)
        getattr(library, f"kernel{number}")(ctypes.byref(ctypes.c_void_p(ctypes.addressof(memory))))
        assert same(memory[2], want), f"{code} of {a} and {b}: {memory[2]} instead of {want}"


# ---- what it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        *("add.f32 %f3, %f1, %f2;", "mul.f64 %fd3, %fd1, %fd2;", "mad.rn.f32 %f3, %f1, %f1, %f2;"),  # contracted
        *("add.rz.f32 %f3, %f1, %f2;", "add.rn.ftz.f32 %f3, %f1, %f2;", "div.full.f32 %f3, %f1, %f2;"),
        *("sin.approx.ftz.f32 %f3, %f1;", "rcp.approx.f32 %f3, %f1;", "red.global.add.f32 [%rd1], %f1;"),
        *("bar.sync 1;", "setp.lt.and.f32 %p1, %f1, %f2, %p2;", "vote.sync.any.pred %p1, %p2, -1;"),
        *("ld.global.v4.f32 {%f1, %f2}, [%rd1];", "call function;", "cvt.rzi.s32.f32 %r1, %f1;", "nonsense"),
    ],
)
def test_what_is_not_known_is_an_error(code: str) -> None:
    with pytest.raises(translate.Unknown):
        list(translate.translate(kernel(f"\t{code}")))


def test_a_function_beside_the_kernels_is_an_error() -> None:
    with pytest.raises(translate.Unknown, match="no kernel"):
        list(translate.translate(".func (.param .b32 x) f()\n{\n\tret;\n}\n" + kernel("")))


# ---- how it counts ---------------------------------------------------------------------------------------------------

# Thread i goes i times around: 4 instructions, one of them in float64, after 3, and before 1.
LOOP = """
\tmov.u32 %r1, %tid.x;
\tsetp.eq.s32 %p1, %r1, 0;
\t@%p1 bra $END;
$AGAIN:
\tadd.rn.f64 %fd1, %fd1, %fd1;
\tadd.s32 %r1, %r1, -1;
\tsetp.ne.s32 %p1, %r1, 0;
\t@%p1 bra $AGAIN;
$END:
"""


def test_a_warp_takes_as_long_as_its_slowest_thread(tmp_path: Path) -> None:
    library = compiled(kernel(LOOP), tmp_path)
    library.ptx_counts.restype = ctypes.c_char_p
    library.run(library.kernel, None, 32)
    library.kernel_block_ended()
    name, instructions, doubles = library.ptx_counts().decode().split()
    assert name == "kernel" and (float(instructions), float(doubles)) == (3 + 31 * 4 + 1, 31)
    assert library.ptx_counts() == b""


def test_a_rise_is_found() -> None:
    row = ptx_counts.Row("gaussian", "128x20000", "objective_kernel", 100.0, 1.0)
    before = {row.key: row}
    assert not ptx_counts.compare([row._replace(instructions=104.9)], before)
    assert "106 instructions" in ptx_counts.compare([row._replace(instructions=106.0)], before)[0]
    assert "2 float64" in ptx_counts.compare([row._replace(float64=2.0)], before)[0]
    assert "not measured" in ptx_counts.compare([], before)[0]
    assert "not in" in ptx_counts.compare([row], {})[0]


def test_the_table_is_of_all_calls_and_shapes() -> None:
    rows = ptx_counts.read()
    names = {name for name, _ in (*ptx_counts.calls(2, 4), *ptx_counts.mixture_calls(2, 3, 4))}
    assert {row.call for row in rows.values()} == names
    shapes = (*ptx_counts.SHAPES, *ptx_counts.EXTREME_SHAPES)
    assert {row.shape for row in rows.values()} == {"x".join(map(str, x)) for x in (*shapes, *ptx_counts.MIXTURES)}


def test_what_compiles_the_cuda_sources_is_setups() -> None:
    assert "-fmad=false" in ptx.cuda_flags()
