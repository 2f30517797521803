"""Formulas as MathML, which browsers draw themselves: no script, and nothing from the network.

Their font is STIX Two Math, copied when the site is built from the package ziamath, since not every machine has a font
with what large brackets and fractions need.
"""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

FONT = "STIXTwoMath-Regular.ttf"


def static_files(build: Path) -> list[str]:
    """A folder with the font, for html_static_path."""
    spec = find_spec("ziamath")
    assert spec is not None and spec.origin is not None
    folder = build / "fonts"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(spec.origin).parent / "fonts" / FONT, folder / FONT)
    return [str(folder)]


SPACE = '<mspace width="0.17em"/>'
# What the converter leaves to be mended, for browsers without a layout of their own for TeX.
MENDED = (
    (r"<mo>([A-Za-z]{2,})</mo>", r"<mi>\1</mi>"),  # the name of a function is no operator
    # TeX's space around such a name, unless a bracket is next to it
    (r"(<mi>[A-Za-z]{2,}</mi>)(?=<m(?:i|n|row|frac|sub|sup|subsup|over|style)\b)", rf"\1{SPACE}"),
    (r"(</m(?:i|n|sub|sup|subsup|frac|style|row)>|&#x00029;</mo>)(?=<mi>[A-Za-z]{2,}</mi>)", rf"\1{SPACE}"),
    # a minus behind a bracket has nothing on its left
    (r"(<mo stretchy=\"false\">&#x00028;</mo>)<mo>&#x02212;</mo>", r'\1<mo form="prefix">&#x02212;</mo>'),
    (r"<mo>(?:~|&#x0007E;)</mo>", "<mo>&#x0223C;</mo>"),
)


def mathml(tex: str, display: str = "inline") -> str:
    made = convert(tex, display=display)
    for pattern, instead in MENDED:
        made = re.sub(pattern, instead, made)
    return made


def inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    ids = "".join(f'<span id="{name}"></span>' for name in node.get("ids", ()))
    # Wider than the window, it scrolls by itself; the page does not.
    translator.body.append(f'<div class="formula" tabindex="0">{ids}{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
