"""Trains a variational autoencoder on real images with pyvae's objective, and draws what it has learned.

python examples/train_vae.py                                   # handwritten digits, about a minute on two cores
python examples/train_vae.py --data mnist --epochs 20          # needs torchvision
torchrun --nproc-per-node=2 examples/train_vae.py              # the same run on two processes
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

import data
import objective
from plots import pictures
from timing import time_objectives
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
    settings = Settings(args.data, args.loss, args.latent, args.batch_size, args.lr, args.beta, args.seed, args.amp)
    # The run to compare with: same seed, same first weights, the other loss.
    rival = replace(settings, loss="fused" if args.loss == "eager" else "eager")

    height, width = images.train.shape[2:]
    say(
        f"{len(images.train)} images of {height}x{width} to train on, {len(images.held_out)} held out; {args.loss} loss"
    )
    say(HEADER)
    models, histories = {}, {}
    for chosen, rows in ((settings, 10), (rival, 1)):
        if chosen is rival:
            say(f"The same again with the {rival.loss} loss, to compare:")
        checkpoint = args.out / f"checkpoint-{chosen.loss}.pt"
        model, history = train(chosen, images, args.epochs, workers, checkpoint, args.resume, rows)
        models[chosen.loss], histories[chosen.loss] = model, history
        if workers.first:
            (args.out / f"history-{chosen.loss}.json").write_text(json.dumps(history, indent=1) + "\n")

    if workers.first:
        paths = pictures(args.out, models[settings.loss], images, histories)
        print("Pictures:", *paths)
        x = images.train[: args.batch_size].to(workers.device)
        seconds = time_objectives(list(models), x, args.latent, args.amp)
        held_out = images.held_out.to(workers.device)
        elbos = {name: evaluate(model, held_out, settings, samples=10)["elbo"] for name, model in models.items()}
        print(closing_line(seconds, elbos, x))
    workers.wait()


def closing_line(seconds: dict[str, float], elbos: dict[str, float], x: torch.Tensor) -> str:
    shape = "x".join(map(str, x.shape))
    times = ", ".join(f"{name} {1e6 * time:.0f} µs" for name, time in seconds.items())
    values = ", ".join(f"{name} {elbo:.2f}" for name, elbo in elbos.items())
    first, second = seconds.values()
    return (
        f"Objective of a step (sampler, KL, likelihood; forward + backward; {shape}): {times} ({second / first:.1f}x). "
        f"Held-out ELBO: {values} nats per image."
    )


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
    add(
        "--epochs",
        type=number(int, 1),
        help="in all, a resumed run's earlier ones included (default: 200 for digits, else 20)",
    )
    add("--batch-size", type=number(int, 1), default=64, help="images a step, over all processes (default: 64)")
    add("--lr", type=number(float, 0), default=2e-3, help="Adam's step size (default: 0.002)")
    add("--seed", type=number(int, 0), default=0, help="of weights, order and noise (default: 0)")
    add("--amp", choices=["bf16"], help="run the networks under autocast")
    add("--device", type=device, default="cpu", help="cpu (default), cuda, cuda:1, ...")
    add(
        "--threads",
        type=number(int, 1),
        help="of the CPU (default: 1 for digits, which are too small to share, else all)",
    )
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


def number(kind: type[int] | type[float], least: float) -> Callable[[str], float]:
    """An argument's type: a finite number not below `least`."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"expected {NOUN[kind]} of at least {least}, got {text!r}")
        return value

    return convert


NOUN = {int: "a whole number", float: "a number"}


def device(text: str) -> torch.device:
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used here: {reason}") from error
    return torch.device(text)


if __name__ == "__main__":
    main()
