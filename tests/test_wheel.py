"""What is said of wheels, each of which is for one torch. `make wheel` makes one, for people to try."""

from __future__ import annotations

from importlib import metadata
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
import torch

from pyvae import __version__, _extension


@pytest.mark.parametrize(
    ("version", "cuda", "expected"),
    [("2.13.0+cpu", None, "pt213cpu"), ("2.14.1+cu130", "13.0", "pt214cu130"), ("2.11.0", "12.8", "pt211cu128")],
)
def test_a_version_names_torch_and_cuda(
    monkeypatch: pytest.MonkeyPatch, version: str, cuda: str | None, expected: str
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert _extension.local_version() == expected


@pytest.mark.parametrize("installed", ["0.1.0+pt209cpu", "0.1.0"])
def test_a_wheel_for_another_torch_names_the_one_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch, installed: str
) -> None:
    """What was built here is built here again."""
    monkeypatch.setattr(metadata, "version", lambda name: installed)
    extension, why = _extension._load(cast(ModuleType, SimpleNamespace(TORCH="2.9.0+cpu", CUDA=None)))
    running = ".".join(torch.__version__.split(".")[:2])
    wanted = f"install the wheel pyvae-{__version__}+{_extension.local_version()}, or build with `pip install"
    assert extension is None
    assert (why or "").startswith(
        f"built for torch 2.9, running {running}: {wanted if '+' in installed else 'rebuild with `pip install'}"
    )
