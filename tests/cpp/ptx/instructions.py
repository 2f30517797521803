"""The instructions of PTX that compute, and what C++ computes in their place: a table for translate.py."""

from __future__ import annotations

import re
from typing import NamedTuple

CPP = {"pred": "bool", "f32": "float", "f64": "double"}
CPP |= {f"{kind}{bits}": f"{'u' * (kind != 's')}int{bits}_t" for kind in "bus" for bits in (8, 16, 32, 64)}
ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
LOGIC = {"and": "&", "or": "|", "xor": "^"}
CONTRARY = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}


class Unknown(Exception):
    """What has no translation."""


class Instruction(NamedTuple):
    """Its name, the types of its result and of its operands, and what it computes of these, a, b, c and d. T is the
    type in the name and, where there are two, D the first; U is T without a sign, W with twice the bits."""

    name: str
    result: str
    operands: str
    value: str


FLOAT, INTEGER, BITS = "(?P<T>f32|f64)", "(?P<T>[us](16|32|64))", "(?P<T>b(16|32|64))"
ORDER = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
INSTRUCTIONS = [
    *(Instruction(rf"{op}\.rn\.{FLOAT}", "T", "T T", f"a {sign} b") for op, sign in ARITHMETIC.items()),
    Instruction(rf"fma\.rn\.{FLOAT}", "T", "T T T", "std::fma(a, b, c)"),
    Instruction(rf"sqrt\.rn\.{FLOAT}", "T", "T", "std::sqrt(a)"),
    Instruction(rf"rcp\.rn\.{FLOAT}", "T", "T", "1 / a"),
    Instruction(rf"neg\.{FLOAT}", "T", "T", "-a"),
    Instruction(rf"abs\.{FLOAT}", "T", "T", "std::fabs(a)"),
    Instruction(rf"copysign\.{FLOAT}", "T", "T T", "std::copysign(b, a)"),  # b with the sign of a
    *(Instruction(rf"{op}\.{FLOAT}", "T", "T T", f"{op}imum(a, b)") for op in ("min", "max")),
    *(
        Instruction(rf"{op}\.approx\.ftz\.(?P<T>f32)", "T", "T", f"{op}_approx(a)")
        for op in ("rsqrt", "rcp", "ex2", "lg2")
    ),
    # Without a sign overflow is defined. Of 16 bits C++ would compute in int.
    *(Instruction(rf"{op}\.{INTEGER}", "U", "U U", f"U(a {ARITHMETIC[op]} b)") for op in ("add", "sub")),
    Instruction(rf"mul\.lo\.{INTEGER}", "U", "U U", "U(uint64_t(a) * b)"),
    Instruction(rf"mad\.lo\.{INTEGER}", "U", "U U U", "U(uint64_t(a) * b + c)"),
    Instruction(r"mul\.wide\.(?P<T>[us](16|32))", "W", "T T", "W(a) * W(b)"),
    Instruction(rf"neg\.{INTEGER}", "U", "U", "U(0 - a)"),
    Instruction(rf"div\.{INTEGER}", "T", "T T", "T(a / b)"),
    Instruction(rf"rem\.{INTEGER}", "T", "T T", "T(a % b)"),
    *(Instruction(rf"{op}\.{INTEGER}", "T", "T T", f"std::{op}(a, b)") for op in ("min", "max")),
    *(Instruction(rf"{op}\.(?P<T>pred|b16|b32|b64)", "T", "T T", f"T(a {LOGIC[op]} b)") for op in LOGIC),
    Instruction(r"not\.(?P<T>pred)", "T", "T", "!a"),
    Instruction(rf"not\.{BITS}", "T", "T", "T(~a)"),
    Instruction(rf"shl\.{BITS}", "T", "T u32", "shift_left(a, b)"),
    Instruction(r"shr\.(?P<T>[bus](16|32|64))", "T", "T u32", "shift_right(a, b)"),
    Instruction(r"popc\.b32", "u32", "u32", "uint32_t(__builtin_popcount(a))"),
    Instruction(r"brev\.b32", "u32", "u32", "reverse_bits(a)"),
    # How far the highest bit is from the top.
    Instruction(r"bfind\.shiftamt\.u32", "u32", "u32", "a ? uint32_t(__builtin_clz(a)) : ~0u"),
    Instruction(r"bfi\.b32", "u32", "u32 u32 u32 u32", "insert_bits(a, b, c, d)"),
    Instruction(r"selp\.(?P<T>\w+)", "T", "T T pred", "c ? a : b"),
    # A comparison with NaN is false, and true where its name ends in u.
    *(Instruction(rf"setp\.{op}\.(?P<T>[bus](8|16|32|64))", "pred", "T T", f"a {ORDER[op]} b") for op in ORDER),
    *(Instruction(rf"setp\.{op}\.{FLOAT}", "pred", "T T", f"a {ORDER[op]} b") for op in ORDER if op != "ne"),
    Instruction(rf"setp\.ne\.{FLOAT}", "pred", "T T", "a < b || a > b"),
    *(Instruction(rf"setp\.{op}u\.{FLOAT}", "pred", "T T", f"!(a {ORDER[CONTRARY[op]]} b)") for op in CONTRARY),
    Instruction(rf"setp\.equ\.{FLOAT}", "pred", "T T", "!(a < b || a > b)"),
    Instruction(rf"setp\.neu\.{FLOAT}", "pred", "T T", "a != b"),
    Instruction(rf"setp\.num\.{FLOAT}", "pred", "T T", "a == a && b == b"),
    Instruction(rf"setp\.nan\.{FLOAT}", "pred", "T T", "a != a || b != b"),
    Instruction(r"cvt\.(?P<D>[us](8|16|32|64))\.(?P<T>[us](8|16|32|64))", "D", "T", "D(a)"),
    Instruction(r"cvt\.(?P<D>f64)\.(?P<T>f32)", "D", "T", "D(a)"),
    Instruction(r"cvt\.rn\.(?P<D>f32)\.(?P<T>f64)", "D", "T", "D(a)"),
    Instruction(r"cvt\.rn\.(?P<D>f32|f64)\.(?P<T>[us](8|16|32|64))", "D", "T", "D(a)"),
    Instruction(r"cvt\.f32\.f16", "f32", "b16", "of_half(a)"),
    Instruction(r"cvt\.rn\.f16\.f32", "b16", "f32", "to_half(a)"),
    Instruction(r"cvt\.rn\.bf16\.f32", "b16", "f32", "to_bfloat16(a)"),
    Instruction(r"mov\.(?P<T>\w+)", "T", "T", "a"),
    Instruction(
        r"cvta(\.to)?\.(global|param)\.(?P<T>u64)", "T", "T", "a"
    ),  # but for the shared, all memory is one here
]
KNOWN = [(re.compile(instruction.name), instruction) for instruction in INSTRUCTIONS]


def find(name: str) -> tuple[Instruction, dict[str, str]]:
    """The instruction of this name, and the types that its letters stand for."""
    for pattern, instruction in KNOWN:
        if match := pattern.fullmatch(name):
            types = match.groupdict()
            if kind := types.get("T"):
                types["U"] = kind.replace("s", "u")
                types["W"] = kind[0] + str(2 * int(kind[1:])) if "W" in instruction.result else ""
            return instruction, types
    raise Unknown(f"the instruction {name}")
