"""`python -m pyvae` prints what this pyvae is made of."""

from __future__ import annotations

from pyvae._extension import build_info

if __name__ == "__main__":
    for key, value in build_info().items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{key:<20} {'-' if shown in (None, '') else shown}")
