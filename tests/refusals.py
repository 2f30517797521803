"""Tables of test_refusals.py: what the objective refuses, in its words, and what all functions must take."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch

OBJECTIVES = ("reconstruction_loss", "elbo_loss", "elbo_terms")
WITH_KL = ("elbo_loss", "elbo_terms")
SAMPLERS = ("reparameterize", "reparameterize_kl")
LATENTS = (*SAMPLERS, "kl_divergence")


class Refusal(NamedTuple):
    functions: tuple[str, ...]
    changed: dict[str, Any]
    error: type[Exception]
    words: str  # what follows "function: "


ANY = "one of the dtypes float16, bfloat16, float32, float64"
ANY_OR_BOOL = ANY + ", bool"
POSTERIOR = {"mu": None, "logvar": None}
META = {"dtype": torch.float32, "device": "meta"}

DATA = [
    Refusal(OBJECTIVES, {"recon": [0.5]}, TypeError, "`recon` must be a Tensor, but is a list"),
    Refusal(OBJECTIVES, {"target": np.ones((4, 2, 3))}, TypeError, "`target` must be a Tensor, but is a ndarray"),
    Refusal(
        OBJECTIVES,
        {"recon": torch.ones(4, 2, 3, dtype=torch.int64)},
        TypeError,
        f"`recon` must have {ANY}, but has torch.int64; convert it with `recon.float()`",
    ),
    *(
        Refusal(
            OBJECTIVES,
            {"target": torch.ones(4, 2, 3, dtype=dtype)},
            TypeError,
            f"`target` must have {ANY}, but has {dtype}; convert it with `target.to(recon.dtype)`",
        )
        for dtype in (torch.uint8, torch.bool, torch.int32, torch.complex64, torch.float8_e4m3fn)
    ),
    Refusal(
        OBJECTIVES,
        {"target": torch.ones(4, 6).to_sparse()},
        TypeError,
        "`target` must be a dense (strided) Tensor, but has layout torch.sparse_coo",
    ),
    Refusal(
        OBJECTIVES,
        {"target": torch.nested.nested_tensor([torch.ones(2, 3)] * 4)},
        TypeError,
        "`target` must be a dense (strided) Tensor, but is a nested one",
    ),
    Refusal(
        OBJECTIVES,
        {"recon": torch.tensor(0.5)},
        ValueError,
        "`recon` must have a batch dimension, (B, ...), but has shape ()",
    ),
    Refusal(
        OBJECTIVES,
        {"target": torch.tensor(0.5)},
        ValueError,
        "`target` must have a batch dimension, (B, ...), but has shape ()",
    ),
    *(
        Refusal(
            OBJECTIVES,
            {"target": torch.ones(shape)},
            ValueError,
            f"`target` must have recon's shape (4, 2, 3) or its flattened form, but has shape {shape}",
        )
        for shape in ((4, 3, 2), (4, 2), (4, 7), (4, 3), (24,), (2, 12), (4, 1, 6), (1, 2, 3), (4, 2, 3, 1))
    ),
    Refusal(
        OBJECTIVES,
        {"target": torch.ones(4, 2, 3, **META)},
        ValueError,
        "`target` must be on recon's device cpu, but is on meta",
    ),
    Refusal(
        OBJECTIVES,
        {"recon": torch.full((4, 2, 3), 1.5)},
        ValueError,
        '`recon` must hold probabilities in [0, 1] for likelihood="bernoulli", but holds 1.5; logits go with '
        'likelihood="bernoulli_logits"',
    ),
    Refusal(
        OBJECTIVES,
        {"recon": torch.tensor([[math.nan, 0.5], [-0.25, 1.0]]), "target": torch.ones(2, 2), **POSTERIOR},
        ValueError,
        '`recon` must hold probabilities in [0, 1] for likelihood="bernoulli", but holds -0.25; logits go with '
        'likelihood="bernoulli_logits"',
    ),
]

OPTIONS = [
    Refusal(
        OBJECTIVES,
        {"likelihood": "mse"},
        ValueError,
        '`likelihood` must be one of "bernoulli", "bernoulli_logits", "gaussian", but is "mse"',
    ),
    Refusal(
        OBJECTIVES,
        {"likelihood": 1},
        TypeError,
        '`likelihood` must be one of "bernoulli", "bernoulli_logits", "gaussian", but is an int',
    ),
    Refusal(
        (*OBJECTIVES, "kl_divergence"),
        {"reduction": "mean"},
        ValueError,
        '`reduction` must be "sum", "batchmean" or "none", but is "mean", which over all elements would divide the KL '
        'and the reconstruction by different counts and so re-weight them; use "batchmean" for the mean over the batch '
        'of each sample\'s sum, or "sum" for the sum over everything',
    ),
    Refusal(
        (*OBJECTIVES, "kl_divergence"),
        {"reduction": "avg"},
        ValueError,
        '`reduction` must be one of "none", "sum", "batchmean", but is "avg"',
    ),
    Refusal(
        (*OBJECTIVES, "kl_divergence"),
        {"reduction": True},
        TypeError,
        '`reduction` must be one of "none", "sum", "batchmean", but is a bool',
    ),
    Refusal(OBJECTIVES, {"weight": 2.0}, TypeError, "`weight` must be a Tensor, but is a float"),
    Refusal(
        OBJECTIVES,
        {"weight": torch.ones(3, dtype=torch.int64)},
        TypeError,
        f"`weight` must have {ANY_OR_BOOL}, but has torch.int64; convert it with `weight.to(recon.dtype)`",
    ),
    *(
        Refusal(
            OBJECTIVES,
            {"weight": torch.ones(shape)},
            ValueError,
            f"`weight` must broadcast to recon's shape (4, 2, 3), but has shape {shape}",
        )
        for shape in ((2,), (4,), (4, 6), (3, 2, 3), (1, 4, 2, 3), (0, 2, 3))
    ),
    Refusal(
        OBJECTIVES,
        {"weight": torch.ones(3, **META)},
        ValueError,
        "`weight` must be on recon's device cpu, but is on meta",
    ),
    *(
        Refusal(
            OBJECTIVES,
            {"likelihood": likelihood, "pos_weight": 2.0},
            ValueError,
            f'`pos_weight` must come with likelihood="bernoulli_logits", but likelihood is "{likelihood}"',
        )
        for likelihood in ("bernoulli", "gaussian")
    ),
    Refusal(
        OBJECTIVES,
        {"likelihood": "bernoulli_logits", "pos_weight": "2"},
        TypeError,
        "`pos_weight` must be a Tensor, but is a str",
    ),
    Refusal(
        OBJECTIVES,
        {"likelihood": "bernoulli_logits", "pos_weight": torch.ones(2)},
        ValueError,
        "`pos_weight` must broadcast to recon's shape (4, 2, 3), but has shape (2,)",
    ),
    Refusal(
        OBJECTIVES,
        {"likelihood": "bernoulli_logits", "pos_weight": torch.ones(3, **META)},
        ValueError,
        "`pos_weight` must be on recon's device cpu, but is on meta",
    ),
    Refusal(WITH_KL, {"beta": "1"}, TypeError, "`beta` must be a number or a 0-d Tensor, but is a str"),
    Refusal(
        WITH_KL, {"beta": torch.ones(1)}, ValueError, "`beta` must be a number or a 0-d Tensor, but has shape (1,)"
    ),
    Refusal(
        WITH_KL,
        {"beta": torch.tensor(1j)},
        TypeError,
        "`beta` must be real, but has dtype torch.complex64",
    ),
    Refusal(
        WITH_KL, {"beta": torch.ones((), **META)}, ValueError, "`beta` must be on recon's device cpu, but is on meta"
    ),
]

KL = [
    Refusal(
        WITH_KL,
        {"kl": torch.ones(4)},
        ValueError,
        "`kl` must be given without a posterior, but came with `mu` and `logvar`",
    ),
    Refusal(
        WITH_KL,
        {"kl": torch.ones(4), "mu": None, "logvar": None, "std": torch.ones(4, 3)},
        ValueError,
        "`kl` must be given without a posterior, but came with `std`",
    ),
    Refusal(WITH_KL, {"kl": 1.0, **POSTERIOR}, TypeError, "`kl` must be a Tensor, but is a float"),
    Refusal(
        WITH_KL,
        {"kl": torch.ones(4).half(), **POSTERIOR},
        TypeError,
        "`kl` must have one of the dtypes float32, float64, but has torch.float16; convert it with `kl.float()`",
    ),
    *(
        Refusal(
            WITH_KL,
            {"kl": torch.ones(shape), **POSTERIOR},
            ValueError,
            f"`kl` must have shape (4,), one value a sample, but has shape {shape}",
        )
        for shape in ((), (1,), (4, 3), (4, 1), (5,))
    ),
    Refusal(
        WITH_KL,
        {"kl": torch.ones(4, **META), **POSTERIOR},
        ValueError,
        "`kl` must be on recon's device cpu, but is on meta",
    ),
    Refusal(WITH_KL, {"mu": None}, ValueError, "`mu` must be given with `logvar`, but is None"),
    Refusal(
        WITH_KL,
        {"mu": torch.ones(5, 3), "logvar": torch.ones(5, 3)},
        ValueError,
        "`mu` must have recon's batch size 4, but has shape (5, 3)",
    ),
    Refusal(
        WITH_KL,
        {"mu": torch.ones(4, 3, **META), "logvar": torch.ones(4, 3, **META)},
        ValueError,
        "`mu` must be on recon's device cpu, but is on meta",
    ),
]

OBJECTIVE_REFUSALS = [*DATA, *OPTIONS, *KL]

ACCEPTED: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (OBJECTIVES, {}),
    (OBJECTIVES, {"target": torch.ones(4, 6)}),
    (OBJECTIVES, {"recon": torch.full((4, 6), 0.5)}),
    (OBJECTIVES, {"recon": torch.full((4,), 0.5), "target": torch.ones(4, 1)}),
    (OBJECTIVES, {"recon": torch.tensor([[0.0, 1.0]] * 4), "target": torch.ones(4, 2)}),
    (OBJECTIVES, {"weight": torch.tensor(True)}),
    (OBJECTIVES, {"weight": torch.ones(4, 1, 1, dtype=torch.bool)}),
    (OBJECTIVES, {"likelihood": "bernoulli_logits", "pos_weight": 2}),
    (OBJECTIVES, {"likelihood": "bernoulli_logits", "pos_weight": torch.tensor(True)}),
    (OBJECTIVES, {"likelihood": "bernoulli_logits", "recon": torch.full((4, 6), 50.0)}),
    (OBJECTIVES, {"likelihood": "gaussian", "recon": torch.full((4, 6), -50.0), "target": torch.full((4, 6), 9.0)}),
    (WITH_KL, POSTERIOR),
    (WITH_KL, {"kl": torch.ones(4).double(), **POSTERIOR}),
    (WITH_KL, {"mu": torch.ones(4), "logvar": torch.ones(4).half()}),
    *((WITH_KL, {"beta": beta}) for beta in (0, True, 0.5, torch.tensor(2), torch.tensor(0.5).double())),
    *((SAMPLERS, {"seed": seed}) for seed in (-(2**63), 2**64 - 1, torch.tensor(3), torch.tensor([[3]]))),
    (SAMPLERS, {"row_offset": 2**40, "generator": torch.Generator()}),
    (SAMPLERS, {"eps": torch.zeros(4, 3).double(), "row_offset": 0}),
]
