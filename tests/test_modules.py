"""ELBOLoss: the settings that a module holds reach elbo_loss, and move with it."""

from __future__ import annotations

import pytest
import torch
from cases import data, posterior
from families import SCALES
from torch import nn

import pyvae

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize("scale", SCALES)
def test_settings_reach_the_loss(scale: str, device: str) -> None:
    """Its defaults are those of elbo_loss, and a call may replace the weights."""
    recon, target = data("bernoulli", (4, 6), device=device)
    mu, s = posterior(scale, (4, 3), device=device)
    weight, pos_weight = torch.linspace(0.5, 2, 6, device=device), torch.linspace(1, 3, 6, device=device)
    settings = {"likelihood": "bernoulli_logits", "beta": 0.3, "reduction": "none"}
    settings |= {"weight": weight, "pos_weight": pos_weight}
    for made, given in (({}, {}), (settings, {}), (settings, {"weight": pos_weight, "pos_weight": 2.0})):
        for kl in ({"mu": mu, scale: s}, {"kl": pyvae.kl_divergence(mu, **{scale: s})}):
            want = pyvae.elbo_loss(recon, target, **kl, **made | given)
            assert torch.equal(pyvae.ELBOLoss(**made)(recon, target, **kl, **given), want)


def test_tensors_are_buffers_and_parameters_are_learned(device: str) -> None:
    criterion = pyvae.ELBOLoss(beta=torch.tensor(2.0), weight=torch.ones(6))
    assert set(criterion.state_dict()) == {"beta", "weight"}
    assert {value.device.type for value in criterion.to(device).buffers()} == {device}
    assert {value.device.type for value in criterion.to("meta").buffers()} == {"meta"}

    learned = pyvae.ELBOLoss(beta=nn.Parameter(torch.tensor(2.0))).to(device)
    (beta,) = learned.parameters()
    recon, target = data("bernoulli", (4, 6), device=device)
    learned(recon, target, kl=torch.full((4,), 1.5, device=device)).backward()
    assert beta.grad is not None
    assert beta.grad.item() == 6.0


def test_beta_is_annealed_between_steps(device: str) -> None:
    recon, target = data("bernoulli", (4, 6), device=device)
    kl = torch.full((4,), 1.5, device=device)
    number, tensor = pyvae.ELBOLoss(), pyvae.ELBOLoss(beta=torch.tensor(1.0)).to(device)
    before = number(recon, target, kl=kl)
    number.beta = 0.25
    tensor.beta.fill_(0.25)
    want = pyvae.elbo_loss(recon, target, kl=kl, beta=0.25)
    assert want < before
    assert torch.equal(number(recon, target, kl=kl), want)
    assert torch.equal(tensor(recon, target, kl=kl), want)
