"""Trains a variational autoencoder on real images with pyvae's objective, and draws what it has learned.

python examples/train_vae.py                                   # handwritten digits, about a minute on two cores
python examples/train_vae.py --data mnist --epochs 20          # needs torchvision
torchrun --nproc-per-node=2 examples/train_vae.py              # the same run on two processes
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import data
import objective
from options import device, number
from plots import pictures
from stopwatch import time_objectives
from training import HEADER, Settings, evaluate, train
from workers import Workers, join


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    with join(args.device) as workers:
        run(args, workers)


def run(args: argparse.Namespace, workers: Workers) -> None:
    say: Callable[..., None] = print if workers.first else lambda *words: None
    if not workers.first:
        workers.wait()  # until the first process has downloaded what is missing
    images = data.load(args.data, args.data_dir)
    if workers.first:
        workers.wait()
    if args.threads or args.data == "digits":
        torch.set_num_threads(args.threads or 1)
    args.out.mkdir(parents=True, exist_ok=True)

    height, width = images.train.shape[2:]
    sizes = f"{len(images.train)} images of {height}x{width} to train on, {len(images.held_out)} held out"
    say(f"{sizes}; {args.loss} loss\n{HEADER}")
    rival = "fused" if args.loss == "eager" else "eager"  # the run to compare with: same seed, same first weights
    models, histories = {}, {}
    for loss, rows in ((args.loss, 10), (rival, 1)):
        if loss == rival:
            say(f"The same again with the {rival} loss, to compare:")
        settings = Settings(args.data, loss, args.latent, args.batch_size, args.lr, args.beta, args.seed, args.amp)
        checkpoint = args.out / f"checkpoint-{loss}.pt"
        models[loss], histories[loss] = train(settings, images, args.epochs, workers, checkpoint, args.resume, rows)
        if workers.first:
            (args.out / f"history-{loss}.json").write_text(json.dumps(histories[loss], indent=1) + "\n")

    if workers.first:
        print("Pictures:", *pictures(args.out, models[args.loss], images, histories))
        x = images.train[: args.batch_size].to(workers.device)
        own, other = time_objectives(list(models), x, args.latent, args.amp)
        held_out = images.held_out.to(workers.device)
        elbos = [evaluate(model, held_out, settings, samples=10)["elbo"] for model in models.values()]
        print(
            f"Objective of a step (sampler, KL, likelihood; forward + backward; {'x'.join(map(str, x.shape))}): "
            f"{args.loss} {1e6 * own:.0f} µs, {rival} {1e6 * other:.0f} µs ({other / own:.1f}x). "
            f"Held-out ELBO: {args.loss} {elbos[0]:.2f}, {rival} {elbos[1]:.2f} nats per image."
        )
    workers.wait()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data", choices=data.NAMES, default="digits", help="the images (default: digits, bundled with scikit-learn)")
    add("--data-dir", default="data", help="where torchvision keeps its downloads (default: data)")
    add("--loss", choices=objective.NAMES, default="fused", help="who computes the objective (default: fused)")
    add("--latent", type=number(int, 1), default=2, help="dimensions of the latent space (default: 2)")
    add("--beta", type=number(float, 0), default=1.0, help="weight of the KL (default: 1, the ELBO)")
    add("--epochs", type=number(int, 1), help="in all, earlier ones included (default: 200 for digits, else 20)")
    add("--batch-size", type=number(int, 1), default=64, help="images a step, over all processes (default: 64)")
    add("--lr", type=number(float, 0), default=2e-3, help="Adam's step size (default: 0.002)")
    add("--seed", type=number(int, 0), default=0, help="of weights, order and noise (default: 0)")
    add("--amp", choices=["bf16"], help="run the networks under autocast")
    add("--device", type=device, default="cpu", help="cpu (default), cuda, cuda:1, ...")
    add("--threads", type=number(int, 1), help="of the CPU (default: 1 for digits, too small to share; else all)")
    add("--out", type=Path, help="folder for pictures, histories and checkpoints (default: runs/DATA)")
    add("--resume", action="store_true", help="continue from the checkpoints in --out")
    args = parser.parse_args(argv)
    args.epochs = args.epochs or (200 if args.data == "digits" else 20)
    args.out = args.out or Path("runs", args.data)
    if args.resume and not (args.out / f"checkpoint-{args.loss}.pt").exists():
        parser.error(f"--resume: there is no checkpoint-{args.loss}.pt in {args.out}")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out: {args.out} is a file, not a folder")
    return args


if __name__ == "__main__":
    main()
