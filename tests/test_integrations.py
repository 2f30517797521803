"""pyvae.integrations: other libraries' functions replaced, with their values, and put back."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from cases import assert_whole, leaf
from torch import Tensor
from torch.autograd import grad

import pyvae
from pyvae.integrations import scvi

# What scvi-tools has, by its formulas, for machines without it.


def log_nb(x: Tensor, mu: Tensor, theta: Tensor, eps: float = 1e-8, log_fn: Any = torch.log,
           lgamma_fn: Any = torch.lgamma) -> Tensor:  # fmt: skip
    total = log_fn(theta + mu + eps)
    known = theta * (log_fn(theta + eps) - total) + x * (log_fn(mu + eps) - total)
    return known + lgamma_fn(x + theta) - lgamma_fn(theta) - lgamma_fn(x + 1)


def log_zinb(x: Tensor, mu: Tensor, theta: Tensor, pi: Tensor, eps: float = 1e-8, log_fn: Any = torch.log,
             lgamma_fn: Any = torch.lgamma) -> Tensor:  # fmt: skip
    softplus = torch.nn.functional.softplus
    n = log_nb(x, mu, theta, eps, log_fn, lgamma_fn)
    at_zero = softplus(-pi + theta * (log_fn(theta + eps) - log_fn(theta + mu + eps))) - softplus(-pi)
    is_zero = (x < eps).type(torch.float32)
    return is_zero * at_zero + (1 - is_zero) * (n - pi - softplus(-pi))


def log_mixture(x: Tensor, mu_1: Tensor, mu_2: Tensor, theta_1: Tensor, theta_2: Tensor | None, pi_logits: Tensor,
                eps: float = 1e-8, log_fn: Any = torch.log, lgamma_fn: Any = torch.lgamma) -> Tensor:  # fmt: skip
    first = log_nb(x, mu_1, theta_1, eps, log_fn, lgamma_fn)
    second = log_nb(x, mu_2, theta_1 if theta_2 is None else theta_2, eps, log_fn, lgamma_fn)
    return torch.logaddexp(first, second - pi_logits) - torch.nn.functional.softplus(-pi_logits)


INSTALLED = importlib.util.find_spec("scvi") is not None


@pytest.fixture(params=["stand-in", pytest.param("scvi-tools", marks=pytest.mark.skipif(
    not INSTALLED, reason="scvi-tools is not installed"))])  # fmt: skip
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module with the functions."""
    if request.param == "scvi-tools":
        yield importlib.import_module(scvi.MODULE)
        return
    names = ["scvi", "scvi.distributions", scvi.MODULE, "scvi.other"]
    made = {name: ModuleType(name) for name in names}
    for name, value in made.items():
        monkeypatch.setitem(sys.modules, name, value)
    found = made[scvi.MODULE]
    found.log_nb_positive, found.log_zinb_positive, found.log_mixture_nb = log_nb, log_zinb, log_mixture
    made["scvi.other"].log_nb_positive = log_nb  # who imported it from there
    yield found


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    yield
    if scvi._active is not None:
        scvi._active.undo()


def inputs(dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (9, 70)) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(3)
    x = torch.poisson(torch.rand(shape[-2:], generator=draw) ** 4 * 9, generator=draw).to(dtype)
    mu = torch.softmax(torch.randn(shape, generator=draw), -1) * 100
    theta, pi = torch.randn(shape[-1:], generator=draw).exp(), torch.randn(shape, generator=draw)
    return x, leaf(mu.to(dtype)), leaf(theta.to(dtype)), leaf(pi.to(dtype))


def calls(module: ModuleType, x: Tensor, mu: Tensor, theta: Tensor, pi: Tensor, **more: Any) -> list[Tensor]:
    wide = theta.expand(mu.shape)
    return [
        module.log_nb_positive(x, mu, theta, **more),
        module.log_nb_positive(x, mu=mu, theta=wide, eps=1e-8, **more),
        module.log_zinb_positive(x, mu, wide, pi, eps=1e-8, **more),
        module.log_mixture_nb(x, mu, 2 * mu, wide, None, pi, **more),
        module.log_mixture_nb(x, mu, 2 * mu, wide, wide + 1, pi, **more),
    ]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", [(9, 70), (3, 9, 70)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_and_gradients_are_theirs(module: ModuleType, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Of samples, too, against data without them; and the replaced functions are called."""
    results = []
    for patched in (False, True):
        given = inputs(dtype, shape)
        handle = scvi.patch() if patched else None
        values = calls(module, *given)
        if handle is not None:
            assert "Elements" in values[0].grad_fn.name()
            handle.undo()
        slopes = [grad(value.sum(-1).mean(), given[1:], allow_unused=True) for value in values]
        results.append((values, slopes))
    for theirs, ours in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for theirs, ours in zip(results[0][1], results[1][1], strict=True):
        for x, y in zip(ours, theirs, strict=True):
            assert (x is None) == (y is None)
            if x is not None:
                assert (x.shape, x.dtype) == (y.shape, y.dtype)
                assert_whole(x, y, 1e-4)


TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("data", [*TYPES, torch.int32], ids=str)
def test_types_are_theirs(module: ModuleType, data: torch.dtype) -> None:
    """Of every mixture; and values, of which theirs in 16 bits know few digits."""
    x, *parameters = (y.detach() for y in inputs(torch.float32, (4, 5)))
    for types in itertools.product(TYPES, repeat=3):
        mu, theta, pi = (y.to(dtype) for y, dtype in zip(parameters, types, strict=True))
        given = x.to(data), mu, theta.abs() + 0.5, pi
        wide = [y.double() for y in given]
        exact = calls(module, *wide)
        theirs = calls(module, *given)
        with scvi.patch():
            ours = calls(module, *given)
        for a, b, c in zip(ours[:4], theirs[:4], exact[:4], strict=True):
            assert a.dtype == b.dtype
            worst = (b.double() - c).abs().max().item()
            assert (a.double() - c).abs().max().item() <= 1.001 * worst + 1e-5


def test_what_was_expanded_is_found_again() -> None:
    """And nothing else is taken for it: other dimensions, parts, transposed or other memory."""
    row, square = torch.rand(5), torch.rand(5, 5)
    assert scvi._unexpanded(row.expand(3, 5)) is row
    assert scvi._unexpanded(square[:1].expand(5, 5)).shape == (5, 5)
    learned = row.clone().requires_grad_()
    assert scvi._unexpanded(learned.expand(3, 5)) is learned
    asked = learned.expand(3, 5)
    asked.retain_grad()
    hooked = learned.expand(3, 5)
    hooked.register_hook(lambda grad: None)
    for x in (asked, hooked, row.expand(3, 5).requires_grad_()):
        assert scvi._unexpanded(x) is x
    for x in (row[:, None].expand(5, 5), row[None, :3].expand(4, 3), row[1:].expand(2, 4), square.t(), square[0], row):
        assert scvi._unexpanded(x) is x


@pytest.mark.usefixtures("kernels")
def test_patches_are_one_and_come_off(module: ModuleType) -> None:
    before = [getattr(module, name) for name in scvi.NAMES]
    with scvi.patch() as handle:
        assert scvi.patch() is handle
        assert all(getattr(module, name) is not original for name, original in zip(scvi.NAMES, before, strict=True))
        assert "log_nb_positive" in repr(handle) and "undone" not in repr(handle)
        assert pyvae.build_info()["patched"] == [f"scvi-tools' {name}" for name in scvi.NAMES]
        other = sys.modules.get("scvi.other")
        assert other is None or other.log_nb_positive is not before[0]
    assert [getattr(module, name) for name in scvi.NAMES] == before
    assert pyvae.build_info()["patched"] == []
    handle.undo()
    assert [getattr(module, name) for name in scvi.NAMES] == before and "undone" in repr(handle)
    again = scvi.patch()
    assert again is not handle
    again.undo()


@pytest.mark.usefixtures("kernels")
def test_what_theirs_takes_goes_to_theirs(module: ModuleType) -> None:
    """Negative and fractional data, functions of the caller's own: no refusal that was not there."""
    x, mu, theta, _ = inputs()
    odd = x.clone()
    odd[0, 0], odd[1, 1] = -1.0, 0.5
    logs: list[int] = []

    def log(y: Tensor) -> Tensor:
        logs.append(1)
        return torch.log(y)

    large = module.log_nb_positive(x, mu, theta, eps=1e-3)
    want = [module.log_nb_positive(odd, mu, theta), module.log_nb_positive(x, mu, theta, log_fn=log)]
    with scvi.patch():
        got = [module.log_nb_positive(odd, mu, theta)]
        assert torch.equal(module.log_nb_positive(x, mu, theta, eps=1e-3), large)  # which theirs adds to theta, too
        counted = len(logs)
        got.append(module.log_nb_positive(x, mu, theta, log_fn=log))
        assert len(logs) == 2 * counted > 0
        scalar = module.log_nb_positive(torch.tensor(3.0), torch.tensor(2.0), torch.tensor(1.5))
        integers = module.log_nb_positive(x.int(), mu, theta)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)
    torch.testing.assert_close(scalar, module.log_nb_positive(*map(torch.tensor, (3.0, 2.0, 1.5))))
    torch.testing.assert_close(integers, module.log_nb_positive(x, mu, theta), rtol=1e-4, atol=1e-5)


def test_without_scvi_tools_or_with_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scvi", "scvi.distributions", scvi.MODULE):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"integrations.scvi.patch: scvi.distributions._negative_binomial cannot be"):
        scvi.patch()
    for name in ("scvi", "scvi.distributions", scvi.MODULE):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    with pytest.raises(ImportError, match="has no log_nb_positive, log_zinb_positive, log_mixture_nb"):
        scvi.patch()
