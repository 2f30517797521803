"""torch.compile and torch.export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from calls import call, of
from cases import INTEGERS, assert_whole, data, generator, leaf, posterior, prior, step_inputs
from families import SCALES, WAYS, WITH_LIBRARY
from tolerances import FLOAT32_ROUNDING
from torch import Tensor, nn
from torch._dynamo import compiled_autograd
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters
from torch.fx.experimental.proxy_tensor import make_fx

import pyvae

pytestmark = [pytest.mark.usefixtures("kernels"), pytest.mark.torch_sensitive("tracing, fake tensors, torch.export")]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def step(
    recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor, seed: Tensor, likelihood: str, beta: float | Tensor = 0.5
) -> tuple[Tensor, Tensor]:
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=seed)
    recon = recon * torch.sigmoid(z.mean(1, keepdim=True))
    return pyvae.elbo_loss(recon, target, kl=kl, likelihood=likelihood, beta=beta), z


def inputs(device: str, likelihood: str = "bernoulli_logits", batch: int = 6) -> list[Tensor]:
    return [*step_inputs(likelihood, (batch, 70), (batch, 9), device=device), torch.tensor([17], device=device)]


def fresh(given: list[Tensor]) -> list[Tensor]:
    return [leaf(x) if x.requires_grad else x for x in given]


def run(function: Callable[..., tuple[Tensor, Tensor]], given: list[Tensor], *options: Any) -> list[Tensor]:
    """The outputs and the gradients of recon, mu and logvar."""
    leaves = fresh(given)
    loss, z = function(*leaves, *options)
    (loss + z.sum()).backward()
    return [loss.detach(), z.detach(), *(x.grad for x in leaves if x.grad is not None)]


def assert_same(got: list[Tensor], want: list[Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        assert_whole(a, b)


# Likelihoods differ in the operator's arguments alone, which aot_eager traces as inductor does.
COMPILED = [*((way, "aot_eager") for way in WAYS), (("bernoulli_logits", False), "inductor")]
COMPILED += [((name, name in WITH_LIBRARY), "inductor") for name in ("gaussian_logvar", "negative_binomial")]


@pytest.mark.parametrize(("way", "compiler"), COMPILED, ids=str)
def test_compiled_training_step(way: tuple[str, bool], compiler: str, device: str) -> None:
    """By recon, parameters and the posterior; the second call is that of the code as it was compiled."""
    given = call(way[0], (6, 70), library=way[1], device=device)
    posterior_of = [leaf(x) for x in posterior("logvar", (6, 9), device=device)]
    seed = torch.tensor([17], device=device)

    def whole(mu: Tensor, logvar: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        z, kl = pyvae.reparameterize_kl(mu, logvar, seed=seed)
        case = given.with_differentiable([tensors[0] * torch.sigmoid(z.mean(1, keepdim=True)), *tensors[1:]])
        return case.elbo_loss(kl=kl, beta=0.5), z

    compiled = torch.compile(whole, fullgraph=True, backend=compiler)
    leaves = [*posterior_of, *given.leaves().differentiable]
    want = run(whole, leaves)
    assert len(want) == 2 + len(leaves)
    for _ in range(2):
        assert_same(run(compiled, leaves), want)


@pytest.mark.parametrize("name", ["negative_binomial", "gaussian_logvar"])
def test_compiled_losses_of_each_sample(name: str, device: str) -> None:
    """With an upstream gradient of its own for each."""
    given = call(name, (6, 70), library=True, device=device).leaves()
    compiled = torch.compile(of(given, "none"), fullgraph=True, backend="aot_eager", dynamic=False)
    upstream = torch.linspace(0.5, 2, 6, device=device)
    got, want = (
        [loss.detach(), *torch.autograd.grad(loss, given.differentiable, upstream)]
        for loss in (compiled(*given.differentiable), given.elbo_loss(reduction="none"))
    )
    assert_same(got, want)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_compiled_training_step_on_integers(dtype: torch.dtype, device: str) -> None:
    given = inputs(device)
    given[1] = data("bernoulli_logits", (6, 70), (torch.float32, dtype), device=device)[1]
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert_same(run(compiled, given, "bernoulli_logits"), run(step, given, "bernoulli_logits"))


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled_priors(compiler: str, device: str) -> None:
    """A learned one, one of numbers, a clamped scale, and the KL of each element."""

    def kl(mu: Tensor, logvar: Tensor, mean: Tensor, width: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        options = {"logvar_range": (-1.0, 0.5), "prior": (mean, width)}
        z, from_learned = pyvae.reparameterize_kl(mu, logvar, seed=seed, **options)
        each = pyvae.kl_divergence(mu, logvar, prior=(0.5, -1.0), reduction="elements")
        return each.clamp(min=0.5).sum() + from_learned.sum(), z

    given = [leaf(x) for x in (*posterior("logvar", (6, 9), device=device), *prior("logvar", (9,), device=device))]
    given.append(torch.tensor([17], device=device))
    compiled = torch.compile(kl, fullgraph=True, backend=compiler)
    assert_same(run(compiled, given), run(kl, given))


@pytest.mark.parametrize("compiler", ["aot_eager", "aot_eager_decomp_partition", "inductor"])
def test_two_equal_calls_draw_differently(compiler: str, device: str) -> None:
    """The compiler merges equal calls of pure operators, and even of random ones."""

    @torch.compile(fullgraph=True, backend=compiler)
    def twice(mu: Tensor, logvar: Tensor) -> tuple[Tensor, ...]:
        draw = pyvae.reparameterize
        return draw(mu, logvar), draw(mu, logvar), draw(mu, logvar, seed=1)

    mu, logvar = (leaf(x) for x in posterior("logvar", (4, 33), device=device))
    first, second, seeded = twice(mu, logvar)
    again, *_ = twice(mu, logvar)
    assert len({tuple(z.flatten().tolist()) for z in (first, second, again)}) == 3
    assert torch.equal(seeded, pyvae.reparameterize(mu, logvar, seed=1))
    first_gradient = torch.autograd.grad(first.sum(), logvar, retain_graph=True)[0]
    assert (first_gradient - (first - mu) / 2).norm() <= FLOAT32_ROUNDING * first.norm()


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_manual_seed_decides_the_noise_of_all_alike(compiler: str, device: str) -> None:
    """Kernels, reference and compiled code draw one seed each from the device's generator, and the same one."""
    mu, logvar = posterior("logvar", (4, 33), device=device)
    compiled = torch.compile(pyvae.reparameterize, fullgraph=True, backend=compiler)
    drawn = []
    for draw in (pyvae.reparameterize, pyvae.reference.reparameterize, compiled):
        torch.manual_seed(41)
        drawn.append([draw(mu, logvar) for _ in range(3)])
    for kernels, reference, graph in zip(*drawn, strict=True):
        assert torch.equal(graph, kernels)
        torch.testing.assert_close(kernels, reference, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)


