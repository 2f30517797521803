"""The same bits whatever runs a likelihood, wherever a row stands; and what memory a step takes.

Of the sampler and the KL: test_noise_repeatable.py.
"""

from __future__ import annotations

import pytest
import torch
from calls import Call, call
from cases import all_equal, assert_whole
from families import LIKELIHOODS, PLAIN, WITH_LIBRARY, family
from gpu import rows_share_blocks
from torch import Tensor
from torch.autograd import grad
from torch.profiler import ProfilerActivity, profile


def results(given: Call, reduction: str) -> list[Tensor]:
    given = given.leaves()
    loss = given.elbo_loss(reduction=reduction)
    return [loss.detach(), *grad(loss.sum(), given.differentiable)]


@pytest.mark.usefixtures("kernels", "threads")  # torch's sums, which the reference has, are not promised to be
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_likelihood_gives_the_same_bits_with_any_number_of_threads(name: str) -> None:
    for shape in ((300, 70), (5, 3_000), (2_000, 3)):
        for form in ((shape[1],), (shape[0], 1)):
            for reduction in ("sum", "none"):
                found = []
                for threads in (1, 2, 3):
                    torch.set_num_threads(threads)
                    found.append(results(call(name, shape, form, library=True), reduction))
                assert all_equal(found[0], found[1])
                assert all_equal(found[0], found[2])


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_rows_do_not_depend_on_their_place(name: str, device: str, backend: str) -> None:
    """Each row's loss and its own gradients are the same bits in a batch in another order, and alone."""
    order = torch.tensor([4, 0, 3, 1, 2], device=device)
    given = call(name, (5, 1030), (5, 1030), library=True, device=device)
    got, want = results(given.rows(order), "none"), [x[order] for x in results(given, "none")]
    for a, b, c in zip(got, want, results(given.rows(slice(3, 4)), "none"), strict=True):
        if backend == "reference":
            assert_whole(a, b)
        else:
            assert torch.equal(a, b)
            if name in PLAIN and rows_share_blocks(device):
                assert_whole(a[2:3], c)
            else:
                assert torch.equal(a[2:3], c)


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
    """Beside it sums per column for 16 groups of 8 rows, in float64: a fourth of recon for each parameter, two of which
    may share an allocation; and with a softmax one row for each thread."""
    given = call(name, (128, 2000), library=library)
    whole, parameters = given.recon.nbytes, len(family(name).parameters)
    sizes = allocations(given)
    large = [size for size in sizes if size > whole * 0.6]
    if backend == "kernels":
        rows = library * torch.get_num_threads() * 4 * 2000
        assert large == [whole]
        assert (
            sum(sizes) - whole <= parameters * (whole / 4 + 12 * 2000) + rows + 20 * 128
        )  # and numbers per column and row
    else:
        assert len(large) > 1  # what plain PyTorch needs, and this test sees
