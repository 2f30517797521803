"""Numbers where a tensor may stand, Python's and numpy's: the same results, whichever way a call goes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import LAYOUTS, assert_whole, data, leaf, posterior, step_inputs
from families import cycled
from tolerances import FLOAT32_ROUNDING
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pyvae
from pyvae import _checks
from pyvae._objects import held

FRACTIONS = (np.float16, np.float32, np.float64)
WHOLES = (np.int8, np.uint8, np.int32, np.int64)  # torch.compile itself takes no uint64


WAYS = ("kernels", "operators", "reference", "compiled")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """How a function of tensors and numbers is run."""
    if request.param != "reference":
        request.getfixturevalue("kernels")
    if request.param == "compiled":
        torch._dynamo.reset()
        return torch.compile(fullgraph=True, backend="aot_eager")

    if request.param == "reference":
        return within(lambda: pyvae.backend("reference"))
    return within(Listening) if request.param == "operators" else lambda function: function


def within(context: Callable[[], AbstractContextManager[Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with context():
                return function(*arguments)

        return call

    return wrap


def settings(*each: Sequence[Any]) -> list[tuple[Any, ...]]:
    """All of `each` by every way; compiled, which takes seconds, a few: each member of each once, and of numpy's types
    one of each kind, since they are told from each other by their kinds alone."""
    eager = [(*values, way) for *values, way in itertools.product(*each, WAYS[:-1])]
    few = [tuple(x for x in values if x not in (np.float16, np.float64, np.int8, np.int32)) for values in each]
    return [*eager, *((*values, "compiled") for values in cycled(*few))]


def of_numbers(names: str, *each: Sequence[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize((*names.split(), "way"), settings(*each), indirect=["way"], ids=str)


class Listening(TorchDispatchMode):
    """Nothing goes around the dispatcher."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


def with_gradients(function: Callable[..., Tensor], inputs: list[Tensor], *numbers: Any) -> list[Tensor]:
    leaves = [leaf(x) if x.requires_grad else x for x in inputs]
    out = function(*leaves, *numbers)
    return [out.detach(), *torch.autograd.grad(out.sum(), [x for x in leaves if x.requires_grad])]


