"""torch.func, forward mode, subclasses and modes: every way through torch other than eager reverse mode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
import torch.autograd.forward_ad as fwAD
import truth
from calls import call, of
from cases import assert_whole, data, leaf, posterior
from families import PLAIN, SCALES, WAYS
from tolerances import FLOAT32_ROUNDING
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

import pyvae

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.torch_sensitive("torch.func, forward mode, subclasses and modes"),
]


def inputs(device: str, likelihood: str = "bernoulli_logits", scale: str = "logvar") -> tuple[Tensor, ...]:
    eps = torch.randn(4, 6).to(device)
    return *data(likelihood, (4, 3, 5), device=device), *posterior(scale, (4, 6), device=device), eps


def objective(likelihood: str, scale: str, reduction: str = "sum") -> Any:
    """recon, target, mu, scale, eps -> loss + what z weighs."""

    def step(recon: Tensor, target: Tensor, mu: Tensor, s: Tensor, eps: Tensor) -> Tensor:
        z, kl = pyvae.reparameterize_kl(mu, **{scale: s}, eps=eps)
        options = {"likelihood": likelihood, "beta": 0.5, "reduction": reduction}
        return pyvae.elbo_loss(recon, target, kl=kl, **options) + (z * z).sum()

    return step


# ---- torch.func ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("likelihood", PLAIN)
def test_func_grad_vjp_and_jvp(likelihood: str, scale: str, device: str) -> None:
    step, given = objective(likelihood, scale), inputs(device, likelihood, scale)
    leaves = [leaf(x) for x in given]
    want = torch.autograd.grad(step(*leaves), [leaves[0], *leaves[2:]])
    for got, expected in zip(grad(step, argnums=(0, 2, 3, 4))(*given), want, strict=True):
        assert_whole(got, expected)
    value, pull = vjp(step, *given)
    assert_whole(value, step(*given))
    assert_whole(pull(torch.tensor(2.0, device=device))[0], 2 * want[0])
    directions = [torch.randn_like(x) for x in (given[0], *given[2:])]
    value, tangent = jvp(lambda x, m, s, e: step(x, given[1], m, s, e), (given[0], *given[2:]), tuple(directions))
    assert_whole(value, step(*given))
    # The tangent is a sum of terms of both signs: compared with the size of those.
    parts = torch.stack([(g * d).sum() for g, d in zip(want, directions, strict=True)])
    assert (tangent - parts.sum()).abs() <= 10 * FLOAT32_ROUNDING * parts.abs().sum()


@pytest.mark.parametrize(("name", "library"), WAYS)
def test_transforms_by_recon_and_parameters(name: str, library: bool, device: str) -> None:
    """torch.func.grad, vmap over it (the usual way to per-sample gradients), jacrev, jacfwd, jvp and forward mode, all
    against reverse mode."""
    given = call(name, (4, 30), (4, 30), library=library, device=device)
    tensors = given.differentiable
    places = tuple(range(len(tensors)))
    leaves = [leaf(x) for x in tensors]
    want = torch.autograd.grad(of(given)(*leaves), leaves)
    for got, expected in zip(grad(of(given), places)(*tensors), want, strict=True):
        assert_whole(got, expected)

    def one(target: Tensor, *sample: Tensor) -> Tensor:
        return replace(given.with_differentiable([x[None] for x in sample]), target=target[None]).elbo_loss()

    each = vmap(grad(one, tuple(p + 1 for p in places)))(given.target, *tensors)
    for got, expected in zip(each, want, strict=True):
        assert_whole(got, expected)
    for jacobian in (jacrev, jacfwd):
        full = jacobian(of(given, "none"))(*tensors)
        assert_whole(full.sum(0), want[0])
        assert not full[0, 1:].any()
    directions = [torch.rand_like(x) * g.sign() for x, g in zip(tensors, want, strict=True)]  # no cancellation
    slope = sum((g * d).sum() for g, d in zip(want, directions, strict=True))
    value, tangent = jvp(of(given), tuple(tensors), tuple(directions))
    assert_whole(tangent, torch.as_tensor(slope))
    assert_whole(value, of(given)(*tensors))
    with fwAD.dual_level():
        duals = [fwAD.make_dual(x, d) for x, d in zip(tensors, directions, strict=True)]
        assert_whole(fwAD.unpack_dual(of(given)(*duals)).tangent, torch.as_tensor(slope))


def test_hessian(device: str) -> None:
    """d2/dx2 of the logits' loss is sigma(x) sigma(-x); of the KL 1 by mu, e^logvar / 2 by logvar."""
    x, t = data("bernoulli_logits", (2, 7), device=device)
    curvature = hessian(lambda x: pyvae.elbo_loss(x, t, likelihood="bernoulli_logits"))(x).reshape(14, 14)
    assert_whole(curvature, torch.diag((torch.sigmoid(truth.exact(x)) * torch.sigmoid(-truth.exact(x))).flatten()))
    mu, logvar = posterior("logvar", (2, 7), device=device)
    (mm, ml), (lm, ll) = hessian(lambda m, s: pyvae.kl_divergence(m, s, reduction="sum"), argnums=(0, 1))(mu, logvar)
    assert_whole(mm.reshape(14, 14), torch.eye(14))
    assert_whole(ll.reshape(14, 14), torch.diag(truth.exact(logvar).exp().flatten() / 2))
    assert not ml.any()
    assert not lm.any()


