"""Builds and tests pyvae with several torches and Pythons, each pair in an environment of its own.

`python tools/versions.py` takes the torches and the Pythons that are supported, as far as the machine has these;
`python tools/versions.py --torch 2.11 newest --python 3.11 3.13` some; `python tools/versions.py --readme` puts the
table of tools/versions.csv into README.md and does nothing else. The CSV keeps the rows of other pairs. It ends with 1
where a pair failed.

A pair takes minutes, and gigabytes until it is done with: torches come from PyPI, most of them builds for CUDA. What is
built is for the CPU, unless FORCE_CUDA says otherwise, from a copy of the sources. MAX_JOBS is as in setup.py, and pip
is set up by its own variables and files.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.markdown import insert
from gpu_check import run
from gpu_logs import Failed, last_line, outcome
from gpu_stages import ROOT, Result, Step
from versions_rows import Row, merge, minor, read, table, write

TORCHES = ("2.11", "2.13", "2.14", "newest")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
CSV = ROOT / "tools" / "versions.csv"
README = ROOT / "README.md"
MARKER = "versions"
LIMIT = 3600.0  # seconds for a step
WORKERS = 2  # processes of tests

# The tests that another torch can change, and what of it they rest on. The numbers alone are those of csrc/math, which
# includes no torch: what they need to be right is the same instructions, which one torch shows.
SELECTED = {
    "autograd": "saved tensors, and passes through one graph",
    "autograd_inputs": "saved tensors' hooks and versions, and modes",
    "bounds": "numbers that stay symbolic, torch.export",
    "build": "what torch's build rules and setuptools make of setup.py",
    "clamp_and_elements": "the derivative of torch.clamp, which 2.14 changed",
    "compile": "tracing, fake tensors, torch.export",
    "dispatch": "the dispatcher's keys and modes",
    "doctests": "how tensors are printed",
    "dtensor": "placements, their redistribution, and how they are compiled",
    "features": "what the README promises of torch's features",
    "gradients": "the derivatives in pyvae.reference, which are torch's",
    "import": "what `import torch` brings, and that the extension is this torch's",
    "integers": "promotion of types",
    "loss_scale": "modes and compilers around a backward pass",
    "masks": "torch.where and its derivatives in pyvae.reference",
    "modules": "state and copies of nn.Module",
    "modules_likelihood": "the same, of what a likelihood holds; parametrizations, functional_call",
    "noise": "generators and the order of their draws",
    "noise_repeatable": "at::parallel_for, checkpoints",
    "objects": "pytrees and frozen dataclasses in torch.func, the compilers, torch.export and torch.fx",
    "opcheck": "schemas, fake kernels and what AOTAutograd makes of the operators",
    "prior": "broadcasting, and gradients summed to a shape",
    "reference": "torch's own losses and torch.distributions",
    "refusals": "names of types and devices in messages",
    "training": "hooks, threads, offloading, autocast, checkpoints",
    "transforms": "torch.func, forward mode, subclasses and modes",
    "values": "torch's own losses and torch.distributions, of every type and layout",
}
LEFT_OUT = (
    *("tests/test_cuda_emulated.py", "tests/test_ptx.py"),  # of the CUDA kernels, which include no torch
    "tests/test_typing.py",  # by mypy, which the extra `test` leaves out
)

USABLE = (
    "import ensurepip, os, platform, sysconfig, venv; os.stat(sysconfig.get_path('include') + '/Python.h'); "
    "print(platform.python_version())"
)


class Python(NamedTuple):
    program: str
    version: str  # "3.11.7"


# ---- which pairs -----------------------------------------------------------------------------------------------------


def requirement(torch: str) -> str:
    """What pip installs: of a minor version the latest release."""
    if not re.fullmatch(r"newest|\d+\.\d+(\.\d+\S*)?", torch):
        raise ValueError(f"expected a torch as 2.13, 2.13.0 or newest, but got {torch!r}")
    return "torch" if torch == "newest" else f"torch=={torch}{'.*' if torch.count('.') == 1 else ''}"


def examine(program: str) -> Python | None:
    """This program's version, or None if it does not run, makes no environments or lacks its C headers."""
    try:
        shown = subprocess.run([program, "-c", USABLE], capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        return None
    return Python(program, shown.stdout.strip())


def find_python(asked: str) -> Python | None:
    """The usable Python of a minor version, running, on PATH or pyenv's; or a program that is named by its path."""
    if os.sep in asked:
        return examine(asked)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    programs = [sys.executable, shutil.which(f"python{asked}"), *sorted(pyenv.glob(f"{asked}.*/bin/python{asked}"))]
    examined = (examine(str(program)) for program in programs if program)
    return next((python for python in examined if python and minor(python.version) == asked), None)


# ---- one pair --------------------------------------------------------------------------------------------------------


def copy_sources(target: Path) -> None:
    """Copies what git would not ignore, uncommitted changes included."""
    listed = ROOT / ".gitignore"  # an sdist has none
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    patterns = ["/.git", *(line.rstrip("/") for line in lines if line and not line.startswith("#"))]

    def ignored(folder: str, names: list[str]) -> list[str]:
        paths = {name: PurePath("/", Path(folder, name).relative_to(ROOT)) for name in names}
        return [name for name, path in paths.items() if any(map(path.match, patterns))]

    shutil.copytree(ROOT, target, ignore=ignored, dirs_exist_ok=True)


def commit() -> str:
    """Marked as dirty where anything differs from it but what this program writes."""
    others = [".", ":!tools/versions.csv", ":!README.md"]
    commands = ["git", "describe", "--always", "--exclude=*"], ["git", "status", "--porcelain", "--", *others]
    try:
        name, changes = (
            subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}-dirty" if changes else name


def built(text: str, status: int) -> str:
    """The compiler's first error, where there is one: the last line only says that it failed."""
    if status and (found := re.search(r"^.*\berror: .*$", text, re.MULTILINE)):
        raise Failed(found[0].strip()[:150])
    return last_line(text, status)


def tested(text: str, status: int) -> str:
    note = outcome(text)
    if status:
        found = re.search(r"^(?:FAILED|ERROR) (.*)$", text, re.MULTILINE)
        raise Failed(found[1][:150] if found else note)
    return note


def files() -> list[str]:
    return [f"tests/test_{name}.py" for name in SELECTED]


def steps(torch: str, python: Python, folder: Path, every_test: bool, one_in: int = 1) -> list[Step]:
    there = str(folder / "environment" / "bin" / "python")
    install = [there, "-m", "pip", "install", "-q"]
    tests = ["tests", *(f"--ignore={file}" for file in LEFT_OUT)] if every_test else files()
    tests += [f"--one-in={one_in}"] if one_in > 1 else []
    todo = [
        Step("environment", [python.program, "-m", "venv", "--clear", str(folder / "environment")], last_line),
        Step("install", [*install, "setuptools>=70.1", "ninja", requirement(torch)], last_line),
        Step("torch", [there, "-c", "import torch; print(torch.__version__)"], last_line),
        Step("build", [there, "setup.py", "build_ext", "--inplace"], built),
        Step("packages", [*install, "--no-build-isolation", "-e", ".[test]"], last_line),
        Step("tests", [there, "-m", "pytest", "-n", str(WORKERS), "--dist", "loadfile", *tests], tested),
    ]
    # PYTHONPATH would bring this environment's packages; threads of OpenMP that wait do not spin, as in `make test`.
    force = os.environ.get("FORCE_CUDA", "0")
    environment = (("PYTHONPATH", ""), ("FORCE_CUDA", force), ("OMP_WAIT_POLICY", "passive"))
    return [step._replace(seconds=LIMIT, environment=environment, folder=folder / "pyvae") for step in todo]


def row(torch: str, python: Python, sources: str, chosen: str, results: Sequence[Result]) -> Row:
    """What the steps came to, of which the last one ended it if it is not good."""
    of = {result.name: result for result in results}
    found = Row(of["torch"].note if "torch" in of and of["torch"].good else torch, python.version, sources)
    if "build" in of and of["build"].good:
        found = found._replace(built_s=f"{of['build'].seconds:.0f}")
    if "tests" in of:
        counts = {word: count for count, word in re.findall(r"(\d+) (passed|failed|error|skipped)", ended(of["tests"]))}
        broken = int(counts.get("failed", 0)) + int(counts.get("error", 0))
        numbers = {"passed": counts.get("passed", "0"), "failed": str(broken), "skipped": counts.get("skipped", "0")}
        found = found._replace(tests=chosen, **numbers if counts else {})
    return found._replace(error="" if results[-1].good else f"{results[-1].name}: {results[-1].note}")


def ended(tests: Result) -> str:
    """pytest's last word, also of tests that failed; nothing where it did not come to it."""
    try:
        return outcome(tests.output)
    except Failed:
        return ""


def attempt(torch: str, python: Python, folder: Path, every_test: bool, one_in: int, keep: bool) -> Row:
    folder.mkdir(parents=True, exist_ok=True)
    sources = commit()
    copy_sources(folder / "pyvae")
    results: list[Result] = []
    for step in steps(torch, python, folder, every_test, one_in):
        results.append(run(step, folder / "log.txt", step.seconds))
        if not results[-1].good:
            print("\n".join(results[-1].output.splitlines()[-30:]), flush=True)
            break
    if not keep:
        shutil.rmtree(folder / "environment", ignore_errors=True)
        shutil.rmtree(folder / "pyvae", ignore_errors=True)
    chosen = ("all" if every_test else "selected") + (f", one in {one_in}" if one_in > 1 else "")
    return row(torch, python, sources, chosen, results)


def main() -> None:
    width = max(map(len, SELECTED)) + 2
    parser = argparse.ArgumentParser(
        prog="python tools/versions.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="tests:\n" + "\n".join(f"  {name:<{width}}{why}" for name, why in SELECTED.items()),
    )  # fmt: skip
    parser.add_argument("--torch", nargs="+", default=TORCHES, help=f"2.13 is its latest release ({' '.join(TORCHES)})")
    parser.add_argument("--python", nargs="+", help=f"minor versions or programs (of {' '.join(PYTHONS)} what is here)")
    parser.add_argument("--all", action="store_true", help=f"all tests but {', '.join(LEFT_OUT)}")
    parser.add_argument("--one-in", type=int, default=1, metavar="N", help="of each test's many cases a share")
    parser.add_argument("--folder", type=Path, help="where environments, copies and logs are made (a temporary one)")
    parser.add_argument("--keep", action="store_true", help="leave environments and copies in the folder")
    parser.add_argument("--out", type=Path, default=CSV, help="the CSV that gets the rows (tools/versions.csv)")
    parser.add_argument("--readme", action="store_true", help="only put the table into README.md")
    parser.add_argument("--list", action="store_true", help="only print the tests' files")
    options = parser.parse_args()
    if options.readme:
        text = README.read_text(encoding="utf-8")
        README.write_text(insert(text, MARKER, table(read(options.out))), encoding="utf-8")
        return
    if options.list:
        print(*files())
        return
    try:
        list(map(requirement, options.torch))
    except ValueError as error:
        parser.error(str(error))
    found = {asked: find_python(asked) for asked in options.python or PYTHONS}
    if missing := [asked for asked, python in found.items() if python is None]:
        words = f"no usable Python {', '.join(missing)} here: one with venv and its C headers is needed"
        parser.error(words) if options.python else print(words, flush=True)
    if options.folder and options.folder.resolve().is_relative_to(ROOT):
        parser.error(f"--folder: expected one outside of the sources, but got {options.folder}")
    # An exit, as Ctrl-C is: the step is ended with all that it started, and the temporary folder goes.
    # Of a program that a shell starts beside others SIGINT is ignored.
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    rows = []
    with TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        for torch in options.torch:
            for python in filter(None, found.values()):
                print(f"==> torch {torch}, Python {python.version}", flush=True)
                place = folder / f"torch-{torch}-python-{python.version}"
                new = attempt(torch, python, place, options.all, options.one_in, options.keep)
                write(options.out, merge(read(options.out), new))
                print(f"==> {new}", flush=True)
                rows.append(new)
    print(table(read(options.out)), flush=True)
    if any(row.error for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
