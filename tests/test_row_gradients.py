"""`reduction="none"`: equal upstream gradients multiply what the forward pass made, and nothing is evaluated again;
where they differ, sums over rows are. On the CPU the host compares them, on CUDA the kernels do."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from calls import Call, assert_gradients, call
from cases import all_equal, generator, leaf, posterior
from families import WITH_PARAMETERS, cycled
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = pytest.mark.usefixtures("kernels")
EACH = pytest.mark.parametrize("name", WITH_PARAMETERS)
# Rows that fill less than a warp, a block's comparison, several of these; one row; whole vectors; slices.
SHAPES = ((6, 70), (300, 5), (9000, 3), (1, 260), (40, 260), (33, 1030))
NUMBERS = (1.0, 0.0, -0.0, -0.7, 65536.0, math.inf, math.nan)


def forms(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Of parameters: a number, one for each feature, row and element."""
    ones = (1,) * (len(shape) - 1)
    return (), shape[1:], (1, *shape[1:]), (shape[0], *ones), shape, (1,), (1, *ones)


def spoil(given: Call) -> None:
    """What is evaluated from now on is NaN; autograd does not see it."""
    for x in (*given.differentiable, given.target):
        x.data.fill_(math.nan)


def step(given: Call, upstream: Tensor, spoiled: bool = False, passes: int = 1) -> list[Tensor]:
    given = replace(given.with_differentiable([x.clone() for x in given.differentiable]), target=given.target.clone())
    given = given.leaves()
    loss = given.elbo_loss(reduction="none")
    factors = upstream if upstream.dtype == loss.dtype else upstream.to(loss)
    if spoiled:
        spoil(given)
    return [x for _ in range(passes) for x in grad(loss, given.differentiable, factors, retain_graph=True)]


def same(got: list[Tensor], want: list[Tensor]) -> bool:
    """To the bit, but for those of a NaN."""
    return all(torch.equal(x.isnan(), y.isnan()) for x, y in zip(got, want, strict=True)) and all_equal(
        [x.nan_to_num(7.0, math.inf, -math.inf) for x in got], [x.nan_to_num(7.0, math.inf, -math.inf) for x in want]
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@EACH
def test_nothing_is_evaluated_again_for_equal_upstreams(name: str, shape: tuple[int, int], device: str) -> None:
    for form, number, library in cycled(forms(shape), NUMBERS, (True, False)):
        given = call(name, shape, form, library=library, device=device)
        upstream = torch.full((shape[0],), number, device=device)
        got, want = step(given, upstream, spoiled=True), step(given, upstream, passes=3)
        n = len(got)
        assert same(got, want[:n]) and same(got, want[n : 2 * n]) and same(got, want[2 * n :]), (form, number)
        if math.isfinite(number):
            assert_gradients(got, given, number, slack=1e-5 * shape[0] * abs(number), form=form)


@EACH
def test_the_mean_and_the_sum_of_rows(name: str, device: str) -> None:
    """mean() hands down equal numbers, sum() one of stride 0."""
    for shape, form in itertools.product(((6, 70), (6, 3, 70), (5000, 4)), (0, 1, 3, 4)):
        given = call(name, shape, forms(shape)[form], library=True, device=device).leaves()
        for reduced, factor in ((Tensor.mean, 1 / shape[0]), (Tensor.sum, 1.0), (lambda x: 3 * x.sum(), 3.0)):
            got = grad(reduced(given.elbo_loss(reduction="none")), given.differentiable)
            assert_gradients(got, given, torch.tensor(factor).item(), slack=1e-5 * shape[0])


def different(rows: int, device: str) -> list[Tensor]:
    """Upstream gradients that are not all equal, in one row alone, of the first, the last and others."""
    one_off = [torch.full((rows,), 0.5) for _ in range(4)]
    for x, row in zip(one_off, (0, 1, rows // 2, rows - 1), strict=True):
        x[row] = -2.0
    strided = torch.full((rows, 2), 3.0)
    strided[rows - 1, 0] = 1.0
    every = torch.linspace(0.5, 2, rows)
    return [x.to(device) for x in (*one_off, every, strided)] + [strided.to(device)[:, 0]]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] > 1], ids=str)
