"""What a training step spends on the objective."""

from __future__ import annotations

from statistics import median

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from objective import Objective, objective
from training import autocast

ROUNDS, CALLS = 15, 30


def time_objectives(names: list[str], x: Tensor, latent: int, amp: str | None) -> list[float]:
    """Median seconds of each for a batch like x, forward and backward: all that surrounds the networks in a step.

    Measured in turns, so that a busy machine is busy for all of them.
    """
    options = {"device": x.device, "dtype": torch.bfloat16 if amp else torch.float32, "requires_grad": True}
    mu, logvar, logits = (torch.randn(shape, **options) for shape in [(len(x), latent)] * 2 + [x.shape])
    z_gradient = torch.ones_like(mu)  # the decoder's in a real step

    def step(objective: Objective) -> None:
        with autocast(x.device, amp):
            z, kl = objective.sample(mu, logvar, 0, 0)
            loss = objective.negative_elbo(logits, x, kl, 1.0)
        torch.autograd.grad([loss, z], [logits, mu, logvar], [None, z_gradient])

    threads = torch.get_num_threads()
    timers = [Timer("step(o)", globals={"step": step, "o": objective(name)}, num_threads=threads) for name in names]
    rounds = [[timer.timeit(CALLS).median for timer in timers] for _ in range(1 + ROUNDS)]
    return [median(times) for times in zip(*rounds[1:], strict=True)]  # the first warms up; torch.compile compiles
