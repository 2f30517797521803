"""Files of the repository that are pages as well, whose links then lead to pages here or are the file's name; and the
tables that are generated between markers in them, each by its name."""

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
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "README.md", "benchmarks/README.md"):
        text = with_links(root, root / name)
        write(target / name.replace("/", "-"), text)
        for marker, table in re.findall(r"<!-- ([\w-]+):start -->\n(.*?)<!-- \1:end -->", text, re.DOTALL):
            write(target / f"{marker}.md", table)


def write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


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
    if name.startswith("docs/") and name.endswith(".md"):
        return f"[{words}]({name.removeprefix('docs/')}{'#' + anchor if anchor else ''})"
    if name in PAGES:
        return f"[{words}]({PAGES[name]}{'#' + anchor if anchor else ''})"
    return words if "`" in words else f"`{words}`"
