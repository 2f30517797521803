"""Every refusal in its own words, the same on every device from kernels and reference, and what must not be refused.

One is of the CPU alone, that of probabilities outside [0, 1]: see test_cuda_refusals.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import calls
import pytest
import torch
from cases import to
from families import LIKELIHOODS, WITH_PARAMETERS, family
from refusal import LATENTS, OBJECTIVES, Refusal
from refusals import ACCEPTED, REFUSALS, SETTINGS
from refusals_likelihood import OWN, SHAPE, OwnRefusal

import pyvae

pytestmark = pytest.mark.torch_sensitive("names of types and devices in messages")


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


def assert_refused(run: Callable[[], Any], error: type[Exception], words: str, device: str) -> None:
    with pytest.raises(Exception) as caught:  # the type is compared below: a subclass would be another answer
        run()
    words = words.replace("device cpu", f"device {torch.empty(0, device=device).device}")
    assert (type(caught.value), str(caught.value)) == (error, words)


@pytest.mark.parametrize(("function", "case"), of_each(case for case in REFUSALS if not case.looks_at_data))
def test_each_mistake_is_refused_in_its_own_words(
    functions: ModuleType, function: str, case: Refusal, device: str
) -> None:
    assert_refused(
        lambda: call(functions, function, case.changed, device), case.error, f"{function}: {case.words}", device
    )


@pytest.mark.parametrize(("function", "case"), of_each(case for case in REFUSALS if case.looks_at_data))
def test_data_outside_of_0_to_1_are_refused_on_the_cpu(functions: ModuleType, function: str, case: Refusal) -> None:
    """What CUDA answers instead: test_cuda_refusals.py."""
    assert_refused(
        lambda: call(functions, function, case.changed, "cpu"), case.error, f"{function}: {case.words}", "cpu"
    )


@pytest.mark.parametrize(
    ("function", "case"), [pytest.param(*x, id=f"{x[0]}-{i}-{x[1].part}") for i, x in enumerate(OWN)]
)
def test_each_mistake_in_a_likelihoods_own_is_refused(
    functions: ModuleType, function: str, case: OwnRefusal, device: str
) -> None:
    given = calls.call(case.likelihood, SHAPE, device=device)
    legal = {part: x for (part, _), x in zip(family(case.likelihood).parameters, given.parameters, strict=True)}
    likelihood = family(case.likelihood).make(**legal | {case.part: to(device, case.came)})
    assert_refused(
        lambda: getattr(functions, function)(given.recon, given.target, likelihood=likelihood),
        case.error, f"{function}: {case.words}", device,
    )  # fmt: skip


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_a_name_with_parameters_is_refused_as_a_string(functions: ModuleType, name: str, device: str) -> None:
    given = calls.call(name, (4, 6), device=device)
    parameters = ", ".join(parameter for parameter, _ in family(name).parameters)
    words = f'`likelihood` "{name}" has parameters ({parameters}), so it must be given as an object'
    with pytest.raises(ValueError, match=re.escape(words)):
        functions.elbo_loss(given.recon, given.target, likelihood=name)


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if not family(name).takes_pos_weight])
def test_pos_weight_is_refused_by_every_other_likelihood(functions: ModuleType, name: str, device: str) -> None:
    given = calls.call(name, (4, 6), device=device)
    words = f'elbo_loss: `pos_weight` must come with likelihood="bernoulli_logits", but likelihood is "{name}"'
    assert_refused(
        lambda: functions.elbo_loss(given.recon, given.target, likelihood=given.likelihood, pos_weight=2.0),
        ValueError, words, device,
    )  # fmt: skip


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
