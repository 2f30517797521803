"""pyvae.distributions where others take them: mixtures, compilers, transforms, Pyro."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torch.distributions as torch_distributions
from cases import assert_whole
from test_distributions import parameters, torch_nb
from torch import Tensor
from torch.autograd import grad

from pyvae.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial

pytestmark = pytest.mark.usefixtures("kernels")


def test_under_other_distributions() -> None:
    x, mu, theta, _ = parameters()
    weights = torch_distributions.Categorical(torch.ones(6, 9))
    mixtures = [
        torch_distributions.MixtureSameFamily(weights, made)
        for made in (NegativeBinomial(mu=mu, theta=theta, eps=0.0), torch_nb(mu, theta))
    ]
    for name in ("mean", "variance"):
        assert_whole(getattr(mixtures[0], name), getattr(mixtures[1], name), 1e-10)
    assert_whole(mixtures[0].log_prob(x[:, 0]), mixtures[1].log_prob(x[:, 0]), 1e-10)
    assert mixtures[0].sample((5,)).shape == (5, 6)
    whole = torch_distributions.Independent(NegativeBinomial(mu=mu, theta=theta, eps=0.0), 1)
    assert_whole(whole.log_prob(x), torch_nb(mu, theta).log_prob(x).sum(1), 1e-10)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles(backend: str) -> None:
    x, mu, theta, zi = parameters()

    def loss(x: Tensor, mu: Tensor, theta: Tensor, zi: Tensor) -> Tensor:
        return -(
            ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=zi).log_prob(x)
            + NegativeBinomial(theta, logits=zi).log_prob(x)
            + Poisson(mu, validate_args=False).log_prob(x)
        ).mean()

    torch._dynamo.reset()
    results = []
    for function in (loss, torch.compile(loss, backend=backend, fullgraph=True)):
        value = function(x, mu, theta, zi)
        results.append((value, *grad(value, (mu, theta, zi))))
    for got, wanted in zip(results[1], results[0], strict=True):
        assert_whole(got, wanted, 1e-10)


def test_second_derivatives_and_forward_mode() -> None:
    x, mu, theta, _ = parameters()

    def total(mu: Tensor, theta: Tensor) -> Tensor:
        return NegativeBinomial(mu=mu, theta=theta, eps=0.0).log_prob(x)

    def truth(mu: Tensor, theta: Tensor) -> Tensor:
        return torch_nb(mu, theta).log_prob(x)

    tangents = torch.ones_like(mu), torch.ones_like(theta)
    inputs = mu.detach(), theta.detach()
    for got, wanted in zip(*(torch.func.jvp(f, inputs, tangents) for f in (total, truth)), strict=True):
        assert_whole(got, wanted, 1e-9)
    hessians = [
        torch.autograd.functional.hessian(lambda m, f=f: f(m, inputs[1]).sum(), inputs[0]) for f in (total, truth)
    ]
    assert_whole(hessians[0], hessians[1], 1e-9)


def test_under_vmap_and_export() -> None:
    x, mu, theta, zi = parameters()
    inputs = x, *(y.detach() for y in (mu, theta, zi))

    def log_prob(x: Tensor, mu: Tensor, theta: Tensor, zi: Tensor) -> Tensor:
        return ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=zi).log_prob(x)

    class Module(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return log_prob(*inputs)

    wanted = log_prob(*inputs)
    assert_whole(torch.func.vmap(log_prob, (0, 0, None, 0))(*inputs), wanted, 1e-12)
    assert_whole(torch.export.export(Module(), inputs).module()(*inputs), wanted, 1e-12)
    with torch.autocast("cpu", torch.bfloat16):
        assert_whole(log_prob(*inputs), wanted, 1e-12)


PYRO = importlib.util.find_spec("pyro") is not None


@pytest.mark.skipif(not PYRO, reason="Pyro is not installed")
@pytest.mark.parametrize("recipe", [False, True], ids=["observed", "with Pyro's mixin"])
def test_in_pyro(recipe: bool) -> None:
    """An observed site takes it as it is; a class of two lines does the rest."""
    import pyro
    from pyro.distributions.torch_distribution import TorchDistributionMixin

    class Counts(NegativeBinomial, TorchDistributionMixin):  # type: ignore[misc]
        pass

    x, _, theta, _ = parameters()

    def model(x: Tensor) -> None:
        with pyro.plate("cells", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(9), 1.0).to_event(1))
            if recipe:
                pyro.sample("x", Counts(mu=z.exp(), theta=theta.detach()).to_event(1), obs=x)
            else:
                own = NegativeBinomial(mu=z.exp(), theta=theta.detach())
                pyro.sample("x", torch_distributions.Independent(own, 1), obs=x)

    def guide(x: Tensor) -> None:
        mean = pyro.param("mean", torch.zeros(6, 9))
        with pyro.plate("cells", len(x)):
            pyro.sample("z", pyro.distributions.Normal(mean, 0.1).to_event(1))

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), pyro.infer.Trace_ELBO())
    losses = [svi.step(x) for _ in range(30)]
    assert sum(losses[-5:]) < sum(losses[:5])
    if recipe:
        with pyro.plate("rows", 6):
            drawn_site = pyro.sample("y", Counts(mu=torch.ones(9), theta=theta.detach()).to_event(1))
        assert drawn_site.shape == (6, 9)
