"""samples=S of the samplers: which noise each sample is, and gradients summed over them in a fixed order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from cases import DTYPES, LAYOUTS, assert_whole, generator, leaf, posterior, prior
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

import pyvae
from pyvae import _noise
from pyvae._codes import SCALES

pytestmark = pytest.mark.usefixtures("kernels")

SHAPES = ((5, 3), (2, 1025), (70, 33), (3, 4, 2, 5), (4,), (0, 3), (3, 0))
BOUNDS = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 1e-6, torch.float64: 1e-13}


def like(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 5) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_first_sample_is_that_of_a_call_without(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    mu, logvar = map(leaf, posterior("logvar", shape, dtype))
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=11)
    several, same_kl = pyvae.reparameterize_kl(mu, logvar, seed=11, samples=3)
    (one,) = pyvae.reparameterize(mu, logvar, seed=11, samples=1)
    assert several.shape == (3, *shape) and several.dtype == z.dtype
    assert torch.equal(several[0], z) and torch.equal(one, z) and torch.equal(kl, same_kl)
    assert not several.numel() or not torch.equal(several[1], several[0])
    weights = like(shape, z.dtype)
    for got, want in zip(grad(one, (mu, logvar), weights), grad(z, (mu, logvar), weights), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_each_sample_is_the_counters(dtype: torch.dtype) -> None:
    """Of the specification: sample s has s in the other half of Philox's counter, for any row and part of a batch."""
    shape = (37, 29)
    noise = pyvae.reparameterize(torch.zeros(shape, dtype=dtype), std=torch.ones(shape, dtype=dtype), seed=2**63 + 5,
                                 row_offset=3, samples=4)  # fmt: skip
    for sample in range(4):
        want = _noise._draw(torch.tensor([5 - 2**63]), shape, dtype, 3, sample)
        assert_whole(noise[sample], want, 1e-6 if dtype == torch.float32 else 1e-15)
    flat = noise.flatten(1).double()
    correlations = torch.corrcoef(flat) - torch.eye(4)
    assert correlations.abs().max() < 5 / flat.shape[1] ** 0.5


@pytest.mark.usefixtures("threads")
def test_bits_do_not_depend_on_threads_or_parts() -> None:
    mu, logvar = map(leaf, posterior("logvar", (301, 700)))
    weights = like((3, 301, 700), torch.float32)
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        z = pyvae.reparameterize(mu, logvar, seed=4, samples=3)
        results.append((z, *grad(z, (mu, logvar), weights)))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)
    part = pyvae.reparameterize(mu[100:], logvar[100:], seed=4, samples=3, row_offset=100)
    assert torch.equal(part, results[0][0][:, 100:])


def outputs(function: Any, mu: Tensor, scale: Tensor, kind: str, more: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return function.reparameterize_kl(mu, **{kind: scale}, samples=5, **more)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way, kind", [*itertools.product(("seed", "eps", "prior"), SCALES), ("range", "logvar")])
def test_values_and_gradients(way: str, kind: str, dtype: torch.dtype) -> None:
    """Against the reference in float64, by mu, scale, noise and prior, with weights of their own for each sample."""
    shape = (6, 41)
    given = [leaf(x) for x in posterior(kind, shape, dtype)]
    more: dict[str, Any] = {"seed": 3, "row_offset": 2}
    if way == "eps":
        more = {"eps": leaf(like((5, *shape), dtype))}
        given.append(more["eps"])
    if way == "prior":
        more["prior"] = tuple(leaf(x) for x in prior(kind, (41,), dtype))
        given += more["prior"]
    if way == "range":
        more["logvar_range"] = (-0.5, 0.4)
    exact = [leaf(x.detach().double()) for x in given]
    weights = like((5, *shape), torch.float64), like((6,), torch.float64)
    z, kl = outputs(pyvae, *given[:2], kind, more)
    noise = pyvae.reparameterize(torch.zeros(shape).to(dtype), std=torch.ones(shape).to(dtype), seed=3, row_offset=2,
                                 samples=5) if way != "eps" else given[2]  # fmt: skip
    same = {"eps": exact[2] if way == "eps" else noise.detach().double()}
    if way == "prior":
        same["prior"] = tuple(exact[2:])
    if way == "range":
        same["logvar_range"] = more["logvar_range"]
    want = outputs(pyvae.reference, *exact[:2], kind, same)
    bound = BOUNDS[dtype] * (1 if dtype != torch.float32 or way != "eps" else 2)
    slack = 3 if dtype in (torch.float16, torch.bfloat16) else 1  # their noise is rounded as it is returned
    assert_whole(z, want[0], slack * bound)
    assert_whole(kl, want[1], max(bound, 1e-6))
    slopes = grad([z, kl], given, [weights[0].to(z.dtype), weights[1].to(kl.dtype)])
    for got, right in zip(slopes, grad(want, exact, list(weights)), strict=True):
        assert got.shape == right.shape
        assert_whole(got, right, slack * bound)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "flattened"])
def test_layouts(layout: str) -> None:
    """Of mu and the scale, and of the gradient that comes: sample 0 of it may stand anywhere."""
    mu, logvar = posterior("logvar", (3, 4, 2, 5))
    given = [leaf(LAYOUTS[layout](x)) for x in (mu, logvar)]
    plain = [leaf(x.detach().contiguous()) for x in given]
    upstream = like((3, 4, 2, 5, 4), torch.float32).movedim(-1, 0)
    ones = torch.ones(()).expand(4, 3, 4, 2, 5)
    for weights in (upstream, ones):
        results = []
        for inputs in (given, plain):
            z, kl = pyvae.reparameterize_kl(*inputs, seed=9, samples=4)
            results.append((z, kl, *grad([z, kl.sum()], inputs, [weights, torch.tensor(2.0)])))
        for got, want in zip(*results, strict=True):
            assert torch.equal(got, want)


