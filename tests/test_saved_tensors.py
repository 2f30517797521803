"""What a loss keeps for its backward pass where hooks pack it: checkpoints and offloading leave nothing behind, and get
the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import REDUCTIONS, all_equal, leaf, step_inputs
from torch import Tensor
from torch.autograd import grad
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

import pyvae

SHAPE = (6, 3, 70)
LOSSES = {
    "bernoulli_logits": "bernoulli_logits",
    "negative_binomial": pyvae.NegativeBinomial(torch.linspace(-1, 3, 70), torch.linspace(3, 5, 6)),
}
EACH = pytest.mark.parametrize("likelihood", LOSSES)


def inputs(likelihood: str, device: str) -> list[Tensor]:
    recon, target, mu, logvar = step_inputs("bernoulli_logits", SHAPE, (SHAPE[0], 9), device=device)
    return [recon, target.round() if likelihood == "negative_binomial" else target, mu, logvar]


def step(likelihood: str, reduction: str, recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=5)
    loss = pyvae.elbo_loss(recon, target, kl=kl, likelihood=LOSSES[likelihood], reduction=reduction)
    return loss + z.sum()


def made_in_forward(run: Callable[[], Any]) -> int:
    """Bytes that the objective's forward kernel allocates and keeps."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = run()
    events = [event for event in profiler.key_averages() if event.key == "pyvae::elbo_forward"]
    assert len(events) == 1 and kept is not None
    return events[0].cpu_memory_usage


@EACH
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_are_those_without_hooks(backend: str, likelihood: str, reduction: str, device: str) -> None:
    given = inputs(likelihood, device)

    def gradients(loss: Tensor) -> tuple[Tensor, ...]:
        return grad(loss.sum(), (given[0], *given[2:]))

    def run(*tensors: Tensor) -> Tensor:
        return step(likelihood, reduction, *tensors)

    want = gradients(run(*given))
    assert all_equal(gradients(checkpoint(run, *given, use_reentrant=False)), want)
    with save_on_cpu():
        offloaded = run(*given)
    assert all_equal(gradients(offloaded), want)
    with saved_tensors_hooks(lambda x: x.numpy(force=True), lambda x: torch.from_numpy(x).to(device)):
        packed = run(*given)
    for _ in range(2):
        assert all_equal(grad(packed.sum(), (given[0], *given[2:]), retain_graph=True), want)


@EACH
@pytest.mark.usefixtures("kernels")
def test_no_gradient_waits_outside_of_what_is_packed(likelihood: str) -> None:
    """The buffer that the forward pass writes is no saved tensor: where hooks are, there is none."""
    recon, target, *_ = inputs(likelihood, "cpu")
    recon = leaf(recon)

    def loss() -> Tensor:
        return pyvae.elbo_loss(recon, target, likelihood=LOSSES[likelihood])

    size = recon.numel() * recon.element_size()
    assert made_in_forward(loss) >= size
    with saved_tensors_hooks(lambda x: None, lambda x: x):
        assert made_in_forward(loss) < size / 10
    assert made_in_forward(lambda: checkpoint(loss, use_reentrant=False)) < size / 10