def assert_equal(got: list[Tensor], want: list[Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert_whole(a, b)


@of_numbers("weight dtype", [2, 0.25, 0, -1.5], [torch.float32, torch.float64, torch.bfloat16])
def test_a_weight_may_be_a_number(way: Any, weight: float, dtype: torch.dtype, device: str) -> None:
    """What a tensor of that number gives; float64 numbers do not widen the loss."""

    def loss(recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor, weight: Any) -> Tensor:
        return pyvae.elbo_loss(
            recon, target, mu, logvar, likelihood="bernoulli_logits", beta=0.5, weight=weight, reduction="none"
        )

    given = step_inputs("bernoulli_logits", (5, 70), (5, 9), (dtype, torch.float32), device=device)
    want = with_gradients(loss, given, torch.full((5, 70), weight, dtype=torch.float32, device=device))
    got = with_gradients(way(loss), given, weight)
    assert got[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_equal(got, want)


def test_weight_makes_a_mean_of_squared_errors(way: Any, device: str) -> None:
    recon, target = data("gaussian", (5, 70), device=device)

    def loss(recon: Tensor, weight: float) -> Tensor:
        return pyvae.reconstruction_loss(recon, target, likelihood="gaussian", weight=weight, reduction="batchmean")

    want = with_gradients(lambda x: F.mse_loss(x, target), [leaf(recon)])
    for got, wanted in zip(with_gradients(way(loss), [leaf(recon)], 2 / 70), want, strict=True):
        torch.testing.assert_close(got, wanted, rtol=4 * FLOAT32_ROUNDING, atol=1e-9)


@pytest.mark.parametrize("layout", ["channels_last", "strided", "flattened"])
def test_a_number_weighs_every_layout(functions: Any, layout: str, device: str) -> None:
    recon, target = data("laplace", (2, 3, 4, 5), device=device)
    loss = functions.elbo_loss(LAYOUTS[layout](recon), target, likelihood="laplace", weight=0.5)
    whole = functions.elbo_loss(LAYOUTS[layout](recon), target, likelihood="laplace")
    torch.testing.assert_close(loss, whole / 2, rtol=FLOAT32_ROUNDING, atol=0)


def test_second_derivatives_by_a_number(functions: Any, device: str) -> None:
    recon, target = data("gaussian", (3, 4), device=device)
    recon = leaf(recon)
    (first,) = torch.autograd.grad(
        functions.elbo_loss(recon, target, likelihood="gaussian", weight=3), recon, create_graph=True
    )
    assert torch.equal(torch.autograd.grad(first.sum(), recon)[0], torch.full_like(recon, 3))


@of_numbers("kind", [*FRACTIONS, *WHOLES])
def test_numbers_of_numpy_in_the_objective(way: Any, kind: Any, device: str) -> None:
    value = 2 if kind in WHOLES else 0.75

    def loss(
        recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor, beta: Any, weight: Any, positive: Any
    ) -> Tensor:
        return pyvae.elbo_loss(
            recon, target, mu, logvar, likelihood="bernoulli_logits", beta=beta, weight=weight, pos_weight=positive
        )

    given = step_inputs("bernoulli_logits", (5, 70), (5, 9), device=device)
    want = with_gradients(loss, given, value, value, value)
    assert_equal(with_gradients(way(loss), given, kind(value), kind(value), kind(value)), want)


@of_numbers("kind", [*FRACTIONS, *WHOLES])
def test_numbers_of_numpy_in_a_prior(way: Any, kind: Any, device: str) -> None:
    value = 2 if kind in WHOLES else 0.75

    def kl(mu: Tensor, logvar: Tensor, mean: Any, scale: Any) -> Tensor:
        return pyvae.kl_divergence(mu, logvar, prior=(mean, scale))

    given = [leaf(x) for x in posterior("logvar", (5, 9), device=device)]
    assert_equal(with_gradients(way(kl), given, kind(value), kind(value)), with_gradients(kl, given, value, value))


OF_NUMBERS: dict[str, Callable[..., Any]] = {  # with numbers for all that they hold
    "Gaussian": pyvae.Gaussian,
    "Laplace": pyvae.Laplace,
    "Poisson": pyvae.Poisson,
    "NegativeBinomial": lambda x: pyvae.NegativeBinomial(x),
    "NegativeBinomial, softmax": lambda x: pyvae.NegativeBinomial(x, x),
    "ZeroInflatedNegativeBinomial": lambda x: pyvae.ZeroInflatedNegativeBinomial(x, x),
    "ZeroInflatedNegativeBinomial, softmax": lambda x: pyvae.ZeroInflatedNegativeBinomial(x, x, x),
}


def counted(recon: Tensor, target: Tensor, x: Any, make: Callable[..., Any]) -> Tensor:
    return pyvae.elbo_loss(recon, target, likelihood=make(x), reduction="none")


def of_tensors(make: Callable[..., Any], x: float, rows: int, device: str) -> Any:
    """The object with tensors in the place of the numbers."""
    given = make(x)
    tensors = {name: torch.tensor(float(x), device=device) for name in held(given)}
    if "log_library" in tensors:
        tensors["log_library"] = tensors["log_library"].expand(rows)
    return replace(given, **tensors)


@of_numbers("name x dtype", list(OF_NUMBERS), [-1.5, 0, 2], [torch.float32, torch.float64, torch.bfloat16])
def test_a_likelihood_may_hold_numbers(way: Any, name: str, x: float, dtype: torch.dtype, device: str) -> None:
    """What tensors of that number give; float64 numbers do not widen the loss."""
    recon, target = leaf(torch.randn(4, 60, device=device).to(dtype)), torch.arange(240.0, device=device).reshape(4, 60)
    make = OF_NUMBERS[name]
    tensors = of_tensors(make, x, 4, device)
    want = with_gradients(lambda a, b: pyvae.elbo_loss(a, b, likelihood=tensors, reduction="none"), [recon, target])
    got = with_gradients(way(counted), [recon, target], x, make)
    assert got[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_equal(got, want)


@of_numbers("name kind", ["Gaussian", "ZeroInflatedNegativeBinomial, softmax"], [*FRACTIONS, *WHOLES])
def test_numbers_of_numpy_in_a_likelihood(way: Any, name: str, kind: Any, device: str) -> None:
    x, make = 2 if kind in WHOLES else 0.75, OF_NUMBERS[name]
    given = [leaf(torch.randn(4, 60, device=device)), torch.arange(240.0, device=device).reshape(4, 60)]
    assert_equal(with_gradients(way(counted), given, kind(x), make), with_gradients(counted, given, x, make))


def test_the_kernels_take_a_likelihoods_numbers_at_once(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks in words, which only others come to."""

    def never(*_: Any) -> None:
        raise AssertionError("not through the kernels' own entry")

    monkeypatch.setattr(_checks, "objective", never)
    recon, target = torch.randn(4, 6), torch.ones(4, 6)
    for make in OF_NUMBERS.values():
        for x in (0.5, 1, np.float32(0.5), np.int64(1)):
            assert pyvae.elbo_loss(recon, target, likelihood=make(x)).isfinite()


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_second_derivatives_beside_a_likelihoods_numbers(functions: Any, name: str, device: str) -> None:
    recon, target = leaf(torch.randn(3, 4, device=device).double()), torch.arange(12, device=device).reshape(3, 4)
    found = []
    for likelihood in (OF_NUMBERS[name](0.5), of_tensors(OF_NUMBERS[name], 0.5, 3, device)):
        loss = functions.elbo_loss(recon, target, likelihood=likelihood)
        (first,) = torch.autograd.grad(loss, recon, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), recon))
    assert_equal(*map(list, found))


@pytest.mark.parametrize("kind", WHOLES, ids=lambda kind: kind.__name__)
def test_integers_of_numpy(functions: Any, kind: Any, device: str) -> None:
    mu, logvar = posterior("logvar", (5, 9), device=device)
    options = {"logvar_range": (kind(0), np.float32(0.5)), "seed": kind(3), "row_offset": kind(4)}
    got = functions.reparameterize(mu, logvar, **options)
    assert torch.equal(got, functions.reparameterize(mu, logvar, logvar_range=(0, 0.5), seed=3, row_offset=4))


def test_seeds_of_numpy_have_all_64_bits(functions: Any, device: str) -> None:
    mu, logvar = posterior("logvar", (5, 9), device=device)
    for seed in (np.uint64(2**64 - 1), np.int64(-(2**63)), np.uint64(2**63 + 5)):
        got = functions.reparameterize(mu, logvar, seed=seed)
        assert torch.equal(got, functions.reparameterize(mu, logvar, seed=int(seed)))


def test_a_module_takes_them(device: str) -> None:
    recon, target = data("bernoulli_logits", (5, 70), device=device)
    kl = torch.ones(5, device=device)
    criterion = pyvae.ELBOLoss(likelihood="bernoulli_logits", beta=np.float32(0.5), weight=0.25, pos_weight=np.int64(2))
    want = pyvae.elbo_loss(recon, target, kl=kl, likelihood="bernoulli_logits", beta=0.5, weight=0.25, pos_weight=2.0)
    assert torch.equal(criterion(recon, target, kl=kl), want)
