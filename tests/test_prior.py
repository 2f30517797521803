"""A prior of one's own: KL(q || N(m, p^2)) and its four gradients, against float64 closed forms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import truth
from cases import (
    DTYPES,
    LAYOUTS,
    all_equal,
    assert_losses,
    assert_relative,
    assert_ulp,
    assert_whole,
    leaf,
    posterior,
    prior,
    result_dtype,
)
from families import SCALES, scaling
from tolerances import (
    GRADIENT_ULP,
    KL_NEAR_A_PRIOR,
    LOSS,
    PRIOR_GRADIENT_WHOLE,
    REFERENCE_GRADIENT_ULP,
    REFERENCE_PRIOR_WHOLE,
)
from torch import Tensor
from torch.autograd import grad
from torch.distributions import Normal
from torch.distributions import kl_divergence as kl_of_torch

import pyvae

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.torch_sensitive("broadcasting, and gradients summed to a shape"),
]

# Of a posterior of shape (7, 19): one number, one for each dimension, for each sample, for each element; and mixed.
SHAPES = (((), ()), ((19,), (19,)), ((7, 1), (7, 1)), ((7, 19), (7, 19)), ((1, 19), ()), ((7, 1), (19,)))


def inputs(
    kind: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    dtype: torch.dtype = torch.float32,
    shape: tuple[int, ...] = (7, 19),
    device: str = "cpu",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """mu, scale, and the prior's mean and scale."""
    mean, scale = prior(kind, shapes[0], dtype, device=device)[0], prior(kind, shapes[1], dtype, device=device)[1]
    return *posterior(kind, shape, dtype, device=device), mean, scale


def divergence(kind: str, *given: Tensor, **options: Any) -> Tensor:
    mu, scale, mean, prior_scale = given
    return pyvae.kl_divergence(mu, **{kind: scale}, prior=(mean, prior_scale), **options)


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", SCALES)
def test_values(kind: str, dtype: torch.dtype, shapes: Any, device: str) -> None:
    given = inputs(kind, shapes, dtype, device=device)
    want = truth.kl_elements(kind, *given)
    each = divergence(kind, *given, reduction="elements")
    assert (each.dtype, each.shape) == (result_dtype(*given[:2]), (7, 19))
    assert_relative(each, want, LOSS)
    for reduction in ("none", "sum", "batchmean"):
        assert_relative(divergence(kind, *given, reduction=reduction), truth.reduce(want.sum(1), reduction), LOSS)
    _, kl = pyvae.reparameterize_kl(given[0], **{kind: given[1]}, prior=given[2:])
    assert_relative(kl, want.sum(1), LOSS)


@pytest.mark.parametrize("kind", SCALES)
def test_torch_distributions(kind: str, device: str) -> None:
    given = inputs(kind, ((19,), (7, 1)), torch.float64, device=device)
    mu, scale, mean, prior_scale = (x.cpu() for x in given)
    want = kl_of_torch(Normal(mu, truth.std(kind, scale)), Normal(mean, truth.std(kind, prior_scale)))
    assert_relative(divergence(kind, *given), want.sum(1), LOSS)


@pytest.mark.parametrize("kind", SCALES)
def test_the_default_is_the_standard_normal(kind: str, device: str) -> None:
    mu, s = posterior(kind, (7, 19), device=device)
    want = pyvae.kl_divergence(mu, **{kind: s})
    for one in (scaling(kind).prior, torch.full((19,), scaling(kind).prior, device=device)):
        assert_relative(pyvae.kl_divergence(mu, **{kind: s}, prior=(0, one)), truth.exact(want), LOSS)


def test_numbers_are_tensors(device: str) -> None:
    """In the dtype that is computed in: 0.1 is no number of bfloat16."""
    for dtype, wide in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        mu, s = posterior("std", (7, 19), dtype, device=device)
        tensors = (torch.tensor(0.5, dtype=wide, device=device), torch.tensor(0.1, dtype=wide, device=device))
        for numbers in ((0.5, 0.1), [0.5, 0.1], (0.5, tensors[1])):
            assert torch.equal(
                pyvae.kl_divergence(mu, std=s, prior=numbers), pyvae.kl_divergence(mu, std=s, prior=tensors)
            )


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("shape", [(7, 19), (3, 700), (0, 4)], ids=str)
def test_a_scale_that_is_one_number_is_as_good_as_one_for_each_element(
    shape: tuple[int, int], kind: str, device: str
) -> None:
    """To the bit: what the kernels compute of it once is what they would compute for each element."""
    for dtype in (torch.float32, torch.float64):
        mu, s, mean, number = inputs(kind, ((), ()), dtype, shape, device)
        leaves = [leaf(x) for x in (mu, s)]
        results = []
        for scale in (number, number.expand(shape).contiguous()):
            kl = pyvae.kl_divergence(leaves[0], **{kind: leaves[1]}, prior=(mean, scale))
            _, together = pyvae.reparameterize_kl(leaves[0], **{kind: leaves[1]}, prior=(mean, scale), seed=1)
            results.append((kl, together, *grad(kl.sum(), leaves), *grad(together.sum(), leaves)))
        assert all_equal(*results)