@pytest.mark.parametrize(("name", "library"), WAYS)
def test_vmap_of_the_objective(name: str, library: bool, device: str) -> None:
    """Over everything, parameters and KL included: as call by call."""
    calls = [call(name, (4, 15), library=library, seed=seed, device=device) for seed in range(3)]
    posteriors = [posterior("logvar", (4, 6), seed=seed, device=device) for seed in range(3)]
    many = [torch.stack(x) for x in zip(*(c.differentiable for c in calls), strict=True)]

    def terms(target: Tensor, mu: Tensor, logvar: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = replace(calls[0].with_differentiable(list(tensors)), target=target)
        return pyvae.elbo_terms(given.recon, given.target, mu, logvar, likelihood=given.likelihood)

    targets, mus, logvars = (torch.stack(x) for x in ([c.target for c in calls], *zip(*posteriors, strict=True)))
    got = vmap(terms)(targets, mus, logvars, *many)
    wants = [terms(c.target, *p, *c.differentiable) for c, p in zip(calls, posteriors, strict=True)]
    for value, each in zip(got, zip(*wants, strict=True), strict=True):
        assert_whole(value, torch.stack([*each]))


def test_vmap_of_the_encoders_side(device: str) -> None:
    many = [torch.stack(x) for x in zip(*(inputs(device) for _ in range(3)), strict=True)]
    _, _, mu, logvar, eps = many
    functions = {
        "kl": (pyvae.kl_divergence, (mu, logvar)),
        "eps": (lambda m, s, e: pyvae.reparameterize_kl(m, s, eps=e), (mu, logvar, eps)),
        "seed": (lambda m, s: pyvae.reparameterize_kl(m, s, seed=3), (mu, logvar)),
        "seeds": (lambda k: pyvae.reparameterize(mu[0], logvar[0], seed=k), (torch.tensor([3, 9, 5], device=device),)),
    }
    for function, given in functions.values():
        got, want = vmap(function)(*given), [function(*one) for one in zip(*given, strict=True)]
        parts = [want] if isinstance(got, Tensor) else zip(*want, strict=True)
        for value, each in zip([got] if isinstance(got, Tensor) else got, parts, strict=True):
            assert_whole(value, torch.stack([*each]))


def test_vmap_of_the_noise_obeys_randomness(device: str) -> None:
    mu, logvar = torch.zeros(2, 3, 2, 8, device=device)
    different = vmap(pyvae.reparameterize, randomness="different")(mu, logvar)
    assert len({tuple(z.flatten().tolist()) for z in different}) == 3
    same = vmap(pyvae.reparameterize, randomness="same")(mu, logvar)
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], same[2])
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(pyvae.reparameterize, randomness="error")(mu, logvar)


def test_batched_upstream_gradients(device: str) -> None:
    """vmap over the backward pass alone, as vectorized jacobians do; then the graph still serves a plain one."""
    recon, target, mu, logvar, _ = inputs(device)
    x, m = leaf(recon), leaf(mu)
    loss = pyvae.elbo_loss(x, target, m, logvar, likelihood="bernoulli_logits", reduction="none")
    ones = torch.ones(4, device=device)
    batched = torch.autograd.grad(loss, (x, m), ones.diag(), is_grads_batched=True, retain_graph=True)
    plain = torch.autograd.grad(loss, (x, m), ones)
    for got, want in zip(batched, plain, strict=True):
        assert_whole(got, torch.stack([want * (ones.diag()[row].view(4, *[1] * (want.dim() - 1))) for row in range(4)]))
    total = pyvae.elbo_loss(x, target, likelihood="bernoulli_logits")
    (got,) = torch.autograd.grad(total, x, torch.tensor([1.0, -2.0], device=device), is_grads_batched=True)
    assert_whole(got, torch.stack([plain[0], -2 * plain[0]]))


# ---- forward mode ----------------------------------------------------------------------------------------------------


