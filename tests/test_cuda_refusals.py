"""What CUDA answers in a way of its own: probabilities outside [0, 1], and tensors that are not on its device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, REDUCTIONS, data, leaf
from gpu import needs_cuda
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


BERNOULLI = {"recon": torch.full((4, 3), 0.5), "target": torch.ones(4, 3)}
POSTERIOR = {"mu": torch.zeros(4, 3), "logvar": torch.zeros(4, 3)}
# function, its legal arguments, those of them that stay on the CPU, and what is said of the first of these
LEFT_BEHIND: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("reconstruction_loss", BERNOULLI, {"target": torch.ones(4, 3)}, "`target` must be on recon's"),
    ("reconstruction_loss", BERNOULLI, {"weight": torch.ones(3)}, "`weight` must be on recon's"),
    (
        "elbo_loss",
        BERNOULLI | {"likelihood": "bernoulli_logits"},
        {"pos_weight": torch.ones(3)},
        "`pos_weight` must be on recon's",
    ),
    ("elbo_loss", BERNOULLI, {"kl": torch.ones(4)}, "`kl` must be on recon's"),
    ("elbo_terms", BERNOULLI, POSTERIOR, "`mu` must be on recon's"),
    ("kl_divergence", POSTERIOR, {"logvar": torch.zeros(4, 3)}, "`logvar` must be on mu's"),
    ("reparameterize", POSTERIOR, {"logvar": torch.zeros(4, 3)}, "`logvar` must be on mu's"),
    ("reparameterize", POSTERIOR, {"eps": torch.zeros(4, 3)}, "`eps` must be on mu's"),
    ("reparameterize_kl", POSTERIOR, {"seed": torch.tensor([3])}, "`seed` must be on mu's"),
    ("reparameterize_kl", POSTERIOR, {"generator": torch.Generator()}, "`generator` must be on mu's"),
]


@pytest.mark.parametrize(
    ("function", "legal", "left", "words"), LEFT_BEHIND, ids=[f"{case[0]}-{'-'.join(case[2])}" for case in LEFT_BEHIND]
)
def test_what_is_left_on_the_cpu_is_refused(
    function: str, legal: dict[str, Any], left: dict[str, Any], words: str
) -> None:
    there = {k: v.to("cuda") if isinstance(v, torch.Tensor) else v for k, v in legal.items()}
    with pytest.raises(ValueError) as caught:
        getattr(pyvae, function)(**there | left)
    device = torch.empty(0, device="cuda").device
    assert str(caught.value) == f"{function}: {words} device {device}, but is on cpu"
