"""16-bit gradients under a loss scale keep what float32 would have kept, on every way that a backward pass can take."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from calls import call
from cases import ulp
from families import LIKELIHOODS, OTHERS
from torch import Tensor
from torch.autograd import grad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import pyvae

pytestmark = pytest.mark.torch_sensitive("modes and compilers around a backward pass")

SCALE = 65536.0
REDUCTIONS = ("none", "batchmean", "sum")


class Watching(TorchDispatchMode):
    """Lets every operator pass."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


def step(function: Callable[..., Tensor], inputs: list[Tensor], mode: AbstractContextManager) -> tuple[Tensor, ...]:
    loss = function(*inputs)
    scaled = (loss * SCALE).sum()
    with mode:
        return grad(scaled, inputs)


def batched(function: Callable[..., Tensor], inputs: list[Tensor], _: AbstractContextManager) -> tuple[Tensor, ...]:
    loss = function(*inputs)
    upstream = torch.full((2, *loss.shape), SCALE)
    gradients = grad(loss, inputs, upstream, is_grads_batched=True)
    assert all(torch.equal(g[0], g[1]) for g in gradients)
    return tuple(g[0] for g in gradients)


def compiled(backend: str) -> Callable[..., tuple[Tensor, ...]]:
    def way(function: Callable[..., Tensor], inputs: list[Tensor], mode: AbstractContextManager) -> tuple[Tensor, ...]:
        torch.compiler.reset()
        return step(torch.compile(function, backend=backend, fullgraph=True), inputs, mode)

    return way


WAYS: dict[str, tuple[Callable[..., tuple[Tensor, ...]], Callable[[], AbstractContextManager]]] = {
    "eager": (step, nullcontext),
    "flop counter": (step, lambda: FlopCounterMode(display=False)),
    "dispatch mode": (step, Watching),
    "batched": (batched, nullcontext),
    "aot_eager": (compiled("aot_eager"), nullcontext),
}


HALVES = (torch.float16, torch.bfloat16)
CASES = [
    *((name, dtype, way, REDUCTIONS) for name in LIKELIHOODS for dtype in HALVES for way in WAYS if way != "aot_eager"),
    # Compiling takes seconds: in each type half of them, by one reduction each.
    *((name, HALVES[i % 2], "aot_eager", REDUCTIONS[i % 3 :][:1]) for i, name in enumerate(LIKELIHOODS)),
]


@pytest.mark.parametrize(("name", "dtype", "way", "reductions"), CASES, ids=str)
def test_small_gradients_survive(name: str, dtype: torch.dtype, way: str, reductions: tuple[str, ...]) -> None:
    """Derivatives down to where 16 bits know no number: each times the scale is as of float32, rounded once."""
    given = call(name, (3, 40))
    recon = given.recon if name in OTHERS or name == "bernoulli" else 4 * given.recon
    given = given.with_differentiable([x.to(dtype) for x in (recon, *given.differentiable[1:])]).leaves()
    weight = torch.logspace(-9, -5, 40)  # of the order of a mean over many elements
    run, mode = WAYS[way]
    for reduction in reductions:

        def loss(*tensors: Tensor, call: Any = given, reduction: str = reduction) -> Tensor:
            case = call.with_differentiable([*tensors])
            return pyvae.elbo_loss(
                case.recon, case.target, likelihood=case.likelihood, weight=weight, reduction=reduction
            )

        got = run(loss, given.differentiable, mode())
        wide = given.with_differentiable([x.float() for x in given.differentiable]).leaves()
        want = grad((loss(*wide.differentiable, call=wide) * SCALE).sum(), wide.differentiable)
        assert (got[0] != 0).any()
        assert got[0].dtype == dtype
        for half, full in zip(got, want, strict=True):
            full = full.double().clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max)
            assert ((half.double() - full).abs() <= 0.51 * ulp(full, dtype) + 2e-5 * full.abs()).all()


def test_the_derivative_that_float16_would_lose() -> None:
    """A confident and right logit: 65536 times a derivative that float16 rounds to 0."""
    for way, (run, mode) in WAYS.items():
        recon = torch.full((1, 1), 20.0, dtype=torch.float16, requires_grad=True)
        (got,) = run(lambda r: pyvae.elbo_loss(r, torch.ones(1, 1), likelihood="bernoulli_logits"), [recon], mode())
        assert got.item() == torch.tensor(-1.3508e-4, dtype=torch.float16).item(), way


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_inductor(reduction: str) -> None:
    given = call("bernoulli_logits", (3, 40))
    recon = (6 * given.recon).half().requires_grad_()

    def loss(r: Tensor) -> Tensor:
        return pyvae.elbo_loss(r, given.target, likelihood="bernoulli_logits", reduction=reduction)

    eager, *others = (way(loss, [recon], nullcontext()) for way in (step, compiled("inductor")))
    assert all(torch.equal(eager[0], other[0]) for other in others)


def test_a_mode_over_the_forward_pass_too() -> None:
    recon = torch.full((1, 1), 20.0, dtype=torch.float16, requires_grad=True)
    with Watching():
        loss = pyvae.elbo_loss(recon, torch.ones(1, 1), likelihood="bernoulli_logits")
        (got,) = grad(loss * SCALE, recon)
    assert got.item() == torch.tensor(-1.3508e-4, dtype=torch.float16).item()


def test_with_a_posterior_and_terms() -> None:
    """Upstream gradients of the loss and of its terms, compiled: those of the eager call, to the bit."""
    recon = (6 * torch.randn(4, 9)).half().requires_grad_()
    mu, logvar = (torch.randn(4, 3).half().requires_grad_() for _ in range(2))
    x = (torch.rand(4, 9) < 0.5).float()

    def value(r: Tensor, m: Tensor, s: Tensor) -> Tensor:
        terms = pyvae.elbo_terms(r, x, m, s, likelihood="bernoulli_logits", beta=0.5, reduction="batchmean")
        return 3 * terms.loss + SCALE * terms.recon + 0.25 * terms.kl

    torch.compiler.reset()
    inputs = [recon, mu, logvar]
    eager, traced = (grad(f(*inputs), inputs) for f in (value, torch.compile(value, backend="aot_eager")))
    assert all(torch.equal(a, b) for a, b in zip(eager, traced, strict=True))
