"""ELBOLoss and what its likelihood holds: parameters, buffers, numbers, and an object made anew at each call."""

from __future__ import annotations

import copy
import io
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from calls import Call, call
from cases import assert_whole, leaf
from families import HOLDING, WITH_LIBRARY
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import pyvae
from pyvae._objects import held

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.torch_sensitive("state and copies of what a likelihood holds; parametrizations, functional_call"),
]

EACH = pytest.mark.parametrize("name", HOLDING)


def given_to(name: str, device: str) -> Call:
    return call(name, (4, 30), library=name in WITH_LIBRARY, device=device)


def of(given: Call, make: Any) -> Any:
    """The likelihood, of something made of each tensor."""
    likelihood = given.likelihood
    return replace(likelihood, **{name: make(x) for name, x in held(likelihood).items()})


def test_one_parameter_is_one_parameter() -> None:
    criterion = pyvae.ELBOLoss(likelihood=pyvae.Gaussian(nn.Parameter(torch.zeros(3))))
    assert len(list(criterion.parameters())) == 1
    assert len(criterion.state_dict()) == 1


@EACH
def test_parameters_are_learned(name: str, device: str) -> None:
    """They are the caller's own, with the gradients that a call without a module gives."""
    given = given_to(name, device)
    likelihood = of(given, nn.Parameter)
    criterion = pyvae.ELBOLoss(likelihood=likelihood)
    own = {field: x for field, x in held(likelihood).items() if x is not None}
    assert {field: id(x) for field, x in criterion.named_parameters()} == {field: id(x) for field, x in own.items()}
    assert list(criterion.state_dict()) == list(own)
    criterion(given.recon, given.target).backward()
    leaves = given.leaves()
    want = torch.autograd.grad(leaves.elbo_loss(), leaves.differentiable[1:])
    for parameter, wanted in zip(criterion.parameters(), want, strict=True):
        assert parameter.grad is not None
        assert_whole(parameter.grad, wanted)


@EACH
def test_tensors_are_buffers_and_follow(name: str, device: str) -> None:
    given = given_to(name, "cpu")
    likelihood = given.likelihood
    criterion = pyvae.ELBOLoss(likelihood=likelihood)
    assert list(criterion.parameters()) == []
    assert list(criterion.state_dict()) == [field for field, x in held(likelihood).items() if x is not None]
    assert {x.dtype for x in criterion.double().buffers()} == {torch.float64}
    here = criterion.float().to(device)
    assert {x.device.type for x in here.buffers()} == {device}
    assert_whole(here(given.recon.to(device), given.target.to(device)).cpu(), given.elbo_loss())
    moved = here.to("meta")
    assert {x.device.type for x in held(moved.likelihood).values() if x is not None} == {"meta"}
    assert moved(given.recon.to("meta"), given.target.to("meta")).device.type == "meta"


@EACH
@pytest.mark.parametrize("kind", [nn.Parameter, lambda x: x], ids=["parameters", "buffers"])
def test_copies(name: str, kind: Any, device: str) -> None:
    """Of the state, of the module, and by torch.save: the same loss, and tensors of their own."""
    given = given_to(name, device)
    criterion = pyvae.ELBOLoss(likelihood=of(given, kind))
    want = criterion(given.recon, given.target)
    other = pyvae.ELBOLoss(likelihood=of(given, lambda x: kind(torch.zeros_like(x))))
    assert other.load_state_dict(criterion.state_dict()).missing_keys == []
    saved = io.BytesIO()
    torch.save(criterion, saved)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=False)
    for made in (other, copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion)), loaded):
        assert torch.equal(made(given.recon, given.target), want)
        assert type(made.likelihood) is type(criterion.likelihood)
        mine, theirs = ({x.data_ptr() for x in each.state_dict().values()} for each in (made, criterion))
        assert not mine & theirs


def test_numbers_stay_numbers(device: str) -> None:
    given = given_to("negative_binomial", device)
    criterion = pyvae.ELBOLoss(likelihood=pyvae.NegativeBinomial(0.5, 3)).double()
    assert not criterion.state_dict()
    assert held(criterion.likelihood) == {"log_theta": 0.5, "log_library": 3}
    want = [pyvae.elbo_loss(given.recon, given.target, likelihood=pyvae.NegativeBinomial(x, 3)) for x in (0.5, -1.0)]
    assert torch.equal(criterion(given.recon, given.target), want[0])
    criterion.log_theta = -1.0  # as a beta is
    assert torch.equal(criterion(given.recon, given.target), want[1])
    criterion.log_theta = nn.Parameter(torch.tensor(0.5, device=device))
    assert [name for name, _ in criterion.named_parameters()] == ["log_theta"]
    torch.testing.assert_close(criterion(given.recon, given.target), want[0])


def test_the_likelihood_is_a_name_or_an_object() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    for name in ("bernoulli", "gaussian", "multinomial"):
        assert pyvae.ELBOLoss(likelihood=name).likelihood == name
    for given in (pyvae.Multinomial(), pyvae.Poisson(), pyvae.Gaussian(), pyvae.Gaussian(parameter)):
        criterion = pyvae.ELBOLoss(likelihood=given)
        assert type(criterion.likelihood) is type(given)
        assert all(a is b for a, b in zip(held(criterion.likelihood).values(), held(given).values(), strict=True))
        assert f"likelihood={given!r}, beta=1.0" in repr(criterion)


