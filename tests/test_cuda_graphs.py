"""CUDA graphs: every replay draws fresh noise, as eager calls with the same generator would, and has its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import DTYPES, REDUCTIONS, assert_whole, generator, leaf, step_inputs
from families import LIKELIHOODS, SCALES, cycled
from gpu import capture, needs_cuda
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


def step(
    given: list[Tensor], likelihood: str = "bernoulli_logits", scale: str = "logvar", **options: Any
) -> list[Tensor]:
    """Sample, KL, loss and all gradients of a step; the sample weighs in by an upstream gradient of its own."""
    recon, target, mu, s = given
    noise = {name: options.pop(name) for name in ("seed", "generator") if name in options}
    z, kl = pyvae.reparameterize_kl(mu, **{scale: s}, **noise)
    loss = pyvae.elbo_loss(recon, target, kl=kl, likelihood=likelihood, **options)
    return [z, kl, loss, *grad((loss, z), (recon, mu, s), (torch.ones_like(loss), 2 * z.detach()))]


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [x.detach().clone() for x in tensors]


def assert_replays_are_eager(
    graph: torch.cuda.CUDAGraph, results: list[Tensor], work: Callable[[], list[Tensor]], count: int
) -> list[list[Tensor]]:
    """From the same state of the generator a replay gives the very bits of the eager call; the replays' results."""
    torch.cuda.manual_seed(17)
    replayed = []
    for _ in range(count):
        graph.replay()
        replayed.append(copies(results))
    torch.cuda.manual_seed(17)
    for got in replayed:
        assert_equal(got, copies(work()))
    return replayed


def assert_equal(got: list[Tensor], want: list[Tensor]) -> None:
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        assert torch.equal(a, b), f"result {index}"


@pytest.mark.parametrize("shape", (SHORT, LONG), ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_replays_are_the_eager_calls(dtype: torch.dtype, reduction: str, shape: tuple[int, ...]) -> None:
    """Sample, loss, gradients; and no two replays draw the same."""
    for likelihood, scale in cycled(LIKELIHOODS, SCALES):
        given = inputs(likelihood, shape, dtype, scale)
        work = lambda g=given, n=likelihood, k=scale: step(g, n, k, reduction=reduction, beta=0.5)  # noqa: E731
        replayed = assert_replays_are_eager(*capture(work), work, 4)
        samples = [results[0] for results in replayed]
        assert all(not torch.equal(a, b) for i, a in enumerate(samples) for b in samples[:i])


def test_gradients_belong_to_the_noise_of_their_replay() -> None:
    """dz/dlogvar = (z - mu) / 2, which holds for no other replay's noise."""
    _, _, mu, logvar = inputs()
    upstream = torch.rand(LATENT, device="cuda") + 0.5

    def work() -> list[Tensor]:
        z = pyvae.reparameterize(mu, logvar)
        return [z, *grad(z, (mu, logvar), upstream)]

    graph, (z, to_mu, to_logvar) = capture(work)
    for _ in range(5):
        graph.replay()
        want = upstream * (z - mu).detach() / 2
        assert torch.equal(to_mu, upstream)
        assert_whole(to_logvar, want)


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
        assert_equal(got, copies([*eager, *backward(*eager)]))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
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
        assert_equal(*results)


def test_several_launches_in_one_graph() -> None:
    """Each draws noise of its own, and so do the next replay and torch's own random functions between them."""
    _, _, mu, logvar = inputs()

    def work() -> list[Tensor]:
        first, noise = pyvae.reparameterize(mu, logvar).detach(), torch.randn(5, device="cuda")
        return [
            first,
            noise,
            pyvae.reparameterize(mu, logvar).detach(),
            pyvae.reparameterize(mu, logvar, seed=3).detach(),
        ]

    replayed = assert_replays_are_eager(*capture(work), work, 3)
    samples = torch.stack([x for first, _, second, _ in replayed for x in (first, second)])
    assert len(torch.unique(samples.flatten(1), dim=0)) == 6
    assert len(torch.unique(torch.stack([seeded for *_, seeded in replayed]).flatten(1), dim=0)) == 1


def test_a_generator_of_the_callers_own() -> None:
    given, source = inputs(), generator(5, "cuda")
    graph, results = capture(lambda: step(given, generator=source), generator=source)
    source.manual_seed(8)
    got = []
    for _ in range(2):
        graph.replay()
        got.append(copies(results))
    source.manual_seed(8)
    for replayed in got:
        assert_equal(replayed, copies(step(given, generator=source)))


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
        got = copies(results)
        assert_equal(got, copies(step(given, seed=number, beta=weight)))


def test_replays_beside_eager_calls() -> None:
    """On another stream at the same time, with sums that pass from block to block in both: nothing gets mixed up."""
    given, others = inputs(shape=LONG), inputs("gaussian", LONG)
    graph, results = capture(lambda: step(given, seed=3))
    want, want_others = copies(step(given, seed=3)), copies(step(others, "gaussian", seed=4))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    replayed, eager = [], []
    for _ in range(50):
        with torch.cuda.stream(side):
            graph.replay()
            replayed.append(copies(results))
        eager.append(copies(step(others, "gaussian", seed=4)))
    torch.cuda.synchronize()
    for got, got_others in zip(replayed, eager, strict=True):
        assert_equal(got, want)
        assert_equal(got_others, want_others)


def test_two_graphs_at_the_same_time() -> None:
    both = [inputs(shape=LONG), inputs("gaussian", LONG)]
    works = [lambda: step(both[0], seed=3), lambda: step(both[1], "gaussian", seed=4)]
    graphs = [capture(work) for work in works]
    wants = [copies(work()) for work in works]
    streams = [torch.cuda.Stream() for _ in graphs]
    torch.cuda.synchronize()
    got: list[list[list[Tensor]]] = [[], []]
    for _ in range(50):
        for (graph, results), stream, kept in zip(graphs, streams, got, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
                kept.append(copies(results))
    torch.cuda.synchronize()
    for kept, want in zip(got, wants, strict=True):
        for results in kept:
            assert_equal(results, want)


def test_torch_compile_with_graphs() -> None:
    """mode="reduce-overhead" captures by itself: each call draws anew, and its gradient is that of its noise."""
    _, _, mu, logvar = inputs()
    compiled = torch.compile(lambda m, s: pyvae.reparameterize(m, s), fullgraph=True, mode="reduce-overhead")
    samples = []
    for _ in range(6):
        torch.compiler.cudagraph_mark_step_begin()
        z = compiled(mu, logvar)
        (gradient,) = grad(z.sum(), logvar)
        want = (z - mu).detach() / 2
        assert_whole(gradient, want)
        samples.append(z.detach().clone())
    assert len(torch.unique(torch.stack(samples).flatten(1), dim=0)) == len(samples)
