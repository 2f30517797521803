"""`python -m pyvae` prints what this pyvae is made of, and what it can patch of the libraries that are here."""

from __future__ import annotations

from importlib import metadata

from pyvae._extension import build_info


def patches() -> list[str]:
    """By library: whether it is here, and the line that patches it. Imports none of them."""
    try:
        version = metadata.version("scvi-tools")
    except metadata.PackageNotFoundError:
        return []
    return [f"scvi-tools {version} by pyvae.integrations.scvi.patch()"]


if __name__ == "__main__":
    for key, value in (build_info() | {"can_patch": patches()}).items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{key:<20} {'-' if shown in (None, '') else shown}")
