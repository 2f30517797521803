"""Makes C++ of nvcc's PTX, so that what a GPU is given runs, and is counted, where there is none.

    python tests/cpp/ptx/translate.py kernels.ptx folder

An .entry becomes a function of the address of its parameters; a register becomes a variable, a label a label, and an
instruction one operation of its own type, rounded once. See machine.h for what threads do together. The instructions
that it knows are those of instructions.py and, as far as they do more than compute, of `Kernel.statement`; any other is
an error. So is arithmetic without `.rn`: ptxas may contract it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from instructions import CPP, Unknown, find

SPECIAL = {"%tid.x": "threadIdx.x", "%ntid.x": "blockDim.x", "%ctaid.x": "blockIdx.x", "%nctaid.x": "gridDim.x"}
LINES_EACH = 40_000  # of C++ in a file: several are compiled side by side


# ---- one kernel ------------------------------------------------------------------------------------------------------


def split(operands: str) -> list[str]:
    """At the commas that are in no bracket."""
    return [part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^]]*\]|[^,])+", operands) if part.strip()]


@dataclass
class Kernel:
    """An .entry on its way to C++."""

    name: str
    parameters: dict[str, int]  # where each lies
    shared: dict[str, int]
    registers: dict[str, str] = field(default_factory=dict)  # their types, by their names without the number
    body: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # of each block without a branch: instructions, of f64
    line: int = 0

    def kind(self, register: str) -> str:
        return self.registers[register.rstrip("0123456789")]

    def value(self, text: str, kind: str) -> str:
        """An operand, in C++, as a `kind`."""
        cpp = CPP[kind]
        if text.startswith("!"):
            return f"!{self.value(text[1:], kind)}"
        if text in SPECIAL:
            return f"{cpp}({SPECIAL[text]})"
        if text.startswith("%"):
            name = variable(text)
            return name if CPP[self.kind(text)] == cpp else f"as<{cpp}>({name})"
        if text in self.parameters:
            return f"{cpp}(uint64_t(parameters) + {self.parameters[text]})"
        if text in self.shared:
            return f"{cpp}({self.shared[text]})"
        if number := re.fullmatch(r"0([fd])([0-9A-F]+)", text):
            bits = "uint32_t" if number[1] == "f" else "uint64_t"
            return f"as<{cpp}>({bits}(0x{number[2]}))"
        if re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", text):
            return f"{cpp}({text}ll)"
        raise Unknown(f"the operand {text}")

    def assign(self, register: str, value: str, kind: str) -> str:
        own = CPP[self.kind(register)]
        return f"{variable(register)} = {value if own == CPP[kind] else f'as<{own}>({CPP[kind]}({value}))'};"

    def place(self) -> str:
        return f'{{kName, "PTX", {self.line}}}'

    def memory(self, text: str, space: str) -> str:
        """The address of `[base+offset]`, on the host."""
        match = re.fullmatch(r"\[([^+]+)(?:\+(-?\d+))?\]", text)
        if not match:
            raise Unknown(f"the address {text}")
        base = self.value(match[1], "u32" if space == "shared" else "u64")
        return f"{f'shared_memory({base})' if space == 'shared' else base} + {match[2] or 0}"

    def statement(self, name: str, operands: list[str]) -> str:
        """An instruction in C++, without its predicate."""
        first, *words = name.split(".")
        if first == "bra":
            return f"goto {operands[0].replace('$', '')};"
        if name == "ret":
            return "return;"
        if name == "bar.sync" and operands == ["0"]:
            return f"__syncthreads({self.place()});"
        if name == "membar.gl":
            return ";"
        if name == "atom.acq_rel.gpu.inc.u32":
            address, limit = self.memory(operands[1], "global"), self.value(operands[2], "u32")
            return self.assign(operands[0], f"atomicInc(reinterpret_cast<unsigned*>({address}), {limit})", "u32")
        if name == "bar.warp.sync":
            return f"sync_warp({self.value(operands[0], 'u32')}, {self.place()});"
        if shuffle := re.fullmatch(r"shfl\.sync\.(bfly|up|idx)\.b32", name):
            register = operands[0].partition("|")[0]  # and a predicate that nothing reads
            given = ", ".join(self.value(operand, "u32") for operand in operands[1:])
            return self.assign(register, f"shuffle_{shuffle[1]}({given}, {self.place()})", "u32")
        if first in ("ld", "st"):
            return self.move(first, words, operands)
        if first == "mov" and "{" in operands[0] + operands[1]:
            return self.repack(words[-1], *operands)
        instruction, types = find(name)
        letters = {letter: CPP[kind] for letter, kind in types.items() if kind}
        kinds = [types.get(word, word) for word in instruction.operands.split()]
        given = zip(operands[1:], kinds, strict=True)
        letters |= {x: self.value(*pair) for x, pair in zip("abcd", given)}  # noqa: B905 (there are up to four)
        value = re.sub(r"\b[abcdTUWD]\b", lambda match: letters[match[0]], instruction.value)
        return self.assign(operands[0], value, types.get(instruction.result, instruction.result))

    def move(self, what: str, words: list[str], operands: list[str]) -> str:
        """A load or a store, of one number or of a vector."""
        kind = words[-1]
        space, vector = (
            (words[0] if words[0] in ("param", "global", "shared") else ""),
            re.search(r"\bv([24])\b", ".".join(words)),
        )
        if what == "ld":
            target, address = operands
            registers = split(target.strip("{}")) if vector else [target]
        else:
            address, source = operands
            registers = split(source.strip("{}")) if vector else [source]
        if len(registers) != (int(vector[1]) if vector else 1) or len(words) != 1 + bool(space) + bool(vector):
            raise Unknown(f"{what}.{'.'.join(words)}")
        cpp = CPP[kind]
        place = f"({self.memory(address, space)}, {self.place()})"
        lines = [f"{{ char* const at = aligned<sizeof({cpp}) * {len(registers)}>{place};"]
        for i, register in enumerate(registers):
            here = f"at + {i} * sizeof({cpp})"
            if what == "ld":
                lines.append(self.assign(register, f"load<{cpp}>({here})", kind))
            else:
                lines.append(f"store<{cpp}>({here}, {self.value(register, kind)});")
        return " ".join([*lines, "}"])

    def repack(self, kind: str, target: str, source: str) -> str:
        """Two halves to a whole, or a whole to its halves."""
        half = {"b32": "b16", "b64": "b32"}[kind]
        bits = int(half[1:])
        if source.startswith("{"):
            low, high = (self.value(part, half) for part in split(source.strip("{}")))
            return self.assign(target, f"{CPP[kind]}({low}) | {CPP[kind]}({high}) << {bits}", kind)
        parts = enumerate(split(target.strip("{}")))
        whole = self.value(source, kind)
        return " ".join(self.assign(x, f"{CPP[half]}({whole} >> {i * bits})", half) for i, x in parts if x != "_")


def variable(register: str) -> str:
    return register.replace("%", "v_")


# ---- a file ----------------------------------------------------------------------------------------------------------

SHARED = re.compile(r"\.shared \.align (\d+) \.[bu]8 (\w+)(?:\[(\d+)\])?;")
ENTRY = re.compile(r"^(?:\.visible )?\.entry (\w+)\(([^)]*)\)[^{]*\{(.*?)^\}", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"(?:@(!?%\w+)\s+)?([\w.:]+)\s*([^;]*);")
IGNORED = (".pragma", ".shared", ".loc", "//")


def lay_out(declared: list[tuple[str, str, str]], end: int) -> tuple[dict[str, int], int]:
    """Where arrays of (alignment, name, bytes) lie, one after another from `end`."""
    places = {}
    for alignment, name, size in declared:
        places[name] = end = -(-end // int(alignment)) * int(alignment)
        end += int(size or 1)
    return places, end


def parameters_of(text: str) -> dict[str, int]:
    declared = []
    for parameter in split(text):
        array = re.fullmatch(r"\.param \.align (\d+) \.b8 (\w+)\[(\d+)\]", parameter)
        number = re.fullmatch(r"\.param \.[busf](\d+) (\w+)", parameter)
        if not array and not number:
            raise Unknown(f"the parameter {parameter}")
        size = str(int(number[1]) // 8) if number else ""
        declared.append((array[1], array[2], array[3]) if array else (size, number[2], size))
    return lay_out(declared, 0)[0]


def translate_kernel(name: str, parameters: str, body: str, line: int, shared: dict[str, int], end: int) -> Kernel:
    own, end = lay_out(SHARED.findall(body), end)
    kernel = Kernel(name, parameters_of(parameters), shared | own, line=line)
    kernel.body.append(f"static_assert({end} <= emulated::kSharedMemory);")
    begins = True  # a block of instructions, of which all run or none
    for text in body.split("\n"):
        kernel.line += 1
        code = text.strip()
        if not code or code in "{}" or code.startswith(IGNORED):
            continue
        if code.startswith(".reg"):
            for kind, register, count in re.findall(r"\.(\w+)\s+(%\w+)<(\d+)>", code):
                kernel.registers[register] = kind
                kernel.body.append(
                    f"{CPP[kind]} " + ", ".join(f"{variable(register)}{i}" for i in range(int(count))) + ";"
                )
            continue
        if label := re.fullmatch(r"\$(\w+):", code):
            kernel.body.append(f"{label[1]}:;")
            begins = True
            continue
        match = CODE.fullmatch(code)
        if not match:
            raise Unknown(f"the line {code}")
        if begins:
            kernel.body.append(f"PTX_BLOCK({len(kernel.sizes)})")
            kernel.sizes.append((0, 0))
        predicate, instruction, operands = match[1], match[2], split(match[3])
        is_double = ".f64" in instruction and not instruction.startswith(("ld.", "st.", "mov."))
        kernel.sizes[-1] = (kernel.sizes[-1][0] + 1, kernel.sizes[-1][1] + is_double)
        statement = kernel.statement(instruction, operands)
        kernel.body.append(f"if ({kernel.value(predicate, 'pred')}) {{ {statement} }}" if predicate else statement)
        begins = instruction.startswith("bra") or instruction == "ret"
    return kernel


def translate(text: str) -> Iterator[Kernel]:
    outside = ENTRY.sub("", text)
    shared, end = lay_out(SHARED.findall(outside), 0)
    if text.count(".entry ") != len(ENTRY.findall(text)) or re.search(r"^\.(visible )?\.?func", outside, re.MULTILINE):
        raise Unknown("a function that is no kernel")
    for match in ENTRY.finditer(text):
        line = text.count("\n", 0, match.start(3)) + 1
        yield translate_kernel(*match.groups(), line - 1, shared, end)


def render(kernel: Kernel) -> str:
    sizes = ", ".join(f"{{{size}, {doubles}}}" for size, doubles in kernel.sizes)
    body = "\n  ".join(kernel.body)
    return f"""
extern "C" void {kernel.name}(void* parameters) {{
  static constexpr const char* kName = "{kernel.name}";
  {body}
}}
extern "C" void {kernel.name}_block_ended() {{
  static constexpr ptx::Size kSizes[] = {{{sizes}}};
  ptx::count_block("{kernel.name}", kSizes, {len(kernel.sizes)});
}}
"""


def main() -> None:
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    files: list[list[str]] = [[]]
    for kernel in translate(source.read_text(encoding="utf-8")):
        if sum(map(len, (text.split("\n") for text in files[-1]))) > LINES_EACH:
            files.append([])
        files[-1].append(render(kernel))
    for number, texts in enumerate(files):
        path = folder / f"{source.stem}_{number}.cpp"
        text = '#include "machine.h"\n\nusing namespace ptx;\n' + "".join(texts)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
