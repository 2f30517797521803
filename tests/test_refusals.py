"""Every refusal in its own words, the same on every device from kernels and reference, and what must not be refused.

One is of the CPU alone, that of probabilities outside [0, 1]: see test_cuda_refusals.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pytest
import torch
from cases import to
from refusal import LATENTS, OBJECTIVES, Refusal
from refusals import ACCEPTED, REFUSALS, SETTINGS

import pyvae


def legal(function: str) -> dict[str, Any]:
    """Arguments that the function takes; a case replaces some of them, and drops those that it sets to None."""
    latent = {"mu": torch.zeros(4, 3), "logvar": torch.zeros(4, 3)}
    if function in LATENTS:
        return latent
    data = {"recon": torch.full((4, 2, 3), 0.5), "target": torch.ones(4, 2, 3)}
    return data if function == "reconstruction_loss" else data | latent


def call(functions: ModuleType, function: str, changed: dict[str, Any], device: str) -> Any:
    arguments = legal(function) | changed
    return getattr(functions, function)(**{k: moved(device, v) for k, v in arguments.items() if v is not None})


def moved(device: str, given: Any) -> Any:
    """To the device, in a pair too."""
    return type(given)(to(device, part) for part in given) if isinstance(given, (tuple, list)) else to(device, given)


def of_each(table: Iterable[tuple]) -> list[Any]:
    """Cases begin with their functions and what they change."""
    return [
        pytest.param(function, case, id=f"{function}-{index}-{'-'.join(case[1])}")
        for index, case in enumerate(table)
        for function in case[0]
    ]


@pytest.mark.parametrize(("function", "case"), of_each(REFUSALS))
def test_refusal(functions: ModuleType, function: str, case: Refusal, device: str) -> None:
    if device != "cpu" and any(words in case.words for words in ("must hold probabilities", "must lie in [0, 1]")):
        return  # what CUDA answers instead is tested in test_cuda_refusals.py
    with pytest.raises(Exception) as caught:  # the type is compared below: a subclass would be another answer
        call(functions, function, case.changed, device)
    words = case.words.replace("device cpu", f"device {torch.empty(0, device=device).device}")
    assert (type(caught.value), str(caught.value)) == (case.error, f"{function}: {words}")


@pytest.mark.parametrize("function", LATENTS)
def test_mu_is_needed(functions: ModuleType, function: str, device: str) -> None:
    with pytest.raises(TypeError, match=rf"^{function}: `mu` must be a Tensor, but is None$"):
        getattr(functions, function)(None, torch.zeros(4, 3, device=device))


@pytest.mark.parametrize(("function", "case"), of_each(ACCEPTED))
def test_what_is_not_refused(functions: ModuleType, function: str, case: tuple, device: str) -> None:
    result = call(functions, function, case[1], device)
    for value in result if isinstance(result, tuple) else (result,):
        assert value.isfinite().all()


@pytest.mark.parametrize("function", OBJECTIVES)
def test_nan_is_a_value_and_not_an_error(functions: ModuleType, function: str, device: str) -> None:
    recon = torch.full((4, 2, 3), 0.5)
    recon[2, 0, 1] = math.nan
    loss = call(functions, function, {"recon": recon, "reduction": "none"}, device)
    loss = loss.loss if function == "elbo_terms" else loss
    assert loss.isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize("transform", (torch.func.vmap, torch.func.grad_and_value))
def test_a_transform_sees_nan_outside_of_0_to_1(
    functions: ModuleType, transform: Callable[..., Any], device: str
) -> None:
    """Values cannot be looked at in a transform, but they do not go unnoticed either."""
    loss = transform(lambda recon: functions.reconstruction_loss(recon, torch.ones_like(recon)).sum())
    for last, finite in ((1.5, False), (1.0, True)):
        result = loss(torch.tensor([[0.5], [last]], device=device))
        value = result[1] if isinstance(result, tuple) else result  # grad_and_value: gradient first
        assert value.isfinite().all() == finite
        assert value.isnan().any() != finite


@pytest.mark.parametrize("case", SETTINGS, ids=lambda case: "-".join(map(str, case.changed.values())))
def test_module_refuses_its_settings_at_once(case: Refusal) -> None:
    with pytest.raises(Exception) as caught:
        pyvae.ELBOLoss(**case.changed)
    assert (type(caught.value), str(caught.value)) == (case.error, f"ELBOLoss: {case.words}")


def test_module_takes_keywords_only() -> None:
    """A likelihood in the place of a beta would be hard to see."""
    with pytest.raises(TypeError, match="positional"):
        pyvae.ELBOLoss("gaussian")  # type: ignore[misc]
