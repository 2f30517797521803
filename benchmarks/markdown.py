"""Tables as Markdown, and their places between markers in README.md. Needs neither torch nor pyvae."""

from __future__ import annotations

import re
from collections.abc import Sequence


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body))


def insert(text: str, name: str, rendered: str) -> str:
    """`text` with what stands between the markers of `name` replaced."""
    first, last = f"<!-- {name}:start -->\n", f"\n<!-- {name}:end -->"
    new, count = re.subn(f"({first}).*?({last})", lambda found: found[1] + rendered + found[2], text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"expected {first.strip()} and, after it, {last.strip()}")
    return new
