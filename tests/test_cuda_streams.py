"""Streams, threads and devices: the kernels run where and when torch says, and at the same time without mixing up."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from cases import DTYPES, all_equal, data, leaf, step_inputs
from gpu import NO_CUDA, assert_same_at_the_same_time, needs_cuda, step
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = [needs_cuda, pytest.mark.usefixtures("cuda_kernels")]
SECOND = 0 if NO_CUDA else torch.cuda.device_count() - 1
needs_two = pytest.mark.skipif(SECOND == 0, reason=NO_CUDA or "one CUDA device only")
LONG = (3, 70_003)  # rows that many blocks share: the last one to finish adds up


def inputs(seed: int = 0, shape: tuple[int, ...] = LONG, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return step_inputs("bernoulli_logits", shape, shape, (dtype, torch.float32), seed=seed, device="cuda")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_run_on_the_current_stream(dtype: torch.dtype) -> None:
    """The data arrive there late: a kernel on any other stream would be too early and see zeros."""
    real = inputs(dtype=dtype)
    want = step(real, seed=5, factor=0.5, reduction="none")
    late = [leaf(torch.zeros_like(x)) if x.requires_grad else torch.zeros_like(x) for x in real]
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)  # cycles: some 50 ms
        with torch.no_grad():
            for x, y in zip(late, real, strict=True):
                x.copy_(y)
        got = step(late, seed=5, factor=0.5, reduction="none")
    side.synchronize()
    assert all_equal(got, want)


def test_backward_runs_on_the_stream_of_its_forward() -> None:
    recon, target = inputs()[:2]
    (want,) = grad(pyvae.elbo_loss(recon, target, likelihood="bernoulli_logits"), recon)
    upstream = torch.zeros((), device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        loss = pyvae.elbo_loss(recon, target, likelihood="bernoulli_logits")
        torch.cuda._sleep(100_000_000)
        upstream.fill_(1.0)
    # Called from the default stream: autograd runs it on `side`, after the fill, and joins the two.
    (got,) = grad(loss, recon, upstream)
    torch.cuda.synchronize()
    assert torch.equal(got, want)


def steps(count: int) -> list[Callable[[], list[Tensor]]]:
    """Each with data and sums of its own."""
    given = [inputs(seed) for seed in range(count)]
    return [partial(step, x, seed=seed, reduction="none") for seed, x in enumerate(given)]


def test_many_streams_at_the_same_time() -> None:
    works = steps(16)
    assert_same_at_the_same_time(works, [work() for work in works], 20)


def test_threads_with_streams_of_their_own() -> None:
    works = steps(8)
    wants = [work() for work in works]
    torch.cuda.synchronize()
    with ThreadPoolExecutor(len(works)) as pool:
        list(pool.map(lambda work, want: assert_same_at_the_same_time([work], [want], 20), works, wants))


def test_many_calls_in_a_row_on_one_stream() -> None:
    """They share the counter by which the last block knows that it is the last: each call leaves it as it was."""
    recon, target = data("gaussian", (2, 2051), device="cuda")
    want = pyvae.elbo_loss(recon, target, likelihood="gaussian")
    wrong = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(20_000):
        wrong += pyvae.elbo_loss(recon, target, likelihood="gaussian") != want
    assert wrong.item() == 0


# ---- no synchronization ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", ("number", "host tensor", "device tensor"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16), ids=str)
def test_no_call_waits_for_the_gpu(dtype: torch.dtype, beta: str) -> None:
    """Neither in torch's own account, nor in fact: all is enqueued while the GPU is still busy with something else."""
    value = {"number": 0.5, "host tensor": torch.tensor(0.5), "device tensor": torch.tensor(0.5, device="cuda")}[beta]
    work = partial(step, inputs(shape=(64, 784), dtype=dtype), factor=65536.0, beta=value)  # factor: of a GradScaler
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
    for got, want in zip(step(there, seed=5), step(given, seed=5), strict=True):
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
