"""Backward passes, any number of them: the gradient made in the forward pass is handed out once, computed again after,
and never wrong. Of parts of the inputs, and of inputs that were written to: test_autograd_inputs.py."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import truth
from calls import Call, assert_gradients, call
from cases import DTYPES, REDUCTIONS, all_equal, assert_slope, assert_ulp, assert_whole, leaf, posterior, step_inputs
from families import LIKELIHOODS, WITH_PARAMETERS
from tolerances import GRADIENT_ULP, SCALED_GRADIENT_ULP
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.torch_sensitive("saved tensors, and passes through one graph"),
]
SHAPE = (6, 3, 70)
MEAN = {"none": 1.0, "sum": 1.0, "batchmean": 1 / SHAPE[0]}
FORMS = ((70,), (6, 1, 1), (6, 3, 70), ())  # of parameters
EACH_FORM = pytest.mark.parametrize(
    ("name", "form"),
    [*itertools.product(WITH_PARAMETERS, FORMS), *((name, ()) for name in LIKELIHOODS if name not in WITH_PARAMETERS)],
)


def sample(name: str, form: tuple[int, ...], device: str, dtype: torch.dtype = torch.float32) -> Call:
    return call(name, SHAPE, form, (dtype, torch.float32, dtype), library=True, device=device).leaves()


def latent(device: str) -> list[Tensor]:
    """mu and logvar."""
    return [leaf(x) for x in posterior("logvar", (SHAPE[0], 9), device=device)]


def assert_kl(got: tuple[Tensor, ...], mu: Tensor, logvar: Tensor, factor: float) -> None:
    """got are factor times the derivatives of the KL."""
    for value, want in zip(got, truth.kl_slope("logvar", mu, logvar), strict=True):
        assert_ulp(value, factor * want, SCALED_GRADIENT_ULP)


# ---- several backward passes -----------------------------------------------------------------------------------------


@EACH_FORM
def test_retain_graph_and_held_gradients(name: str, form: tuple[int, ...], device: str) -> None:
    """Three passes with different upstream gradients; whoever holds an earlier gradient may even write into it."""
    given, (mu, logvar) = sample(name, form, device), latent(device)
    sources = [*given.differentiable, mu, logvar]
    for reduction in REDUCTIONS:
        loss = given.elbo_loss(mu=mu, logvar=logvar, reduction=reduction)
        held: list[tuple[Tensor, Tensor]] = []
        for factor in (1.0, 4.0, -0.7):
            *got, by_mu, by_logvar = grad(loss, sources, torch.full_like(loss, factor), retain_graph=True)
            scale = torch.tensor(factor, dtype=torch.float32).item() * MEAN[reduction]
            assert_gradients(got, given, scale, summands=True, reduction=reduction, factor=factor)
            assert_kl((by_mu, by_logvar), mu, logvar, scale)
            held += [(gradient, gradient.clone()) for gradient in (*got, by_mu, by_logvar)]
        assert all(torch.equal(now, kept) for now, kept in held)
        for gradient, _ in held:
            gradient.zero_()
        again = grad(loss, sources, torch.full_like(loss, 4.0))
        assert all_equal(again, [kept for _, kept in held[len(sources) : 2 * len(sources)]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@EACH_FORM
def test_a_second_pass_gives_the_same_bits(name: str, form: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    """Made in the forward pass, then computed again; whatever the factors that come to it afterwards."""
    given, (mu, logvar) = sample(name, form, device, dtype), latent(device)
    given = replace(given, weight=torch.linspace(0.1, 3, 70, device=device))
    for reduction, factor in itertools.product(REDUCTIONS, (1.0, -0.7)):
        loss, term, _ = pyvae.elbo_terms(given.recon, given.target, mu, logvar, **given.options, reduction=reduction)
        upstream = torch.full_like(loss, factor)
        for outputs in ((loss,), (loss, term)):
            factors = [upstream] * len(outputs)
            once, twice, thrice = (grad(outputs, given.differentiable, factors, retain_graph=True) for _ in range(3))
            assert all_equal(once, twice) and all_equal(once, thrice)


@EACH_FORM
def test_accumulation_over_backward_calls(name: str, form: tuple[int, ...], device: str) -> None:
    """.grad of a leaf may be the very buffer: later passes of this and of other losses must add to it, not write it."""
    given, (mu, logvar) = sample(name, form, device), latent(device)
    sources = [*given.differentiable, mu, logvar]
    loss = given.elbo_loss(mu=mu, logvar=logvar)
    loss.backward(retain_graph=True)
    first = [x.grad.clone() for x in sources]  # type: ignore[union-attr]
    loss.backward(retain_graph=True)
    (3 * given.elbo_loss(mu=mu, logvar=logvar)).backward()
    loss.backward()
    for x, once in zip(sources, first, strict=True):
        assert_whole(x.grad, 6 * once)  # type: ignore[arg-type]


def test_a_second_backward_without_retain_graph_is_torchs_error(device: str) -> None:
    loss = sample("bernoulli_logits", (), device).elbo_loss()
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_create_graph(name: str, device: str) -> None:
    """A gradient penalty: the first backward must itself be differentiable, and be followed by others."""

    def penalty(given: Call, mu: Tensor, logvar: Tensor) -> tuple[Tensor, ...]:
        sources = [*given.differentiable, mu, logvar]
        loss = given.elbo_loss(mu=mu, logvar=logvar, reduction="none").pow(2).sum()
        firsts = grad(loss, sources, create_graph=True)
        return *firsts, *grad(sum(g.pow(2).sum() for g in firsts), sources)

    given, tensors = sample(name, (70,), device), latent(device)
    with pyvae.backend("reference"):
        wide = given.with_differentiable([x.detach().double() for x in given.differentiable]).leaves()
        wants = penalty(wide, *(leaf(x.double()) for x in tensors))
    for got, want in zip(penalty(given, *tensors), wants, strict=True):
        assert_whole(got, want)


# ---- upstream gradients ----------------------------------------------------------------------------------------------


def upstreams(device: str) -> dict[str, Tensor]:
    per_sample = torch.tensor([1.0, 2.0, -0.5, 0.0, 1.0, 4.0], device=device)
    return {
        "ones": torch.ones(6, device=device),
        "per sample": per_sample,
        "expanded": torch.tensor(2.0, device=device).expand(6),
        "strided": torch.stack([per_sample, torch.full_like(per_sample, torch.nan)], 1)[:, 0],
        "zero": torch.zeros(6, device=device),
        "requires grad": per_sample.clone().requires_grad_(),
    }


@pytest.mark.parametrize("kind", list(upstreams("cpu")))
@EACH_FORM
def test_upstream_gradients(name: str, form: tuple[int, ...], kind: str, device: str) -> None:
    """Of the loss of each sample: by recon, parameters and a KL that is given."""
    upstream, given = upstreams(device)[kind], sample(name, form, device)
    kl = leaf(torch.linspace(0.5, 3, SHAPE[0], device=device))
    loss = given.elbo_loss(kl=kl, beta=0.25, reduction="none")
    *got, got_kl = grad(loss, [*given.differentiable, kl], upstream)
    assert_gradients(got, given, upstream, summands=True)
    assert torch.equal(got_kl, 0.25 * upstream.detach())


def test_lazily_negated_and_zero_upstream_gradients(device: str) -> None:
    """torch hands out numbers whose sign is not in the memory yet, and zeros without memory."""
    recon, target, mu, logvar = step_inputs("bernoulli_logits", SHAPE, (SHAPE[0], 9), device=device)
    for reduction in REDUCTIONS:

        def gradients(upstream: Tensor, reduction: str = reduction) -> list[Tensor]:
            z, kl = pyvae.reparameterize_kl(mu, logvar, seed=1)
            loss = pyvae.elbo_loss(recon, target, kl=kl, likelihood="bernoulli_logits", reduction=reduction)
            return list(grad((loss, z), (recon, mu, logvar), (upstream, torch._neg_view(z.detach()))))

        ones = torch.ones(6 if reduction == "none" else (), device=device)
        assert all_equal(gradients(torch._neg_view(ones)), gradients(-ones))
        assert not gradients(torch._efficientzerotensor(ones.shape, device=device))[0].any()


def test_writing_to_the_outputs(device: str) -> None:
    """loss += ..., loss /= ..., as training loops do."""
    recon, target, mu, logvar = step_inputs("bernoulli_logits", SHAPE, (SHAPE[0], 9), device=device)
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=1)
    loss = pyvae.elbo_loss(recon, target, kl=kl, likelihood="bernoulli_logits")
    loss += kl.sum()
    loss /= 2
    z *= 4
    got = grad((loss, z), (recon, mu), (torch.tensor(2.0, device=device), torch.ones_like(z)))
    assert_slope(got[0], "bernoulli_logits", recon, target, summands=True)
    assert_ulp(got[1], 4 + 2 * truth.exact(mu), GRADIENT_ULP, magnitude=4 + 2 * truth.exact(mu).abs())


@pytest.mark.parametrize(
    "used", [u for n in (1, 2, 3) for u in itertools.combinations(("loss", "recon", "kl"), n)], ids=str
)
def test_each_output_of_elbo_terms(used: tuple[str, ...], device: str) -> None:
    """Alone and together, with an upstream gradient of its own."""
    factors = {"loss": 1.0, "recon": 2.0, "kl": -4.0}
    mu, logvar = latent(device)
    for name, reduction in itertools.product(LIKELIHOODS, REDUCTIONS):
        given = sample(name, (70,), device)
        terms = pyvae.elbo_terms(
            given.recon, given.target, mu, logvar, beta=0.5, likelihood=given.likelihood, reduction=reduction
        )
        outputs = [getattr(terms, name) for name in used]
        upstream = [torch.full_like(term, factors[name]) for name, term in zip(used, outputs, strict=True)]
        sources = [*given.differentiable, mu, logvar]
        *got, by_mu, by_logvar = grad(outputs, sources, upstream, allow_unused=True, materialize_grads=True)
        of_data = MEAN[reduction] * sum(factors[name] for name in used if name != "kl")
        of_kl = sum(factors[name] * (0.5 if name == "loss" else 1) for name in used if name != "recon")
        assert_gradients(got, given, of_data, summands=True, used=used, reduction=reduction)
        assert_kl((by_mu, by_logvar), mu, logvar, MEAN[reduction] * of_kl)


@pytest.mark.parametrize("name", ["bernoulli_logits", "poisson"])
def test_a_large_loss_scale_does_not_underflow_in_float16(name: str, device: str) -> None:
    """GradScaler starts at 65536: a gradient of 2e-9 is zero in float16, 65536 times it is not."""
    given = call(name, (2, 97), dtypes=(torch.float16,) * 3, device=device)
    recon = torch.linspace(-24, 24, 97) if name == "bernoulli_logits" else torch.full((97,), -18.0)
    recon, target = recon.half().repeat(2, 1).to(device), torch.zeros_like(given.target)
    given = replace(given, recon=recon, target=target).leaves()
    loss = given.elbo_loss(reduction="batchmean")
    got = grad(loss, given.recon, torch.tensor(65536.0, device=device))
    assert_gradients(got, given, 32768.0, summands=True)
    assert (got[0] != 0).all()
