"""Likelihoods by rows through autograd: buffers handed out once, any upstream gradient, repeatable sums, no copies."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from cases import REDUCTIONS, all_equal, assert_whole
from parametric import ENTRIES, NAMES, WITH_LIBRARY, WITH_PARAMETERS
from parametric_calls import Call, assert_sided, call
from torch import Tensor
from torch.autograd import grad
from torch.profiler import ProfilerActivity, profile

import pyvae

pytestmark = pytest.mark.usefixtures("backend")
SHAPE = (6, 3, 70)
FORMS = ((70,), (6, 1, 1), (6, 3, 70), ())
EACH_FORM = pytest.mark.parametrize(("name", "form"), [*itertools.product(WITH_PARAMETERS, FORMS), ("poisson", ())])


def sample(name: str, form: tuple[int, ...], device: str) -> Call:
    return call(name, SHAPE, form, library=True, device=device).leaves()


# ---- several backward passes -----------------------------------------------------------------------------------------


@EACH_FORM
def test_retain_graph_and_held_gradients(name: str, form: tuple[int, ...], device: str) -> None:
    """Three passes with different upstream gradients; whoever holds an earlier gradient may even write into it."""
    given = sample(name, form, device)
    sources = given.differentiable
    for reduction in REDUCTIONS:
        loss = given.elbo_loss(reduction=reduction)
        mean = 1 / 6 if reduction == "batchmean" else 1.0
        held: list[tuple[Tensor, Tensor]] = []
        for factor in (1.0, 4.0, -0.7):
            got = grad(loss, sources, torch.full_like(loss, factor), retain_graph=True)
            for gradient, want in zip(got, given.truth(factor * mean).gradients, strict=True):
                assert_sided(gradient, want, reduction=reduction, factor=factor)
                held.append((gradient, gradient.clone()))
        assert all(torch.equal(now, kept) for now, kept in held)
        for gradient, _ in held:
            gradient.zero_()
        again = grad(loss, sources, torch.full_like(loss, 4.0))
        assert all_equal(again, [kept for _, kept in held[len(sources) : 2 * len(sources)]])


@EACH_FORM
def test_a_second_pass_gives_the_same_bits(name: str, form: tuple[int, ...], device: str) -> None:
    """Made in the forward pass, then computed again; whatever the factors that come to it afterwards."""
    given = sample(name, form, device)
    for reduction, factor in itertools.product(REDUCTIONS, (1.0, -0.7)):
        loss = given.elbo_loss(reduction=reduction)
        upstream = torch.full_like(loss, factor)
        once, twice, thrice = (grad(loss, given.differentiable, upstream, retain_graph=True) for _ in range(3))
        assert all_equal(once, twice) and all_equal(once, thrice)


def test_accumulation_over_backward_calls(device: str) -> None:
    """.grad of a leaf may be the very buffer: later passes must add to it, not write it."""
    given = sample("zero_inflated_negative_binomial", (70,), device)
    loss = given.elbo_loss()
    loss.backward(retain_graph=True)
    first = [x.grad.clone() for x in given.differentiable]  # type: ignore[union-attr]
    loss.backward(retain_graph=True)
    (3 * given.elbo_loss()).backward()
    loss.backward()
    for x, once in zip(given.differentiable, first, strict=True):
        assert_whole(x.grad, 6 * once)  # type: ignore[arg-type]


@EACH_FORM
def test_upstream_gradients(name: str, form: tuple[int, ...], device: str) -> None:
    given = sample(name, form, device)
    numbers = torch.tensor([1.0, 2.0, -0.5, 0.0, 1.0, 4.0], device=device)
    strided = torch.stack([numbers, torch.full_like(numbers, torch.nan)], 1)[:, 0]
    for upstream in (numbers, strided, torch.tensor(2.0, device=device).expand(6), torch.zeros_like(numbers)):
        got = grad(given.elbo_loss(reduction="none"), given.differentiable, upstream)
        for gradient, want in zip(got, given.truth(upstream).gradients, strict=True):
            assert_sided(gradient, want)
    terms = pyvae.elbo_terms(given.recon, given.target, likelihood=given.likelihood)
    both = grad(terms[:2], given.differentiable, [torch.tensor(x, device=device) for x in (1.5, -0.25)])
    for gradient, want in zip(both, given.truth(1.25).gradients, strict=True):
        assert_sided(gradient, want)


def test_a_large_loss_scale_does_not_underflow_in_float16(device: str) -> None:
    """GradScaler starts at 65536: what is 0 in float16 before that is not after."""
    given = call("poisson", (2, 90), dtypes=(torch.float16,) * 3, device=device)
    given = replace(given, recon=torch.full_like(given.recon, -18), target=torch.zeros_like(given.target)).leaves()
    (got,) = grad(given.elbo_loss(), given.recon, torch.tensor(65536.0, device=device))
    assert_sided(got, given.truth(65536.0).gradients[0])
    assert (got != 0).all()


# ---- subsets and writes ----------------------------------------------------------------------------------------------


@EACH_FORM
def test_gradients_of_a_subset_of_the_inputs(name: str, form: tuple[int, ...], device: str) -> None:
    given = sample(name, form, device)
    sources = given.differentiable
    every = grad(given.elbo_loss(), sources)
    for chosen in (c for n in range(1, len(sources)) for c in itertools.combinations(range(len(sources)), n)):
        some = [x.detach().requires_grad_(i in chosen) for i, x in enumerate(sources)]
        given.with_differentiable(some).elbo_loss().backward()
        assert [i for i, x in enumerate(some) if x.grad is not None] == list(chosen)
        assert all_equal([some[i].grad for i in chosen], [every[i] for i in chosen])  # type: ignore[misc]
    with torch.no_grad():
        loss = given.elbo_loss()
    assert not loss.requires_grad
    assert torch.equal(loss, given.elbo_loss())


@EACH_FORM
def test_writing_to_an_input_is_torchs_error(name: str, form: tuple[int, ...], device: str) -> None:
    """Or, in the first pass, the gradient of the values that the forward pass saw; nothing else."""
    given = sample(name, form, device)
    want = grad(given.elbo_loss(), given.differentiable)
    for written in range(len(want)):
        copies = [x.clone() for x in given.differentiable]
        loss = given.with_differentiable(copies).elbo_loss()
        with torch.no_grad():
            copies[written].add_(1)
        for _ in range(2):
            try:
                got = grad(loss, given.differentiable, retain_graph=True)
            except RuntimeError as error:
                assert "modified by an inplace operation" in str(error)
            else:
                assert all_equal(got, want)


# ---- repeatable ------------------------------------------------------------------------------------------------------


def results(given: Call, reduction: str) -> list[Tensor]:
    given = given.leaves()
    loss = given.elbo_loss(reduction=reduction)
    return [loss.detach(), *grad(loss.sum(), given.differentiable)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_threads_give_the_same_bits(name: str, backend: str) -> None:
    if backend == "reference":
        return  # torch's sums are not promised to be
    for shape in ((300, 70), (5, 3_000), (2_000, 3)):
        for form in ((shape[1],), (shape[0], 1)):
            for reduction in ("sum", "none"):
                found = []
                for threads in (1, 2, 3):
                    torch.set_num_threads(threads)
                    found.append(results(call(name, shape, form, library=True), reduction))
                assert all_equal(found[0], found[1])
                assert all_equal(found[0], found[2])


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_depend_on_their_place(name: str, device: str, backend: str) -> None:
    """Each row's loss and its own gradients are the same bits in a batch in another order, and alone."""
    order = torch.tensor([4, 0, 3, 1, 2], device=device)
    given = call(name, (5, 1030), (5, 1030), library=True, device=device)
    moved = replace(given.with_differentiable([x[order] for x in given.differentiable]), target=given.target[order])
    got, want = results(moved, "none"), [x[order] for x in results(given, "none")]
    alone = replace(given.with_differentiable([x[3:4] for x in given.differentiable]), target=given.target[3:4])
    for a, b, c in zip(got, want, results(alone, "none"), strict=True):
        if backend == "kernels":
            assert torch.equal(a, b)
            assert torch.equal(a[2:3], c)
        else:
            assert_whole(a, b)


