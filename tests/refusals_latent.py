"""Tables of test_refusals.py: what the latent side refuses, in its words: the posterior and the noise."""

from __future__ import annotations

import torch
from refusals import ANY, LATENTS, META, SAMPLERS, WITH_KL, Refusal

WITH_POSTERIOR = (*LATENTS, *WITH_KL)
POSTERIORS = [
    Refusal(WITH_POSTERIOR, {"mu": 0.0}, TypeError, "`mu` must be a Tensor, but is a float"),
    Refusal(
        WITH_POSTERIOR,
        {"mu": torch.zeros(4, 3).long()},
        TypeError,
        f"`mu` must have {ANY}, but has torch.int64; convert it with `mu.float()`",
    ),
    Refusal(
        WITH_POSTERIOR,
        {"mu": torch.tensor(0.0)},
        ValueError,
        "`mu` must have a batch dimension, (B, ...), but has shape ()",
    ),
    Refusal(
        WITH_POSTERIOR,
        {"logvar": None},
        ValueError,
        "exactly one of `logvar`, `std`, `logstd` must be given, but got none",
    ),
    Refusal(
        WITH_POSTERIOR,
        {"std": torch.ones(4, 3), "logstd": torch.ones(4, 3)},
        ValueError,
        "exactly one of `logvar`, `std`, `logstd` must be given, but got `logvar` and `std` and `logstd`",
    ),
    *(
        Refusal(
            WITH_POSTERIOR,
            {"logvar": None, scale: torch.ones(shape)},
            ValueError,
            f"`{scale}` must have mu's shape (4, 3), but has shape {shape}",
        )
        for scale, shape in (("logvar", (4, 2)), ("std", (3,)), ("logstd", ()), ("std", (1, 3)), ("logvar", (4, 3, 1)))
    ),
    Refusal(WITH_POSTERIOR, {"logvar": None, "std": 1.0}, TypeError, "`std` must be a Tensor, but is a float"),
    Refusal(
        WITH_POSTERIOR,
        {"logvar": None, "logstd": torch.ones(4, 3).int()},
        TypeError,
        f"`logstd` must have {ANY}, but has torch.int32; convert it with `logstd.to(mu.dtype)`",
    ),
    Refusal(
        WITH_POSTERIOR,
        {"logvar": torch.ones(4, 3, **META)},
        ValueError,
        "`logvar` must be on mu's device cpu, but is on meta",
    ),
]

EPS = {"eps": torch.zeros(4, 3)}
NOISE = [
    Refusal(SAMPLERS, {"eps": 0.5}, TypeError, "`eps` must be a Tensor, but is a float"),
    Refusal(SAMPLERS, {"eps": torch.ones(3)}, ValueError, "`eps` must have mu's shape (4, 3), but has shape (3,)"),
    Refusal(
        SAMPLERS,
        {"eps": torch.ones(4, 3).long()},
        TypeError,
        f"`eps` must have {ANY}, but has torch.int64; convert it with `eps.to(mu.dtype)`",
    ),
    Refusal(
        SAMPLERS, {"eps": torch.ones(4, 3, **META)}, ValueError, "`eps` must be on mu's device cpu, but is on meta"
    ),
    *(
        Refusal(
            SAMPLERS,
            {**EPS, name: value},
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
    Refusal(
        SAMPLERS,
        {"seed": torch.ones(1, dtype=torch.int64, device="meta")},
        ValueError,
        "`seed` must be on mu's device cpu, but is on meta",
    ),
    Refusal(SAMPLERS, {"row_offset": 1.0}, TypeError, "`row_offset` must be an int, but is a float"),
    Refusal(SAMPLERS, {"row_offset": True}, TypeError, "`row_offset` must be an int, but is a bool"),
    *(
        Refusal(SAMPLERS, {"row_offset": n}, ValueError, f"`row_offset` must be in [0, 2**63), but is {n}")
        for n in (-1, 2**63)
    ),
    Refusal(SAMPLERS, {"generator": 1}, TypeError, "`generator` must be a torch.Generator, but is an int"),
]

LATENT_REFUSALS = [*POSTERIORS, *NOISE]
