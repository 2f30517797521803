"""What the log densities refuse, each in its own words, from kernels, reference and operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from refusal import ANY
from torch import Tensor

import pyvae

Z, MEAN = torch.zeros(4, 3), torch.zeros(5, 3)


def refused(functions: ModuleType, z: Any, mixture: Any, **others: Any) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        functions.mixture_log_prob(z, mixture, **others)
    assert type(caught.value) in (TypeError, ValueError)
    return str(caught.value)


REFUSED: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "`z` must be a Tensor, but is a float": (0.0, pyvae.Mixture(MEAN, MEAN), {}),
    f"`z` must have one of the dtypes {ANY}, but has torch.int64; convert it with `z.float()`": (
        Z.long(),
        pyvae.Mixture(MEAN, MEAN),
        {},
    ),
    "`mixture` must be a pyvae.Mixture, but is a tuple": (Z, (MEAN, MEAN), {}),
    "`mixture` must be a pyvae.Mixture, but is None": (Z, None, {}),
    "`mixture.mean` must be a Tensor, but is a float": (Z, pyvae.Mixture(0.0, MEAN), {}),
    "`mixture.mean` must have shape (K, L) or (B, K, L) with K > 0, but has shape (3,)": (
        Z,
        pyvae.Mixture(MEAN[0], MEAN[0]),
        {},
    ),
    "`mixture.mean` must have shape (K, L) or (B, K, L) with K > 0, but has shape (0, 3)": (
        Z,
        pyvae.Mixture(MEAN[:0], MEAN[:0]),
        {},
    ),
    "exactly one of `logvar`, `std`, `logstd`, `rho` must be given to pyvae.Mixture, but got none": (
        Z,
        pyvae.Mixture(MEAN),
        {},
    ),
    "exactly one of `logvar`, `std`, `logstd`, `rho` must be given to pyvae.Mixture, but got `logvar` and `rho`": (
        Z,
        pyvae.Mixture(MEAN, MEAN, rho=MEAN),
        {},
    ),
    "`mixture.std` must be a Tensor or a number, but is a str": (Z, pyvae.Mixture(MEAN, std="1"), {}),
    "`mixture.logvar` must broadcast to mixture.mean's shape (5, 3), but has shape (4, 3)": (
        Z,
        pyvae.Mixture(MEAN, Z),
        {},
    ),
    "`mixture.logvar` must be on mixture.mean's device cpu, but is on meta": (
        Z,
        pyvae.Mixture(MEAN, MEAN.to("meta")),
        {},
    ),
    "`mixture.logits` must have shape (5,), a number for each component, but has shape (5, 1)": (
        Z,
        pyvae.Mixture(MEAN, MEAN, logits=MEAN[:, :1]),
        {},
    ),
    "`z` must have shape (..., B, 3) for means of shape (5, 3), but has shape (4, 2)": (
        Z[:, :2],
        pyvae.Mixture(MEAN, MEAN),
        {},
    ),
    "`z` must have shape (..., B, 3) for means of shape (5, 3), but has shape (3,)": (
        Z[0],
        pyvae.Mixture(MEAN, MEAN),
        {},
    ),
    "`z` must have shape (..., 2, 3) for means of shape (2, 5, 3), but has shape (4, 3)": (
        Z,
        pyvae.Mixture(torch.zeros(2, 5, 3), 0.0),
        {},
    ),
    "`z` must be on mixture.mean's device cpu, but is on meta": (Z.to("meta"), pyvae.Mixture(MEAN, MEAN), {}),
    '`reduction` must be one of "none", "elements", but is "sum"': (
        Z,
        pyvae.Mixture(MEAN, MEAN),
        {"reduction": "sum"},
    ),
    '`reduction` must be one of "none", "elements", but is None': (Z, pyvae.Mixture(MEAN, MEAN), {"reduction": None}),
    "`mixture.std` must hold standard deviations >= 0, but holds -1; F.softplus or exp makes one of any number": (
        Z,
        pyvae.Mixture(MEAN, std=MEAN - 1),
        {},
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_refusals(functions: ModuleType, words: str) -> None:
    z, mixture, others = REFUSED[words]
    assert refused(functions, z, mixture, **others) == f"mixture_log_prob: {words}"


def tree_of(**scale: Any) -> Any:
    """A mixture that no constructor has seen, as a transform of a tree makes it."""
    given = pyvae.Mixture(MEAN, **dict.fromkeys(scale, 1.0))
    for name, value in scale.items():
        object.__setattr__(given, name, value)
    return given


def test_numbers_below_0(functions: ModuleType) -> None:
    """Refused where they are given, and where a mixture is used that no constructor has seen."""
    for std in (-1.0, -1, -math.inf, np.float32(-1)):
        with pytest.raises(ValueError, match=r"^Mixture: `std` must be a standard deviation >= 0, but is -(1|inf)$"):
            pyvae.Mixture(MEAN, std=std)
        words = "must be a standard deviation >= 0, but is -"
        assert refused(functions, Z, tree_of(std=std)).startswith(f"mixture_log_prob: `mixture.std` {words}")
        with pytest.raises(ValueError, match=f"^reparameterize_kl: `prior.std` {words}"):
            functions.reparameterize_kl(Z, Z, prior=tree_of(std=std))
    for kind in ("logvar", "logstd", "rho"):
        assert functions.mixture_log_prob(Z, pyvae.Mixture(MEAN, **{kind: -1.0})).isfinite().all()
    assert pyvae.Mixture(0, std=-1).std == -1  # type: ignore[arg-type]  # vmap's in_dims


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (pyvae.Mixture(MEAN, std=MEAN - 1), "`prior.std` must hold standard deviations >= 0, but holds -1"),
        (
            pyvae.Mixture(MEAN[0], 0.0),
            "`prior.mean` must have shape (K, L) or (B, K, L) with K > 0, but has shape (3,)",
        ),
        (pyvae.Mixture(MEAN, Z), "`prior.logvar` must broadcast to prior.mean's shape (5, 3), but has shape (4, 3)"),
        (pyvae.Mixture(MEAN, 0.0, logits=Z), "`prior.logits` must have shape (5,), a number for each component, but"),
    ],
    ids=range(4),
)
def test_of_a_prior(functions: ModuleType, prior: Any, words: str) -> None:
    """By the name of the argument of the function that was called."""
    with pytest.raises(ValueError) as caught:
        functions.reparameterize_kl(Z, Z, prior=prior)
    assert str(caught.value).startswith(f"reparameterize_kl: {words}")


POSTERIORS: dict[str, dict[str, Any]] = {
    "`z` must have mu's shape (4, 3), after any dimensions of samples, but has shape (4, 2)": {"z": Z[:, :2]},
    "`z` must have mu's shape (4, 3), after any dimensions of samples, but has shape (3,)": {"z": Z[0]},
    "`z` must be a Tensor, but is None": {"z": None},
    "`z` must be on mu's device cpu, but is on meta": {"z": Z.to("meta")},
    "`mu` must be a Tensor, but is None": {"mu": None},
    "`logvar` must have mu's shape (4, 3), but has shape (3,)": {"logvar": Z[0]},
    "`logvar_range` must be (low, high) with low <= high, but is (1, 0)": {"logvar_range": (1, 0)},
    '`reduction` must be one of "none", "elements", but is "batchmean"': {"reduction": "batchmean"},
    "`std` must hold standard deviations >= 0, but holds -1; F.softplus or exp makes one of any number": {
        "logvar": None,
        "std": Z - 1,
    },
}


@pytest.mark.parametrize("words", POSTERIORS)
def test_refusals_of_a_posterior(functions: ModuleType, words: str) -> None:
    given: dict[str, Any] = {"z": Z, "mu": Z, "logvar": Z} | POSTERIORS[words]
    with pytest.raises((TypeError, ValueError)) as caught:
        functions.gaussian_log_prob(**given)
    assert str(caught.value) == f"gaussian_log_prob: {words}"


@pytest.mark.usefixtures("kernels")
def test_operators_check_too() -> None:
    """Called by themselves, in fewer words."""
    call: Callable[..., Tensor] = torch.ops.pyvae.mixture_log_prob
    for z, mean, logits in ((Z[:, :2], MEAN, None), (Z, MEAN[0], None), (Z, MEAN, MEAN), (Z.long(), MEAN, None)):
        with pytest.raises(ValueError, match=r"^pyvae::mixture_log_prob: "):
            call(z, mean, mean, 0, logits, None, None, False)
