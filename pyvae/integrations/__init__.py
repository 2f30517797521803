"""One-line patches of other libraries, each a module by the library's name, which imports it."""

from __future__ import annotations

import sys


def patched() -> list[str]:
    """The functions of other libraries that are pyvae's in this process."""
    module = sys.modules.get(f"{__name__}.scvi")
    return [] if module is None or module._active is None else [f"scvi-tools' {name}" for name in module.NAMES]
