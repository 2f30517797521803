"""Where the tests find a GPU, and what tests of CUDA alone share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import all_equal
from torch import Tensor
from torch.autograd import DeviceType, grad
from torch.profiler import ProfilerActivity, profile

import pyvae


def _why_no_cuda() -> str | None:
    if not torch.cuda.is_available():
        return "no CUDA device"
    if not pyvae.build_info()["cuda_architectures"]:
        return "pyvae is built without CUDA kernels"
    return None


NO_CUDA = _why_no_cuda()
DEVICES = ("cpu",) if NO_CUDA else ("cpu", "cuda")
needs_cuda = pytest.mark.skipif(NO_CUDA is not None, reason=str(NO_CUDA))


def rows_share_blocks(device: str) -> bool:
    """Whether the number of rows decides how many blocks share one, and so the last bits: on CUDA, emulated or not."""
    return device == "cuda" or pyvae.build_info()["compiler"] == "emulated"


def launches(work: Callable[[], object]) -> list[str]:
    """The names of all that `work` puts on the GPU: kernels, copies and fills."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        work()
        torch.cuda.synchronize()
    return [event.name for event in recorded.events() if event.device_type == DeviceType.CUDA]


def free_memory() -> int:
    """Bytes that may still be allocated, those in torch's cache included."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def capture(work: Callable[[], Any], **options: Any) -> tuple[torch.cuda.CUDAGraph, Any]:
    """`work` in a graph, and its results, which each replay writes anew."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    if "generator" in options:
        graph.register_generator_state(options.pop("generator"))
    with torch.cuda.graph(graph, **options):
        results = work()
    return graph, results


# ---- steps whose bits are compared -----------------------------------------------------------------------------------


def step(
    given: list[Tensor],
    likelihood: str = "bernoulli_logits",
    scale: str = "logvar",
    factor: float = 1.0,
    **options: Any,
) -> list[Tensor]:
    """Everything that the kernels compute: sample, KL, two losses, all gradients, and one by a second backward pass.

    The sample weighs in by an upstream gradient of its own.
    """
    recon, target, mu, s = given
    noise = {name: options.pop(name) for name in ("seed", "generator") if name in options}
    options["likelihood"] = likelihood
    z, kl = pyvae.reparameterize_kl(mu, **{scale: s}, **noise)
    loss = pyvae.elbo_loss(recon, target, kl=kl, **options)
    drop_in = pyvae.elbo_loss(recon, target, mu, **{scale: s}, **options | {"reduction": "sum"})
    upstream = [torch.full_like(loss, factor), torch.full_like(drop_in, factor), 2 * z.detach()]
    first = grad((loss, drop_in, z), (recon, mu, s), upstream, retain_graph=True)
    again = grad(loss, recon, upstream[0])
    return [x.detach() for x in (z, kl, loss, drop_in, *first, *again)]


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [x.detach().clone() for x in tensors]


def assert_same_at_the_same_time(
    works: list[Callable[[], list[Tensor]]], wants: list[list[Tensor]], rounds: int
) -> None:
    """On streams of their own, again and again: the bits of one after the other."""
    streams = [torch.cuda.Stream() for _ in works]
    got: list[list[list[Tensor]]] = [[] for _ in works]
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
    for _ in range(rounds):
        for work, stream, kept in zip(works, streams, got, strict=True):
            with torch.cuda.stream(stream):
                kept.append(work())
    for stream, kept, want in zip(streams, got, wants, strict=True):
        stream.synchronize()
        assert all(all_equal(results, want) for results in kept)
