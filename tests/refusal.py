"""What the tables of refusals are made of: groups of functions, and what is refused alike of many arguments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from families import PLAIN, SCALES, family

OBJECTIVES = ("reconstruction_loss", "elbo_loss", "elbo_terms")
WITH_KL = ("elbo_loss", "elbo_terms")
SAMPLERS = ("reparameterize", "reparameterize_kl")
LATENTS = (*SAMPLERS, "kl_divergence")
WITH_POSTERIOR = (*LATENTS, *WITH_KL)
REDUCED = (*OBJECTIVES, "kl_divergence")


class Refusal(NamedTuple):
    functions: tuple[str, ...]
    changed: dict[str, Any]
    error: type[Exception]
    words: str  # what follows "function: "

    @property
    def looks_at_data(self) -> bool:
        """Whether it is for numbers, which the CPU alone looks at."""
        return "must hold probabilities" in self.words or "must lie in [0, 1]" in self.words


ANY = "float16, bfloat16, float32, float64"
NO_POSTERIOR = {"mu": None, "logvar": None}
POSITIVE = next(name for name in PLAIN if family(name).takes_pos_weight)


# ---- what is refused alike of many arguments -------------------------------------------------------------------------


def value(functions: tuple[str, ...], name: str, came: Any, words: str, **others: Any) -> Refusal:
    return Refusal(functions, {**others, name: came}, ValueError, f"`{name}` must {words}")


def kind(functions: tuple[str, ...], name: str, came: Any, words: str, **others: Any) -> Refusal:
    return value(functions, name, came, words, **others)._replace(error=TypeError)


def no_tensor(functions: tuple[str, ...], name: str, came: Any, what: str, **others: Any) -> Refusal:
    return kind(functions, name, came, f"be a Tensor, but is {what}", **others)


def dtype(
    functions: tuple[str, ...], name: str, shape: tuple, came: torch.dtype, remedy: str, taken: str = ANY, **others: Any
) -> Refusal:
    words = f"have one of the dtypes {taken}, but has {came}; convert it with `{name}{remedy}`"
    return kind(functions, name, torch.ones(shape, dtype=came), words, **others)


def shapes(
    functions: tuple[str, ...], name: str, came: Iterable[tuple[int, ...]], expected: str, **others: Any
) -> list[Refusal]:
    return [value(functions, name, torch.ones(x), f"{expected}, but has shape {x}", **others) for x in came]


def device(functions: tuple[str, ...], name: str, came: torch.Tensor, other: str, **others: Any) -> Refusal:
    return value(functions, name, came.to("meta"), f"be on {other}'s device cpu, but is on meta", **others)


def one_of(
    functions: tuple[str, ...], name: str, options: tuple[str, ...], no_name: Any, what: str, others: str = ""
) -> list[Refusal]:
    """A name that is none of them, and something that is not a name."""
    listed = ", ".join(f'"{option}"' for option in options) + others
    start = f"be one of {listed}, but is"
    return [value(functions, name, "nll", f'{start} "nll"'), kind(functions, name, no_name, f"{start} {what}")]


each_scale = ", ".join(f"`{scale}`" for scale in SCALES)
exactly_one = f"exactly one of {each_scale} must be given, but got"
