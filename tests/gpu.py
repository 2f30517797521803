"""Where the tests find a GPU, and what tests of CUDA alone share."""

from __future__ import annotations

from collections.abc import Callable

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
