"""What a type checker and an editor know of pyvae: names and reductions, the module's call, and no private names."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import pyvae
from pyvae import _arguments, _codes

ROOT = Path(pyvae.__file__).parent.parent

# Torch as far as the snippet goes, since reading all of it takes mypy a minute.
STUBS = {
    "torch/__init__.pyi": """
from typing import Any
from . import nn as nn
class Tensor:
    def __getattr__(self, name: str) -> Any: ...
    def __mul__(self, other: Any) -> Tensor: ...
    def __add__(self, other: Any) -> Tensor: ...
    def __truediv__(self, other: Any) -> Tensor: ...
def __getattr__(name: str) -> Any: ...
""",
    "torch/nn/__init__.pyi": """
from typing import Any, Callable
from .. import Tensor
class Module:
    def __init__(self) -> None: ...
    __call__: Callable[..., Any]
    def __getattr__(self, name: str) -> Any: ...
class Parameter(Tensor): ...
""",
    **{
        f"torch/{name}.pyi": "from typing import Any\ndef __getattr__(name: str) -> Any: ...\n"
        for name in ("nn/functional", "overrides", "utils/__init__", "utils/_pytree", "distributed/__init__")
    },
    "torch/distributed/tensor.pyi": "from typing import Any\ndef __getattr__(name: str) -> Any: ...\n",
}

RIGHT = """
import pyvae
from torch import Tensor
def right(x: Tensor) -> None:
    pyvae.elbo_loss(x, x, likelihood="gaussian", reduction="batchmean")
    pyvae.elbo_terms(x, x, likelihood=pyvae.NegativeBinomial(0.5, log_library=x), reduction="none")
    pyvae.reconstruction_loss(x, x, likelihood="bernoulli_logits", reduction="sum")
    pyvae.kl_divergence(x, x, reduction="elements")
    pyvae.reference.elbo_loss(x, x, likelihood=pyvae.Gaussian(x), reduction="sum")
    criterion = pyvae.ELBOLoss(likelihood="multinomial", reduction="batchmean")
    criterion.likelihood = pyvae.Poisson(3.0)
    loss: int = criterion(x, x, kl=x)  # wrong: that it is a Tensor
    criterion(x, x, mean=x)  # wrong
"""
WRONG = [
    *(
        f'pyvae.{function}(x, x, {keyword}="{name}")'
        for function in ("elbo_loss", "elbo_terms", "reconstruction_loss", "reference.elbo_loss")
        for keyword, name in (("likelihood", "gausian"), ("likelihood", "gaussian_logvar"), ("reduction", "mean"))
    ),
    'pyvae.elbo_loss(x, x, reduction="elements")',
    'pyvae.kl_divergence(x, x, reduction="mean")',
    "pyvae.elbo_loss(x, x, likelihood=pyvae.Gaussian)",
    'pyvae.ELBOLoss(likelihood="mse")',
    'pyvae.ELBOLoss(reduction="mean")',
    'pyvae.ELBOLoss()(x, x, likelihood="nll")',
    'pyvae.Gaussian("0")',
    "pyvae.Gaussian().logvar = x",
    'pyvae.backend("fast")',
    "pyvae.reference_gradient",
]


def test_mypy_sees_a_wrong_name(tmp_path: Path) -> None:
    """Every wrong line is an error, and no other."""
    for name, text in STUBS.items():
        (tmp_path / "stubs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stubs" / name).write_text(text)
    snippet = tmp_path / "snippet.py"
    snippet.write_text(RIGHT + "".join(f"    {line}  # wrong\n" for line in WRONG))
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nmypy_path = {tmp_path / 'stubs'}:{ROOT}\nfollow_imports = silent\n")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "snippet.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found = {int(line.split(":")[1]) for line in run.stdout.splitlines() if " error: " in line}
    want = {i for i, line in enumerate(snippet.read_text().splitlines(), 1) if "# wrong" in line}
    assert found == want, run.stdout + run.stderr
    assert 'expression has type "Tensor"' in run.stdout


def test_lists_and_types_name_the_same() -> None:
    assert get_args(_arguments.LikelihoodName) == _codes.NAMES
    assert get_args(_arguments.Reduction) == _codes.REDUCTIONS
    assert get_args(_arguments.ElementReduction) == (*_codes.REDUCTIONS, "elements") == _codes.KL_REDUCTIONS


@pytest.mark.parametrize("functions", [pyvae, pyvae.reference], ids=["pyvae", "reference"])
def test_every_signature_has_them(functions: object) -> None:
    """And its types can be asked for."""
    seen = 0
    for name in ("reconstruction_loss", "elbo_loss", "elbo_terms", "kl_divergence", "ELBOLoss"):
        public = getattr(functions, name, None)
        if public is None:
            continue
        hints = get_type_hints(public.__init__ if inspect.isclass(public) else public)
        elementwise = name in ("kl_divergence", "reconstruction_loss")
        reduction = _arguments.ElementReduction if elementwise else _arguments.Reduction
        assert hints["reduction"] == reduction
        if name != "kl_divergence":
            assert set(get_args(_arguments.LikelihoodName)) <= set(get_args(get_args(hints["likelihood"])[0]))
        seen += 1
    assert seen >= 4


def test_the_modules_call_is_nn_modules_own() -> None:
    """Typed, and nothing else: hooks run."""
    assert "__call__" not in vars(pyvae.ELBOLoss)


def test_pyvae_offers_what_is_public() -> None:
    names = dir(pyvae)
    assert {name for name in names if not (name.startswith("__") and name.endswith("__"))} == {
        name for name in pyvae.__all__ if name != "__version__"
    }
    assert {"__all__", "__doc__", "__file__", "__version__"} <= set(names)
    assert not hasattr(pyvae, "_C")
    assert not hasattr(pyvae, "reference_gradient")
