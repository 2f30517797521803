"""Tables of test_refusals.py: what is refused of a posterior, its noise, its prior and its range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import refusal
import torch
from families import SCALES
from refusal import ANY, SAMPLERS, WITH_KL, WITH_POSTERIOR, Refusal, exactly_one

# ---- the posterior and the noise -------------------------------------------------------------------------------------

every_one = " and ".join(f"`{scale}`" for scale in SCALES)
POSTERIORS = [
    refusal.no_tensor(WITH_POSTERIOR, "mu", 0.0, "a float"),
    refusal.dtype(WITH_POSTERIOR, "mu", (4, 3), torch.int64, ".float()"),
    *refusal.shapes(WITH_POSTERIOR, "mu", [()], "have a batch dimension, (B, ...)"),
    Refusal(WITH_POSTERIOR, {"logvar": None}, ValueError, f"{exactly_one} none"),
    Refusal(WITH_POSTERIOR, dict.fromkeys(SCALES, torch.ones(4, 3)), ValueError, f"{exactly_one} {every_one}"),
]
for scale in SCALES:
    others = {} if scale == "logvar" else {"logvar": None}
    POSTERIORS += [
        *refusal.shapes(
            WITH_POSTERIOR, scale, [(), (3,), (4, 2), (1, 3), (4, 3, 1)], "have mu's shape (4, 3)", **others
        ),
        refusal.no_tensor(WITH_POSTERIOR, scale, 1.0, "a float", **others),
        refusal.dtype(WITH_POSTERIOR, scale, (4, 3), torch.int32, ".to(mu.dtype)", **others),
        refusal.device(WITH_POSTERIOR, scale, torch.ones(4, 3), "mu", **others),
    ]

the_noise = "not be given with `eps`, which is the noise itself"
whole = "be an int or an int64 Tensor, but"
NOISE = [
    refusal.no_tensor(SAMPLERS, "eps", 0.5, "a float"),
    refusal.dtype(SAMPLERS, "eps", (4, 3), torch.int64, ".to(mu.dtype)"),
    *refusal.shapes(SAMPLERS, "eps", [(3,)], "have mu's shape (4, 3)"),
    refusal.device(SAMPLERS, "eps", torch.ones(4, 3), "mu"),
    *(
        refusal.value(SAMPLERS, name, came, the_noise, eps=torch.zeros(4, 3))
        for name, came in (("seed", 0), ("generator", torch.Generator()), ("row_offset", 4))
    ),
    refusal.value(
        SAMPLERS, "generator", torch.Generator(), "not be given with `seed`, which decides the noise alone", seed=1
    ),
    refusal.kind(SAMPLERS, "seed", True, f"{whole} is a bool"),
    refusal.kind(SAMPLERS, "seed", 1.0, f"{whole} is a float"),
    refusal.kind(SAMPLERS, "seed", np.ones((), np.int64), f"{whole} is a ndarray"),
    refusal.kind(SAMPLERS, "seed", torch.ones(1), f"{whole} has dtype torch.float32"),
    refusal.kind(SAMPLERS, "seed", torch.ones(1).int(), f"{whole} has dtype torch.int32"),
    *(refusal.value(SAMPLERS, "seed", n, f"be in [-2**63, 2**64), but is {n}") for n in (-(2**63) - 1, 2**64)),
    refusal.value(SAMPLERS, "seed", torch.tensor([1, 2]), "have one element, but has shape (2,)"),
    refusal.device(SAMPLERS, "seed", torch.tensor([1]), "mu"),
    refusal.kind(SAMPLERS, "row_offset", 1.0, "be an int, but is a float"),
    refusal.kind(SAMPLERS, "row_offset", True, "be an int, but is a bool"),
    refusal.kind(SAMPLERS, "row_offset", np.ones((), np.int64), "be an int, but is a ndarray"),
    *(refusal.value(SAMPLERS, "row_offset", n, f"be in [0, 2**63), but is {n}") for n in (-1, 2**63)),
    *(
        refusal.value(
            SAMPLERS,
            "row_offset",
            n,
            f"leave every element an index below 2**63, but is {n} with 3 features",
        )
        for n in (2**63 // 3 - 3, 2**62, 2**63 - 1)
    ),
    refusal.kind(SAMPLERS, "generator", 1, "be a torch.Generator, but is an int"),
]

WITH_PRIOR = ("reparameterize_kl", "kl_divergence", *WITH_KL)
ones = torch.ones(4, 3)
pair, bounds = "be a pair (mean, scale)", "be a pair (low, high)"
PRIOR = [
    refusal.kind(WITH_PRIOR, "prior", ones, f"{pair} or None, but is a Tensor"),
    refusal.kind(WITH_PRIOR, "prior", 0.5, f"{pair} or None, but is a float"),
    refusal.value(WITH_PRIOR, "prior", (ones,), f"{pair}, but has length 1"),
    refusal.value(WITH_PRIOR, "prior", (0, 1, 2), f"{pair}, but has length 3"),
]
for i, name in enumerate(("prior[0]", "prior[1]")):

    def beside(part: Any, i: int = i) -> dict[str, Any]:
        return {"prior": (part, ones) if i == 0 else (ones, part)}

    for came, what in ((None, "None"), ("1", "a str"), (True, "a bool"), (np.ones(()), "a ndarray")):
        words = f"`{name}` must be a Tensor or a number, but is {what}"
        PRIOR.append(Refusal(WITH_PRIOR, beside(came), TypeError, words))
    words = f"`{name}` must have one of the dtypes {ANY}, but has torch.int64; convert it with `{name}.to(mu.dtype)`"
    PRIOR.append(Refusal(WITH_PRIOR, beside(ones.long()), TypeError, words))
    for shape in ((2,), (4,), (3, 3), (1, 4, 3), (0, 3)):
        words = f"`{name}` must broadcast to mu's shape (4, 3), but has shape {shape}"
        PRIOR.append(Refusal(WITH_PRIOR, beside(torch.ones(shape)), ValueError, words))
    words = f"`{name}` must be on mu's device cpu, but is on meta"
    PRIOR.append(Refusal(WITH_PRIOR, beside(ones.to("meta")), ValueError, words))

RANGE = [
    refusal.kind(WITH_POSTERIOR, "logvar_range", 20, f"{bounds} or None, but is an int"),
    refusal.value(WITH_POSTERIOR, "logvar_range", (-30,), f"{bounds}, but has length 1"),
    refusal.kind(WITH_POSTERIOR, "logvar_range", (True, 20), "hold two numbers or None, but holds a bool"),
    refusal.kind(WITH_POSTERIOR, "logvar_range", (torch.zeros(()), 20), "hold two numbers or None, but holds a Tensor"),
    refusal.kind(WITH_POSTERIOR, "logvar_range", (np.zeros(()), 20), "hold two numbers or None, but holds a ndarray"),
    refusal.value(
        WITH_POSTERIOR, "logvar_range", (-30, math.inf), "hold finite numbers, or None for no bound, but holds inf"
    ),
    refusal.value(
        WITH_POSTERIOR, "logvar_range", (math.nan, 20.0), "hold finite numbers, or None for no bound, but holds nan"
    ),
    refusal.value(WITH_POSTERIOR, "logvar_range", (20, -30), "be (low, high) with low <= high, but is (20, -30)"),
    *(
        refusal.value(
            WITH_POSTERIOR,
            "logvar_range",
            (-30, 20),
            f"come with `logvar`, but came with `{x}`",
            logvar=None,
            **{x: ones},
        )
        for x in SCALES
        if x != "logvar"
    ),
]
