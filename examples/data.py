"""Images in [0, 1], whole in memory: scikit-learn's digits, or MNIST and Fashion-MNIST through torchvision."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NAMES = ("digits", "mnist", "fashion-mnist")
DIGITS_HELD_OUT = 360  # of 1,797: a fifth


class Data(NamedTuple):
    train: Tensor  # (N, 1, H, W) float32 in [0, 1]
    held_out: Tensor  # (M, 1, H, W) float32 in [0, 1]
    held_out_labels: Tensor  # (M,) int64
    classes: list[str]


def load(name: str, folder: str) -> Data:
    """The data set `name`; only MNIST and Fashion-MNIST use `folder`, and download what it lacks."""
    return _digits() if name == "digits" else _torchvision(name, folder)


def _digits() -> Data:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.as_tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16  # 17 levels of gray
    labels = torch.as_tensor(bunch.target)
    # The file is ordered by writer: shuffle before splitting, and always alike, whatever the seed of the run.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    held_out, train = order[:DIGITS_HELD_OUT], order[DIGITS_HELD_OUT:]
    return Data(images[train], images[held_out], labels[held_out], [str(digit) for digit in range(10)])


def _torchvision(name: str, folder: str) -> Data:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise SystemExit(
            f"--data {name} needs torchvision, which does not import here ({error}).\n"
            "Install it (pip install torchvision), or use --data digits, which needs no download."
        ) from error
    source = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    train, held_out = (source(folder, train=part, download=True) for part in (True, False))
    classes = [str(digit) for digit in range(10)] if name == "mnist" else list(held_out.classes)
    return Data(_scaled(train.data), _scaled(held_out.data), held_out.targets, classes)


def _scaled(images: Tensor) -> Tensor:
    return images.unsqueeze(1).float() / 255
