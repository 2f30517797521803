"""The examples in the public docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["latent", "objective", "modules", "_route", "_extension"])
def test_examples_run(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"pyvae.{module}"))
    assert results.attempted > 0
    assert results.failed == 0
