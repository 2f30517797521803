"""Types of the command lines' arguments: bad ones are answered in words."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable

import torch


def number(kind: type[int] | type[float], least: float) -> Callable[[str], float]:
    """An argument's type: a finite number not below `least`."""

    def convert(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= kind(text) < math.inf:
                return kind(text)
        noun = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"expected {noun} of at least {least}, got {text!r}")

    return convert


def device(text: str) -> torch.device:
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used here: {reason}") from error
    return torch.device(text)
