"""What CUDA answers in a way of its own: probabilities outside [0, 1], and tensors that are not on its device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, REDUCTIONS, data, leaf
from gpu import needs_cuda
from refusal import Refusal
from refusals import REFUSALS
from test_refusals import legal
from torch.autograd import grad

import pyvae

pytestmark = [needs_cuda, pytest.mark.usefixtures("cuda_kernels", "backend")]


@pytest.mark.parametrize("illegal", (-0.25, 1.5, -1e-6, 1.0625, float("inf")))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_value_outside_of_0_to_1_makes_its_sample_nan(dtype: torch.dtype, illegal: float, backend: str) -> None:
    """Its loss and, from the kernels, its own gradient; nothing else; no device assert, which CUDA does not survive."""
    recon, target = data("bernoulli", (5, 67), (dtype, dtype), device="cuda")
    legal = leaf(recon)
    want = pyvae.reconstruction_loss(legal, target)
    (want_gradient,) = grad(want.sum(), legal)
    recon = recon.clone()
    recon[1, 3], recon[3, 66] = illegal, illegal
    recon.requires_grad_()
    got = pyvae.reconstruction_loss(recon, target)
    assert got.isnan().tolist() == [False, True, False, True, False]
    assert torch.equal(got[::2], want[::2])
    (gradient,) = grad(got, recon, torch.ones_like(got))
    outside = (recon < 0) | (recon > 1)
    assert outside.sum().item() == 2
    assert torch.equal(gradient[~outside], want_gradient[~outside])
    if backend == "kernels":
        assert gradient[outside].isnan().all()
    for reduction in REDUCTIONS[1:]:
        assert pyvae.elbo_loss(recon, target, reduction=reduction).isnan()


# What the table leaves on another device, is refused on the CPU, too, unless it is a number.
LEFT_BEHIND = [
    pytest.param(function, case, id=f"{function}-{'-'.join(case.changed)}")
    for case in REFUSALS
    if case.words.endswith("but is on meta") and "beta" not in case.changed
    for function in case.functions
]


def assert_refused(function: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        getattr(pyvae, function)(**arguments)
    assert str(caught.value) == f"{function}: {words}"


@pytest.mark.parametrize(("function", "case"), LEFT_BEHIND)
def test_what_is_left_on_the_cpu_is_refused(function: str, case: Refusal) -> None:
    def put(x: Any) -> Any:
        return torch.ones_like(x, device="cpu" if x.is_meta else "cuda") if isinstance(x, torch.Tensor) else x

    arguments = {name: put(x) for name, x in (legal(function) | case.changed).items() if x is not None}
    words = case.words.replace("device cpu", "device cuda:0").replace("on meta", "on cpu")
    assert_refused(function, arguments, words)


def test_generators_of_the_cpu_are_refused() -> None:
    zeros = torch.zeros(4, 3, device="cuda")
    for function in ("reparameterize", "reparameterize_kl"):
        arguments = {"mu": zeros, "logvar": zeros, "generator": torch.Generator()}
        assert_refused(function, arguments, "`generator` must be on mu's device cuda:0, but is on cpu")


@pytest.mark.parametrize("name", ("weight", "pos_weight", "beta"))
def test_scalars_of_cuda_among_tensors_of_the_cpu_are_refused(name: str) -> None:
    """A 0-d tensor of the CPU goes with every device, but not the other way round."""
    data = {"recon": torch.full((4, 3), 0.5), "target": torch.ones(4, 3), "likelihood": "bernoulli_logits"}
    words = f"`{name}` must be on recon's device cpu, but is on cuda:0"
    assert_refused("elbo_loss", data | {name: torch.tensor(0.5, device="cuda")}, words)