def test_the_likelihood_is_set_anew(device: str) -> None:
    """What the old one held goes; what is refused changes nothing."""
    given = given_to("negative_binomial", device)
    criterion = pyvae.ELBOLoss(likelihood="poisson", weight=torch.ones(30)).to(device)
    parameter, buffer = nn.Parameter(torch.zeros(30, device=device)), torch.ones(30, device=device)
    criterion.likelihood = pyvae.NegativeBinomial(parameter)
    assert set(criterion.state_dict()) == {"weight", "log_theta"}
    criterion.likelihood = pyvae.ZeroInflatedNegativeBinomial(buffer, parameter)
    assert [name for name, _ in criterion.named_parameters()] == ["zi_logits"]
    assert [name for name, _ in criterion.named_buffers()] == ["weight", "log_theta"]
    want = criterion(given.recon, given.target)
    with pytest.raises(ValueError, match=r"^ELBOLoss: `likelihood` must be one of"):
        criterion.likelihood = "nll"  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"^ELBOLoss: `logvar` must be a Tensor or a number"):
        criterion.likelihood = pyvae.Gaussian("0")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^ELBOLoss: `logvar` must be an nn.Parameter"):
        criterion.likelihood = pyvae.Gaussian(parameter * 2)
    assert torch.equal(criterion(given.recon, given.target), want)
    criterion.likelihood = "poisson"
    assert list(criterion.state_dict()) == ["weight"]
    assert not hasattr(criterion, "log_theta")
    assert torch.equal(
        criterion(given.recon, given.target), pyvae.elbo_loss(given.recon, given.target, likelihood="poisson")
    )


@pytest.mark.parametrize("name", ["beta", "weight", "pos_weight", "logvar"])
def test_what_a_step_computes_is_refused(name: str) -> None:
    """No second step could go through its graph, and no deepcopy."""
    computed = torch.ones((), requires_grad=True) * 2
    options: dict[str, Any] = {"likelihood": pyvae.Gaussian(computed)} if name == "logvar" else {name: computed}
    options |= {"likelihood": "bernoulli_logits"} if name == "pos_weight" else {}
    instead = {"beta": "pyvae.elbo_loss(..., beta=...)", "logvar": "criterion(..., likelihood=...)"}
    with pytest.raises(ValueError) as caught:
        pyvae.ELBOLoss(**options)
    assert str(caught.value) == (
        f"ELBOLoss: `{name}` must be an nn.Parameter, a tensor without a graph, or a number, but has the grad_fn "
        f"MulBackward0; what a step computes belongs in its call, `{instead.get(name, f'criterion(..., {name}=...)')}`"
    )


def test_the_call_takes_another_likelihood(device: str) -> None:
    given = given_to("negative_binomial", device)
    criterion = pyvae.ELBOLoss(likelihood=pyvae.Gaussian(nn.Parameter(torch.zeros(30, device=device))))
    computed = leaf(torch.zeros(30, device=device)) * 2
    got = criterion(given.recon, given.target, likelihood=pyvae.NegativeBinomial(computed))
    assert torch.equal(
        got, pyvae.elbo_loss(given.recon, given.target, likelihood=pyvae.NegativeBinomial(torch.zeros_like(computed)))
    )
    assert [name for name, _ in criterion.named_parameters()] == ["logvar"]


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiled(compiler: str, device: str) -> None:
    """One graph for all steps of an optimizer, which changes the parameters."""
    torch._dynamo.reset()
    given = given_to("zero_inflated_negative_binomial", device)
    counter = CompileCounter() if compiler == "eager" else None
    criterion = pyvae.ELBOLoss(likelihood=of(given, nn.Parameter))
    compiled = torch.compile(criterion, fullgraph=True, backend=counter or compiler)
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        loss = compiled(given.recon, given.target)
        assert_whole(loss, criterion(given.recon, given.target))
        loss.backward()
        assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in criterion.parameters())
        optimizer.step()
    assert counter is None or counter.frame_count == 1
    torch._dynamo.reset()


def test_functional_call_and_parametrizations(device: str) -> None:
    given = given_to("gaussian_logvar", device)
    criterion = pyvae.ELBOLoss(likelihood=pyvae.Gaussian(nn.Parameter(torch.zeros(30, device=device))))
    (own,) = given.parameters

    def loss(own: Tensor) -> Tensor:
        return torch.func.functional_call(criterion, {"logvar": own}, (given.recon, given.target))

    leaves = given.leaves()
    (want,) = torch.autograd.grad(leaves.elbo_loss(), leaves.parameters)
    assert_whole(loss(own), given.elbo_loss())
    assert_whole(torch.func.grad(loss)(own), want)

    want = loss(torch.zeros_like(own))
    nn.utils.parametrize.register_parametrization(criterion, "logvar", nn.Hardtanh())
    assert torch.equal(criterion(given.recon, given.target), want)
    assert [name for name, _ in criterion.named_parameters()] == ["parametrizations.logvar.original"]


def test_training_learns_the_noise(device: str) -> None:
    """Of a decoder that is right, the log of the mean squared error."""
    std = torch.tensor([0.1, 1.0, 3.0], device=device)
    target = std * torch.randn(2000, 3, device=device)
    model = nn.ModuleDict({"criterion": pyvae.ELBOLoss(likelihood=pyvae.Gaussian(nn.Parameter(torch.zeros(3))))}).to(
        device
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        model["criterion"](torch.zeros_like(target), target).backward()
        optimizer.step()
    (learned,) = model.parameters()
    torch.testing.assert_close(learned.detach(), target.square().mean(0).log(), rtol=0, atol=1e-2)
