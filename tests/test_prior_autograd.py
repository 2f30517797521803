"""A prior of one's own, and autograd: derivatives of every order, some of the gradients alone, torch.func."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
import truth
from cases import all_equal, assert_relative, assert_whole, leaf
from families import SCALES
from test_prior import divergence, inputs
from tolerances import FLOAT32_ROUNDING, GRADCHECK
from torch.autograd import forward_ad, grad, gradcheck, gradgradcheck

import pyvae

pytestmark = [pytest.mark.usefixtures("backend"), pytest.mark.torch_sensitive("derivatives of every order, torch.func")]


@pytest.mark.parametrize("kind", SCALES)
def test_against_finite_differences(kind: str, device: str) -> None:
    """First and second derivatives and forward mode, of what is broadcast too."""
    given = [leaf(x) for x in inputs(kind, ((4,), (3, 1)), torch.float64, (3, 4), device)]
    for reduction in ("none", "elements"):
        f = partial(divergence, kind, reduction=reduction)
        assert gradcheck(f, given, check_forward_ad=True, check_batched_grad=True, **GRADCHECK)
        assert gradgradcheck(f, given, **GRADCHECK)
    at_the_prior = [leaf(x) for x in (*given[:2], *(x.detach().clone() for x in given[:2]))]
    assert gradgradcheck(partial(divergence, kind), at_the_prior, **GRADCHECK)
    eps = torch.randn(3, 4, dtype=torch.float64, device=device)
    sample = lambda m, s, *p: pyvae.reparameterize_kl(m, **{kind: s}, eps=eps, prior=p)  # noqa: E731
    assert gradcheck(sample, given, check_forward_ad=True, **GRADCHECK)
    assert gradgradcheck(sample, given, **GRADCHECK)


def test_subsets_of_the_gradients(device: str) -> None:
    """A prior that is learned alone, half of one, and one whose KL is not used."""
    given = inputs("logvar", ((19,), (7, 1)), device=device)
    want = grad(divergence("logvar", *(leaves := [leaf(x) for x in given])).sum(), leaves)
    for chosen in itertools.product((False, True), repeat=4):
        if any(chosen):
            some = [leaf(x) if yes else x for x, yes in zip(given, chosen, strict=True)]
            got = grad(divergence("logvar", *some).sum(), [x for x in some if x.requires_grad])
            assert all_equal(got, itertools.compress(want, chosen))
    z, _ = pyvae.reparameterize_kl(leaves[0], leaves[1], prior=tuple(leaves[2:]))
    assert [x is None for x in grad(z.sum(), leaves, allow_unused=True)][:2] == [False, False]
    z, kl = pyvae.reparameterize_kl(leaves[0].detach(), leaves[1].detach(), prior=tuple(leaves[2:]))
    assert all_equal(grad(kl.sum(), leaves[2:]), want[2:])


def test_transforms(device: str) -> None:
    given = inputs("std", ((19,), (19,)), device=device)
    f = lambda *x: divergence("std", *x).sum()  # noqa: E731
    want = grad(f(*(leaves := [leaf(x) for x in given])), leaves)
    for x, expected in zip(torch.func.grad(f, argnums=(0, 1, 2, 3))(*given), want, strict=True):
        assert_whole(x, expected)
    each = torch.func.vmap(lambda m, s: divergence("std", m[None], s[None], *given[2:]))(*given[:2])
    assert_relative(each.flatten(), truth.exact(divergence("std", *given)), {torch.float32: FLOAT32_ROUNDING})
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(given[3], torch.ones_like(given[3]))
        tangent = forward_ad.unpack_dual(divergence("std", *given[:3], dual)).tangent
    assert_whole(tangent.sum(), want[3].sum(), 10 * FLOAT32_ROUNDING)