def test_forward_mode_is_not_silently_zero(device: str) -> None:
    """For each input alone, also where it does not require grad: the tangent is gradient times direction."""
    step, given = objective("bernoulli_logits", "std"), inputs(device, "bernoulli_logits", "std")
    leaves = [leaf(x) for x in given]
    gradients = torch.autograd.grad(step(*leaves), leaves)
    for index, (x, gradient) in enumerate(zip(given, gradients, strict=True)):
        direction = torch.ones_like(x)
        with fwAD.dual_level():
            dual = [fwAD.make_dual(y, direction) if i == index else y for i, y in enumerate(given)]
            value, tangent = fwAD.unpack_dual(step(*dual))
        assert tangent is not None
        assert (tangent - gradient.sum()).abs() <= 10 * FLOAT32_ROUNDING * gradient.abs().sum()
        assert_whole(value, step(*given))


# ---- subclasses and modes --------------------------------------------------------------------------------------------


class Plain(Tensor):
    """With torch's default behavior: results are of it, too."""


class Logged(Tensor):
    calls: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.calls.append(getattr(function, "__name__", str(function)))
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.parametrize("kind", [Plain, Logged])
def test_tensor_subclasses(kind: type[Tensor], device: str) -> None:
    step, given = objective("gaussian", "logvar"), inputs(device, "gaussian")
    want = step(*given)
    for index in range(len(given)):
        got = step(*(x.as_subclass(kind) if i == index else x for i, x in enumerate(given)))
        assert isinstance(got, kind)
        assert_whole(got.as_subclass(Tensor), want)
    if kind is Logged:
        assert Logged.calls
    recon = leaf(given[0].as_subclass(kind))
    step(recon, *given[1:]).backward()
    assert recon.grad is not None
    assert_whole(recon.grad.as_subclass(Tensor), grad(step)(*given))
    assert_whole(step(torch.nn.Parameter(given[0]), *given[1:]), want)


def test_a_wrapper_subclass_holds_both_results(device: str) -> None:
    """TwoTensor runs every operator on each of its two tensors and has no memory of its own."""
    recon, target, *_ = inputs(device)
    wrapped = TwoTensor(recon.clone(), 2 * recon).requires_grad_()
    loss = pyvae.elbo_loss(wrapped, target, likelihood="bernoulli_logits")
    one, two, three = (torch.tensor(x, device=device) for x in (1.0, 2.0, 3.0))
    first, second = (torch.autograd.grad(loss, wrapped, f, retain_graph=True)[0] for f in (one, three))
    for part, x in (("a", recon), ("b", 2 * recon)):
        want = grad(lambda x: pyvae.elbo_loss(x, target, likelihood="bernoulli_logits"))(x)
        assert_whole(getattr(first, part), want)
        assert_whole(getattr(second, part), 3 * want)
    plain = leaf(recon)
    loss = pyvae.elbo_loss(plain, target, likelihood="bernoulli_logits")
    (got,) = torch.autograd.grad(loss, plain, TwoTensor(one, two))
    assert_whole(got.b, 2 * got.a)


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_the_operators(backend: str, device: str) -> None:
    step, given = objective("gaussian", "logvar"), inputs(device, "gaussian")
    recon = leaf(given[0])
    with Recorder() as recorder:
        loss = step(recon, *given[1:])
        loss.backward()
    assert_whole(loss, step(*given))
    assert_whole(recon.grad, grad(step)(*given))  # type: ignore[arg-type]
    assert any(name.startswith("pyvae") for name in recorder.seen) == (backend == "kernels")


def test_fake_and_meta_tensors_have_the_real_ones_shapes(device: str) -> None:
    """Shape, dtype and stride of every output and gradient, without data."""
    given = inputs(device)
    for dtype, layout in ((torch.float32, torch.contiguous_format), (torch.bfloat16, torch.channels_last)):
        recon = data("bernoulli_logits", (4, 3, 5, 2), (dtype, dtype), device=device)[0]
        tensors = recon.contiguous(memory_format=layout), *given[2:4]

        def run(x: Tensor, mu: Tensor, logvar: Tensor) -> list[Tensor]:
            x, mu = leaf(x), leaf(mu)
            z, kl = pyvae.reparameterize_kl(mu, logvar, seed=2)
            terms = pyvae.elbo_terms(
                x, x.detach().float().sigmoid(), kl=kl, likelihood="bernoulli_logits", reduction="none"
            )
            return [z, kl, *terms, *torch.autograd.grad(terms.loss.sum() + z.sum(), (x, mu))]

        with FakeTensorMode() as mode:
            fake = run(*map(mode.from_tensor, tensors))
        for x, *others in zip(run(*tensors), run(*(x.to("meta") for x in tensors)), fake, strict=True):
            for y in others:
                assert (y.shape, y.dtype, y.stride()) == (x.shape, x.dtype, x.stride())
