"""reparameterize_kl from a mixture: the estimate, its gradients, and who refuses one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cases import DTYPES, assert_whole, generator, leaf, posterior
from torch import Tensor
from torch.autograd import grad, gradcheck
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import pyvae
from pyvae._codes import SCALES
from pyvae._posterior import FORMS

BOTH, KERNELS = (pytest.mark.usefixtures(name) for name in ("backend", "kernels"))
B, L, K, S = 6, 5, 4, 7


def components(shape: tuple[int, ...] = (K, L)) -> tuple[Tensor, Tensor, Tensor]:
    draw = generator(9)
    tensors = torch.randn(shape, generator=draw), torch.randn(shape, generator=draw) / 2, torch.randn(shape[:-1])
    return tuple(leaf(x.double()) for x in tensors)  # type: ignore[return-value]


def truth(z: Tensor, mu: Tensor, sigma: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor) -> Tensor:
    """log q - log p by torch.distributions, (S, B)."""
    prior = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(mean, torch.exp(logvar / 2)), 1))
    return Independent(Normal(mu, sigma), 1).log_prob(z) - prior.log_prob(z)


@BOTH
@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("shape", [(K, L), (B, K, L)], ids=["shared", "each"])
@pytest.mark.parametrize("samples", [None, S])
@pytest.mark.parametrize("given", [False, True], ids=["noise", "eps"])
def test_the_estimate_and_its_gradients(given: bool, samples: int | None, shape: tuple[int, ...], kind: str) -> None:
    """Against torch.distributions, of the same z as a function of mu, the scale and the noise."""
    mu, scale = (leaf(x) for x in posterior(kind, (B, L), torch.float64))
    mean, logvar, logits = components(shape)
    size = (B, L) if samples is None else (samples, B, L)
    eps = leaf(torch.randn(size, generator=generator(3), dtype=torch.float64)) if given else None
    source: dict[str, Any] = {"eps": eps} if given else {"seed": 5, "row_offset": 3}
    prior = pyvae.Mixture(mean, logvar, logits=logits)
    z, kl = pyvae.reparameterize_kl(mu, **{kind: scale}, prior=prior, samples=samples, **source)
    assert torch.equal(z, pyvae.reparameterize(mu, **{kind: scale}, samples=samples, **source))
    sigma = FORMS[kind].sigma(scale)
    noise = eps if given else ((z - mu) / sigma).detach()
    own = truth(mu + sigma * noise, mu, sigma, mean, logvar, logits)
    want = own if samples is None else own.mean(0)
    assert (kl.shape, kl.dtype) == ((B,), torch.float64)
    assert_whole(kl, want, 1e-9)
    inputs = [mu, scale, mean, logvar, logits, *([eps] if given else [])]
    upstream = torch.linspace(1, 2, B, dtype=torch.float64)
    for got, right in zip(grad(kl, inputs, upstream), grad(want, inputs, upstream), strict=True):
        assert got.shape == right.shape
        assert_whole(got, right, 1e-9)


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_types(dtype: torch.dtype) -> None:
    """16 bits are computed in float32, z before it is rounded: a posterior far narrower than its mean's rounding."""
    mu = leaf(torch.linspace(-3, 3, B * L).view(B, L).to(dtype))
    logvar = leaf(torch.full((B, L), -12.0, dtype=dtype))
    prior = pyvae.Mixture(*(x.detach().to(dtype) for x in components()[:2]))
    z, kl = pyvae.reparameterize_kl(mu, logvar, prior=prior, samples=S, seed=1)
    assert z.dtype == dtype and kl.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    wide = pyvae.Mixture(prior.mean.double(), prior.logvar.double())
    noise = pyvae.reparameterize(torch.zeros(B, L), torch.zeros(B, L), samples=S, seed=1).double()
    if dtype != torch.float64:
        _, want = pyvae.reparameterize_kl(mu.double(), logvar.double(), eps=noise, prior=wide, samples=S)
        assert_whole(kl, want, 1e-5)
    slopes = grad(kl.sum(), (mu, logvar))
    assert all(slope.dtype == dtype and slope.isfinite().all() for slope in slopes)


@KERNELS
def test_a_million_samples_against_the_closed_form() -> None:
    """Of one component the KL is known."""
    mu, logvar = posterior("logvar", (2, 3))
    mean, prior_logvar = torch.randn(1, 3, generator=generator(1)), torch.randn(1, 3, generator=generator(2)) / 2
    closed = pyvae.kl_divergence(mu, logvar, prior=(mean[0], prior_logvar[0]))
    _, kl = pyvae.reparameterize_kl(mu, logvar, prior=pyvae.Mixture(mean, prior_logvar), samples=1_000_000, seed=4)
    torch.testing.assert_close(kl, closed, rtol=0.01, atol=0.01)
    assert (kl != closed).any()


@KERNELS
@pytest.mark.parametrize("logvar", [-20.0, -34.0, -100.0, -250.0])
def test_narrow_posteriors(logvar: float) -> None:
    """Narrower than float32 resolves around mu, and than it has numbers for: log q is that of the noise."""
    mu, scale = 5 + torch.rand(64, 8, generator=generator(1)), torch.full((64, 8), logvar)
    prior = pyvae.Mixture(torch.zeros(1, 8), 0.0)  # N(0, I)
    _, kl = pyvae.reparameterize_kl(mu, scale, prior=prior, samples=2000, seed=1)
    bias = (kl - pyvae.kl_divergence(mu, scale)).mean().item()
    assert abs(bias) < 0.05  # of 64 x 2000 estimates with a deviation of 2
    _, none = pyvae.reparameterize_kl(mu, std=torch.zeros(64, 8), prior=prior)
    assert (none == math.inf).all()


