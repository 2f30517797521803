"""The specification itself: against closed forms, torch.distributions, torch's own losses and published vectors.

It needs no kernels: everything here is about `pyvae.reference`, in eager mode, in transforms and while compiling.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import truth
from cases import assert_relative, assert_slope, assert_ulp, data, leaf, posterior
from families import PLAIN, SCALES, cycled, scaling
from tolerances import (
    FLOAT64_ROUNDING,
    GRADIENT_ULP,
    KL_REFERENCE_NEAR_PRIOR,
    LOSS,
    REFERENCE_GRADIENT_ULP,
)
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp

from pyvae import _noise, reference

pytestmark = pytest.mark.torch_sensitive("torch's own losses and torch.distributions")

# ---- noise -----------------------------------------------------------------------------------------------------------


def test_normal_of_an_angle_on_an_axis_is_zero() -> None:
    """Quarters of a turn are exact: the cosine of a float64 close to pi/2 would be 6e-17."""
    for bits in (32, 53):
        quarters = torch.arange(4) << (bits - 2)
        normals = _noise._box_muller(torch.tensor(math.exp(-0.5), dtype=torch.float64), quarters, bits)
        assert torch.stack(normals).round(decimals=12).tolist() == [[1, 0, -1, 0], [0, 1, 0, -1]]
        assert [int((n == 0).sum()) for n in normals] == [2, 2]


# ---- KL --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_kl_is_exact_near_the_prior(scale: str) -> None:
    """In float32, where the textbook form returns 0 or 6e-8 for a KL of 1e-10, and so does its gradient."""
    steps = torch.tensor([sign * 10.0**-k for k in range(1, 9) for sign in (1, -1)])
    s = scaling(scale).prior + steps
    s = leaf(s[(truth.std(scale, s) - 1).abs() > 4e-9])  # log(e - 1) is within 1e-9 of a float32
    kl = reference.kl_divergence(torch.zeros_like(s), **{scale: s})
    assert_relative(kl, truth.kl_divergence(scale, torch.zeros_like(s), s), KL_REFERENCE_NEAR_PRIOR)
    (slope,) = torch.autograd.grad(kl.sum(), s)
    assert_relative(slope, scaling(scale).spread_slope(truth.exact(s)), KL_REFERENCE_NEAR_PRIOR)


def test_sample_and_kl_gradients_are_rounded_once() -> None:
    """In 16 bits they add up in float32: 1 + (2^-8 + 2^-17) is above the middle between 1 and the next, 1 + 2^-7."""
    mu = leaf(torch.ones(1, 1, dtype=torch.bfloat16))
    z, kl = reference.reparameterize_kl(mu, torch.zeros(1, 1, dtype=torch.bfloat16), seed=0)
    assert (z.dtype, kl.dtype) == (torch.bfloat16, torch.float32)
    upstream = torch.ones(1, 1, dtype=torch.bfloat16), torch.tensor([2.0**-8 + 2.0**-17])
    (got,) = torch.autograd.grad((z, kl), mu, upstream)
    assert got.item() == 1 + 2.0**-7


# ---- likelihoods -----------------------------------------------------------------------------------------------------


def _ends(dtype: torch.dtype) -> Tensor:
    """Probabilities at, near and far from the ends of [0, 1], where the clamps of the logs and of the slope act."""
    tiny = torch.tensor([0.0, 1e-40, 1e-30, 1e-13, 9e-13, 1.1e-12, 1e-10, 1e-7, 1e-3, 0.1, 0.5], dtype=torch.float64)
    return torch.cat([tiny, 1 - tiny]).to(dtype)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_bernoulli_is_binary_cross_entropy_with_its_clamps(dtype: torch.dtype) -> None:
    p, t = torch.meshgrid(_ends(dtype), torch.tensor([0.0, 1e-3, 0.25, 0.5, 1.0], dtype=dtype), indexing="ij")
    p, t = leaf(p.reshape(-1)), t.reshape(-1)
    got = reference.reconstruction_loss(p, t)
    want = F.binary_cross_entropy(p, t, reduction="none")
    torch.testing.assert_close(got, want, rtol=LOSS[dtype], atol=0)
    (got,) = torch.autograd.grad(got.sum(), p)
    assert_slope(got, "bernoulli", p, t)
    if dtype == torch.float32:  # torch's 1e-12 is a float32 constant, in float64 off by a relative 8e-9
        (want,) = torch.autograd.grad(want.sum(), p)
        assert_ulp(got, want.double(), GRADIENT_ULP)


def test_bernoulli_gradient_does_not_cancel_near_the_target() -> None:
    """-t/p + (1-t)/(1-p) would be off by 6e-8, which is as large as the gradient."""
    p = leaf(torch.full((1,), 0.5 + 2.0**-24))
    (got,) = torch.autograd.grad(reference.reconstruction_loss(p, torch.tensor([0.5])).sum(), p)
    assert got.item() == pytest.approx(4 * 2.0**-24, rel=LOSS[torch.float32], abs=0)


def test_bernoulli_derivatives_of_every_order() -> None:
    """The gradient is that of F.binary_cross_entropy, and every further derivative is the gradient's own."""
    t = 0.3
    order: Any = lambda p: reference.reconstruction_loss(p.reshape(1), torch.tensor([t], dtype=torch.float64))[0]  # noqa: E731
    p = torch.tensor(0.2, dtype=torch.float64)
    for n in range(1, 5):
        order = jacfwd(order) if n % 2 else grad(order)
        want = math.factorial(n - 1) * ((-1) ** n * t / p**n + (1 - t) / (1 - p) ** n)
        torch.testing.assert_close(order(p), want, rtol=FLOAT64_ROUNDING, atol=0)
    at_zero = torch.zeros(1, dtype=torch.float64)
    got = hessian(lambda p: reference.reconstruction_loss(p, torch.full_like(p, t)).sum())(at_zero)
    assert got.item() == pytest.approx(1e12, rel=FLOAT64_ROUNDING)


