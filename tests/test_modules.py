"""ELBOLoss: the settings that a module holds reach elbo_loss, and move with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from calls import call
from cases import all_equal, data, leaf, posterior
from families import SCALES, WAYS
from torch import nn
from torch._dynamo.testing import CompileCounter

import pyvae

pytestmark = [pytest.mark.usefixtures("backend"), pytest.mark.torch_sensitive("state and copies of nn.Module")]


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
            criterion = pyvae.ELBOLoss(**made)
            want = pyvae.elbo_terms(recon, target, **kl, **made | given)
            assert torch.equal(criterion(recon, target, **kl, **given), want.loss)
            terms = criterion.terms(recon, target, **kl, **given)
            assert type(terms) is pyvae.ELBO
            assert all_equal(terms, want)


@pytest.mark.parametrize(("name", "library"), WAYS)
def test_every_likelihood_reaches_the_loss(name: str, library: bool, device: str) -> None:
    """By its name or as an object, which its repr shows."""
    given = call(name, (4, 90), library=library, device=device)
    criterion = pyvae.ELBOLoss(likelihood=given.likelihood, reduction="batchmean").to(device)
    assert torch.equal(criterion(given.recon, given.target), given.elbo_loss(reduction="batchmean"))
    likelihood = given.likelihood
    assert (repr(likelihood) if isinstance(likelihood, str) else type(likelihood).__name__) in repr(criterion)


def test_settings_are_buffers_and_parameters_are_learned(device: str) -> None:
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


@pytest.mark.parametrize(
    ("likelihood", "words"),
    [
        (pyvae.Gaussian(logvar="0.5"), "`logvar` must be a Tensor or a number, but is a str"),
        (pyvae.Gaussian(logvar=True), "`logvar` must be a Tensor or a number, but is a bool"),
        (
            pyvae.Laplace(torch.ones(3).long()),
            "`logscale` must have one of the dtypes float16, bfloat16, float32, float64",
        ),
        (pyvae.NegativeBinomial(None), "`log_theta` must be a Tensor or a number, but is None"),
        (
            pyvae.ZeroInflatedNegativeBinomial(torch.ones(3), [1]),
            "`zi_logits` must be a Tensor or a number, but is a list",
        ),
        (pyvae.Poisson(torch.ones(4).int()), "`log_library` must have one of the dtypes float16, bfloat16"),
        (
            pyvae.NegativeBinomial(torch.ones(3), np.bool_(True)),
            "`log_library` must be a Tensor or a number, but is a bool",
        ),
    ],
)
def test_parameters_are_refused_at_once(likelihood: Any, words: str) -> None:
    with pytest.raises(TypeError, match=f"^ELBOLoss: {words}"):
        pyvae.ELBOLoss(likelihood=likelihood)


def test_weights_are_buffers_too_and_follow(device: str) -> None:
    """In the state_dict, to a device, to a dtype; or learned, if they are parameters."""
    weight, positive = torch.rand(6), torch.rand(())
    criterion = pyvae.ELBOLoss(likelihood="bernoulli_logits", weight=weight, pos_weight=positive).to(device)
    recon, target = data("bernoulli_logits", (4, 6), device=device)
    options = {"likelihood": "bernoulli_logits", "weight": weight.to(device), "pos_weight": positive.to(device)}
    assert torch.equal(criterion(recon, target), pyvae.elbo_loss(recon, target, **options))
    assert {value.dtype for value in criterion.double().buffers()} == {torch.float64}

    other = pyvae.ELBOLoss(likelihood="bernoulli_logits", weight=torch.ones(6), pos_weight=torch.ones(()))
    other.load_state_dict(criterion.state_dict())
    assert torch.equal(other.to(device)(recon, target), criterion.float()(recon, target))

    learned = pyvae.ELBOLoss(
        likelihood="bernoulli_logits", weight=nn.Parameter(weight), pos_weight=nn.Parameter(positive)
    ).to(device)
    learned(recon, target).backward()
    assert [name for name, _ in learned.named_parameters()] == ["weight", "pos_weight"]
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in learned.parameters())


@pytest.mark.parametrize("given", ["recon", "kl"])
def test_terms_are_differentiable_by_themselves(given: str, device: str) -> None:
    criterion = pyvae.ELBOLoss(likelihood="gaussian", beta=0.5)
    recon, target = data("gaussian", (4, 6), device=device)
    mu, logvar = posterior("logvar", (4, 3), device=device)
    recon, mu = leaf(recon), leaf(mu)
    term = getattr(criterion.terms(recon, target, mu, logvar), given)
    by_recon, by_mu = torch.autograd.grad(term, (recon, mu), allow_unused=True, materialize_grads=True)
    assert torch.equal(by_recon, recon - target if given == "recon" else torch.zeros_like(recon))
    torch.testing.assert_close(by_mu, mu if given == "kl" else torch.zeros_like(mu))


@pytest.mark.parametrize("method", ["forward", "terms"])
def test_a_module_compiles_once(method: str, device: str) -> None:
    """Steps of other betas and other data, by the same graph."""
    torch._dynamo.reset()
    counter = CompileCounter()
    criterion = pyvae.ELBOLoss(likelihood="gaussian", beta=torch.tensor(0.5), weight=0.5).to(device)
    compiled = torch.compile(getattr(criterion, method), fullgraph=True, backend=counter)
    for step in range(3):
        criterion.beta.fill_(0.5 / (1 + step))
        recon, target = data("gaussian", (4, 6), seed=step, device=device)
        mu, logvar = posterior("logvar", (4, 3), seed=step, device=device)
        got, want = (run(recon, target, mu, logvar) for run in (compiled, getattr(criterion, method)))
        assert type(got) is type(want)
        assert all_equal(*((x if isinstance(x, tuple) else (x,)) for x in (got, want)))
    assert counter.frame_count == 1
    torch._dynamo.reset()


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
