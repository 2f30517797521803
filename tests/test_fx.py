"""The public functions as nodes of torch.fx's graphs, as torch's own are."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from cases import all_equal, data, leaf, posterior
from torch import Tensor, nn

import pyvae

pytestmark = pytest.mark.usefixtures("backend")

PUBLIC = [name for name in pyvae.reference.__all__ if name[0].islower() and name != "normal"]


class Step(nn.Module):
    """A training step with everything that may be a node."""

    def __init__(self) -> None:
        super().__init__()
        self.log_theta = nn.Parameter(torch.full((6,), 0.5))
        self.criterion = pyvae.ELBOLoss(likelihood="gaussian", beta=torch.tensor(0.5), weight=torch.ones(6))
        self.learned = pyvae.ELBOLoss(likelihood=pyvae.Gaussian(nn.Parameter(torch.full((6,), 0.25))))
        self.fixed = pyvae.ELBOLoss(likelihood=pyvae.ZeroInflatedNegativeBinomial(torch.zeros(6), -1.0))

    def forward(self, recon, target, mu, logvar, seed):  # type: ignore[no-untyped-def]  # fx pickles no string of a type
        z, kl = pyvae.reparameterize_kl(mu, logvar, seed=seed, prior=(mu.detach() * 0.5, 0.5))
        count = pyvae.NegativeBinomial(self.log_theta, log_library=mu[:, 0])
        terms = pyvae.elbo_terms(recon, target, kl=kl, likelihood=count, beta=0.5)
        free = pyvae.kl_divergence(mu, logvar, reduction="elements").clamp(min=0.5).sum()
        noise = pyvae.reparameterize(mu, std=logvar.exp(), eps=z)
        likely = pyvae.reconstruction_loss(recon, target, likelihood="laplace", weight=0.5, reduction="sum")
        both = self.criterion(recon, target, mu, logvar) + pyvae.elbo_loss(recon.sigmoid(), target.clamp(0, 1))
        aggregate = pyvae.mixture_log_prob(z, pyvae.Mixture(mu, logvar), reduction="elements").sum(-1)
        both = both + (pyvae.gaussian_log_prob(z, mu, logvar) - aggregate).sum()
        held = self.learned(recon, target, kl=kl) + self.fixed(recon, target)
        return terms.loss + terms.kl + free + noise.sum() + likely + both + held


def step_inputs() -> list[Tensor]:
    recon, target = data("bernoulli_logits", (4, 6))
    leaves = [leaf(x) for x in (recon, *posterior("logvar", (4, 3)))]
    return [leaves[0], target.round(), *leaves[1:], torch.tensor([7])]


def outcome(function: Callable[..., Tensor], parameter: Tensor) -> list[Tensor]:
    given = step_inputs()
    loss = function(*given)
    return [loss.detach(), *torch.autograd.grad(loss, [parameter, *(x for x in given if x.requires_grad)])]


def test_a_step_is_traced_and_runs() -> None:
    module = Step()
    traced = torch.fx.symbolic_trace(module)
    called = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    for name in PUBLIC:
        assert getattr(pyvae, name) in called
    assert called.count(pyvae.elbo_loss) == 4  # the modules', too
    want = outcome(module, module.log_theta)
    assert all_equal(outcome(traced, traced.log_theta), want)
    assert all_equal(outcome(traced, traced.learned.logvar), outcome(module, module.learned.logvar))
    traced.graph.lint()
    traced.recompile()
    assert all_equal(outcome(traced, traced.log_theta), want)
    again = pickle.loads(pickle.dumps(traced))
    assert all_equal(outcome(again, again.log_theta), want)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_a_traced_step_compiles(compiler: str) -> None:
    torch._dynamo.reset()
    module = Step()
    traced = torch.fx.symbolic_trace(module)
    want = outcome(module, module.log_theta)
    got = outcome(torch.compile(traced, fullgraph=True, backend=compiler), traced.log_theta)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    torch._dynamo.reset()


def test_a_traced_error_is_the_functions_own() -> None:
    traced = torch.fx.symbolic_trace(lambda recon, target: pyvae.elbo_loss(recon, target, reduction="mean"))
    with pytest.raises(ValueError, match=r"^elbo_loss: `reduction` must be"):
        traced(torch.rand(4, 6), torch.ones(4, 6))
