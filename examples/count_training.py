"""Training and evaluation on counts; seeds as in training.py."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cells import Cells
from model import CountVAE
from objective import Objective, objective
from training import GLOBAL, HELD_OUT, NOISE, ORDER, WEIGHTS, derived_seed

THETA_LR = 10.0  # times that of the weights


@dataclass(frozen=True)
class Settings:
    zero_inflated: bool
    latent: int
    epochs: int
    batch_size: int
    lr: float
    seed: int


def train(
    name: str, loss: Objective, learned: Cells, held_out: Cells, settings: Settings
) -> tuple[CountVAE, list[dict[str, Any]]]:
    """The trained model and its history, a dict an epoch: negative ELBOs in nats per cell, and each step's."""
    torch.manual_seed(derived_seed(settings.seed, WEIGHTS))  # the same first weights for every loss
    counts = learned.counts
    model = CountVAE(counts.shape[1], settings.latent, settings.zero_inflated).to(counts.device)
    optimizer = torch.optim.Adam(parameter_groups(model, settings.lr))
    torch.manual_seed(derived_seed(settings.seed, GLOBAL))  # what the eager loss draws from
    history = []
    with tqdm(total=settings.epochs, desc=name, unit="epoch", leave=False, disable=None) as bar:
        for epoch in range(settings.epochs):
            order = torch.Generator().manual_seed(derived_seed(settings.seed, ORDER, epoch))
            batches = torch.randperm(len(counts), generator=order).split(settings.batch_size)
            steps = []
            for step, batch in enumerate(batches):
                seed = derived_seed(settings.seed, NOISE, epoch, step)
                steps.append(take_step(model, loss, optimizer, counts[batch.to(counts.device)], seed))
            losses = torch.stack(steps).double().cpu()
            mean = losses @ torch.tensor([len(batch) for batch in batches]).double() / len(counts)
            held_out_mean = evaluate(model, held_out.counts, settings.seed)
            history.append(
                {"epoch": epoch + 1, "train": mean.item(), "held_out": held_out_mean, "steps": losses.tolist()}
            )
            bar.update()
            bar.set_postfix_str(f"held out {held_out_mean:.1f} nats per cell")
    return model, history


def parameter_groups(model: CountVAE, lr: float) -> list[dict[str, Any]]:
    """The dispersions have further to go than weights, in logarithms: from 1 to 10, say."""
    weights = [parameter for parameter in model.parameters() if parameter is not model.log_theta]
    return [{"params": weights, "lr": lr}, {"params": [model.log_theta], "lr": THETA_LR * lr}]


def take_step(
    model: CountVAE, objective: Objective, optimizer: torch.optim.Optimizer, counts: Tensor, seed: int
) -> Tensor:
    """One step of the optimizer; the batch's mean negative ELBO before it."""
    scores, likelihood, kl = model(counts, partial(objective.sample, seed=seed, row_offset=0))
    loss = objective.negative_elbo(scores, counts, kl, likelihood) / len(counts)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def evaluate(model: CountVAE, counts: Tensor, seed: int) -> float:
    """The mean negative ELBO, for every model by pyvae's loss and with the same draw of z."""
    fused = objective("fused", counts=True)
    sample = partial(fused.sample, seed=derived_seed(seed, HELD_OUT), row_offset=0)
    scores, likelihood, kl = model(counts, sample)
    return fused.negative_elbo(scores, counts, kl, likelihood).item() / len(counts)
