"""The examples in the public docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch

import pyvae

pytestmark = pytest.mark.torch_sensitive("how tensors are printed")

DISTRIBUTIONS = (
    "distributions._negative_binomial",
    "distributions._poisson",
    "distributions._of",
    "distributions._multinomial",
)


@pytest.mark.parametrize(
    "module", ["latent", "objective", "mixture", "modules", "_route", "_extension", *DISTRIBUTIONS]
)
def test_examples_run(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"pyvae.{module}"))
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("name", ["Mixture", "Gaussian", "Laplace", "Poisson", "NegativeBinomial", "Multinomial",
                                  "ZeroInflatedNegativeBinomial"])  # fmt: skip
def test_examples_of_objects_run(name: str) -> None:
    """Whose module is another than the one that they are found in."""
    torch.manual_seed(0)
    test = doctest.DocTestParser().get_doctest(getattr(pyvae, name).__doc__, {}, name, None, None)
    results = doctest.DocTestRunner().run(test)
    assert results.attempted > 0 and results.failed == 0
