"""Tables of test_refusals.py: what the functions refuse, in their words, and what all of them must take."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import refusal
import torch
from cases import INTEGERS, data
from families import PLAIN, family
from refusal import (
    ANY,
    NO_POSTERIOR,
    OBJECTIVES,
    POSITIVE,
    REDUCED,
    SAMPLERS,
    WITH_KL,
    WITH_POSTERIOR,
    Refusal,
    each_scale,
)
from refusals_latent import NOISE, POSTERIORS, PRIOR, RANGE, WITH_PRIOR, ones

import pyvae
from pyvae._checks import NAMES

# ---- the objective ---------------------------------------------------------------------------------------------------

DATA_DTYPES = f"{ANY}, uint8, int8, int16, int32, int64, bool"
ILL_TYPED = (torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.float8_e4m3fn)
MISSHAPEN = ((4, 3, 2), (4, 2), (4, 7), (4, 3), (24,), (2, 12), (4, 1, 6), (1, 2, 3), (4, 2, 3, 1))
PROBABILITIES = (
    'hold probabilities in [0, 1] for likelihood="bernoulli", but holds {}; logits go with '
    'likelihood="bernoulli_logits"'
)
UNIT_TARGET = 'lie in [0, 1] for likelihood="{}", but holds {}; {}'
BYTES = "bytes, 0 ... 255, are to be divided by 255 (`target / 255`)"
REAL = (
    'real numbers, standardized data say, go with likelihood="gaussian" or `pyvae.Gaussian(logvar)`, or are to be '
    "scaled to [0, 1]"
)
OBJECTS = (
    ", or an object: pyvae.Gaussian, pyvae.Laplace, pyvae.Poisson, pyvae.NegativeBinomial, "
    "pyvae.ZeroInflatedNegativeBinomial, pyvae.Multinomial"
)
CLASSES = {
    pyvae.Gaussian: "pyvae.Gaussian()",
    pyvae.Laplace: "pyvae.Laplace()",
    pyvae.Poisson: "pyvae.Poisson()",
    pyvae.NegativeBinomial: "pyvae.NegativeBinomial(log_theta)",
    pyvae.ZeroInflatedNegativeBinomial: "pyvae.ZeroInflatedNegativeBinomial(log_theta, zi_logits)",
    pyvae.Multinomial: "pyvae.Multinomial()",
}
DATA = [
    refusal.no_tensor(OBJECTIVES, "recon", [0.5], "a list"),
    refusal.no_tensor(OBJECTIVES, "target", np.ones((4, 2, 3)), "a ndarray"),
    *(refusal.dtype(OBJECTIVES, "recon", (4, 2, 3), came, ".float()") for came in (*INTEGERS, *ILL_TYPED)),
    *(refusal.dtype(OBJECTIVES, "target", (4, 2, 3), came, ".float()", DATA_DTYPES) for came in ILL_TYPED),
    *(
        refusal.kind(OBJECTIVES, "target", x, f"be a dense (strided) Tensor, but {came}")
        for x, came in (
            (torch.ones(4, 6).to_sparse(), "has layout torch.sparse_coo"),
            (torch.nested.nested_tensor([torch.ones(2, 3)] * 4), "is a nested one"),
        )
    ),
    *(refusal.shapes(OBJECTIVES, name, [()], "have a batch dimension, (B, ...)")[0] for name in ("recon", "target")),
    *refusal.shapes(OBJECTIVES, "target", MISSHAPEN, "have recon's shape (4, 2, 3) or its flattened form"),
    refusal.device(OBJECTIVES, "target", torch.ones(4, 2, 3), "recon"),
    *(
        refusal.value(OBJECTIVES, "recon", recon, PROBABILITIES.format(bad), target=torch.ones(2, 2), **NO_POSTERIOR)
        for bad in (1.5, -0.25)
        for recon in [torch.tensor([[math.nan, 0.5], [bad, 1.0]])]
    ),
    *(
        refusal.value(
            OBJECTIVES,
            "target",
            target,
            UNIT_TARGET.format(name, bad, what),
            recon=torch.full((2, 2), 0.5),
            likelihood=name,
            **NO_POSTERIOR,
        )
        for name in ("bernoulli", "bernoulli_logits")
        for target, bad, what in (
            (torch.tensor([[math.nan, 0.5], [1.5, 1.0]]), 1.5, REAL),
            (torch.tensor([[0.0, -0.25], [0.5, 1.0]], dtype=torch.bfloat16), -0.25, REAL),
            (torch.tensor([[0.0, -1.0], [1.0, 1.0]]), -1, REAL),
            (torch.tensor([[7.0, 0.5], [1.0, 1.0]]), 7, REAL),
            (torch.tensor([[0, 256], [1, 1]], dtype=torch.int16), 256, REAL),
            (torch.tensor([[0, 255], [1, 1]], dtype=torch.uint8), 255, BYTES),
            (torch.tensor([[math.nan, 255.0], [3.0, 1.0]]), 255, BYTES),
            (torch.tensor([[0, 2], [1, 1]]), 2, BYTES),
        )
    ),
]

OPTIONS = [
    *refusal.one_of(OBJECTIVES, "likelihood", NAMES, 1, "an int", OBJECTS),
    refusal.one_of(OBJECTIVES, "likelihood", NAMES, (torch.ones(3),), "a tuple", OBJECTS)[1],
    *(
        refusal.kind(
            OBJECTIVES,
            "likelihood",
            cls,
            f"be a name or an object, but is the class {cls.__name__}; make an object of it: `likelihood={made}`",
        )
        for cls, made in CLASSES.items()
    ),
    *refusal.one_of(OBJECTIVES[1:], "reduction", ("none", "sum", "batchmean"), True, "a bool"),
    refusal.value(
        REDUCED,
        "reduction",
        "mean",
        'be "sum", "batchmean" or "none", but is "mean", which over all elements would divide the KL '
        'and the reconstruction by different counts and so re-weight them; use "batchmean" for the mean over the batch '
        'of each sample\'s sum, or "sum" for the sum over everything',
    ),
    *(
        refusal.value(
            OBJECTIVES, "pos_weight", 2.0, f'come with likelihood="{POSITIVE}", but likelihood is "{x}"', likelihood=x
        )
        for x in PLAIN
        if not family(x).takes_pos_weight
    ),
]

no_number = "be a number or a 0-d Tensor"
no_weight = "be a Tensor or a number, but is"
SETTINGS = [  # which a module refuses when it is made
    *OPTIONS,
    *(
        refusal.kind(OBJECTIVES, name, came, f"{no_weight} {what}", likelihood=POSITIVE)
        for name in ("weight", "pos_weight")
        for came, what in (("2", "a str"), (True, "a bool"), (np.bool_(True), "a bool"), (np.ones(()), "a ndarray"))
    ),
    refusal.dtype(OBJECTIVES, "weight", (3,), torch.uint16, ".to(recon.dtype)", DATA_DTYPES),
    refusal.dtype(
        OBJECTIVES, "pos_weight", (3,), torch.complex64, ".to(recon.dtype)", DATA_DTYPES, likelihood=POSITIVE
    ),
    *(
        refusal.kind(WITH_KL, "beta", came, f"{no_number}, but is {what}")
        for came, what in (("1", "a str"), (np.ones(()), "a ndarray"), (np.bool_(True), "a bool"), (1j, "a complex"))
    ),
    refusal.kind(WITH_KL, "beta", torch.tensor(1j), "be real, but has dtype torch.complex64"),
    refusal.kind(WITH_KL, "beta", 10**400, f"{no_number}, but is an int"),  # no float holds it
    refusal.kind(OBJECTIVES, "weight", 10**400, "be a Tensor or a number, but is an int"),
    *refusal.shapes(WITH_KL, "beta", [(1,)], no_number),
]

broadcast = "broadcast to recon's shape (4, 2, 3)"
OPTIONS = [
    *SETTINGS,
    *refusal.one_of(
        ("reconstruction_loss", "kl_divergence"), "reduction", ("none", "sum", "batchmean", "elements"), True, "a bool"
    ),
    *refusal.shapes(OBJECTIVES, "weight", [(2,), (4, 6), (3, 2, 3), (1, 4, 2, 3), (0, 2, 3)], broadcast),
    *(
        refusal.value(
            OBJECTIVES,
            "weight",
            torch.ones(shape, dtype=torch.bool),
            f"{broadcast}, but has shape {shape}; a mask that is the same for all features of a position is given as "
            f"`mask[..., {nones}]`",
        )
        for shape, nones in (((4,), "None, None"), ((4, 2), "None"))
    ),
    refusal.device(OBJECTIVES, "weight", torch.ones(3), "recon"),
    *refusal.shapes(OBJECTIVES, "pos_weight", [(2,)], broadcast, likelihood=POSITIVE),
    refusal.device(OBJECTIVES, "pos_weight", torch.ones(3), "recon", likelihood=POSITIVE),
    refusal.device(WITH_KL, "beta", torch.ones(()), "recon"),
]

by_name = f"come with one of {each_scale}, but came alone; if it is each sample's KL, give it by name, `kl=kl`"
several_samples = (
    "have recon's batch size 4, but has shape {}; with several samples of one posterior, compute its KL apart, by "
    "`pyvae.kl_divergence`, expand it to recon's batch, and give it as `kl=kl` in place of the posterior"
)
alone = "be given without a posterior, but came with"
one_a_sample = "have shape (4,), one value a sample"
KL = [
    refusal.value(WITH_KL, "kl", torch.ones(4), f"{alone} `mu` and `logvar`"),
    refusal.value(WITH_KL, "kl", torch.ones(4), f"{alone} `std`", **NO_POSTERIOR, std=torch.ones(4, 3)),
    refusal.no_tensor(WITH_KL, "kl", 1.0, "a float", **NO_POSTERIOR),
    refusal.dtype(WITH_KL, "kl", (4,), torch.float16, ".float()", "float32, float64", **NO_POSTERIOR),
    *refusal.shapes(WITH_KL, "kl", [(), (1,), (4, 3), (4, 1), (5,)], one_a_sample, **NO_POSTERIOR),
    refusal.device(WITH_KL, "kl", torch.ones(4), "recon", **NO_POSTERIOR),
    refusal.value(WITH_KL, "mu", None, "be given with `logvar`, but is None"),
    refusal.value(WITH_KL, "mu", torch.ones(4), by_name, logvar=None),
    *(
        refusal.value(WITH_KL, "mu", torch.ones(n, 3), several_samples.format((n, 3)), logvar=torch.ones(n, 3))
        for n in (5, 8, 2)
    ),
    *(
        Refusal(WITH_KL, {**NO_POSTERIOR, "kl": kl, name: (0.0, 1.0)}, ValueError, words)
        for name in ("logvar_range", "prior")
        for kl, words in (
            (torch.ones(4), f"`kl` must be given without a posterior, but came with `{name}`"),
            (None, f"`{name}` must come with a posterior, `mu` and its scale, but came alone"),
        )
    ),
    refusal.device(WITH_KL, "mu", torch.ones(4, 3), "recon", logvar=torch.ones(4, 3, device="meta")),
]

REFUSALS = [*DATA, *OPTIONS, *KL, *POSTERIORS, *NOISE, *PRIOR, *RANGE]

ACCEPTED: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (OBJECTIVES, {}),
    (OBJECTIVES, {"target": torch.ones(4, 6)}),
    (OBJECTIVES, {"recon": torch.full((4, 6), 0.5)}),
    (OBJECTIVES, {"recon": torch.full((4,), 0.5), "target": torch.ones(4, 1)}),
    (OBJECTIVES, {"recon": torch.tensor([[0.0, 1.0]] * 4), "target": torch.ones(4, 2)}),
    *((OBJECTIVES, {"target": torch.ones(4, 6, dtype=dtype)}) for dtype in INTEGERS),
    (OBJECTIVES, {"weight": torch.tensor(True)}),
    (OBJECTIVES, {"weight": torch.ones(4, 1, 1, dtype=torch.bool)}),
    (OBJECTIVES, {"likelihood": POSITIVE, "pos_weight": 2}),
    (OBJECTIVES, {"likelihood": POSITIVE, "pos_weight": torch.tensor(True)}),
    *(
        (OBJECTIVES, {"likelihood": name} | dict(zip(("recon", "target"), data(name, (4, 60)), strict=True)))
        for name in PLAIN
    ),
    (WITH_KL, NO_POSTERIOR),
    (WITH_KL, {"kl": torch.ones(4).double(), **NO_POSTERIOR}),
    (WITH_KL, {"mu": torch.ones(4), "logvar": torch.ones(4).half()}),
    *((WITH_KL, {"beta": beta}) for beta in (0, True, 0.5, torch.tensor(2), torch.tensor(0.5).double())),
    *((SAMPLERS, {"seed": seed}) for seed in (-(2**63), 2**64 - 1, torch.tensor(3), torch.tensor([[3]]))),
    (SAMPLERS, {"row_offset": 2**40, "generator": torch.Generator()}),
    (SAMPLERS, {"row_offset": 2**63 // 3 - 4}),
    (SAMPLERS, {"eps": torch.zeros(4, 3).double(), "row_offset": 0}),
    *(
        (WITH_PRIOR, {"prior": prior})
        for prior in ((0, 1), [0.5, ones], (torch.zeros(3).half(), torch.ones(()).double()), (ones[:1], ones[:, :1]))
    ),
    *(
        (WITH_POSTERIOR, {"logvar_range": bounds})
        for bounds in ((-30, 20), [-1.0, 1], (0, 0.0), (None, 20), (-30.0, None), (None, None))
    ),
    (("kl_divergence",), {"reduction": "elements"}),
]
