"""The way of a plain eager call: around the dispatcher, to the kernel; and of what is not plain: through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import INTEGERS, LAYOUTS, data, leaf, step_inputs
from torch.utils._python_dispatch import TorchDispatchMode

import pyvae

pytestmark = [pytest.mark.usefixtures("kernels"), pytest.mark.torch_sensitive("the dispatcher's keys and modes")]

CALLS: dict[str, tuple[Callable[..., Any], str, int]] = {  # the kernel's name in a profile, and allocations
    "elbo_loss": (lambda x, t, mu, s: pyvae.elbo_loss(x, t, mu, s), "pyvae::elbo_forward", 2),
    "elbo_terms": (lambda x, t, mu, s: pyvae.elbo_terms(x, t, mu, s, beta=0.5), "pyvae::elbo_forward", 4),
    "reconstruction_loss": (lambda x, t, mu, s: pyvae.reconstruction_loss(x, t), "pyvae::elbo_forward", 2),
    "reparameterize_kl": (lambda x, t, mu, s: pyvae.reparameterize_kl(mu, s), "pyvae::latent_draw", 3),
    "kl_divergence": (lambda x, t, mu, s: pyvae.kl_divergence(mu, s), "pyvae::latent_forward", 2),
}


def arguments(device: str) -> list[torch.Tensor]:
    return [leaf(x) if i != 1 else x for i, x in enumerate(step_inputs("bernoulli", (5, 70), (5, 9), device=device))]


@pytest.mark.parametrize("name", list(CALLS))
def test_plain_calls_cross_the_dispatcher_for_memory_alone(name: str) -> None:
    """At most three times before the kernel: what it writes is allocated."""
    call, kernel, allocations = CALLS[name]
    inputs = arguments("cpu")
    call(*inputs)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        call(*inputs)
    crossed = [event.name for event in recorded.events() if event.name.startswith(("aten::", "pyvae::"))]
    assert crossed.count(kernel) == 1  # which a user finds in a profile
    others = [event for event in crossed if event != kernel]
    assert set(others) <= {"aten::empty"}
    assert len(others) <= allocations


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_data_is_not_copied(dtype: torch.dtype, layout: str) -> None:
    recon, target = data("gaussian", (4, 3, 5, 6), (torch.float32, dtype))
    recon, target = leaf(recon), LAYOUTS[layout](target)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        pyvae.elbo_loss(recon, target, likelihood="gaussian")
    assert {event.name for event in recorded.events() if event.name.startswith("aten::")} == {"aten::empty"}


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_mode_sees_every_operator(device: str) -> None:
    """Nothing goes around the dispatcher where somebody listens."""
    x, t, mu, s = arguments(device)
    with Seen() as seen:
        z, kl = pyvae.reparameterize_kl(mu, s)
        loss = pyvae.elbo_loss(x, t, kl=kl) + z.sum()
        torch.autograd.grad(loss, (x, mu, s))
    for operator in ("latent_forward", "elbo_forward", "latent_backward"):
        assert f"pyvae.{operator}.default" in seen.operators
