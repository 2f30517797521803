"""What a training step spends on the objective."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from objective import Objective, objective
from training import autocast

ROUNDS, CALLS = 15, 30


def objective_step(objective: Objective, x: Tensor, latent: int, amp: str | None) -> Callable[[], object]:
    """Sampler, KL and likelihood, forward and backward, on a batch like x: what surrounds the networks in a step."""
    options = {"device": x.device, "dtype": torch.bfloat16 if amp else torch.float32, "requires_grad": True}
    mu, logvar, logits = (torch.randn(shape, **options) for shape in [(len(x), latent)] * 2 + [x.shape])
    z_gradient = torch.ones_like(mu)  # the decoder's in a real step

    def step() -> object:
        with autocast(x.device, amp):
            z, kl = objective.sample(mu, logvar, 0, 0)
            loss = objective.negative_elbo(logits, x, kl, 1.0)
        return torch.autograd.grad([loss, z], [logits, mu, logvar], [None, z_gradient])

    return step


def time_objectives(names: list[str], x: Tensor, latent: int, amp: str | None) -> list[float]:
    """Median seconds a step of each, measured in turns so that a busy machine is busy for all of them."""
    steps = [objective_step(objective(name), x, latent, amp) for name in names]
    timers = [Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads()) for step in steps]
    rounds = [[timer.timeit(CALLS).median for timer in timers] for _ in range(1 + ROUNDS)]
    return [median(times) for times in zip(*rounds[1:], strict=True)]  # the first warms up; torch.compile compiles