@EACH
def test_different_upstreams(name: str, shape: tuple[int, int], device: str) -> None:
    ways = [x for x in different(shape[0], device) if x.dim() == 1]
    for form, upstream, library in cycled(forms(shape), tuple(range(len(ways))), (True, False)):
        given = call(name, shape, form, library=library, device=device)
        factors = ways[upstream]
        got = step(given, factors, passes=2)
        n = len(got) // 2
        assert all_equal(got[:n], got[n:]), form
        assert_gradients(got[:n], given, factors, slack=2e-5 * shape[0], form=form)


@EACH
def test_zeros_of_both_signs_and_one_nan(name: str, device: str) -> None:
    """Rows of a NaN upstream gradient alone are NaN, and every sum over rows is."""
    given = call(name, (300, 5), (5,), library=True, device=device)
    zeros = torch.zeros(300, device=device)
    zeros[200] = -0.0
    assert not any(x.any() for x in step(given, zeros))
    by_feature = [i for i, x in enumerate(given.differentiable) if x.shape == (5,)]
    nan = torch.ones(300, device=device)
    nan[123] = math.nan
    for i, x in enumerate(step(given, nan)):
        bad = x.isnan() if i in by_feature else x.isnan().flatten(1).all(1) if x.dim() > 1 else x.isnan()
        assert bad.all() if i in by_feature else bad.nonzero().flatten().tolist() == [123]


@EACH
def test_gradients_of_16_bits_and_of_doubles(name: str, device: str) -> None:
    for dtype, own in itertools.product((torch.float16, torch.bfloat16, torch.float64), (torch.float32, None)):
        for form, factors in cycled(forms((9, 70)), (torch.full((9,), 8.0), torch.linspace(0.5, 2, 9))):
            given = call(name, (9, 70), form, (dtype, torch.float32, own or dtype), library=True, device=device)
            got = step(given, factors.to(device))
            assert_gradients(got, given, factors.to(device), slack=1e-4 * float(factors.max()))


@EACH
def test_parameters_of_some_dimensions_and_other_layouts(name: str, device: str) -> None:
    """Sums that no kernel finishes, and gradients that are not plain memory."""
    shape = (6, 3, 70)
    for form, factors in itertools.product(
        ((70,), (3, 1), (3, 70), (1, 1, 70), (6, 1, 70), (6, 3, 1)), (torch.full((6,), 0.3), torch.linspace(0.5, 2, 6))
    ):
        given = call(name, shape, form, library=True, device=device)
        recon = given.recon.transpose(1, 2).contiguous().transpose(1, 2)
        for x in (given.recon, recon):
            one = replace(given, recon=x)
            got = step(one, factors.to(device))
            assert_gradients(got, one, factors.to(device), slack=1e-4, form=form)


@EACH
def test_some_of_the_gradients_and_the_others_later(name: str, device: str) -> None:
    """Each alone, in both orders, with upstream gradients of the loss, of its term and of both, and a posterior."""
    given = call(name, (40, 70), (70,), library=True, device=device).leaves()
    mu, logvar = (leaf(x) for x in posterior("logvar", (40, 9), device=device))
    sources = [*given.differentiable, mu, logvar]
    draw = torch.rand(40, generator=generator(5)).to(device)
    for factors, order in itertools.product((torch.full_like(draw, 0.3), draw), (1, -1)):
        for used in ((0,), (1,), (0, 1)):
            outputs = pyvae.elbo_terms(given.recon, given.target, mu, logvar, **given.options, reduction="none")
            chosen = [outputs[i] for i in used]
            upstream = [factors] * len(used)
            apart = [grad(chosen, [x], upstream, retain_graph=True, allow_unused=True)[0] for x in sources[::order]]
            whole = grad(chosen, sources, upstream, retain_graph=True, allow_unused=True)
            assert all(x is y or torch.equal(x, y) for x, y in zip(apart[::order], whole, strict=True))
            assert_gradients(whole[:-2], given, len(used) * factors, slack=1e-3)


@EACH
def test_second_derivatives_after_the_first(name: str, device: str) -> None:
    given = call(name, (6, 5), (5,), library=True, device=device).leaves()
    loss = given.elbo_loss(reduction="none")
    first = grad(loss.mean(), given.differentiable, retain_graph=True)
    again = grad(loss.mean(), given.differentiable, create_graph=True)
    for x, y in zip(first, again, strict=True):
        torch.testing.assert_close(x, y.detach(), rtol=1e-4, atol=1e-5)
    assert grad(again[1].sum(), given.differentiable[1])[0].isfinite().all()
