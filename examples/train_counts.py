"""Trains a variational autoencoder on counts of single cells, as scVI does, with a negative binomial likelihood.

python examples/train_counts.py                                # drawn from a known model, which is found again
python examples/train_counts.py --likelihood zinb              # zero-inflated
python examples/train_counts.py --data blood --epochs 100      # real blood cells; needs scanpy, which ships them
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import cells
from count_plots import pictures
from count_training import Settings, train
from objective import objective
from options import device, number
from stopwatch import time_counts

LOSSES = ("fused", "eager")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    zero_inflated = args.likelihood == "zinb"
    every = cells.blood() if args.data == "blood" else cells.draw(args.cells, args.genes, args.seed, zero_inflated)
    every = every._replace(counts=every.counts.to(args.device))
    fifth = len(every.counts) // 5
    held_out, learned = every.part(0, fifth), every.part(fifth, None)
    sizes = f"{len(learned.counts)} cells of {every.counts.shape[1]} genes to train on, {fifth} held out"
    print(f"{sizes}; mean count {every.counts.float().mean():.2f}; likelihood {args.likelihood}")

    settings = Settings(zero_inflated, args.latent, args.epochs, args.batch_size, args.lr, args.seed)
    models, histories = {}, {}
    for loss in LOSSES:  # the same seed and the same first weights
        models[loss], histories[loss] = train(loss, objective(loss, counts=True), learned, held_out, settings)
        (args.out / f"history-{loss}.json").write_text(json.dumps(histories[loss], indent=1) + "\n")
        last = histories[loss][-1]
        print(f"{loss:>5} loss: train {last['train']:.2f}, held out {last['held_out']:.2f} nats per cell", end="")
        print("" if every.log_theta is None else "; " + found_again(models[loss].log_theta, every.log_theta))

    print("Pictures:", *pictures(args.out, models["fused"], every, histories))
    (own, own_step), (other, other_step) = time_counts(models, learned.counts[: args.batch_size])
    objectives = f"fused {1e3 * own:.2f} ms, eager {1e3 * other:.2f} ms ({other / own:.1f}x)"
    steps = f"fused {1e3 * own_step:.2f} ms, eager {1e3 * other_step:.2f} ms ({other_step / own_step:.1f}x)"
    print(f"Objective (sampler, KL, likelihood; forward + backward): {objectives}. Whole step: {steps}.")


def found_again(log_theta: Tensor, true: Tensor) -> str:
    found = log_theta.detach().double().cpu().numpy()
    correlation = np.corrcoef(true.numpy(), found)[0, 1]
    slope = np.polyfit(true.numpy(), found, 1)[0]
    return f"log theta against the true one: correlation {correlation:.3f}, slope {slope:.2f}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data", choices=["drawn", "blood"], default="drawn", help="the cells (default: drawn from a known model)")
    add("--likelihood", choices=["nb", "zinb"], default="nb", help="negative binomial, or zero-inflated (default: nb)")
    add("--cells", type=number(int, 10), default=2000, help="to draw, a fifth of them held out (default: 2000)")
    add("--genes", type=number(int, 2), default=2000, help="to draw (default: 2000)")
    add("--latent", type=number(int, 2), default=10, help="dimensions of the latent space (default: 10)")
    add("--epochs", type=number(int, 1), default=30, help="default: 30")
    add("--batch-size", type=number(int, 1), default=128, help="cells a step (default: 128)")
    add("--lr", type=number(float, 0), default=3e-3, help="Adam's step size (default: 0.003)")
    add("--seed", type=number(int, 0), default=0, help="of the drawn cells, weights, order and noise (default: 0)")
    add("--device", type=device, default="cpu", help="cpu (default), cuda, cuda:1, ...")
    add("--threads", type=number(int, 1), help="of the CPU (default: all)")
    add("--out", type=Path, help="folder for pictures and histories (default: runs/counts-DATA)")
    args = parser.parse_args(argv)
    args.out = args.out or Path("runs", f"counts-{args.data}")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out: {args.out} is a file, not a folder")
    return args


if __name__ == "__main__":
    main()
