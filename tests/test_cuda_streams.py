"""Streams, threads and devices: the kernels run where and when torch says, and at the same time without mixing up."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import DTYPES, all_equal, data, leaf, step_inputs
from gpu import NO_CUDA, needs_cuda
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = [needs_cuda, pytest.mark.usefixtures("cuda_kernels")]
SECOND = 0 if NO_CUDA else torch.cuda.device_count() - 1
needs_two = pytest.mark.skipif(SECOND == 0, reason=NO_CUDA or "one CUDA device only")
LONG = (3, 70_003)  # rows that many blocks share: the last one to finish adds up


def inputs(seed: int = 0, shape: tuple[int, ...] = LONG, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return step_inputs("bernoulli_logits", shape, shape, (dtype, torch.float32), seed=seed, device="cuda")


def step(given: list[Tensor], seed: int = 5, factor: float = 1.0) -> list[Tensor]:
    """Everything that the kernels compute, per sample and in sums."""
    recon, target, mu, logvar = given
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=seed)
    loss = pyvae.elbo_loss(recon, target, kl=kl, likelihood="bernoulli_logits", reduction="none")
    total = pyvae.elbo_loss(recon, target, mu, logvar, likelihood="bernoulli_logits")
    upstream = torch.full_like(loss, factor), torch.full_like(total, factor), z.detach()
    return [z, kl, loss, total, *grad((loss, total, z), (recon, mu, logvar), upstream)]


def detached(tensors: list[Tensor]) -> list[Tensor]:
    return [x.detach() for x in tensors]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_run_on_the_current_stream(dtype: torch.dtype) -> None:
    """The data arrive there late: a kernel on any other stream would be too early and see zeros."""
    real = inputs(dtype=dtype)
    want = detached(step(real, factor=0.5))
    late = [leaf(torch.zeros_like(x)) if x.requires_grad else torch.zeros_like(x) for x in real]
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)  # cycles: some 50 ms
        with torch.no_grad():
            for x, y in zip(late, real, strict=True):
                x.copy_(y)
        got = detached(step(late, factor=0.5))
    side.synchronize()
    assert all_equal(got, want)


def test_backward_runs_on_the_stream_of_its_forward() -> None:
    given = inputs()
    want = detached(step(given))[4:]
    upstream = torch.zeros((), device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    recon, target = given[:2]
    with torch.cuda.stream(side):
        loss = pyvae.elbo_loss(recon, target, likelihood="bernoulli_logits")
        torch.cuda._sleep(100_000_000)
        upstream.fill_(1.0)
    # Called from the default stream: autograd runs it on `side`, after the fill, and joins the two.
    (got,) = grad(loss, recon, upstream)
    torch.cuda.synchronize()
    assert torch.equal(2 * got, want[0])  # which is of two losses


def test_many_streams_at_the_same_time() -> None:
    """Sixteen, each with data and sums of its own, again and again: the bits of one after the other."""
    count, rounds = 16, 20
    given = [inputs(seed) for seed in range(count)]
    want = [detached(step(x, seed)) for seed, x in enumerate(given)]
    streams = [torch.cuda.Stream() for _ in range(count)]
    torch.cuda.synchronize()
    got: list[list[list[Tensor]]] = [[] for _ in range(count)]
    for _ in range(rounds):
        for seed, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                got[seed].append(detached(step(given[seed], seed)))
    torch.cuda.synchronize()
    for results, expected in zip(got, want, strict=True):
        assert all(all_equal(result, expected) for result in results)


def test_threads_with_streams_of_their_own() -> None:
    count, rounds = 8, 20
    given = [inputs(seed) for seed in range(count)]
    want = [detached(step(x, seed)) for seed, x in enumerate(given)]
    torch.cuda.synchronize()

    def work(seed: int) -> list[list[Tensor]]:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            results = [detached(step(given[seed], seed)) for _ in range(rounds)]
        stream.synchronize()
        return results

    with ThreadPoolExecutor(count) as pool:
        for results, expected in zip(pool.map(work, range(count)), want, strict=True):
            assert all(all_equal(result, expected) for result in results)


def test_many_calls_in_a_row_on_one_stream() -> None:
    """They share the counter by which the last block knows that it is the last: each call leaves it as it was."""
    recon, target = data("gaussian", (2, 2051), device="cuda")
    want = pyvae.elbo_loss(recon, target, likelihood="gaussian")
    wrong = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(20_000):
        wrong += pyvae.elbo_loss(recon, target, likelihood="gaussian") != want
    assert wrong.item() == 0


# ---- no synchronization ----------------------------------------------------------------------------------------------


def training_step(dtype: torch.dtype, **options: object) -> Callable[[], list[Tensor]]:
    recon, target, mu, logvar = inputs(shape=(64, 784), dtype=dtype)
    upstream = torch.tensor(65536.0, device="cuda")  # of a GradScaler

    def work() -> list[Tensor]:
        z, kl = pyvae.reparameterize_kl(mu, logvar)
        loss = pyvae.elbo_loss(recon, target, kl=kl, likelihood="bernoulli_logits", **options)
        drop_in = pyvae.elbo_loss(recon, target, mu, logvar, likelihood="bernoulli_logits", **options)
        first = grad((loss, z), (recon, mu, logvar), (upstream, z.detach()), retain_graph=True)
        again = grad(loss, (recon, mu), upstream)
        return [z, kl, loss, *first, *again, *grad(drop_in, (recon, mu, logvar), upstream)]

    return work


@pytest.mark.parametrize("beta", ("number", "host tensor", "device tensor"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16), ids=str)
def test_no_call_waits_for_the_gpu(dtype: torch.dtype, beta: str) -> None:
    """Neither in torch's own account, nor in fact: all is enqueued while the GPU is still busy with something else."""
    value = {"number": 0.5, "host tensor": torch.tensor(0.5), "device tensor": torch.tensor(0.5, device="cuda")}[beta]
    work = training_step(dtype, beta=value)
    for _ in range(3):
        work()  # allocates what the next call finds in torch's cache
    torch.cuda.synchronize()
    busy = torch.cuda.Event()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(6_000_000_000)  # cycles: some three seconds
        busy.record()
        work()
        still_busy = not busy.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert still_busy


