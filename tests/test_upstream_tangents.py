"""Forward mode over backward: a tangent of the upstream gradient passes through the backward pass, which is linear."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from cases import assert_whole, leaf, posterior, step_inputs
from families import PLAIN
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = pytest.mark.usefixtures("backend")


def assert_linear(outputs: list[Tensor], inputs: list[Tensor]) -> None:
    """The tangent of the gradients is the gradient of the tangents; outputs without one leave it at 0."""
    upstream = [torch.rand_like(y) + 0.5 for y in outputs]
    for only in range(len(outputs)):
        tangents = [torch.randn_like(y) if i == only else None for i, y in enumerate(outputs)]
        with fwAD.dual_level():
            duals = [g if t is None else fwAD.make_dual(g, t) for g, t in zip(upstream, tangents, strict=True)]
            gradients = grad(outputs, inputs, duals, retain_graph=True)
            got = [fwAD.unpack_dual(g).tangent for g in gradients]
        want = grad(outputs[only], inputs, tangents[only], retain_graph=True, allow_unused=True)
        for tangent, expected in zip(got, want, strict=True):
            if expected is None:
                assert tangent is None or not tangent.any()
            else:
                assert tangent is not None
                assert_whole(tangent, expected)


@pytest.mark.parametrize("likelihood", [*PLAIN, pyvae.Gaussian(torch.zeros(5)), pyvae.Poisson()], ids=str)
def test_of_the_objective(likelihood: object, device: str) -> None:
    name = likelihood if isinstance(likelihood, str) else "gaussian"
    recon, target, mu, logvar = step_inputs(name, (3, 5), (3, 2), device=device)
    if isinstance(likelihood, pyvae.Gaussian):
        likelihood = pyvae.Gaussian(likelihood.logvar.to(device))
    if isinstance(likelihood, pyvae.Poisson):
        target = target.abs()
    for reduction in ("none", "sum", "batchmean"):
        terms = pyvae.elbo_terms(
            recon, target, mu, logvar, likelihood=likelihood, reduction=reduction  # type: ignore[arg-type]
        )  # fmt: skip
        assert_linear(list(terms), [recon, mu, logvar])


def test_of_the_sampler(device: str) -> None:
    mu, logvar = (leaf(x) for x in posterior("logvar", (3, 4), torch.float64, device=device))
    assert_linear(list(pyvae.reparameterize_kl(mu, logvar, seed=7)), [mu, logvar])
    assert_linear([pyvae.kl_divergence(mu, logvar)], [mu, logvar])