@pytest.mark.parametrize("kind", SCALES)
def test_the_sample_does_not_see_the_prior(kind: str, device: str) -> None:
    """Not in its noise either, whose bits go by the dtype: that of the posterior alone."""
    mu, s, *given = inputs(kind, ((19,), ()), torch.float32, device=device)
    for wide in (given, [x.double() for x in given]):
        z, kl = pyvae.reparameterize_kl(mu, **{kind: s}, seed=3, prior=tuple(wide))
        assert torch.equal(z, pyvae.reparameterize(mu, **{kind: s}, seed=3))
        assert kl.dtype == torch.float32


@pytest.mark.parametrize("layout", ["strided", "batch_last", "odd_offset", "channels_last", "expanded"])
def test_layouts(layout: str, device: str) -> None:
    shape = (3, 4, 5, 6)
    for shapes in ((shape, shape), ((4, 1, 6), (3, 1, 1, 1))):
        given = inputs("logvar", shapes, shape=shape, device=device)
        given = tuple(leaf(LAYOUTS[layout](x) if x.ndim == 4 else x) for x in given)
        want = truth.kl_elements("logvar", *given)
        assert_relative(divergence("logvar", *given, reduction="elements"), want, LOSS)
        kl = divergence("logvar", *given)
        assert_relative(kl, want.flatten(1).sum(1), LOSS)
        slopes = truth.kl_gradients("logvar", torch.ones(shape), *given)
        for x, expected in zip(grad(kl.sum(), given), slopes, strict=True):
            assert_whole(x, expected)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0,), (513,), (2, 1025), (1, 2, 3, 1, 2, 1, 2, 3, 2, 1)], ids=str)
def test_shapes(shape: tuple[int, ...], device: str) -> None:
    """None, many, and more dimensions than the kernels follow strides of."""
    for shapes in ((shape, ()), (shape[1:], shape)):
        given = [leaf(x) for x in inputs("std", shapes, shape=shape, device=device)]
        want = truth.kl_elements("std", *given)
        got = divergence("std", *given, reduction="elements")
        assert_relative(got, want, LOSS)
        for x, expected in zip(
            grad(got.sum(), given), truth.kl_gradients("std", torch.ones(shape), *given), strict=True
        ):
            assert_whole(x, expected)


# ---- near the prior, and far ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("kind", SCALES)
def test_near_the_prior(kind: str, dtype: torch.dtype, device: str) -> None:
    """Down to log sigma^2 - log p^2 = 1e-7, where the usual form is all rounding; wherever the prior is."""
    for center in (-9.0, -4.6, 0.0, 3.0):
        t = scaling(kind).of(torch.tensor(center, dtype=torch.float64))
        step = torch.logspace(-7, -0.5, 300, dtype=torch.float64) * (t if kind == "std" else 1)
        s = torch.cat([t + step, t - step, t[None]]).to(device, dtype)
        given = torch.full_like(s, 0.3), s, torch.full_like(s, 0.3), t.to(device, dtype)
        want = truth.kl_elements(kind, *given)
        assert_relative(divergence(kind, *given), want, KL_NEAR_A_PRIOR)
        leaves = [leaf(x) for x in given]
        got = grad(divergence(kind, *leaves).sum(), leaves[:2])
        for x, expected in zip(got, truth.kl_gradients(kind, torch.ones_like(s), *given), strict=False):
            assert_relative(x, expected, KL_NEAR_A_PRIOR)


@pytest.mark.parametrize("kind", SCALES)
def test_far_from_the_prior(kind: str, device: str) -> None:
    """Scales whose difference is rounded, and what is too large for float32."""
    sizes = scaling(kind).of(torch.tensor([-70.1, -33.3, -9.7, -0.4, 0.1, 8.3, 21.7, 66.6], dtype=torch.float64))
    s, t = (x.flatten().to(device, torch.float32) for x in torch.meshgrid(sizes, sizes, indexing="ij"))
    given = torch.full_like(s, 0.3), s, torch.full_like(s, -0.9), t
    assert_losses(divergence(kind, *given), truth.kl_elements(kind, *given))