@BOTH
def test_of_its_own_posterior_it_is_exactly_0() -> None:
    mu, logvar = posterior("logvar", (B, L))
    _, kl = pyvae.reparameterize_kl(mu, logvar, prior=pyvae.Mixture(mu[:, None], logvar[:, None]), samples=S)
    assert kl.abs().max() < 1e-5


@BOTH
def test_a_component_of_weight_0_has_no_part() -> None:
    mu, logvar = (leaf(x) for x in posterior("logvar", (B, L)))
    mean, scale, logits = (leaf(x.detach().float()) for x in components())
    with torch.no_grad():
        logits[1] = -math.inf
        mean[1] = math.nan
    _, kl = pyvae.reparameterize_kl(mu, logvar, prior=pyvae.Mixture(mean, scale, logits=logits), samples=S, seed=1)
    slopes = grad(kl.sum(), (mu, logvar, mean, scale, logits))
    assert kl.isfinite().all() and all(slope.isfinite().all() for slope in slopes)
    assert not slopes[2][1].any() and not slopes[3][1].any() and slopes[4][1] == 0


@BOTH
def test_a_range_clamps_the_posterior_alone() -> None:
    mu, logvar = (leaf(x.double()) for x in posterior("logvar", (B, L)))
    prior = pyvae.Mixture(*components()[:2])
    z, kl = pyvae.reparameterize_kl(mu, logvar, logvar_range=(-0.5, 0.5), prior=prior, seed=2)
    clamped = leaf(logvar.detach().clamp(-0.5, 0.5))
    want_z, want = pyvae.reparameterize_kl(mu, clamped, prior=prior, seed=2)
    assert torch.equal(z, want_z) and torch.equal(kl, want)
    inside = (logvar > -0.5) & (logvar < 0.5)
    got, right = grad(kl.sum(), logvar)[0], grad(want.sum(), clamped)[0]
    assert_whole(got, torch.where(inside, right, 0.0), 1e-12)


@KERNELS
def test_derivatives_of_every_order() -> None:
    mu, logvar = (leaf(x[:2, :3]) for x in posterior("logvar", (B, L), torch.float64))
    mean, scale, logits = (leaf(x.detach()[:2, :3] if x.ndim > 1 else x.detach()[:2]) for x in components())

    def estimate(mu: Tensor, logvar: Tensor, mean: Tensor, scale: Tensor, logits: Tensor) -> Tensor:
        prior = pyvae.Mixture(mean, scale, logits=logits)
        return pyvae.reparameterize_kl(mu, logvar, prior=prior, samples=2, seed=3)[1]

    inputs = (mu, logvar, mean, scale, logits)
    assert gradcheck(estimate, inputs, check_forward_ad=True)
    slopes = grad(estimate(*inputs).sum(), inputs, create_graph=True)
    assert all(x is not None for x in grad(sum(slope.square().sum() for slope in slopes), inputs))


@KERNELS
def test_compiles() -> None:
    mu, logvar = (leaf(x) for x in posterior("logvar", (B, L)))
    mean, scale, logits = (x.detach().float() for x in components())

    def step(mu: Tensor, logvar: Tensor) -> Tensor:
        prior = pyvae.Mixture(mean, scale, logits=logits)
        z, kl = pyvae.reparameterize_kl(mu, logvar, prior=prior, samples=3, seed=torch.tensor([2]))
        return kl.sum() + z.sum()

    torch._dynamo.reset()
    results = [
        (out := f(mu, logvar), *grad(out, (mu, logvar)))
        for f in (step, torch.compile(step, backend="aot_eager", fullgraph=True))
    ]
    for got, want in zip(*results, strict=True):
        assert_whole(got, want, 1e-5)


PRIOR = pyvae.Mixture(torch.zeros(K, L), torch.zeros(K, L))
Z = torch.zeros(B, L)
REFUSED = [
    (lambda: pyvae.kl_divergence(Z, Z, prior=PRIOR), TypeError, r"kl_divergence: `prior`.* is a Mixture.*reparameteri"),
    (lambda: pyvae.elbo_loss(Z, Z, Z, Z, prior=PRIOR), TypeError, r"elbo_loss: `prior`.*a Mixture.*kl=kl"),
    (lambda: pyvae.ELBOLoss()(Z, Z, Z, Z, prior=PRIOR), TypeError, "a Mixture, from which the KL has no closed form"),
    (
        lambda: pyvae.reparameterize_kl(torch.zeros(B, 2, L), torch.zeros(B, 2, L), prior=PRIOR),
        ValueError,
        r"reparameterize_kl: `mu` must have shape \(B, L\).*\.flatten\(1\)",
    ),
    (
        lambda: pyvae.reparameterize_kl(torch.zeros(B, 3), torch.zeros(B, 3), prior=PRIOR),
        ValueError,
        r"reparameterize_kl: `mu` must have shape \(\.\.\., B, 5\) for means of shape \(4, 5\), but has shape \(6, 3\)",
    ),
    (
        lambda: pyvae.reparameterize_kl(Z, Z, prior=pyvae.Mixture(torch.zeros(K, L))),
        ValueError,
        "exactly one of .* must be given to pyvae.Mixture, but got none",
    ),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize("call, error, words", REFUSED, ids=range(len(REFUSED)))
def test_refusals(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
