"""CUDA graphs: every replay draws fresh noise, as eager calls with the same generator would, and has its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import DTYPES, REDUCTIONS, all_equal, assert_whole, generator, leaf, step_inputs
from families import PLAIN, SCALES, cycled
from gpu import assert_same_at_the_same_time, capture, copies, needs_cuda, step
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = [needs_cuda, pytest.mark.usefixtures("cuda_kernels")]
LATENT, SHORT, LONG = (6, 9), (6, 130), (6, 40_003)  # a block takes several short rows; several blocks take a long one


def inputs(
    likelihood: str = "bernoulli_logits",
    shape: tuple[int, ...] = SHORT,
    dtype: torch.dtype = torch.float32,
    scale: str = "logvar",
) -> list[Tensor]:
    return step_inputs(likelihood, shape, LATENT, (dtype, torch.float32), scale, device="cuda")


def assert_replays_are_eager(work: Callable[[], list[Tensor]], count: int, **options: Any) -> list[list[Tensor]]:
    """From the same state of the generator a replay gives the very bits of the eager call; the replays' results."""
    graph, results = capture(work, **options)
    seed = options["generator"].manual_seed if options else torch.cuda.manual_seed
    seed(17)
    replayed = []
    for _ in range(count):
        graph.replay()
        replayed.append(copies(results))
    seed(17)
    for got in replayed:
        assert all_equal(got, work())
    return replayed


@pytest.mark.parametrize("shape", (SHORT, LONG), ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_replays_are_the_eager_calls(dtype: torch.dtype, reduction: str, shape: tuple[int, ...]) -> None:
    """Sample, loss, gradients; and no two replays draw the same."""
    for likelihood, scale in cycled(PLAIN, SCALES):
        given = inputs(likelihood, shape, dtype, scale)
        work = lambda g=given, n=likelihood, k=scale: step(g, n, k, reduction=reduction, beta=0.5)  # noqa: E731
        replayed = assert_replays_are_eager(work, 4)
        samples = [results[0] for results in replayed]
        assert all(not torch.equal(a, b) for i, a in enumerate(samples) for b in samples[:i])


@pytest.mark.parametrize("factor", (1.0, 3.0))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_forward_and_backward_in_graphs_of_their_own(dtype: torch.dtype, factor: float) -> None:
    """The gradient's buffer, which the first graph writes and the second one scales, is written anew by each replay."""
    given = inputs(shape=LONG, dtype=dtype)
    recon, target, mu, logvar = given
    upstream = torch.full((), factor, device="cuda")

    def forward() -> tuple[Tensor, Tensor]:
        z, kl = pyvae.reparameterize_kl(mu, logvar)
        return pyvae.elbo_loss(recon, target, kl=kl, likelihood="bernoulli_logits"), z

    def backward(loss: Tensor, z: Tensor) -> list[Tensor]:
        return list(grad((loss, z), (recon, mu, logvar), (upstream, torch.ones_like(z))))

    capture(lambda: backward(*forward()))  # the warm-up of both
    first, second = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(first):
        outputs = forward()
    with torch.cuda.graph(second, pool=first.pool()):
        gradients = backward(*outputs)
    for seed in (1, 2, 3):
        torch.cuda.manual_seed(seed)
        first.replay()
        second.replay()
        got = copies([*outputs, *gradients])
        torch.cuda.manual_seed(seed)
        eager = forward()
        assert all_equal(got, [*eager, *backward(*eager)])


@pytest.mark.parametrize("likelihood", PLAIN)
def test_make_graphed_callables(likelihood: str) -> None:
    given = inputs(likelihood)

    def work(recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        z, kl = pyvae.reparameterize_kl(mu, logvar)
        return pyvae.elbo_loss(recon, target, kl=kl, likelihood=likelihood, beta=0.25), z

    graphed = torch.cuda.make_graphed_callables(work, tuple(given))
    for seed, factor in ((1, 1.0), (2, 2.5), (3, 1.0)):
        fresh = [leaf(x + 0) if x.requires_grad else x for x in inputs(likelihood)]
        results = []
        for function in (graphed, work):
            torch.cuda.manual_seed(seed)
            loss, z = function(*fresh)
            total = factor * loss + (z * z).sum()
            results.append(copies([loss, z, *grad(total, [x for x in fresh if x.requires_grad])]))
        assert all_equal(*results)


def test_several_launches_in_one_graph() -> None:
    """Each draws noise of its own, and so do the next replay and torch's own random functions between them."""
    _, _, mu, logvar = inputs()

    def work() -> list[Tensor]:
        first, noise = pyvae.reparameterize(mu, logvar), torch.randn(5, device="cuda")
        return [first, noise, pyvae.reparameterize(mu, logvar), pyvae.reparameterize(mu, logvar, seed=3)]

    replayed = assert_replays_are_eager(work, 3)
    samples = torch.stack([x for first, _, second, _ in replayed for x in (first, second)])
    assert len(torch.unique(samples.flatten(1), dim=0)) == 6
    assert len(torch.unique(torch.stack([seeded for *_, seeded in replayed]).flatten(1), dim=0)) == 1


def test_a_generator_of_the_callers_own() -> None:
    given, source = inputs(), generator(5, "cuda")
    assert_replays_are_eager(lambda: step(given, generator=source), 2, generator=source)


def test_what_lies_on_the_device_is_read_at_every_replay() -> None:
    """The seed, beta and the data themselves."""
    given = inputs()
    seed, beta = torch.tensor([1], device="cuda"), torch.tensor(1.0, device="cuda")
    graph, results = capture(lambda: step(given, seed=seed, beta=beta))
    for number, weight in ((5, 0.25), (2**40, 0.0), (-1, 2.0)):
        seed.fill_(number)
        beta.fill_(weight)
        with torch.no_grad():
            given[0].add_(0.125)
            given[2].mul_(-1)
        graph.replay()
        assert all_equal(results, step(given, seed=number, beta=weight))


@pytest.mark.parametrize("beside", ("a graph", "eager calls"))
def test_replays_beside(beside: str) -> None:
    """On another stream at the same time, with sums that pass from block to block in both: nothing gets mixed up."""
    given, others = inputs(shape=LONG), inputs("gaussian", LONG)
    works: list[Callable[[], list[Tensor]]] = [lambda: step(given, seed=3), lambda: step(others, "gaussian", seed=4)]
    wants = [copies(work()) for work in works]

    def replayed(work: Callable[[], list[Tensor]]) -> Callable[[], list[Tensor]]:
        graph, results = capture(work)

        def replay() -> list[Tensor]:
            graph.replay()
            return copies(results)

        return replay

    second = replayed(works[1]) if beside == "a graph" else works[1]
    assert_same_at_the_same_time([replayed(works[0]), second], wants, 50)


def test_torch_compile_with_graphs() -> None:
    """mode="reduce-overhead" captures by itself: each call draws anew, and its gradient is that of its noise."""
    _, _, mu, logvar = inputs()
    compiled = torch.compile(lambda m, s: pyvae.reparameterize(m, s), fullgraph=True, mode="reduce-overhead")
    samples = []
    for _ in range(6):
        torch.compiler.cudagraph_mark_step_begin()
        z = compiled(mu, logvar)
        assert_whole(*grad(z.sum(), logvar), (z - mu).detach() / 2)
        samples.append(z.detach().clone())
    assert len(torch.unique(torch.stack(samples).flatten(1), dim=0)) == len(samples)