# ---- memory ----------------------------------------------------------------------------------------------------------


def allocations(given: Call) -> list[int]:
    """Bytes of each tensor that a step allocates on the CPU."""
    given = given.leaves()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        given.elbo_loss().backward()
    events = found.profiler.kineto_results.events()
    return [event.nbytes() for event in events if event.name() == "[memory]" and event.nbytes() > 0]


@pytest.mark.parametrize("library", [False, True])
@pytest.mark.parametrize("name", WITH_LIBRARY)
def test_one_gradient_of_recons_size_and_nothing_else(name: str, library: bool, backend: str) -> None:
    """Beside it sums per column for 16 groups of 8 rows, in float64: a fourth of recon for each parameter; and with a
    softmax one row for each thread."""
    given = call(name, (128, 2000), library=library)
    whole, parameters = given.recon.nbytes, len(ENTRIES[name].parameters)
    sizes = allocations(given)
    large = [size for size in sizes if size > whole / 3]
    if backend == "kernels":
        rows = library * torch.get_num_threads() * 4 * 2000
        assert large == [whole]
        assert (
            sum(sizes) - whole <= parameters * (whole / 4 + 12 * 2000) + rows + 20 * 128
        )  # and numbers per column and row
    else:
        assert len(large) > 1  # what plain PyTorch needs, and this test sees
