"""Files of the repository that are pages as well: their links lead to pages here, or are the file's name."""

from __future__ import annotations

import re
from pathlib import Path

# What a page of the site shows, as its pages call it.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "performance.md",
    "examples/README.md": "gallery/index.rst",
}


def stage(root: Path, target: Path) -> None:
    """Copies for MyST's include, with links that hold from docs/."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "README.md"):
        text = with_links(root, root / name)
        copy = target / name.replace("/", "-")
        if not copy.exists() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")


def with_links(root: Path, path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", lambda found: link(root, path, *found.groups()), text)


def link(root: Path, path: Path, mark: str, words: str, to: str) -> str:
    """One link of `path`."""
    whole = f"{mark}[{words}]({to})"
    if to.startswith(("https:", "http:", "#")):
        return whole
    file, _, anchor = to.partition("#")
    name = (path.parent / file).resolve().relative_to(root.resolve()).as_posix()
    if mark:  # a picture: from where the page is
        return f"![{words}](../{name})"
    if name in PAGES:
        return f"[{words}]({PAGES[name]}{'#' + anchor if anchor else ''})"
    return words if "`" in words else f"`{words}`"