# ---- derivatives in every mode ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("likelihood", "scale"), cycled(PLAIN, SCALES))
def test_transforms_agree(likelihood: str, scale: str) -> None:
    """Of everything that is differentiable, in float64."""
    recon, target = data(likelihood, (3, 4), (torch.float64, torch.float64))
    mu, s = posterior(scale, (3, 2), torch.float64)
    weight, beta = torch.linspace(0.5, 2, 4, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    inputs = recon, target, mu, s, weight, beta

    def loss(recon: Tensor, target: Tensor, mu: Tensor, s: Tensor, weight: Tensor, beta: Tensor) -> Tensor:
        options = {scale: s, "likelihood": likelihood, "reduction": "sum"}
        return reference.elbo_loss(recon, target, mu, **options, weight=weight, beta=beta)

    argnums = tuple(range(len(inputs)))
    want = torch.autograd.functional.hessian(loss, inputs)
    for transform in (hessian, lambda f, a: jacfwd(jacfwd(f, a), a), lambda f, a: jacrev(jacrev(f, a), a)):
        got = transform(loss, argnums)(*inputs)
        torch.testing.assert_close(got, want, rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING)

    gradient = grad(loss, argnums)(*inputs)
    tangents = tuple(torch.ones_like(x) for x in inputs)
    value, slope = jvp(loss, inputs, tangents)
    assert value == loss(*inputs)
    along = torch.stack([g.sum() for g in gradient]).sum()
    torch.testing.assert_close(slope, along, rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING)


def test_compiles_without_a_graph_break() -> None:
    def step(x: Tensor, mu: Tensor, logvar: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
        z, kl = reference.reparameterize_kl(mu, logvar)
        again = reference.reparameterize(mu, logvar, seed=2**63 + 1, row_offset=5)
        loss = reference.elbo_loss(torch.sigmoid(z), x, kl=kl, beta=beta)
        return loss, z, again, reference.elbo_loss(z, x, kl=kl, likelihood="bernoulli_logits", pos_weight=2.0)

    inputs = (torch.rand(6, 3), leaf(torch.randn(6, 3)), leaf(torch.randn(6, 3)), torch.tensor(0.5))
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    torch.manual_seed(0)
    want = step(*inputs)
    torch.manual_seed(0)
    got = compiled(*inputs)
    torch.testing.assert_close(got, want, rtol=LOSS[torch.float32], atol=0)
    assert not (compiled(*inputs)[1] == got[1]).any(), "a second call must draw other noise"
    for a, b in zip(*(torch.autograd.grad(out[0] + out[1].sum(), inputs[1:3]) for out in (got, want)), strict=True):
        assert_ulp(a, b.double(), REFERENCE_GRADIENT_ULP)
