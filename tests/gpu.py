"""Where the tests find a GPU, and what tests of CUDA alone share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType
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
