"""The gradient made in the forward pass is consumed once, recomputed after, and never wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
import truth
from cases import DTYPES, REDUCTIONS, all_equal, assert_slope, assert_ulp, assert_whole, generator, leaf, step_inputs
from families import LIKELIHOODS, family, softplus
from tolerances import GRADIENT_ULP, SCALED_GRADIENT_ULP
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = pytest.mark.usefixtures("backend")
SHAPE = (6, 3, 70)
MEAN = {"none": 1.0, "sum": 1.0, "batchmean": 1 / SHAPE[0]}
compare = partial(assert_slope, summands=True)  # as the reference needs it


def inputs(device: str, likelihood: str = "bernoulli_logits") -> list[Tensor]:
    return step_inputs(likelihood, SHAPE, (SHAPE[0], 9), device=device)


def step(recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor, reduction: str = "sum") -> Tensor:
    """The two-kernel training step; z enters the decoder's output, as it does in a VAE."""
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=11)
    logits = recon + z.mean(1).reshape(-1, *[1] * (recon.dim() - 1))
    return pyvae.elbo_loss(logits, target, kl=kl, likelihood="bernoulli_logits", beta=0.5, reduction=reduction)


# ---- several backward passes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_retain_graph_and_a_held_gradient(likelihood: str, device: str) -> None:
    """Three passes with different upstream gradients; whoever holds an earlier gradient may even write into it."""
    recon, target, mu, logvar = inputs(device, likelihood)
    for reduction in REDUCTIONS:
        loss = pyvae.elbo_loss(recon, target, mu, logvar, likelihood=likelihood, reduction=reduction)
        held: list[tuple[Tensor, Tensor]] = []
        for factor in (1.0, 4.0, -0.5):
            (got, *_) = grad(loss, (recon, mu, logvar), torch.full_like(loss, factor), retain_graph=True)
            compare(got, likelihood, recon, target, factor * MEAN[reduction], SCALED_GRADIENT_ULP)
            held.append((got, got.clone()))
        assert all(torch.equal(got, kept) for got, kept in held)
        held[0][0].zero_()
        (again,) = grad(loss, recon, torch.full_like(loss, 4.0))
        assert torch.equal(again, held[1][1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_second_pass_gives_the_same_bits(likelihood: str, dtype: torch.dtype, device: str) -> None:
    """Made in the forward pass, then computed again; whatever the factors that come to it afterwards."""
    recon, *rest = (x.detach() for x in inputs(device, likelihood))
    recon, (target, mu, logvar) = leaf(recon.to(dtype)), rest
    weight = torch.linspace(0.1, 3, 70, device=device)
    for reduction, factor in itertools.product(REDUCTIONS, (1.0, -0.7)):
        loss, term, _ = pyvae.elbo_terms(
            recon, target, mu, logvar, likelihood=likelihood, reduction=reduction, weight=weight
        )
        upstream = torch.full_like(loss, factor)
        for outputs in ((loss,), (loss, term)):
            once, twice = (grad(outputs, recon, [upstream] * len(outputs), retain_graph=True) for _ in range(2))
            assert all_equal(once, twice)


def test_accumulation_over_backward_calls(device: str) -> None:
    """.grad of a leaf may be the very buffer: later passes of this and of other losses must add to it, not write it."""
    recon, target, mu, logvar = inputs(device)
    loss = pyvae.elbo_loss(recon, target, mu, logvar, likelihood="bernoulli_logits")
    loss.backward(retain_graph=True)
    first = [x.grad.clone() for x in (recon, mu, logvar)]  # type: ignore[union-attr]
    loss.backward(retain_graph=True)
    (3 * pyvae.elbo_loss(recon, target, mu, logvar, likelihood="bernoulli_logits")).backward()
    loss.backward()
    for x, once in zip((recon, mu, logvar), first, strict=True):
        assert_whole(x.grad, 6 * once)  # type: ignore[arg-type]


def test_a_second_backward_without_retain_graph_is_torchs_error(device: str) -> None:
    loss = step(*inputs(device))
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_create_graph(device: str) -> None:
    """A gradient penalty: the first backward must itself be differentiable, and be followed by others."""

    def penalty(likelihood: str, recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, ...]:
        loss = pyvae.elbo_loss(recon, target, mu, logvar, likelihood=likelihood, reduction="none").pow(2).sum()
        firsts = grad(loss, (recon, mu, logvar), create_graph=True)
        return *firsts, *grad(sum(g.pow(2).sum() for g in firsts), (recon, mu, logvar))

    for likelihood in LIKELIHOODS:
        given = inputs(device, likelihood)
        with pyvae.backend("reference"):
            wants = penalty(likelihood, *(leaf(x.double()) for x in given))
        for got, want in zip(penalty(likelihood, *given), wants, strict=True):
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


@pytest.mark.parametrize("name", list(upstreams("cpu")))
def test_upstream_gradients(name: str, device: str) -> None:
    upstream = upstreams(device)[name]
    for likelihood in LIKELIHOODS:
        recon, target, mu, logvar = inputs(device, likelihood)
        kl = leaf(pyvae.kl_divergence(mu, logvar))
        loss = pyvae.elbo_loss(recon, target, kl=kl, beta=0.25, likelihood=likelihood, reduction="none")
        got, got_kl = grad(loss, (recon, kl), upstream)
        compare(got, likelihood, recon, target, upstream[:, None, None])
        assert torch.equal(got_kl, 0.25 * upstream.detach())


def test_lazily_negated_and_zero_upstream_gradients(device: str) -> None:
    """torch hands out numbers whose sign is not in the memory yet, and zeros without memory."""
    recon, target, mu, logvar = inputs(device)
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
    recon, target, mu, logvar = inputs(device)
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=1)
    loss = pyvae.elbo_loss(recon, target, kl=kl, likelihood="bernoulli_logits")
    loss += kl.sum()
    loss /= 2
    z *= 4
    got = grad((loss, z), (recon, mu), (torch.tensor(2.0, device=device), torch.ones_like(z)))
    compare(got[0], "bernoulli_logits", recon, target)
    assert_ulp(got[1], 4 + 2 * truth.exact(mu), GRADIENT_ULP, magnitude=4 + 2 * truth.exact(mu).abs())


@pytest.mark.parametrize(
    "used", [u for n in (1, 2, 3) for u in itertools.combinations(("loss", "recon", "kl"), n)], ids=str
)
def test_each_output_of_elbo_terms(used: tuple[str, ...], device: str) -> None:
    """Alone and together, with an upstream gradient of its own."""
    factors = {"loss": 1.0, "recon": 2.0, "kl": -4.0}
    for likelihood, reduction in itertools.product(LIKELIHOODS, REDUCTIONS):
        recon, target, mu, logvar = inputs(device, likelihood)
        terms = pyvae.elbo_terms(recon, target, mu, logvar, beta=0.5, likelihood=likelihood, reduction=reduction)
        outputs = [getattr(terms, name) for name in used]
        upstream = [torch.full_like(term, factors[name]) for name, term in zip(used, outputs, strict=True)]
        got = grad(outputs, (recon, mu, logvar), upstream, allow_unused=True, materialize_grads=True)
        data_factor = MEAN[reduction] * sum(factors[name] for name in used if name != "kl")
        kl_factor = MEAN[reduction] * sum(
            factors[name] * (0.5 if name == "loss" else 1) for name in used if name != "recon"
        )
        compare(got[0], likelihood, recon, target, data_factor, SCALED_GRADIENT_ULP)
        for value, want in zip(got[1:], truth.kl_slope("logvar", mu, logvar), strict=True):
            assert_ulp(value, kl_factor * want, SCALED_GRADIENT_ULP)


def test_a_large_loss_scale_does_not_underflow_in_float16(device: str) -> None:
    """GradScaler starts at 65536: a gradient of 2e-9 is zero in float16, 65536 times it is not."""
    recon = leaf(torch.linspace(-24, 24, 97).half().repeat(2, 1).to(device))
    target = torch.zeros(2, 97).half().to(device)
    loss = pyvae.reconstruction_loss(recon, target, likelihood="bernoulli_logits", reduction="batchmean")
    (got,) = grad(loss, recon, torch.tensor(65536.0, device=device))
    assert_slope(got, "bernoulli_logits", recon, target, 32768)
    assert (got != 0).all()


# ---- subsets, modes, in-place writes ---------------------------------------------------------------------------------


def test_gradients_of_a_subset_of_the_inputs(device: str) -> None:
    tensors = inputs(device)
    every = dict(zip((0, 2, 3), grad(step(*tensors), [tensors[i] for i in (0, 2, 3)]), strict=True))
    for chosen in (c for n in (1, 2) for c in itertools.combinations(every, n)):
        assert all_equal(grad(step(*tensors), [tensors[i] for i in chosen]), [every[i] for i in chosen])
        frozen = [x.detach().requires_grad_(i in chosen) for i, x in enumerate(tensors)]
        step(*frozen).backward()
        assert [i for i, x in enumerate(frozen) if x.grad is not None] == list(chosen)
        assert all_equal([frozen[i].grad for i in chosen], [every[i] for i in chosen])  # type: ignore[misc]


def test_gradients_of_target_weight_pos_weight_and_beta(device: str) -> None:
    """Rare, so they may be slow; never silently zero. Each alone, and all at once with recon, twice."""
    recon, target, mu, logvar = inputs(device)
    options = {"weight": torch.rand(70) + 0.5, "pos_weight": torch.rand(70) + 0.5, "beta": torch.tensor(0.5)}
    options = {name: x.to(device) for name, x in options.items()}
    given = {"recon": recon.detach(), "target": target} | options
    x, t, w, p, _ = (truth.exact(value) for value in given.values())
    logits, positive = family("bernoulli_logits"), softplus(-x)
    wants = {
        "recon": w * logits.slope(x, t, p),
        "target": w * (p * positive - softplus(x)),
        "weight": logits.value(x, t, p).sum((0, 1)),
        "pos_weight": (w * t * positive).sum((0, 1)),
        "beta": truth.kl_divergence("logvar", mu, logvar, "sum"),
    }
    for names in (*((name,) for name in given), tuple(given)):
        call = {name: leaf(value) if name in names else value for name, value in given.items()}
        loss = pyvae.elbo_loss(**call, mu=mu.detach(), logvar=logvar.detach(), likelihood="bernoulli_logits")
        for _ in range(2):
            for name, got in zip(names, grad(loss, [call[name] for name in names], retain_graph=True), strict=True):
                assert_whole(got, wants[name])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_grad_and_inference_mode(mode: Callable[[], torch.no_grad], device: str) -> None:
    tensors = inputs(device)
    for reduction in REDUCTIONS:
        want = step(*tensors, reduction=reduction)
        with mode():
            got = step(*tensors, reduction=reduction)
            assert got.is_inference() == (mode is torch.inference_mode)
        assert not got.requires_grad
        assert torch.equal(got, want)


@pytest.mark.parametrize("written", ("recon", "target", "mu", "logvar", "weight", "beta", "kl", "eps", "seed"))
def test_writing_to_an_input_before_backward(written: str, device: str) -> None:
    """The gradient of the values that the forward saw, or torch's error; nothing else. First and second pass."""
    tensors = dict(zip(("recon", "target", "mu", "logvar"), inputs(device), strict=True))
    others = {"weight": torch.rand(70) + 0.5, "beta": torch.tensor(0.5), "eps": torch.randn(6, 9)}
    others |= {"seed": torch.tensor([5]), "kl": torch.rand(6)}
    tensors |= {name: x.to(device) for name, x in others.items()}
    tensors["kl"].requires_grad_()

    def losses() -> tuple[dict[str, Tensor], tuple[Tensor, Tensor, Tensor]]:
        t = {name: x.clone() for name, x in tensors.items()}
        source = {"kl": t["kl"]} if written == "kl" else {"mu": t["mu"], "logvar": t["logvar"]}
        options = {"likelihood": "bernoulli_logits", "weight": t["weight"], "beta": t["beta"]}
        noise = {"seed": t["seed"]} if written == "seed" else {"eps": t["eps"]}
        z, kl = pyvae.reparameterize_kl(t["mu"], t["logvar"], **noise)
        return t, (pyvae.elbo_loss(t["recon"], t["target"], **source, **options), z.sum(), kl.sum())

    sources = [tensors[name] for name in ("recon", "mu", "logvar", "kl")]
    want = [grad(loss, sources, retain_graph=True, allow_unused=True) for loss in losses()[1]]
    copies, written_under = losses()
    for loss, gradients in zip(written_under, want, strict=True):
        with torch.no_grad():
            copies[written].add_(1)
        for _ in range(2):
            try:
                got = grad(loss, sources, retain_graph=True, allow_unused=True)
            except RuntimeError as error:
                assert "modified by an inplace operation" in str(error)
            else:
                assert [x is None for x in got] == [x is None for x in gradients]
                assert all(torch.equal(a, b) for a, b in zip(got, gradients, strict=True) if a is not None)


def test_what_no_gradient_reads_may_be_written_to(backend: str, device: str) -> None:
    """mu of a sample, and a KL that comes as numbers; as with torch's own functions. And what one reads may not."""
    recon, target, mu, logvar = inputs(device)
    upstream = torch.randn(mu.shape, generator=generator(1)).to(device)

    def sample(written: int | None, with_kl: bool = False) -> tuple[Tensor, ...]:
        given = [mu.clone(), logvar.clone()]
        z = pyvae.reparameterize_kl(*given, seed=3)[0] if with_kl else pyvae.reparameterize(*given, seed=3)
        with torch.no_grad():
            if written is not None:
                given[written].fill_(float("nan"))
        first = grad(z, (mu, logvar), upstream, create_graph=True)
        return *first, *grad(first[1].sum(), logvar)

    def objective(written: bool, beta: float | Tensor = 2.0) -> tuple[Tensor, ...]:
        kl = pyvae.kl_divergence(mu, logvar).detach()
        divergence = leaf(kl)
        passed = divergence * 1
        loss = pyvae.elbo_loss(recon, target, kl=passed, likelihood="bernoulli_logits", beta=beta)
        with torch.no_grad():
            if written:
                passed.fill_(float("nan"))
        sources = (recon, divergence, beta) if isinstance(beta, Tensor) else (recon, divergence)
        return tuple(x for _ in range(2) for x in grad(loss, sources, retain_graph=True))

    assert all_equal(sample(0), sample(None))
    assert all_equal(objective(True), objective(False))
    if backend == "kernels":  # what the reference keeps is torch's business
        for read in (
            lambda: sample(1),
            lambda: sample(0, with_kl=True),
            lambda: objective(True, torch.ones(()).requires_grad_()),
        ):
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                read()