def test_every_function_compiles(device: str) -> None:
    recon, target, mu, _, seed = inputs(device, "bernoulli_logits")
    weight = torch.rand(70).to(device)
    functions: list[Callable[[], Any]] = [
        lambda: pyvae.reconstruction_loss(recon, target, likelihood="bernoulli_logits", weight=weight, pos_weight=2.0),
        lambda: pyvae.elbo_loss(recon, target, likelihood="bernoulli_logits", reduction="batchmean", pos_weight=weight),
        lambda: pyvae.reparameterize(mu, mu, row_offset=3, seed=2**64 - 1),
        lambda: pyvae.reparameterize(mu, mu, eps=mu),
        lambda: pyvae.ELBOLoss(likelihood="gaussian", beta=2.0)(recon, target),
    ]
    for scale in SCALES:
        m, s = posterior(scale, (6, 9), device=device)
        functions += [
            lambda m=m, s=s, k=scale: pyvae.kl_divergence(m, **{k: s}, reduction="batchmean"),
            lambda m=m, s=s, k=scale: pyvae.reparameterize_kl(m, **{k: s}, seed=seed),
            lambda m=m, s=s, k=scale: pyvae.elbo_terms(recon.sigmoid(), target, m, **{k: s}, reduction="none"),
        ]
    for function in functions:
        got, want = torch.compile(function, fullgraph=True, backend="aot_eager")(), function()
        for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (got, want)), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("compiler", ["counted", "aot_eager"])
def test_dynamic_shapes_compile_once(compiler: str, marked: bool, device: str) -> None:
    counter = CompileCounter()
    backend = counter if compiler == "counted" else compiler
    compiled = torch.compile(step, fullgraph=True, backend=backend, dynamic=None if marked else True)

    def call(*given: Any) -> tuple[Tensor, Tensor]:
        for x in given[:4] if marked else ():
            torch._dynamo.mark_dynamic(x, 0)  # fails where the code fixes the size
        return compiled(*given)

    for batch in (6, 9, 5, 13):
        given = inputs(device, batch=batch)
        assert_same(run(call, given, "bernoulli_logits"), run(step, given, "bernoulli_logits"))
    assert counter.frame_count == (compiler == "counted")


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("kind", [torch.tensor, float])
def test_annealing_beta_does_not_recompile(kind: Callable[[float], Any], compiler: str, device: str) -> None:
    """A number may compile a second time, when torch makes it symbolic at its first change."""
    counters.clear()
    compiled = torch.compile(step, fullgraph=True, backend=compiler)
    given = inputs(device)
    for beta in (0.1, 0.2, 0.35, 0.7, 0.9):
        options = ("bernoulli_logits", torch.tensor(beta, device=device) if kind is torch.tensor else beta)
        assert_same(run(compiled, given, *options), run(step, given, *options))
    assert counters["stats"]["unique_graphs"] <= (2 if kind is float else 1)


