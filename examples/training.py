"""Training, evaluation and checkpoints.

Everything random is a function of the run's seed and of the step or epoch it is for, so nothing random has to be
stored: a resumed run and a run on several processes see the same order of images and the same noise.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import pyvae
from data import Data
from model import VAE
from objective import Objective, objective
from workers import Workers

WEIGHTS, ORDER, NOISE, HELD_OUT, GLOBAL = range(5)  # what a derived seed is for
EVALUATION_ROWS = 1000  # at a time


@dataclass(frozen=True)
class Settings:
    """What a checkpoint must share with the run that resumes it."""

    data: str
    loss: str
    latent: int
    batch_size: int
    lr: float
    beta: float
    seed: int
    amp: str | None


def derived_seed(*key: int) -> int:
    """64 bits that are the same on every machine and unrelated between keys."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def autocast(device: torch.device, amp: str | None) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp is not None)


def train(
    settings: Settings, data: Data, epochs: int, workers: Workers, checkpoint: Path, resume: bool, rows: int
) -> tuple[VAE, list[dict[str, Any]]]:
    """The trained model and its history: a dict an epoch. Prints about `rows` of them."""
    torch.manual_seed(derived_seed(settings.seed, WEIGHTS))  # the same first weights for every loss, in every process
    model = VAE(data.train.shape[1:], settings.latent).to(workers.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
    history = restore(checkpoint, settings, model, optimizer) if resume and checkpoint.exists() else []
    done = len(history)
    if done > epochs:
        raise SystemExit(f"{checkpoint} has {done} epochs already: resume it with --epochs {done} or more.")
    if done == epochs:
        return model, history

    shared = DistributedDataParallel(model) if workers.count > 1 else model  # averages the gradients of all
    loss = objective(settings.loss)
    images, held_out = data.train.to(workers.device), data.held_out.to(workers.device)
    steps = -(-len(images) // settings.batch_size)
    hidden = None if workers.first else True  # None: shown on a terminal only
    progress = {"total": epochs * steps, "initial": done * steps, "unit": "step", "leave": False, "disable": hidden}
    with tqdm(desc=settings.loss, **progress) as bar:
        for epoch in range(done, epochs):
            train_terms, losses = train_epoch(shared, loss, optimizer, images, settings, epoch, workers, bar)
            held_out_terms = evaluate(model, held_out, settings)
            history.append({"epoch": epoch + 1, "train": train_terms, "held_out": held_out_terms, "steps": losses})
            bar.set_postfix_str(f"epoch {epoch + 1}, held-out ELBO {held_out_terms['elbo']:.2f}")
            if workers.first:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
                unfinished = checkpoint.with_suffix(".tmp")  # an interruption must not cost the last good checkpoint
                torch.save({"settings": asdict(settings), **state}, unfinished)
                os.replace(unfinished, checkpoint)
                if (epoch + 1) % max(1, epochs // rows) == 0 or epoch + 1 == epochs:
                    bar.write(row(history[-1]))
    return model, history


def train_epoch(
    model: torch.nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    images: Tensor,  # (N, 1, H, W)
    settings: Settings,
    epoch: int,
    workers: Workers,
    bar: tqdm,
) -> tuple[dict[str, float], list[float]]:
    """The epoch's mean terms, and the loss of each step; in nats per image."""
    torch.manual_seed(derived_seed(settings.seed, GLOBAL, epoch, workers.rank))  # what the eager loss draws from
    order = torch.Generator().manual_seed(derived_seed(settings.seed, ORDER, epoch))
    batches = torch.randperm(len(images), generator=order).split(settings.batch_size)  # the last one may be smaller
    sums = []
    for step, batch in enumerate(batches):
        begin, end = workers.rows(len(batch))
        x = images[batch[begin:end].to(images.device)]
        seed = derived_seed(settings.seed, NOISE, epoch, step)
        with autocast(images.device, settings.amp):
            logits, kl = model(x, partial(objective.sample, seed=seed, row_offset=begin))
            loss = objective.negative_elbo(logits, x, kl, settings.beta)
        optimizer.zero_grad()
        # The gradient of the global batch's mean. Processes average theirs, so each multiplies by their number.
        (loss * (workers.count / len(batch))).backward()
        optimizer.step()
        sums.append(torch.stack([loss.detach(), kl.detach().sum()]))
        bar.update()

    total = torch.stack(sums)
    if workers.count > 1:
        dist.all_reduce(total)
    loss, kl = total.cpu().double().unbind(1)  # of each step
    sizes = torch.tensor([len(batch) for batch in batches])
    terms = mean_terms((loss - settings.beta * kl).sum().item(), kl.sum().item(), len(images))
    return terms, (loss / sizes).tolist()


@torch.no_grad()
def evaluate(model: VAE, images: Tensor, settings: Settings, samples: int = 1) -> dict[str, float]:
    """Mean terms in nats per image, over `samples` draws of z each: the same draws for every model of this seed."""
    recon = kl = 0.0
    for draw in range(samples):
        seed = derived_seed(settings.seed, HELD_OUT, draw)
        for begin in range(0, len(images), EVALUATION_ROWS):
            x = images[begin : begin + EVALUATION_ROWS]
            with autocast(images.device, settings.amp):
                logits, kls = model(x, partial(pyvae.reparameterize_kl, seed=seed, row_offset=begin))
                terms = pyvae.elbo_terms(logits, x, kl=kls, likelihood="bernoulli_logits")
            recon += terms.recon.item()
            kl += terms.kl.item()
    return mean_terms(recon, kl, samples * len(images))


def mean_terms(recon: float, kl: float, images: int) -> dict[str, float]:
    return {"elbo": -(recon + kl) / images, "reconstruction": recon / images, "kl": kl / images}


HEADER = " epoch  train:  ELBO = -(recon. + KL)   held out:  ELBO = -(recon. + KL)   nats per image"


def row(record: dict[str, Any]) -> str:
    cells = (
        "{elbo:9.2f} = -({reconstruction:.2f} + {kl:.2f})".format(**record[part]).center(width)
        for part, width in (("train", 30), ("held_out", 32))
    )
    return "  ".join([f"{record['epoch']:6d}", *cells]).rstrip()


def restore(path: Path, settings: Settings, model: VAE, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Puts the checkpoint into model and optimizer; its history."""
    state = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
    for name, value in asdict(settings).items():
        if state["settings"][name] != value:
            raise SystemExit(
                f"{path} was trained with {name} = {state['settings'][name]}, this run asks for {value}: "
                "give it the same, or another --out."
            )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["history"]
