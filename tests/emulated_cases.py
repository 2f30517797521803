"""What CUDA does otherwise than the CPU, on the emulated kernels. Run by test_cuda_emulated.py, not by itself."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import truth
from calls import TILED, TILED_SHAPES, assert_sided, call, check
from cases import DTYPES, MIXED_DTYPES, REDUCTIONS, assert_relative, assert_slope, data, generator, leaf, posterior
from families import COUNTS, PLAIN, SCALES, WITH_PARAMETERS, family
from tolerances import LOSS, SCALED_GRADIENT_ULP
from torch.profiler import ProfilerActivity, profile

import pyvae
from pyvae import _noise


def drawn_seed(seed: int, offset: int) -> int:
    """torch.randint(-(2**63), 2**63 - 1) on CUDA, from a generator's state: two words of one Philox call."""
    counter, key = ((number & 0xFFFFFFFF, number >> 32) for number in (offset // 4, seed))
    zero = torch.tensor([0])
    high, low, *_ = _noise.philox([*map(torch.tensor, zip(counter)), zero, zero], [*map(torch.tensor, zip(key))])
    return (int(high) << 32 | int(low)) % (2**64 - 1) - 2**63


@pytest.mark.parametrize("with_kl", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("captured", [False, True])  # the generator's state comes by address, as in a CUDA Graph
def test_the_kernel_draws_the_seed(captured: bool, dtype: torch.dtype, with_kl: bool) -> None:
    for shape in ((3, 5), (2, 1025), (70, 33)):
        mu, logvar = posterior("logvar", shape, dtype)
        source = generator(2**40 + 17) if captured else None
        torch.manual_seed(2**40 + 17)
        word = int(torch.randint(-(2**63), 2**63 - 1, (1,), generator=generator(2**40 + 17))) + 2**63
        z, kl, seed = torch.ops.pyvae.latent_draw(
            *(mu, logvar, SCALES.index("logvar"), *(None,) * 4, 2, None, None, 0, source, with_kl)
        )
        assert int(seed) == drawn_seed(2**40 + 17, word // 8 * 4 + (4 if captured else 0))
        want, want_kl = pyvae.reparameterize_kl(mu, logvar, seed=seed, row_offset=2)
        assert torch.equal(z, want)
        assert torch.equal(kl, want_kl) if with_kl else kl.numel() == 0


@pytest.mark.parametrize("features", [3, 40, 1025, 5000])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [-0.25, 1.25, math.inf, -math.inf])
def test_a_probability_outside_makes_its_sample_nan(value: float, dtype: torch.dtype, features: int) -> None:
    for reduction in REDUCTIONS:
        recon, target = data("bernoulli", (5, features), (dtype, dtype))
        recon[3, features // 2] = value
        x = leaf(recon)
        loss = pyvae.elbo_loss(x, target, reduction=reduction)
        bad = loss.isnan()
        assert bad.tolist() == [False, False, False, True, False] if reduction == "none" else bad
        for upstream in (torch.ones_like(loss), torch.full_like(loss, 3.0)):
            (slope,) = torch.autograd.grad(loss, x, upstream, retain_graph=True)
            assert slope.isnan().nonzero().tolist() == [[3, features // 2]]


@pytest.mark.parametrize("features", [3, 40, 1025, 5000])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8], ids=str)
@pytest.mark.parametrize("likelihood", ["bernoulli", "bernoulli_logits"])
def test_a_target_outside_makes_its_sample_nan(likelihood: str, dtype: torch.dtype, features: int) -> None:
    floating = torch.float32 if dtype == torch.uint8 else dtype
    recon, target = data(likelihood, (5, features), (floating, floating))
    target = target.round().to(dtype)
    for value in (2, 255) if dtype == torch.uint8 else (-0.25, 1.25, math.inf):
        target[3, features // 2] = value
        loss = pyvae.elbo_loss(x := leaf(recon), target, likelihood=likelihood, reduction="none")
        assert loss.isnan().tolist() == [False, False, False, True, False]
        (slope,) = torch.autograd.grad(loss.sum(), x)
        assert slope.isnan().nonzero().tolist() == [[3, features // 2]]


@pytest.mark.parametrize("name", COUNTS)
def test_a_negative_count_makes_its_sample_nan(name: str) -> None:
    given = call(name, (3, 700))
    given.target[1, 650] = -2
    assert given.elbo_loss(reduction="none").isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("features", [3, 40, 1025])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_negative_std_is_nan(dtype: torch.dtype, features: int) -> None:
    """The element of the sample, and its row's KL; the prior's, too, also where both are negative."""
    mu, std = posterior("std", (4, features), dtype)
    std[2, 1] = -0.75
    z, kl = pyvae.reparameterize_kl(mu, std=std, seed=1)
    assert z.isnan().nonzero().tolist() == [[2, 1]]
    assert kl.isnan().tolist() == [False, False, True, False]
    assert pyvae.reparameterize(mu, std=std, eps=mu).isnan().nonzero().tolist() == [[2, 1]]
    for own, of_prior in ((std.abs(), std), (std, std), (std, std.abs())):
        kl = pyvae.kl_divergence(mu, std=own, prior=(torch.zeros_like(mu), of_prior))
        assert kl.isnan().tolist() == [False, False, True, False]


def test_a_nan_beside_a_large_logvar() -> None:
    """Of one vector: each element is its own."""
    logvar = torch.tensor([[math.inf, math.nan, 0.5, 300.0, -math.inf, 1.0, math.nan, 0.0] * 4])
    z, alone = (
        torch.cat([pyvae.reparameterize(torch.zeros_like(s), s, eps=torch.ones_like(s)) for s in parts], 1)
        for parts in ([logvar], logvar.split(1, 1))
    )
    torch.testing.assert_close(z, alone, rtol=0, atol=0, equal_nan=True)
    assert z[0, :4].tolist()[0] == math.inf and z[0, 4] == 0


@pytest.mark.parametrize("likelihood", PLAIN)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300_001), (3, 70_003), (901, 3), (300, 1024), (300, 1025)], ids=str)
def test_one_launch_for_the_textbook_loss(shape: tuple[int, ...], likelihood: str) -> None:
    """elbo_loss(recon, x, mu, logvar): the sum over two segments is that of two calls."""
    recon, target = data(likelihood, shape)
    for latent in (1, 20, 1500):
        mu, logvar = posterior("logvar", (shape[0], latent))
        together = pyvae.elbo_terms(recon, target, mu, logvar, likelihood=likelihood, beta=0.5)
        torch.testing.assert_close(together.kl, pyvae.kl_divergence(mu, logvar, reduction="sum"))
        alone = pyvae.reconstruction_loss(recon, target, likelihood=likelihood, reduction="sum")
        torch.testing.assert_close(together.recon, alone)
        torch.testing.assert_close(together.loss, alone + 0.5 * together.kl)


@pytest.mark.parametrize(
    "shape", [(6401, 1000), (600_001, 8)]
)  # three spans a block, a warp a row; two, a thread a row
def test_a_block_takes_several_spans_of_short_rows(shape: tuple[int, ...]) -> None:
    """Where rows are many: each span's values leave the shared memory before the next one's come."""
    recon, target = data("gaussian", shape)
    got = pyvae.reconstruction_loss(recon, target, likelihood="gaussian")
    assert_relative(got, truth.reconstruction("gaussian", recon, target), LOSS)


WEIGHTS = {
    "number": lambda shape, dtype: torch.tensor(0.75),
    "row": lambda shape, dtype: torch.rand(shape[1], generator=generator(5)).to(dtype),
    "full": lambda shape, dtype: torch.rand(shape, generator=generator(6)),
    "mask": lambda shape, dtype: torch.rand(shape, generator=generator(7)) < 0.5,
    "sample": lambda shape, dtype: torch.rand(shape[0], 1, generator=generator(8)),  # takes the general kernel
}


@pytest.mark.parametrize("features", [16, 1032, 2050])  # whole vectors to a row: short, long; and not
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("dtypes", MIXED_DTYPES, ids=str)
@pytest.mark.parametrize("likelihood", PLAIN)
def test_factors_and_types_beside_recon(
    likelihood: str, dtypes: tuple[torch.dtype, torch.dtype], weight: str, features: int
) -> None:
    """Vectors of recon's type, and beside them others of any type: the target's, a weight's, a pos_weight's; the
    upstream gradient of 16-bit ones comes per row."""
    shape = (5, features)
    recon, target = data(likelihood, shape, dtypes)
    factor = WEIGHTS[weight](shape, dtypes[0])
    pos_weights = [WEIGHTS[weight](shape, torch.float32), 2.5] if family(likelihood).takes_pos_weight else [None]
    for pos_weight in pos_weights:
        x, given = leaf(recon), 1.0 if pos_weight is None else pos_weight
        loss = pyvae.reconstruction_loss(x, target, likelihood=likelihood, weight=factor, pos_weight=pos_weight)
        assert_sided(loss, truth.sided(likelihood, recon, target, factor, given), LOSS)
        upstream = torch.arange(1.0, 6.0).to(loss.dtype)
        (slope,) = torch.autograd.grad(loss, x, upstream)
        factors = truth.spread(factor, recon) * upstream.double()[:, None]
        assert_slope(slope, likelihood, recon, target, factors, pos_weight=given, bound=SCALED_GRADIENT_ULP)


def test_terms_may_share_memory_and_are_no_views() -> None:
    recon, target = data("gaussian", (3, 16))
    mu, logvar = posterior("logvar", (3, 4))
    terms = pyvae.elbo_terms(leaf(recon), target, mu, logvar, likelihood="gaussian", beta=0.5)
    assert not any(x._is_view() for x in terms)
    before = [x.item() for x in terms]
    terms.recon.detach().mul_(0)
    terms.loss.mul_(2)  # what a view of an operator's output would refuse
    assert [x.item() for x in terms] == [2 * before[0], 0, before[2]]


# ---- tiles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", TILED_SHAPES, ids=str)
@pytest.mark.parametrize(("name", "library"), TILED)
def test_tiles(name: str, library: bool, shape: tuple[int, int]) -> None:
    """Sums per row, per column and of everything, and elements; with the rows' own upstream gradients and with one."""
    rows, features = shape
    forms = ((), (features,), (rows, 1), shape) if family(name).parameters else (None,)
    for form in forms:
        given = call(name, shape, form, library=library)
        for reduction in ("none", "sum"):
            upstream = torch.linspace(0.5, 2, rows) if reduction == "none" else torch.tensor(1.25)
            check(given, upstream, reduction, reference=False, slack=1e-5 * rows)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8], ids=str)
@pytest.mark.parametrize(("name", "library"), TILED)
def test_tiles_of_every_layout(name: str, library: bool, dtype: torch.dtype) -> None:
    """Packed rows, rows of a wider tensor, and a view that is not aligned give the same bits."""
    floating = torch.float32 if dtype == torch.uint8 else dtype
    given = call(name, (7, 268), (268,), (floating, dtype, floating), library)
    whole = given.elbo_loss(reduction="none")
    for begin, width in ((0, 272), (4, 280), (1, 270)):
        recon, target = torch.zeros(7, width, dtype=floating), torch.zeros(7, width, dtype=dtype)
        recon[:, begin : begin + 268], target[:, begin : begin + 268] = given.recon, given.target
        view = replace(given, recon=recon[:, begin : begin + 268], target=target[:, begin : begin + 268])
        assert torch.equal(view.elbo_loss(reduction="none"), whole)


# ---- launches --------------------------------------------------------------------------------------------------------

COMPUTING = {f"aten::{name}" for name in ("add", "copy_", "mul", "mul_", "sum", "zero_", "zeros")}


def assert_launches(count: int, work: Callable[..., Any], *arguments: Any) -> None:
    """So many kernels of our own, and none of torch's."""
    launched = ctypes.c_long.in_dll(ctypes.CDLL(None), "emulated_launches")
    before = launched.value
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work(*arguments)
    assert launched.value - before == count
    assert not COMPUTING & {event.name for event in found.events()}


@pytest.mark.parametrize("name", ["negative_binomial", "zero_inflated_negative_binomial"])
def test_launches_of_counts(name: str) -> None:
    """With gradients by recon, the parameters and log_library, which one launch scales."""
    given = call(name, (40, 260), library=True).leaves()
    assert_launches(3, given.elbo_loss)
    loss = given.elbo_loss()
    assert_launches(1, lambda: torch.autograd.grad(loss, given.differentiable, torch.tensor(3.0)))


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_launches_of_gradients_by_row(name: str) -> None:
    """All gradients are made forward. One launch multiplies them by row; sums per column take one more, unless the
    upstream gradients are one number in memory."""
    for form, ways in (((260,), 2), ((1, 260), 2), ((40, 1), 1), ((40, 260), 1)):
        given = call(name, (40, 260), form, library=True).leaves()
        prepares = given.has_softmax or ("binomial" in name and form[0] != 40)  # what depends on theta alone
        assert_launches(3 if prepares else 2, lambda given=given: given.elbo_loss(reduction="none"))
        for factors, count in (
            (torch.full((40,), 0.3), ways),
            (torch.linspace(1, 2, 40), ways),
            (torch.tensor(3.0).expand(40), 1),
        ):
            loss = given.elbo_loss(reduction="none")
            assert_launches(count, torch.autograd.grad, loss, given.differentiable, factors)


@pytest.mark.parametrize("upstream", [1.0, 3.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_launches_of_the_textbook_loss(dtype: torch.dtype, upstream: float) -> None:
    recon, target = data("bernoulli_logits", (40, 260), (dtype, dtype))
    sources = [leaf(recon), *map(leaf, posterior("logvar", (40, 20), dtype))]
    assert_launches(1, lambda: pyvae.elbo_loss(sources[0], target, *sources[1:], likelihood="bernoulli_logits"))
    loss = pyvae.elbo_loss(sources[0], target, *sources[1:], likelihood="bernoulli_logits")
    factor = torch.tensor(upstream, dtype=loss.dtype)
    assert_launches(1, lambda: torch.autograd.grad(loss, sources, factor))