# ---- several devices -------------------------------------------------------------------------------------------------


@needs_two
def test_another_device_than_the_current_one() -> None:
    """Results lie where the inputs are, drawn from that device's generator; the current device stays what it is."""
    given = inputs()
    there = [leaf(x.to(f"cuda:{SECOND}")) if x.requires_grad else x.to(f"cuda:{SECOND}") for x in given]
    for got, want in zip(step(there), step(given), strict=True):
        assert got.device.index == SECOND
        assert torch.equal(got.cpu(), want.cpu())
    assert torch.cuda.current_device() == 0
    here, state = torch.cuda.get_rng_state(0), torch.cuda.get_rng_state(SECOND)
    z = pyvae.reparameterize(*there[2:])
    assert torch.equal(torch.cuda.get_rng_state(0), here)
    assert not torch.equal(torch.cuda.get_rng_state(SECOND), state)
    torch.cuda.set_rng_state(state, SECOND)
    assert torch.equal(pyvae.reparameterize(*there[2:]), z)


@needs_two
def test_tensors_on_two_devices_are_refused() -> None:
    recon, target, mu, logvar = inputs()
    with pytest.raises(ValueError, match=rf"`target` must be on recon's device cuda:0, but is on cuda:{SECOND}"):
        pyvae.elbo_loss(recon, target.to(f"cuda:{SECOND}"), likelihood="bernoulli_logits")
    with pytest.raises(ValueError, match=rf"`logvar` must be on mu's device cuda:0, but is on cuda:{SECOND}"):
        pyvae.reparameterize(mu, logvar.to(f"cuda:{SECOND}"))
