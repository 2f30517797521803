"""Tables of test_refusals.py: what the functions refuse, in their words, and what all of them must take."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from cases import data
from families import LIKELIHOODS, SCALES, family

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


ANY = "float16, bfloat16, float32, float64"
NO_POSTERIOR = {"mu": None, "logvar": None}
POSITIVE = next(name for name in LIKELIHOODS if family(name).takes_pos_weight)


# ---- what is refused alike of many arguments -------------------------------------------------------------------------


def no_tensor(functions: tuple[str, ...], name: str, value: Any, what: str, **others: Any) -> Refusal:
    return Refusal(functions, {**others, name: value}, TypeError, f"`{name}` must be a Tensor, but is {what}")


def dtype(
    functions: tuple[str, ...], name: str, shape: tuple, came: torch.dtype, remedy: str, taken: str = ANY, **others: Any
) -> Refusal:
    words = f"`{name}` must have one of the dtypes {taken}, but has {came}; convert it with `{name}{remedy}`"
    return Refusal(functions, {**others, name: torch.ones(shape, dtype=came)}, TypeError, words)


def shape(functions: tuple[str, ...], name: str, came: tuple[int, ...], expected: str, **others: Any) -> Refusal:
    words = f"`{name}` must {expected}, but has shape {came}"
    return Refusal(functions, {**others, name: torch.ones(came)}, ValueError, words)


def device(functions: tuple[str, ...], name: str, value: torch.Tensor, other: str, **others: Any) -> Refusal:
    words = f"`{name}` must be on {other}'s device cpu, but is on meta"
    return Refusal(functions, {**others, name: value.to("meta")}, ValueError, words)


def one_of(functions: tuple[str, ...], name: str, options: tuple[str, ...], kind: Any, what: str) -> list[Refusal]:
    """A name that is none of them, and something that is not a name."""
    listed = ", ".join(f'"{option}"' for option in options)
    start = f"`{name}` must be one of {listed}, but is"
    return [
        Refusal(functions, {name: "mse"}, ValueError, f'{start} "mse"'),
        Refusal(functions, {name: kind}, TypeError, f"{start} {what}"),
    ]


# ---- the objective ---------------------------------------------------------------------------------------------------

DATA = [
    no_tensor(OBJECTIVES, "recon", [0.5], "a list"),
    no_tensor(OBJECTIVES, "target", np.ones((4, 2, 3)), "a ndarray"),
    dtype(OBJECTIVES, "recon", (4, 2, 3), torch.int64, ".float()"),
    *(
        dtype(OBJECTIVES, "target", (4, 2, 3), came, ".to(recon.dtype)")
        for came in (torch.uint8, torch.bool, torch.int32, torch.complex64, torch.float8_e4m3fn)
    ),
    *(
        Refusal(OBJECTIVES, {"target": x}, TypeError, f"`target` must be a dense (strided) Tensor, but {came}")
        for x, came in (
            (torch.ones(4, 6).to_sparse(), "has layout torch.sparse_coo"),
            (torch.nested.nested_tensor([torch.ones(2, 3)] * 4), "is a nested one"),
        )
    ),
    *(shape(OBJECTIVES, name, (), "have a batch dimension, (B, ...)") for name in ("recon", "target")),
    *(
        shape(OBJECTIVES, "target", came, "have recon's shape (4, 2, 3) or its flattened form")
        for came in ((4, 3, 2), (4, 2), (4, 7), (4, 3), (24,), (2, 12), (4, 1, 6), (1, 2, 3), (4, 2, 3, 1))
    ),
    device(OBJECTIVES, "target", torch.ones(4, 2, 3), "recon"),
    *(
        Refusal(
            OBJECTIVES,
            {"recon": torch.tensor([[math.nan, 0.5], [bad, 1.0]]), "target": torch.ones(2, 2), **NO_POSTERIOR},
            ValueError,
            f'`recon` must hold probabilities in [0, 1] for likelihood="bernoulli", but holds {bad}; logits go with '
            'likelihood="bernoulli_logits"',
        )
        for bad in (1.5, -0.25)
    ),
]

OPTIONS = [
    *one_of(OBJECTIVES, "likelihood", LIKELIHOODS, 1, "an int"),
    *one_of(REDUCED, "reduction", ("none", "sum", "batchmean"), True, "a bool"),
    Refusal(
        REDUCED,
        {"reduction": "mean"},
        ValueError,
        '`reduction` must be "sum", "batchmean" or "none", but is "mean", which over all elements would divide the KL '
        'and the reconstruction by different counts and so re-weight them; use "batchmean" for the mean over the batch '
        'of each sample\'s sum, or "sum" for the sum over everything',
    ),
    *(
        Refusal(
            OBJECTIVES,
            {"likelihood": name, "pos_weight": 2.0},
            ValueError,
            f'`pos_weight` must come with likelihood="{POSITIVE}", but likelihood is "{name}"',
        )
        for name in LIKELIHOODS
        if not family(name).takes_pos_weight
    ),
]
SETTINGS = OPTIONS.copy()  # which a module refuses when it is made

no_number = "be a number or a 0-d Tensor"
OPTIONS += [
    no_tensor(OBJECTIVES, "weight", 2.0, "a float"),
    dtype(OBJECTIVES, "weight", (3,), torch.int64, ".to(recon.dtype)", f"{ANY}, bool"),
    *(
        shape(OBJECTIVES, "weight", came, "broadcast to recon's shape (4, 2, 3)")
        for came in ((2,), (4,), (4, 6), (3, 2, 3), (1, 4, 2, 3), (0, 2, 3))
    ),
    device(OBJECTIVES, "weight", torch.ones(3), "recon"),
    no_tensor(OBJECTIVES, "pos_weight", "2", "a str", likelihood=POSITIVE),
    shape(OBJECTIVES, "pos_weight", (2,), "broadcast to recon's shape (4, 2, 3)", likelihood=POSITIVE),
    device(OBJECTIVES, "pos_weight", torch.ones(3), "recon", likelihood=POSITIVE),
    Refusal(WITH_KL, {"beta": "1"}, TypeError, f"`beta` must {no_number}, but is a str"),
    Refusal(WITH_KL, {"beta": torch.tensor(1j)}, TypeError, "`beta` must be real, but has dtype torch.complex64"),
    shape(WITH_KL, "beta", (1,), no_number),
    device(WITH_KL, "beta", torch.ones(()), "recon"),
]

KL = [
    *(
        Refusal(
            WITH_KL, {"kl": torch.ones(4)} | others, ValueError,
            f"`kl` must be given without a posterior, but came with {came}",
        )
        for others, came in (({}, "`mu` and `logvar`"), ({**NO_POSTERIOR, "std": torch.ones(4, 3)}, "`std`"))
    ),
    no_tensor(WITH_KL, "kl", 1.0, "a float", **NO_POSTERIOR),
    dtype(WITH_KL, "kl", (4,), torch.float16, ".float()", "float32, float64", **NO_POSTERIOR),
    *(
        shape(WITH_KL, "kl", came, "have shape (4,), one value a sample", **NO_POSTERIOR)
        for came in ((), (1,), (4, 3), (4, 1), (5,))
    ),
    device(WITH_KL, "kl", torch.ones(4), "recon", **NO_POSTERIOR),
    Refusal(WITH_KL, {"mu": None}, ValueError, "`mu` must be given with `logvar`, but is None"),
    shape(WITH_KL, "mu", (5, 3), "have recon's batch size 4", logvar=torch.ones(5, 3)),
    device(WITH_KL, "mu", torch.ones(4, 3), "recon", logvar=torch.ones(4, 3, device="meta")),
]  # fmt: skip

# ---- the posterior and the noise -------------------------------------------------------------------------------------


def _of_scale(scale: str) -> list[Refusal]:
    others = {} if scale == "logvar" else {"logvar": None}
    return [
        *(
            shape(WITH_POSTERIOR, scale, came, "have mu's shape (4, 3)", **others)
            for came in ((), (3,), (4, 2), (1, 3), (4, 3, 1))
        ),
        no_tensor(WITH_POSTERIOR, scale, 1.0, "a float", **others),
        dtype(WITH_POSTERIOR, scale, (4, 3), torch.int32, ".to(mu.dtype)", **others),
        device(WITH_POSTERIOR, scale, torch.ones(4, 3), "mu", **others),
    ]


exactly_one = f"exactly one of {', '.join(f'`{scale}`' for scale in SCALES)} must be given, but got"
POSTERIORS = [
    no_tensor(WITH_POSTERIOR, "mu", 0.0, "a float"),
    dtype(WITH_POSTERIOR, "mu", (4, 3), torch.int64, ".float()"),
    shape(WITH_POSTERIOR, "mu", (), "have a batch dimension, (B, ...)"),
    Refusal(WITH_POSTERIOR, {"logvar": None}, ValueError, f"{exactly_one} none"),
    Refusal(
        WITH_POSTERIOR,
        dict.fromkeys(SCALES, torch.ones(4, 3)),
        ValueError,
        f"{exactly_one} {' and '.join(f'`{scale}`' for scale in SCALES)}",
    ),
    *(refusal for scale in SCALES for refusal in _of_scale(scale)),
]

NOISE = [
    no_tensor(SAMPLERS, "eps", 0.5, "a float"),
    dtype(SAMPLERS, "eps", (4, 3), torch.int64, ".to(mu.dtype)"),
    shape(SAMPLERS, "eps", (3,), "have mu's shape (4, 3)"),
    device(SAMPLERS, "eps", torch.ones(4, 3), "mu"),
    *(
        Refusal(
            SAMPLERS,
            {"eps": torch.zeros(4, 3), name: value},
            ValueError,
            f"`{name}` must not be given with `eps`, which is the noise itself",
        )
        for name, value in (("seed", 0), ("generator", torch.Generator()), ("row_offset", 4))
    ),
    Refusal(
        SAMPLERS,
        {"seed": 1, "generator": torch.Generator()},
        ValueError,
        "`generator` must not be given with `seed`, which decides the noise alone",
    ),
    *(
        Refusal(SAMPLERS, {"seed": seed}, TypeError, f"`seed` must be an int or an int64 Tensor, but {came}")
        for seed, came in (
            (True, "is a bool"),
            (1.0, "is a float"),
            (torch.ones(1), "has dtype torch.float32"),
            (torch.ones(1).int(), "has dtype torch.int32"),
        )
    ),
    *(
        Refusal(SAMPLERS, {"seed": seed}, ValueError, f"`seed` must be in [-2**63, 2**64), but is {seed}")
        for seed in (-(2**63) - 1, 2**64)
    ),
    Refusal(SAMPLERS, {"seed": torch.tensor([1, 2])}, ValueError, "`seed` must have one element, but has shape (2,)"),
    device(SAMPLERS, "seed", torch.tensor([1]), "mu"),
    Refusal(SAMPLERS, {"row_offset": 1.0}, TypeError, "`row_offset` must be an int, but is a float"),
    Refusal(SAMPLERS, {"row_offset": True}, TypeError, "`row_offset` must be an int, but is a bool"),
    *(
        Refusal(SAMPLERS, {"row_offset": n}, ValueError, f"`row_offset` must be in [0, 2**63), but is {n}")
        for n in (-1, 2**63)
    ),
    Refusal(SAMPLERS, {"generator": 1}, TypeError, "`generator` must be a torch.Generator, but is an int"),
]

REFUSALS = [*DATA, *OPTIONS, *KL, *POSTERIORS, *NOISE]

ACCEPTED: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (OBJECTIVES, {}),
    (OBJECTIVES, {"target": torch.ones(4, 6)}),
    (OBJECTIVES, {"recon": torch.full((4, 6), 0.5)}),
    (OBJECTIVES, {"recon": torch.full((4,), 0.5), "target": torch.ones(4, 1)}),
    (OBJECTIVES, {"recon": torch.tensor([[0.0, 1.0]] * 4), "target": torch.ones(4, 2)}),
    (OBJECTIVES, {"weight": torch.tensor(True)}),
    (OBJECTIVES, {"weight": torch.ones(4, 1, 1, dtype=torch.bool)}),
    (OBJECTIVES, {"likelihood": POSITIVE, "pos_weight": 2}),
    (OBJECTIVES, {"likelihood": POSITIVE, "pos_weight": torch.tensor(True)}),
    *(
        (OBJECTIVES, {"likelihood": name} | dict(zip(("recon", "target"), data(name, (4, 60)), strict=True)))
        for name in LIKELIHOODS
    ),
    (WITH_KL, NO_POSTERIOR),
    (WITH_KL, {"kl": torch.ones(4).double(), **NO_POSTERIOR}),
    (WITH_KL, {"mu": torch.ones(4), "logvar": torch.ones(4).half()}),
    *((WITH_KL, {"beta": beta}) for beta in (0, True, 0.5, torch.tensor(2), torch.tensor(0.5).double())),
    *((SAMPLERS, {"seed": seed}) for seed in (-(2**63), 2**64 - 1, torch.tensor(3), torch.tensor([[3]]))),
    (SAMPLERS, {"row_offset": 2**40, "generator": torch.Generator()}),
    (SAMPLERS, {"eps": torch.zeros(4, 3).double(), "row_offset": 0}),
]
