"""The operators with whatever one may hand to them, and autograd with whatever hooks unpack: results, or errors in
words, and never the end of the process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import LIBRARY_BIT, Call, call, data_term, full_mask, operands
from cases import data, leaf
from families import LIKELIHOODS, OTHERS, WITH_LIBRARY
from fuzz_operators import OPERATORS
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import pyvae

pytestmark = pytest.mark.usefixtures("kernels")
HERE = Path(__file__).parent
CALLS = 4500


def test_wrong_arguments_end_in_results_or_errors() -> None:
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", str(HERE / "fuzz_operators.py"), str(CALLS)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-3000:]}"
    ends = json.loads(done.stdout)
    assert set(ends) == set(OPERATORS)
    for ended in ends.values():  # it is no test of an operator that refuses everything, or nothing
        assert ended["result"] > CALLS / len(OPERATORS) / 10
        assert ended["ValueError"] > CALLS / len(OPERATORS) / 10


def backward_in_place(**changed: Any) -> tuple[Tensor, ...]:
    given: dict[str, Any] = {
        argument.name: None for argument in torch.ops.pyvae.elbo_backward_.default._schema.arguments
    }
    like = torch.full((3, 4), 0.5)
    given |= {"recon": like, "target": like, "gradient": torch.ones(3, 4), "grad_loss": torch.tensor(2.0)}
    given |= {"likelihood": 0, "scale_kind": 0, "beta": 1.0, "reduction": 1, "to_kl": False}
    given |= {"parameters": (), "parameter_gradients": ()} | changed
    return torch.ops.pyvae.elbo_backward_(*given.values())


@pytest.mark.parametrize("code", (-1, 99, 2**62, -(2**63)))
@pytest.mark.parametrize("name", ("likelihood", "scale_kind", "reduction"))
def test_unknown_codes_do_not_reach_what_works_in_place(name: str, code: int) -> None:
    gradient = torch.ones(3, 4)
    word = {"scale_kind": "scale"}.get(name, name)
    with pytest.raises(ValueError, match=rf"^pyvae::elbo_backward_: unknown {word}$"):
        backward_in_place(gradient=gradient, **{name: code})
    assert torch.equal(gradient, torch.ones(3, 4))


def test_a_gradient_without_memory_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^pyvae::elbo_backward_: gradient is written in place"):
        backward_in_place(gradient=torch.ones(1, 4).expand(3, 4))
    with pytest.raises(ValueError, match=r"^pyvae::elbo_backward_: parameter_gradients are written in place"):
        backward_in_place(parameter_gradients=[torch.ones(1).expand(4)])
    strided, other = torch.ones(4, 3).t(), torch.ones(4)
    backward_in_place(gradient=strided, parameter_gradients=[other])
    assert torch.equal(strided, torch.full((3, 4), 2.0))
    assert torch.equal(other, torch.full((4,), 2.0))


@pytest.mark.parametrize(
    ("other", "changed", "words"),
    (
        (torch.ones(4).half(), {}, "must be float32 or float64"),
        (torch.ones(4, device="meta"), {}, "must be on recon's device"),
        (torch.ones(4), {"reduction": 0, "grad_loss": torch.ones(3)}, "must come with a reduction"),
        (torch.ones(4), {"gradient": None, "grad_loss": None}, "grad_loss or grad_recon must be given"),
    ),
)
def test_gradients_of_parameters_that_cannot_be_scaled(other: Tensor, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        backward_in_place(parameter_gradients=[other], **changed)
    assert other.is_meta or torch.equal(other, torch.ones_like(other))


def test_upstream_gradients_of_another_device_are_refused() -> None:
    like = torch.full((3, 4), 0.5)
    with pytest.raises(ValueError, match=r"^pyvae::elbo_gradient: upstream must have shape \(B,\), on recon's device$"):
        torch.ops.pyvae.elbo_gradient(*data_term(Call("bernoulli", like, like)), torch.ones(3, device="meta"), 1)


@pytest.mark.parametrize(
    ("bounds", "kind", "words"),
    (
        ((torch.zeros(1), None), 0, "low and high must be scalars"),
        ((None, torch.tensor(1)), 0, "low and high must be scalars"),
        ((torch.tensor(0.5), torch.tensor(-0.5)), 0, r"\(low, high\) with low <= high, but is \(0\.5, -0\.5\)"),
        ((torch.tensor(math.nan), None), 0, r"\(low, high\) with low <= high, but is \(nan, inf\)"),
        ((torch.tensor(0.5), None), 1, "only a logvar is clamped"),
    ),
)
def test_what_is_no_range_is_refused(bounds: tuple[Tensor | None, ...], kind: int, words: str) -> None:
    zeros = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=words):
        torch.ops.pyvae.kl_divergence(zeros, zeros, kind, *bounds, None, None, 0, None, None, 0, 0)


# ---- hooks on saved tensors -----------------------------------------------------------------------------------------


def sample(first: Tensor, second: Tensor) -> Tensor:
    z, kl = pyvae.reparameterize_kl(first, second)
    return z.sum() + kl.sum()


STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "elbo": lambda first, second: pyvae.elbo_loss(first, second.detach(), likelihood="gaussian"),
    "reparameterize": sample,
}
UNPACKED: dict[str, Callable[[Tensor], Any]] = {
    "shape": lambda x: x.new_ones(*x.shape, 2),
    "rows": lambda x: torch.cat([x, x]),
    "dtype": lambda x: x.to(torch.complex64),
    "meta": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "None": lambda x: None,
    "number": lambda x: 3,
}


@pytest.mark.parametrize("broken", list(UNPACKED))
@pytest.mark.parametrize("name", list(STEPS))
def test_what_hooks_unpack_wrongly_is_an_error_in_words(name: str, broken: str) -> None:
    """Of the first tensor alone and of all of them: the rest no longer goes with it."""
    for every in (False, True):
        first, second = (leaf(x) for x in data("gaussian", (3, 4), (torch.float32,) * 2))
        unpacked: list[Any] = []

        def unpack(kept: Tensor, every: bool = every, unpacked: list[Any] = unpacked) -> Any:
            unpacked.append(kept)
            return UNPACKED[broken](kept) if every or len(unpacked) == 1 else kept

        with saved_tensors_hooks(lambda x: x.detach(), unpack):
            loss = STEPS[name](first, second)
        # What is legal by itself meets the upstream gradient, or torch's own check of a gradient's shape.
        # Of the elbo twice the rows are legal: recon may hold samples.
        by_pyvae = broken in ("shape", "rows", "dtype", "meta") and not (name == "elbo" and (every or broken == "rows"))
        match = r"^pyvae::" if by_pyvae else r"\w+ \w+ \w+"
        with pytest.raises((RuntimeError, ValueError, TypeError), match=match):
            loss.backward()
        assert unpacked


# ---- a likelihood's own ----------------------------------------------------------------------------------------------


def elbo(given: Call, **changed: Any) -> Any:
    return torch.ops.pyvae.elbo(*operands(replace(given, **changed)))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_another_number_of_parameters_is_refused(name: str) -> None:
    """Fewer and more than the likelihood has, and one that is none."""
    given = call(name, (4, 6), library=True)
    one, own = torch.zeros(6), given.parameters
    wrong = [(one,) * n for n in (0, 1, 2, 3, 9) if n != len(own)]
    wrong += [(*own, None), *((*own[:k], None, *own[k + 1 :]) for k in range(len(own)))]  # type: ignore[list-item]
    for parameters in wrong:
        with pytest.raises(ValueError, match="the likelihood has another number of parameters"):
            elbo(given, parameters=parameters)


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name not in WITH_LIBRARY])
def test_a_log_library_without_its_softmax_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="takes no log_library"):
        elbo(call(name, (4, 6)), log_library=torch.zeros(4))


@pytest.mark.parametrize("name", OTHERS)
def test_gradients_that_are_not_there_are_refused(name: str) -> None:
    given = call(name, (4, 6))  # without a log_library
    there = full_mask(given)
    for mask in (*(1 << k for k in range(6) if not there >> k & 1), there | LIBRARY_BIT, -1):
        with pytest.raises(ValueError, match="output_mask has"):
            torch.ops.pyvae.elbo_forward(*operands(given), mask)
        with pytest.raises(ValueError, match="output_mask has"):
            torch.ops.pyvae.elbo_gradient(*data_term(given), torch.ones(4), mask)
