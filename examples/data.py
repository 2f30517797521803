"""Images in [0, 1], whole in memory: scikit-learn's digits, or MNIST and Fashion-MNIST through torchvision."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NAMES = ("digits", "mnist", "fashion-mnist")


class Data(NamedTuple):
    train: Tensor  # (N, 1, H, W) float32 in [0, 1]
    held_out: Tensor  # (M, 1, H, W) float32 in [0, 1]
    held_out_labels: Tensor  # (M,) int64
    classes: list[str]


def load(name: str, folder: str) -> Data:
    """The data set `name`; only MNIST and Fashion-MNIST use `folder`, and download what it lacks."""
    classes = [str(digit) for digit in range(10)]
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.as_tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # 17 levels of gray
        # The file is ordered by writer: shuffle before splitting, and always alike, whatever the seed of the run.
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        held_out, train = order[:360], order[360:]  # a fifth, and the rest
        return Data(images[train], images[held_out], torch.as_tensor(digits.target)[held_out], classes)
    try:
        from torchvision import datasets
    except ImportError as error:
        raise SystemExit(
            f"--data {name} needs torchvision, which does not import here ({error}).\n"
            "Install it (pip install torchvision), or use --data digits, which needs no download."
        ) from error
    source = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    train, held_out = (source(folder, train=part, download=True) for part in (True, False))
    images = [part.data.unsqueeze(1).float() / 255 for part in (train, held_out)]
    return Data(*images, held_out.targets, classes if name == "mnist" else list(held_out.classes))
