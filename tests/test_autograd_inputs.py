"""Gradients of some of the inputs, of the rarer ones, under modes, and after inputs were written to."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import truth
from cases import REDUCTIONS, all_equal, assert_whole, generator, leaf, step_inputs
from families import family
from softplus_truth import softplus
from test_autograd import EACH_FORM, SHAPE, latent, sample
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.torch_sensitive("saved tensors' hooks and versions, and modes"),
]


def inputs(device: str, likelihood: str = "bernoulli_logits") -> list[Tensor]:
    return step_inputs(likelihood, SHAPE, (SHAPE[0], 9), device=device)


def step(recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor, reduction: str = "sum") -> Tensor:
    """The two-kernel training step; z enters the decoder's output, as it does in a VAE."""
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=11)
    logits = recon + z.mean(1).reshape(-1, *[1] * (recon.dim() - 1))
    return pyvae.elbo_loss(logits, target, kl=kl, likelihood="bernoulli_logits", beta=0.5, reduction=reduction)


# ---- subsets and modes -----------------------------------------------------------------------------------------------


@EACH_FORM
def test_gradients_of_a_subset_of_the_inputs(name: str, form: tuple[int, ...], device: str) -> None:
    given, tensors = sample(name, form, device), latent(device)
    sources = [*given.differentiable, *tensors]
    every = grad(given.elbo_loss(mu=tensors[0], logvar=tensors[1]), sources)
    for chosen in (c for n in range(1, len(sources)) for c in itertools.combinations(range(len(sources)), n)):
        some = [x.detach().requires_grad_(i in chosen) for i, x in enumerate(sources)]
        *own, mu, logvar = some
        given.with_differentiable(own).elbo_loss(mu=mu, logvar=logvar).backward()
        assert [i for i, x in enumerate(some) if x.grad is not None] == list(chosen)
        assert all_equal([some[i].grad for i in chosen], [every[i] for i in chosen])  # type: ignore[misc]
    with torch.no_grad():
        loss = given.elbo_loss()
    assert not loss.requires_grad
    assert torch.equal(loss, given.elbo_loss())


def test_gradients_of_a_subset_through_the_sampler(device: str) -> None:
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
    (value, _), (slope, _) = family("bernoulli_logits").at(x, t, pos_weight=p)
    positive = softplus(-x)
    wants = {
        "recon": w * slope,
        "target": w * (p * positive - softplus(x)),
        "weight": value.sum((0, 1)),
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


# ---- writes in place -------------------------------------------------------------------------------------------------


@EACH_FORM
def test_writing_to_a_parameter_before_backward(name: str, form: tuple[int, ...], device: str) -> None:
    """Torch's error, or in the first pass the gradient of the values that the forward pass saw; nothing else."""
    given = sample(name, form, device)
    want = grad(given.elbo_loss(), given.differentiable)
    for written in range(len(want)):
        copies = [x.clone() for x in given.differentiable]
        loss = given.with_differentiable(copies).elbo_loss()
        with torch.no_grad():
            copies[written].add_(1)
        for _ in range(2):
            try:
                got = grad(loss, given.differentiable, retain_graph=True)
            except RuntimeError as error:
                assert "modified by an inplace operation" in str(error)
            else:
                assert all_equal(got, want)


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
