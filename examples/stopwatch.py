"""What a training step spends on the objective."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from count_training import take_step
from model import CountVAE
from objective import Objective, objective
from training import autocast

ROUNDS, CALLS = 15, 30


def time_objectives(names: list[str], x: Tensor, latent: int, amp: str | None) -> list[float]:
    """Median seconds of each for a batch like x, forward and backward: all that surrounds the networks in a step."""
    options = {"device": x.device, "dtype": torch.bfloat16 if amp else torch.float32, "requires_grad": True}
    mu, logvar, logits = (torch.randn(shape, **options) for shape in [(len(x), latent)] * 2 + [x.shape])
    z_gradient = torch.ones_like(mu)  # the decoder's in a real step

    def step(objective: Objective) -> None:
        with autocast(x.device, amp):
            z, kl = objective.sample(mu, logvar, 0, 0)
            loss = objective.negative_elbo(logits, x, kl, 1.0)
        torch.autograd.grad([loss, z], [logits, mu, logvar], [None, z_gradient])

    return medians([partial(step, objective(name)) for name in names])


def time_counts(models: dict[str, CountVAE], counts: Tensor) -> list[tuple[float, float]]:
    """Median seconds of each model's loss for a batch of counts: of the objective, as above, and of a whole step."""
    alone = [_objective_step(objective(name, counts=True), model, counts) for name, model in models.items()]
    whole = [_training_step(objective(name, counts=True), model, counts) for name, model in models.items()]
    seconds = medians(alone + whole, calls=5)
    return list(zip(seconds[: len(models)], seconds[len(models) :], strict=True))


def _objective_step(objective: Objective, model: CountVAE, counts: Tensor) -> Callable[[], None]:
    """With everything that the networks of this model hand to the objective as an input."""

    def leaf(x: Tensor) -> Tensor:
        return x.detach().requires_grad_()

    mu, logvar = map(leaf, model.encode(counts))
    scores, likelihood, _ = model(counts, partial(objective.sample, seed=0, row_offset=0))
    learned = {name: leaf(x) for name, x in vars(likelihood).items() if getattr(x, "requires_grad", False)}
    scores, likelihood, z_gradient = leaf(scores), replace(likelihood, **learned), torch.ones_like(mu)

    def step() -> None:
        z, kl = objective.sample(mu, logvar, 0, 0)
        loss = objective.negative_elbo(scores, counts, kl, likelihood)
        torch.autograd.grad([loss, z], [scores, *learned.values(), mu, logvar], [None, z_gradient])

    return step


def _training_step(objective: Objective, model: CountVAE, counts: Tensor) -> Callable[[], object]:
    model = deepcopy(model)  # the timed steps change it
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    return partial(take_step, model, objective, optimizer, counts, 0)


def medians(steps: list[Callable[[], object]], calls: int = CALLS) -> list[float]:
    """Seconds of each, measured in turns, so that a busy machine is busy for all of them."""
    threads = torch.get_num_threads()
    timers = [Timer("step()", globals={"step": step}, num_threads=threads) for step in steps]
    rounds = [[timer.timeit(calls).median for timer in timers] for _ in range(1 + ROUNDS)]
    return [median(times) for times in zip(*rounds[1:], strict=True)]  # the first warms up; torch.compile compiles
