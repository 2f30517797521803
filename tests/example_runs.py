"""Runs the examples in this process, and reads what they leave."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def printed_by(main: Callable[..., object], *arguments: Any) -> str:
    """Calls an example's `main`; what it printed. If that sets the number of threads, nobody notices afterwards."""
    printed = io.StringIO()
    threads = torch.get_num_threads()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            main(*arguments)
    finally:
        torch.set_num_threads(threads)
    return printed.getvalue()


def refusal_of(main: Callable[[list[str]], object], arguments: list[str]) -> str:
    """What `main` says of arguments that it does not take, before it ends."""
    said = io.StringIO()
    with pytest.raises(SystemExit), contextlib.redirect_stderr(said):
        main(arguments)
    return said.getvalue()


def history(out: Path, loss: str = "fused") -> list[dict[str, Any]]:
    """What the run in this folder wrote about each epoch of training with this loss."""
    return json.loads((out / f"history-{loss}.json").read_text(encoding="utf-8"))


def check_picture(path: Path) -> None:
    """It is there, of a size to look at, and not blank."""
    from matplotlib.image import imread

    picture = imread(path)
    assert min(picture.shape[:2]) > 300 and picture[..., :3].std() > 0.1, path.name