def test_many_samples_lose_no_digits() -> None:
    """A thousand summands that cancel: as exact as two."""
    mu, std = leaf(torch.zeros(2, 700)), leaf(torch.ones(2, 700))
    weights = like((1000, 2, 700), torch.float32)
    weights[1::2] = -weights[::2]  # of mu's gradient all cancel
    weights[0] += 1e-3
    z = pyvae.reparameterize(mu, std=std, seed=1, samples=1000)
    by_mu, by_std = grad(z, (mu, std), weights)
    eps = z.detach().double()
    exact = weights.double()
    torch.testing.assert_close(by_mu.double(), exact.sum(0), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(by_std.double(), (exact * eps).sum(0), rtol=1e-6, atol=5e-6)  # of rounded products


def test_extremes() -> None:
    mu, logvar = leaf(torch.tensor([[0.0, torch.nan, torch.inf, 1.0]])), leaf(torch.tensor([[-200.0, 0.0, 0.0, 80.0]]))
    z = pyvae.reparameterize(mu, logvar, seed=1, samples=2)
    assert z[:, 0, 0].abs().max() < 1e-40 and z[:, 0, 1].isnan().all() and (z[:, 0, 2] == torch.inf).all()
    weights = torch.full((2, 1, 4), 3e38)
    weights[:, :, 3] = 0
    by_mu, _ = grad(z, (mu, logvar), weights)
    assert by_mu.tolist() == [[torch.inf, torch.inf, torch.inf, 0.0]]  # and no NaN of what was left out


def test_generators_and_calls() -> None:
    mu, logvar = posterior("logvar", (4, 3))
    torch.manual_seed(1)
    first, second = (pyvae.reparameterize(mu, logvar, samples=2) for _ in range(2))
    torch.manual_seed(1)
    again = pyvae.reparameterize(mu, logvar, samples=2)
    assert torch.equal(first, again) and not torch.equal(first, second)
    with pyvae.backend("reference"):
        torch.manual_seed(1)
        assert_whole(pyvae.reparameterize(mu, logvar, samples=2), first, 1e-6)


REFUSED = [
    ({"samples": 0}, ValueError, r"reparameterize: `samples` must be in \[1, 2\*\*31\), but is 0"),
    ({"samples": 2**31}, ValueError, r"but is 2147483648"),
    ({"samples": -1}, ValueError, r"but is -1"),
    ({"samples": True}, TypeError, "`samples` must be an int or None, but is a bool"),
    ({"samples": 2.0}, TypeError, "`samples` must be an int or None, but is a float"),
    ({"samples": 2, "eps": torch.ones(3, 4)}, ValueError,
     r"`eps` must have the samples' shape \(2, 3, 4\), but has shape \(3, 4\)"),
    ({"eps": torch.ones(2, 3, 4)}, ValueError, "`eps` must have mu's shape"),
]  # fmt: skip


@pytest.mark.parametrize("module", [pyvae, pyvae.reference], ids=["kernels", "reference"])
@pytest.mark.parametrize("options, error, words", REFUSED, ids=range(len(REFUSED)))
def test_refusals(options: dict[str, Any], error: type[Exception], words: str, module: Any) -> None:
    with pytest.raises(error, match=words):
        module.reparameterize(torch.ones(3, 4), torch.ones(3, 4), **options)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles(backend: str) -> None:
    """Also with another number of samples, and once more for another batch."""
    mu, logvar = (leaf(x.double()) for x in posterior("logvar", (6, 5)))

    def step(mu: Tensor, logvar: Tensor, seed: Tensor, samples: int) -> Tensor:
        z, kl = pyvae.reparameterize_kl(mu, logvar, seed=seed, samples=samples)
        return z.square().mean(0).sum() + kl.sum()

    torch._dynamo.reset()
    compiled = torch.compile(step, backend=backend, fullgraph=True)
    seed = torch.tensor([8])
    for samples, rows in ((3, 6), (5, 6), (5, 4)):
        inputs = mu[:rows], logvar[:rows]
        want, got = (function(*inputs, seed, samples) for function in (step, compiled))
        assert_whole(got, want, 1e-12)
        for x, y in zip(grad(got, (mu, logvar)), grad(want, (mu, logvar)), strict=True):
            assert_whole(x, y, 1e-12)


def test_derivatives_of_every_order() -> None:
    inputs = [leaf(x) for x in posterior("rho", (2, 3), torch.float64)]

    def both(mu: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
        return pyvae.reparameterize_kl(mu, rho=rho, seed=2, samples=3)

    assert gradcheck(both, inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(both, inputs)
    wanted = both(*inputs)
    mapped = torch.func.vmap(lambda mu, rho: pyvae.reparameterize_kl(mu, rho=rho, seed=2, samples=3))
    for x, y in zip(mapped(inputs[0][None], inputs[1][None]), wanted, strict=True):
        assert_whole(x[0], y, 1e-12)


def test_nothing_is_kept_of_the_noise() -> None:
    kept: list[Tensor] = []
    mu, logvar = map(leaf, posterior("logvar", (8, 16)))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        pyvae.reparameterize_kl(mu, logvar, samples=50)
    assert max(x.numel() for x in kept) == mu.numel()
