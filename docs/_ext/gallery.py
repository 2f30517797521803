"""The gallery: sphinx-gallery over the examples, each with a title, and executed.

An example is a plain script, without the headings that sphinx-gallery asks for. So the site builds from copies whose
docstring has a heading; the code is the example's own.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple


class Example(NamedTuple):
    title: str
    arguments: tuple[str, ...] = ()  # of the command line, with which it takes seconds; FOLDER is for its files
    needs: str = ""  # a package without which it is shown and not executed


FOLDER = "FOLDER"
EXAMPLES = {
    "mlp_digits": Example("The shortest useful VAE"),
    "squared_error": Example("What mse_loss plus KL means"),
    "learned_noise": Example("A noise that is learned"),
    "evaluate": Example("Bounds, bits per pixel, active units"),
    "vamp_prior": Example("A VampPrior", (FOLDER,)),
    "beta_tcvae": Example("A total correlation, weighted"),
    "graph_vae": Example("A graph VAE"),
    "bayes_by_backprop": Example("Bayes by backprop"),
    "lightning_vae": Example("A VAE in Lightning", needs="lightning"),
    "diffusers_vae": Example("diffusers' AutoencoderKL", needs="diffusers"),
    "scvi_patch": Example("scvi-tools, patched by one line", needs="scvi"),
    "train_vae": Example("A whole program: digits", ("--epochs", "40", "--out", FOLDER)),
    "train_counts": Example(
        "A whole program: counts of single cells",
        ("--cells", "1000", "--genes", "500", "--epochs", "20", "--out", FOLDER),
    ),
}
HEADER = """Examples
========

Each of these scripts was run when this site was built. The output and the pictures on a page come from that run. All
of them run on a CPU, without the network, in seconds. They are in the folder ``examples`` of the repository, and need
what ``pip install --no-build-isolation '.[examples]'`` installs.

Two things differ: the example of scvi-tools is run only where scvi-tools is installed, and the two whole programs were
run with fewer epochs than they have by default.

"""


def stage(source: Path, target: Path) -> None:
    """Copies the examples and their helpers, each example with a heading; leaves unchanged files alone."""
    target.mkdir(parents=True, exist_ok=True)
    write(target / "GALLERY_HEADER.rst", HEADER + contents(source / "README.md"))
    for path in source.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.stem in EXAMPLES:
            text = with_heading(text, EXAMPLES[path.stem].title)
        write(target / path.name, text)


def contents(readme: Path) -> str:
    """The examples with what each teaches, as their README says it: few of them draw what a thumbnail would show."""
    lines = []
    for name, example in EXAMPLES.items():
        row = next(line for line in readme.read_text(encoding="utf-8").splitlines() if f"{name}.py" in line)
        teaches = [cell.strip() for cell in row.strip("|").split(" | ")][1]
        if not teaches.startswith(example.needs or "`"):  # which begin with a name
            teaches = teaches[0].upper() + teaches[1:]
        lines.append(f":doc:`{example.title} <{name}>`\n    {teaches}.\n")
    return "\n".join(lines)


def by_name(source: Path) -> dict[str, list[tuple[str, str]]]:
    """Of each public name that examples use, their files and titles."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, example in EXAMPLES.items():
        used = set(re.findall(r"pyvae(?:\.\w+)+", (source / f"{name}.py").read_text(encoding="utf-8")))
        for each in used:
            found.setdefault(each, []).append((name, example.title))
    return found


def write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def with_heading(text: str, title: str) -> str:
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring is not None
    end = text.index('"""', 3) + 3
    parts = [title, "=" * len(title), ""]
    for paragraph in docstring.split("\n\n"):
        literal = paragraph.startswith((" ", "python ", "torchrun ", "pip "))
        indented = "\n".join(f"    {line}" for line in paragraph.splitlines())
        parts += [f"::\n\n{indented}" if literal else paragraph.replace("*", r"\*"), ""]
    return f'r"""\n{chr(10).join(parts)}"""{text[end:]}'


def settings(staged: Path) -> dict[str, Any]:
    missing = {name for name, example in EXAMPLES.items() if example.needs and find_spec(example.needs) is None}
    shown = "|".join(name for name in EXAMPLES)
    executed = "|".join(name for name in EXAMPLES if name not in missing)
    return {
        "examples_dirs": str(staged),
        "gallery_dirs": "gallery",
        "filename_pattern": rf"/({executed})\.py$",
        "ignore_pattern": rf"^(?!({shown})\.py$)",
        "within_subsection_order": in_order,
        "reset_argv": Arguments(),
        "image_scrapers": (Pictures(),),
        "reset_modules": (),
        "parallel": 2,
        "abort_on_example_error": True,
        "only_warn_on_example_error": False,
        "backreferences_dir": None,
        "download_all_examples": False,
        "show_signature": False,
        "show_memory": False,
        "write_computation_times": False,
        "min_reported_time": 10**6,
        "remove_config_comments": True,
        "plot_gallery": True,
    }


def in_order(path: str) -> int:
    names = [*EXAMPLES]
    return names.index(Path(path).stem) if Path(path).stem in names else len(names)


def folder_of(script: str) -> Path:
    """Where an example's files go, from the folder of the copies, in which it runs."""
    return Path("runs", Path(script).stem)


class Arguments:
    """The command line with which an example runs."""

    def __call__(self, gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
        script = Path(script_vars["src_file"])
        out = script.parent / folder_of(script.name)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        if str(script.parent) not in sys.path:  # the modules beside it
            sys.path.insert(0, str(script.parent))
        for category in (DeprecationWarning, FutureWarning):  # of other libraries, with paths of this machine
            warnings.simplefilter("ignore", category)
        return [str(folder_of(script.name)) if word == FOLDER else word for word in EXAMPLES[script.stem].arguments]


class Pictures:
    """What an example has drawn: the PNG files in its folder."""

    def __repr__(self) -> str:
        return "Pictures"

    def __call__(self, block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
        from sphinx_gallery.scrapers import figure_rst

        script = Path(block_vars["src_file"])
        found = sorted((script.parent / folder_of(script.name)).glob("*.png"))
        kept = []
        for picture, place in zip(found, block_vars["image_path_iterator"], strict=False):
            shutil.copy(picture, place)
            kept.append(place)
        return figure_rst(kept, gallery_conf["src_dir"])
