"""reconstruction_loss of recon (S, B, ...) against target (B, ...): each sample's own, without a copy of the target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from calls import Call, call
from cases import DTYPES, INTEGERS, assert_whole, generator, leaf
from families import WAYS, cycled
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

import pyvae

BOTH = pytest.mark.usefixtures("backend")
EACH = pytest.mark.parametrize(("name", "library"), WAYS)
REDUCTIONS = ("none", "sum", "batchmean", "elements")
S = 3
BOUNDS = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-5, torch.float64: 1e-10}


def of_samples(
    name: str, rows: tuple[int, ...], parameter: tuple[int, ...], library: bool, dtype: torch.dtype = torch.float32
) -> Call:
    """A call whose recon has S samples of each row of its target."""
    given = call(name, (S, *rows), parameter, (dtype, torch.float32, dtype))
    recon = given.recon.clamp(0.01, 0.99) if name == "bernoulli" else given.recon  # 16 bits have no slope at 1
    own = torch.rand(rows[0], generator=generator(3)).to(dtype) if library else None
    return replace(given, recon=recon, target=given.target[0], log_library=own)


def losses(given: Call, reduction: str) -> Tensor:
    return pyvae.reconstruction_loss(given.recon, given.target, **given.options, reduction=reduction)


def one_by_one(given: Call, reduction: str) -> Tensor:
    """The same, sample by sample."""

    def part(x: Tensor | None, sample: int) -> Any:
        if x is None or x.ndim < given.recon.ndim:
            return x
        return x[sample if x.shape[0] == S else 0]

    each = []
    for sample in range(S):
        own = replace(
            given.with_differentiable([part(x, sample) for x in given.differentiable]),
            weight=part(given.weight, sample),
            pos_weight=part(given.pos_weight, sample),
        )
        each.append(losses(own, "sum" if reduction == "batchmean" else reduction))
    out = torch.stack(each)
    if reduction in ("none", "elements"):
        return out
    return out.sum() / (S * len(given.target) if reduction == "batchmean" else 1)


def assert_same(given: Call, reduction: str, bound: float) -> None:
    given = given.leaves()
    got, want = losses(given, reduction), one_by_one(given, reduction)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    assert_whole(got, want, bound)
    upstream = torch.randn(got.shape, generator=generator(8)).to(got.dtype)
    slopes, wanted = (grad(out, given.differentiable, upstream) for out in (got, want))
    for x, y, source in zip(slopes, wanted, given.differentiable, strict=True):
        assert (x.shape, x.dtype) == (source.shape, source.dtype)
        cancels = 10 if source is given.log_library else 1  # of mean - count
        assert_whole(x, y, cancels * max(bound, BOUNDS[x.dtype]))


@BOTH
@EACH
@pytest.mark.parametrize("shape", [(5, 7), (40, 1030), (2, 3, 4), (1, 60), (4, 1)], ids=str)
def test_each_sample_is_its_own(name: str, library: bool, shape: tuple[int, ...]) -> None:
    """Also a softmax; with parameters in the shapes of features, rows and samples; and with an upstream gradient for
    each."""
    parameters = {"features": shape[-1:], "rows": (shape[0], *(1 for _ in shape[1:])), "samples": (S, 1, *shape[1:])}
    for parameter, reduction in cycled(tuple(parameters.values()), REDUCTIONS):
        assert_same(of_samples(name, shape, parameter, library), reduction, 2e-5)


@BOTH
@EACH
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_types(name: str, library: bool, dtype: torch.dtype) -> None:
    given = of_samples(name, (6, 33), (33,), library, dtype)
    for reduction in REDUCTIONS:
        assert_same(given, reduction, 1e-10 if dtype == torch.float64 else 2e-5)


@BOTH
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_targets(dtype: torch.dtype) -> None:
    recon = leaf(torch.randn(S, 4, 9, generator=generator(1)))
    target = torch.randint(0, 2, (4, 9), generator=generator(2)).to(dtype)
    for likelihood in ("bernoulli_logits", "poisson", "multinomial"):
        got, want = (pyvae.reconstruction_loss(recon, t, likelihood=likelihood) for t in (target, target.float()))
        assert_whole(got, want, 1e-6)


@BOTH
@pytest.mark.parametrize("weight", [(), (9,), (4, 9), (4, 1), (S, 4, 9), (S, 1, 1), (1, 4, 1)], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["weight", "mask"])
def test_weights(weight: tuple[int, ...], masked: bool) -> None:
    given = of_samples("negative_binomial", (4, 9), (9,), library=True)
    numbers = torch.rand(weight, generator=generator(3))
    given = replace(given, weight=numbers > 0.4 if masked else numbers)
    for reduction in REDUCTIONS:
        assert_same(given, reduction, 2e-5)


@BOTH
@pytest.mark.parametrize("library", [(4,), (4, 1), (S, 4), (S, 4, 1)], ids=str)
def test_log_library(library: tuple[int, ...]) -> None:
    """Of each row, or of each sample."""
    given = of_samples("negative_binomial", (4, 9), (9,), library=False)
    own = leaf(torch.rand(library, generator=generator(4)))
    like = pyvae.NegativeBinomial(*given.parameters, log_library=own)
    got = pyvae.reconstruction_loss(given.recon, given.target, likelihood=like)
    wide = own.reshape(-1, 4).expand(S, 4)
    want = torch.stack(
        [
            pyvae.reconstruction_loss(
                given.recon[s], given.target, likelihood=pyvae.NegativeBinomial(*given.parameters, log_library=wide[s])
            )
            for s in range(S)
        ]
    )
    assert_whole(got, want, 1e-6)
    for x, y in zip(grad(got.sum(), own), grad(want.sum(), own), strict=True):
        assert_whole(x, y, 1e-6)


@BOTH
def test_layouts() -> None:
    """Samples last in memory, parts of larger tensors, a target whose rows are features."""
    target = torch.rand(7, 5, generator=generator(1)).t()  # (5, 7)
    base = torch.rand(S, 5, 7, generator=generator(2))
    last = base.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    wide = torch.rand(S, 8, 9)
    wide[:, 1:6, 2:] = base
    wanted = None
    for recon in (base, last, wide[:, 1:6, 2:]):
        x = leaf(recon)
        for likelihood in ("bernoulli", "multinomial"):
            loss = pyvae.reconstruction_loss(x, target, likelihood=likelihood)
            loss.backward(torch.linspace(1, 2, S * 5).view(S, 5))
        wanted = x.grad if wanted is None else wanted
        assert_whole(x.grad, wanted, 1e-6)


@pytest.mark.usefixtures("kernels")
def test_the_target_is_not_copied() -> None:
    """What a step keeps: recon, its gradient, and the target that it was given."""
    kept: list[Tensor] = []
    target = torch.rand(4, 50)
    recon = leaf(torch.rand(20, 4, 50))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        pyvae.reconstruction_loss(recon, target)
    assert [x.data_ptr() for x in kept if x.shape == target.shape] == [target.data_ptr()]
    assert all(x.numel() <= recon.numel() for x in kept)


@pytest.mark.usefixtures("kernels")
def test_derivatives_of_every_order() -> None:
    given = of_samples("negative_binomial", (2, 3), (3,), library=True, dtype=torch.float64).leaves()
    inputs = given.differentiable

    def loss(*tensors: Tensor) -> Tensor:
        return losses(given.with_differentiable(list(tensors)), "none")

    assert gradcheck(loss, inputs, check_forward_ad=True)
    assert gradgradcheck(loss, inputs)
    target = leaf(torch.rand(2, 3, dtype=torch.float64))
    recon = leaf(torch.randn(S, 2, 3, dtype=torch.float64))
    assert gradcheck(lambda t: pyvae.reconstruction_loss(recon, t, likelihood="gaussian"), (target,))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("backend_", ["aot_eager", "inductor"])
def test_compiles(backend_: str) -> None:
    given = of_samples("negative_binomial", (4, 9), (9,), library=True).leaves()

    def step(recon: Tensor, target: Tensor) -> Tensor:
        like = pyvae.NegativeBinomial(given.parameters[0], given.log_library)
        return pyvae.reconstruction_loss(recon, target, likelihood=like).logsumexp(0).sum()

    torch._dynamo.reset()
    compiled = torch.compile(step, backend=backend_, fullgraph=True)
    results = [(out := f(given.recon, given.target), *grad(out, given.recon)) for f in (step, compiled)]
    for got, want in zip(*results, strict=True):
        assert_whole(got, want, 1e-6)


@BOTH
def test_one_sample_of_one_row() -> None:
    """A flattened row, as any (B, 1, D) against (B, D) is; more features, or rows, are samples again."""
    for recon, target, shape in (
        ((1, 1, 4), (1, 4), (1,)),
        ((1, 2, 4), (2, 4), (1, 2)),
        ((2, 1, 4), (1, 4), (2, 1)),
        ((1, 1, 2, 3), (1, 2, 3), (1, 1)),
    ):
        inputs = torch.zeros(recon), torch.ones(target)
        assert pyvae.reconstruction_loss(*inputs, likelihood="gaussian").shape == shape
        on_meta = (x.to("meta") for x in inputs)
        assert pyvae.reconstruction_loss(*on_meta, likelihood="gaussian").shape == shape


REFUSED = [
    (lambda: pyvae.reconstruction_loss(torch.rand(6, 3), torch.rand(2, 3)), r"must have recon's shape \(6, 3\)"),
    (lambda: pyvae.reconstruction_loss(torch.rand(6, 3), torch.rand(3)), r"must have recon's shape \(6, 3\)"),
    (lambda: pyvae.reconstruction_loss(torch.rand(2, 6, 3), torch.rand(5, 3)), r"recon's shape \(2, 6, 3\)"),
    (lambda: pyvae.elbo_loss(torch.rand(2, 6, 3), torch.rand(6, 3)), r"elbo_loss: `target` must have recon's shape"),
    (
        lambda: pyvae.reconstruction_loss(torch.rand(2, 6, 3), torch.rand(6, 3), weight=torch.rand(5, 3)),
        r"`weight` must broadcast to recon's shape \(2, 6, 3\), but has shape \(5, 3\)",
    ),
    (
        lambda: pyvae.reconstruction_loss(
            torch.rand(2, 6, 3), torch.ones(6, 3), likelihood=pyvae.Poisson(torch.rand(3))
        ),
        r"`log_library` must have shape \(6,\), \(6, 1\), \(2, 6\) or \(2, 6, 1\).* but has shape \(3,\)",
    ),
]


@BOTH
@pytest.mark.parametrize("refused, words", REFUSED, ids=range(len(REFUSED)))
def test_refusals(refused: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        refused()


@BOTH
@pytest.mark.parametrize("reduction", ["none", "elements"])
def test_nested_tensors_are_refused(reduction: Any) -> None:
    """Though they have no shape to be compared."""
    nested, dense = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(3, 3)]), torch.ones(2, 3)
    for recon, target in ((nested, dense), (dense, nested)):
        with pytest.raises(TypeError, match=r"dense .strided. Tensor, but is a nested one"):
            pyvae.reconstruction_loss(recon, target, likelihood="gaussian", reduction=reduction)


@BOTH
def test_data_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`recon` must hold probabilities in \[0, 1\].* but holds 2"):
        pyvae.reconstruction_loss(2 + torch.rand(2, 6, 3) / 9, torch.rand(6, 3))
    with pytest.raises(ValueError, match=r"`target` must hold counts >= 0.* but holds -1"):
        pyvae.reconstruction_loss(torch.rand(2, 6, 3), -torch.ones(6, 3), likelihood="poisson")