@pytest.mark.parametrize("kind", SCALES)
def test_between_near_and_far(kind: str, device: str) -> None:
    """Where the KL is small beside its terms and the short form ends: what a quotient rounds off would show."""
    log_variance = torch.rand(100_000, dtype=torch.float64) * 4 - 2
    ratio = torch.rand(100_000, dtype=torch.float64) * 0.06 + 0.7
    pairs = log_variance + 2 * torch.log(ratio), log_variance
    s, t = (scaling(kind).of(x).to(device, torch.float32) for x in pairs)
    given = torch.zeros_like(s), s, torch.zeros_like(s), t
    assert_relative(divergence(kind, *given), truth.kl_elements(kind, *given), LOSS)


@pytest.mark.parametrize("kind", SCALES)
def test_the_ends_of_the_number_range(kind: str, device: str) -> None:
    """NaN is NaN for its element alone, and a posterior of no width is infinitely far."""
    mu, s, mean, t = (leaf(x) for x in inputs(kind, ((7, 19), (7, 19)), device=device))
    want = divergence(kind, mu, s, mean, t, reduction="elements")
    for i in range(4):
        given = [x.detach().clone() for x in (mu, s, mean, t)]
        given[i][3, 4] = math.nan
        got = divergence(kind, *given, reduction="elements")
        assert got.isnan().nonzero().tolist() == [[3, 4]]
        got[3, 4] = want[3, 4]
        assert torch.equal(got, want)
    none = torch.full((7, 19), scaling(kind).of(torch.tensor(-math.inf)).item(), device=device)
    assert (divergence(kind, mu, none, mean, t) == math.inf).all()


# ---- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", SCALES)
def test_gradients_of_each_element(kind: str, dtype: torch.dtype, backend: str, device: str) -> None:
    given = inputs(kind, ((400, 19), (400, 19)), dtype, (400, 19), device)
    leaves = [leaf(x) for x in given]
    got = grad(divergence(kind, *leaves).sum(), leaves)
    want, summand = truth.kl_slopes(kind, *given)
    unit = torch.maximum(want[3].abs(), summand)
    bound = GRADIENT_ULP if backend == "kernels" else REFERENCE_GRADIENT_ULP
    for x, expected, magnitude in zip(got, want, (None, None, None, unit), strict=True):
        assert x.dtype == dtype
        if backend == "reference" and dtype == torch.float64:  # which forms e^d - 1 as a difference, in units of 1
            magnitude = expected.abs().clamp(min=1)
        assert_ulp(x, expected, bound, magnitude)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", SCALES)
def test_gradients_in_their_own_shapes(kind: str, dtype: torch.dtype, shapes: Any, backend: str, device: str) -> None:
    """From one number for each sample, for each element, and together with those of the sample."""
    given = inputs(kind, shapes, dtype, device=device)
    rows = torch.rand(7, 1).to(device) + 0.5
    bound = PRIOR_GRADIENT_WHOLE if backend == "kernels" else REFERENCE_PRIOR_WHOLE
    for reduction, upstream in (("none", rows), ("elements", torch.randn(7, 19).to(device)), ("batchmean", rows[:1])):
        leaves = [leaf(x) for x in given]
        kl = divergence(kind, *leaves, reduction=reduction)
        got = grad(kl.flatten(), leaves, upstream.flatten().to(kl.dtype))
        each = truth.exact(upstream).expand(7, 19) / (7 if reduction == "batchmean" else 1)
        for x, expected in zip(got, truth.kl_gradients(kind, each, *given), strict=True):
            assert_whole(x, expected, bound[dtype])
    z, kl = pyvae.reparameterize_kl(leaves[0], **{kind: leaves[1]}, prior=tuple(leaves[2:]), seed=5)
    both = grad([z, kl], leaves, [torch.full_like(z, 0.75), rows.flatten().to(kl.dtype)])
    alone = grad(pyvae.reparameterize(leaves[0], **{kind: leaves[1]}, seed=5), leaves[:2], torch.full_like(z, 0.75))
    want = truth.kl_gradients(kind, rows.expand(7, 19), *given)
    for x, expected, sample in itertools.zip_longest(both, want, alone):
        assert_whole(x, expected if sample is None else expected + truth.exact(sample), bound[dtype])
