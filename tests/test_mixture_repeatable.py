"""Log densities under mixtures: the same bits on any number of threads, in memory that does not grow with the terms."""

from __future__ import annotations

import pytest
import torch
from cases import all_equal
from test_mixture import CASES, EACH, Case, inputs, log_prob, upstream
from torch.autograd import grad
from torch.profiler import ProfilerActivity, profile


@pytest.mark.usefixtures("kernels", "threads")
@EACH
@pytest.mark.parametrize("own", [False, True])
def test_the_same_bits_on_any_number_of_threads(own: bool, reduction: str) -> None:
    results = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        given = inputs(Case((70,), 41, 6, 5, own), "rho", torch.float32)
        out = log_prob(given, "rho", reduction)
        results.append([out.detach(), *grad((out * upstream(out)).sum(), given)])
    assert all(all_equal(result, results[0]) for result in results)


@pytest.mark.usefixtures("kernels")
def test_nothing_grows_with_rows_times_components() -> None:
    """All that is ever allocated, forward and backward, is a part of one number for each row and component."""
    given = inputs(Case((64,), 64, 512, 4, False), "logvar", torch.float32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        grad(log_prob(given, "logvar", "none").sum(), given)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in seen.events())
    assert 4 * given[0].numel() < allocated < 4 * 64 * 64 * 512 / 4


@pytest.mark.usefixtures("kernels")
@EACH
def test_only_what_is_asked_for(reduction: str) -> None:
    """The gradients do not depend on which others there are."""
    every = inputs(CASES[1], "logvar", torch.float32)
    out = log_prob(every, "logvar", reduction)
    want = grad(out.sum(), every)
    for i in range(4):
        given = [x.detach().requires_grad_(i == j) for j, x in enumerate(every)]
        assert torch.equal(grad(log_prob(given, "logvar", reduction).sum(), given[i])[0], want[i])
