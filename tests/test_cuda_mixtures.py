"""Log densities under mixtures on a GPU: launches, memory, replays of a graph, bits. Their values: test_mixture.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import all_equal, leaf
from gpu import capture, copies, launches, needs_cuda
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = [needs_cuda, pytest.mark.usefixtures("cuda_kernels")]
REDUCTIONS = ("none", "elements")
SHAPES = ((3840, 50, 10), (16, 200, 40), (30, 9, 700))  # rows, components, features: a thread a row, and a warp


def step(shape: tuple[int, int, int], reduction: str, logits: bool = True) -> Callable[[], list[Tensor]]:
    """Values, and all gradients."""
    rows, components, features = shape
    z, mean, logvar = (leaf(torch.randn(n, features, device="cuda")) for n in (rows, components, components))
    weights = leaf(torch.randn(components, device="cuda")) if logits else None
    leaves = [x for x in (z, mean, logvar, weights) if x is not None]

    def work() -> list[Tensor]:
        out = pyvae.mixture_log_prob(z, pyvae.Mixture(mean, logvar, logits=weights), reduction=reduction)
        return [out.detach(), *grad(out, leaves, torch.linspace(1, 2, out.numel(), device="cuda").view_as(out))]

    return work


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_replays_and_repeated_calls_have_the_same_bits(reduction: str, shape: tuple[int, int, int]) -> None:
    work = step(shape, reduction)
    eager = work()
    assert all_equal(eager, work())
    graph, results = capture(work)
    for _ in range(2):
        graph.replay()
        assert all_equal(copies(results), eager)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_launches(reduction: str, shape: tuple[int, int, int]) -> None:
    """Forward what is prepared of the components, and the values; backward that again, z's gradient, and the sums."""
    work = step(shape, reduction, logits=False)
    work()
    names = [name for name in launches(work) if "pyvae" in name]
    assert len(names) == 2 + 4, names


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_memory(reduction: str) -> None:
    """Nothing of the size of rows times components, of which there would be 256 MiB."""
    work = step((65536, 1024, 8), reduction)
    work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    assert torch.cuda.max_memory_allocated() - before < 64 << 20


def test_a_posterior() -> None:
    """Its density: a launch each way."""
    z, mu, logvar = (leaf(torch.randn(n, device="cuda")) for n in ((5, 70, 33), (70, 33), (70, 33)))
    names = launches(lambda: grad(pyvae.gaussian_log_prob(z, mu, logvar).sum(), (z, mu, logvar)))
    assert len([name for name in names if "pyvae" in name]) == 2, names