def permuted(shape: tuple[int, ...], order: tuple[int, ...]) -> Tensor:
    """Dense, with the dimensions of `shape` in memory in this order."""
    inverse = [order.index(i) for i in range(len(order))]
    return torch.rand([shape[i] for i in order]).permute(inverse)


@pytest.mark.parametrize(
    ("dimensions", "compiler"), [*((n, "aot_eager") for n in (3, 5, 8, 9, 10)), (3, "inductor"), (10, "inductor")]
)
def test_permuted_tensors(dimensions: int, compiler: str, device: str) -> None:
    """Results, gradients, and the strides of both, which the compiler takes from the fake kernels: by whole parameters
    and those that were broadcast, and beyond the number of dimensions that kernels follow."""

    def call(recon: Tensor, target: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        mu, logvar, zi_logits, mean, log_theta, width = others
        z, kl = pyvae.reparameterize_kl(mu, logvar, prior=(mean, width), seed=3)
        each = pyvae.kl_divergence(mu, logvar, reduction="elements")
        counts = pyvae.ZeroInflatedNegativeBinomial(log_theta, zi_logits)
        return pyvae.elbo_loss(recon, target, kl=kl, likelihood=counts), z, each

    def outcome(function: Callable[..., Any], given: list[Tensor]) -> list[Tensor]:
        recon, target, *others = given
        leaves = [leaf(x) for x in (recon, *others)]
        loss, z, each = function(leaves[0], target, *leaves[1:])
        gradients = torch.autograd.grad(loss + z.sum() + each.sum(), leaves)
        return [loss.detach(), z.detach(), each.detach(), *gradients]

    shape = (2, 3, 2, 2, 3, 2, 1, 2, 2, 2)[:dimensions]
    for order in (range(dimensions)[::-1], torch.randperm(dimensions, generator=generator(0)).tolist()):
        given = [permuted(shape, tuple(order)).to(device) for _ in range(8)]
        given[-2:] = given[-2][0], given[-1][0]
        compiled = torch.compile(call, fullgraph=True, backend=compiler)
        want, got = outcome(call, given), outcome(compiled, given)
        assert_same(got, want)
        with pyvae.backend("reference"):
            assert_same(want, outcome(call, given))
        assert [x.stride() for x in got] == [x.stride() for x in want]


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled_seeds_have_64_bits(compiler: str, device: str) -> None:
    """The compiler keeps a number symbolic from its second value on, as an int64, which these do not fit into."""
    mu, logvar = posterior("logvar", (4, 9), device=device)
    compiled = torch.compile(lambda seed: pyvae.reparameterize(mu, logvar, seed=seed), fullgraph=True, backend=compiler)
    for seed in (1, 2, 3, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 7):
        assert torch.equal(compiled(seed), pyvae.reparameterize(mu, logvar, seed=seed))


def test_compiled_autograd(device: str) -> None:
    """The backward pass compiled by itself, from an eager forward pass; twice, the second recomputes."""
    given = inputs(device)
    want = run(step, given, "bernoulli_logits")[2:]
    leaves = fresh(given)
    with compiled_autograd._enable(torch.compile(backend="eager")):
        loss, z = step(*leaves, "bernoulli_logits")
        total = loss + z.sum()
        total.backward(retain_graph=True)
        total.backward()
    assert_same([x.grad / 2 for x in leaves if x.grad is not None], want)


class Exported(nn.Module):
    def forward(self, recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        return step(recon, target, mu, logvar, seed, "bernoulli_logits")


def test_tracing_and_export(device: str) -> None:
    """By make_fx, and by torch.export with the batch left open; the graphs hold the operators."""
    given = inputs(device)
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = {name: {0: batch} for name in ("recon", "target", "mu", "logvar")} | {"seed": None}
    exported = torch.export.export(Exported(), tuple(given), dynamic_shapes=shapes)
    for traced, sizes in ((make_fx(Exported())(*given), (6,)), (exported.module(), (6, 11))):
        assert any("pyvae" in str(node.target) for node in traced.graph.nodes)
        for size in sizes:
            given = inputs(device, batch=size)
            for got, want in zip(traced(*given), Exported()(*given), strict=True):
                torch.testing.assert_close(got, want, rtol=FLOAT32_ROUNDING, atol=0)
