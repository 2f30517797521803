"""A weight of bools selects: what it leaves out is neither checked nor looked at, and its gradients are exactly 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from calls import Call, call
from cases import REDUCTIONS, all_equal, assert_whole, generator, leaf
from families import LIKELIHOODS, WITH_SOFTMAX, family
from tolerances import FLOAT32_ROUNDING, SIXTEEN_BITS
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = pytest.mark.torch_sensitive("torch.where and its derivatives in pyvae.reference")

BATCH, FEATURES = 5, 600  # a row is more than a chunk
ABSENT = {"nan": math.nan, "inf": math.inf, "sentinel": -1.0, "large sentinel": -999.0}
EACH = pytest.mark.parametrize("name", LIKELIHOODS)


def inputs(name: str, library: bool = False, shape: tuple[int, ...] = (BATCH, FEATURES)) -> Call:
    return call(name, shape, library=library)


def loss(given: Call, weight: Tensor | None, **options: Any) -> Tensor:
    return pyvae.elbo_loss(given.recon, given.target, likelihood=given.likelihood, weight=weight, **options)


def moved(given: Call, device: str) -> Call:
    tensors = [x.to(device) for x in given.differentiable]
    return replace(given.with_differentiable(tensors), target=given.target.to(device)).leaves()


def masks(shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Of each element; of features, of rows; one sample, and all, left out."""
    draw = generator(7)
    for size in (shape, shape[1:], (shape[0], *[1] * (len(shape) - 1))):
        yield torch.rand(size, generator=draw) < 0.6
    one = torch.ones(shape, dtype=torch.bool)
    one[1] = False
    yield one
    yield torch.tensor(False)


def hidden(x: Tensor, mask: Tensor, absent: float) -> Tensor:
    return torch.where(mask.expand(x.shape), x, absent)


@EACH
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_what_is_left_out_is_not_looked_at(name: str, reduction: str, device: str, backend: str) -> None:
    """The same bits whatever stands there: in the target, and (but for scores) in recon and parameters of its shape."""
    for mask in masks((BATCH, FEATURES)):
        mask = mask.to(device)
        given = moved(inputs(name), device)
        results = []
        for absent in (None, *ABSENT.values()):
            case = given
            if absent is not None:
                recon = given.recon if given.has_softmax else hidden(given.recon, mask, absent)
                case = replace(given, recon=recon, target=hidden(given.target, mask, absent))
                own = [hidden(p, mask, absent) if mask.shape == p.shape else p for p in given.parameters]
                case = replace(case, parameters=tuple(own))
            case = case.leaves()
            value = loss(case, mask, reduction=reduction)
            gradients = grad(value.sum(), case.differentiable)
            assert all(x.isfinite().all() for x in (value, *gradients))
            if not case.has_softmax:
                assert (gradients[0][~mask.expand(case.recon.shape)] == 0).all()
            for parameter, gradient in zip(case.parameters, gradients[1:], strict=True):
                if mask.shape == parameter.shape:
                    assert (gradient[~mask] == 0).all()
            results.append((value, *gradients))
        assert all(all_equal(results[0], other) for other in results[1:])


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_mask_is_a_factor_where_everything_is_legal(name: str, dtype: torch.dtype, device: str, backend: str) -> None:
    given = moved(inputs(name), device)
    given = given.with_differentiable([x.to(dtype) for x in given.differentiable]).leaves()
    for mask in masks((BATCH, FEATURES)):
        results = []
        for weight in (mask, mask.long(), mask.float()):
            value = loss(given, weight.to(device), reduction="none")
            results.append((value, *grad(value.sum(), given.differentiable)))
        for selected, *factors in zip(*results, strict=True):
            for factor in factors:
                if backend == "kernels":  # 0 times a number is 0
                    assert torch.equal(selected, factor)
                else:  # parameters are spread over recon there, and summed in another order
                    assert_whole(selected, factor, SIXTEEN_BITS if dtype == torch.bfloat16 else FLOAT32_ROUNDING)


@EACH
def test_kernels_and_reference_agree(name: str, device: str) -> None:
    given = moved(inputs(name), device)
    for mask in masks((BATCH, FEATURES)):
        mask = mask.to(device)
        case = replace(given, target=hidden(given.target, mask, math.nan))
        value = loss(case, mask, reduction="none")
        with pyvae.backend("reference"):
            want = loss(case, mask, reduction="none")
        torch.testing.assert_close(value, want, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)
        want_gradients = grad(want.sum(), case.differentiable)
        for got, expected in zip(grad(value.sum(), case.differentiable), want_gradients, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e2 * FLOAT32_ROUNDING, atol=1e2 * FLOAT32_ROUNDING)


@pytest.mark.parametrize("name", WITH_SOFTMAX)
def test_under_a_softmax_scores_stay_in_the_normalizer(name: str, device: str, backend: str) -> None:
    """The sum of the terms that are left, each with the log softmax over all scores; a score of -inf has no share, and
    a NaN shows."""
    given = moved(inputs(name, library=True, shape=(3, 40)), device)
    mask = (torch.rand(3, 40, generator=generator(1)) < 0.5).to(device)
    value = loss(replace(given, target=hidden(given.target, mask, math.nan)), mask, reduction="none")
    own = tuple(p.detach().expand(3, 40) for p in given.parameters)
    log_mean = torch.log_softmax(given.recon, 1)
    if given.log_library is not None:
        log_mean = log_mean + given.log_library[:, None]
    if name == "multinomial":
        terms = -given.target * log_mean
    else:
        alone = replace(given, recon=log_mean, parameters=own, log_library=None)
        terms = torch.stack([
            pyvae.reconstruction_loss(
                log_mean[:, i : i + 1], given.target[:, i : i + 1],
                likelihood=family(name).make(*(p[:, i : i + 1] for p in alone.parameters)),
            )
            for i in range(40)
        ], 1)  # fmt: skip
    want = torch.where(mask, terms, 0.0).sum(1)
    torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-4)
    got, expected = (grad(x.sum(), given.recon, retain_graph=True)[0] for x in (value, want))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert (got[~mask] != 0).any()  # the normalizer's

    column = torch.ones(40, dtype=torch.bool, device=device)
    column[3] = False
    out = given.recon.detach().clone()
    out[:, 3] = -math.inf
    out.requires_grad_()
    case = replace(given, recon=out)
    without = [x for x in range(40) if x != 3]
    fewer = replace(
        given,
        recon=leaf(given.recon.detach()[:, without]),
        target=given.target[:, without],
        parameters=tuple(p.detach()[without] for p in given.parameters),
    )
    value, want = loss(case, column), loss(fewer, None)
    torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-4)
    got, expected = grad(value, out)[0], grad(want, fewer.recon)[0]
    torch.testing.assert_close(got[:, without], expected, rtol=1e-4, atol=1e-4)
    assert (got[:, 3] == 0).all()
    assert loss(replace(given, recon=hidden(given.recon, column, math.nan)), column).isnan()


@pytest.mark.parametrize("score", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("name", WITH_SOFTMAX)
def test_a_row_that_is_left_out_as_a_whole(name: str, score: float, device: str, backend: str) -> None:
    """Padding, say, whose scores are anything: nobody needs its normalizer."""
    given = moved(inputs(name, library=True), device)
    rows = torch.tensor([True, False, True, True, False], device=device)[:, None]
    results = []
    for absent in (0.5, score):
        case = replace(given, recon=hidden(given.recon.detach(), rows, absent)).leaves()
        value = loss(case, rows, reduction="none")
        gradients = grad(value.sum(), case.differentiable)
        assert (value[[1, 4]] == 0).all() and (gradients[0][[1, 4]] == 0).all()
        results.append((value, *gradients))
    assert all(x.isfinite().all() for x in results[1])
    assert all_equal(*results)


@pytest.mark.parametrize("name", ["bernoulli_logits", "negative_binomial", "gaussian_logvar"])
def test_batchmean_divides_by_the_batch(name: str, device: str, backend: str) -> None:
    given = moved(inputs(name), device)
    mask = next(masks((BATCH, FEATURES))).to(device)
    mean, rows = (loss(given, mask, reduction=reduction) for reduction in ("batchmean", "none"))
    torch.testing.assert_close(mean, rows.mean(), rtol=FLOAT32_ROUNDING, atol=0)


def test_float_weights_stay_factors(device: str, backend: str) -> None:
    """As in torch: 0 times NaN is NaN."""
    recon, target = torch.zeros(2, 2, device=device), torch.tensor([[1.0, math.nan], [1.0, 1.0]], device=device)
    for dtype in (torch.float32, torch.int64, torch.uint8):
        weight = torch.tensor([[1, 0], [1, 0]], device=device, dtype=dtype)
        value = pyvae.reconstruction_loss(recon, target, likelihood="gaussian", weight=weight)
        assert value.isnan().tolist() == [True, False] and value[1] == 0.5


def test_an_attention_mask_counts(device: str, backend: str) -> None:
    """Integers are factors of any size."""
    recon, target = torch.zeros(2, 2, device=device), torch.ones(2, 2, device=device)
    weight = torch.tensor([[0, 3], [1, 2]], device=device)
    for scale in (1, torch.int64):
        factor = weight if scale == 1 else weight.to(torch.int16)
        value = pyvae.reconstruction_loss(recon, target, likelihood="gaussian", weight=factor)
        assert value.tolist() == [1.5, 1.5]
    exact = 2**24 + 1
    value = pyvae.reconstruction_loss(
        recon.double(), target, likelihood="gaussian", weight=torch.tensor(exact, device=device)
    )
    assert value.tolist() == [exact, exact]


@pytest.mark.parametrize("name", ["bernoulli", "bernoulli_logits", "poisson", "multinomial"])
def test_what_is_selected_is_still_refused(name: str, backend: str) -> None:
    given = inputs(name, shape=(2, 3))
    mask = torch.tensor([[True, False, True], [True, True, False]])
    loss(replace(given, target=hidden(given.target, mask, -7.0)), mask)
    with pytest.raises(ValueError, match=r"^elbo_loss: `target` must .* but holds -3"):
        loss(replace(given, target=hidden(given.target, ~mask, -3.0)), mask)


def test_an_image_and_a_mask_of_its_pixels(device: str, backend: str) -> None:
    """A mask that broadcasts over channels, a flattened target, channels_last."""
    draw = generator(2)
    x = torch.rand(2, 3, 4, 5, generator=draw).to(device)
    recon = torch.randn(2, 3, 4, 5, generator=draw).to(device).contiguous(memory_format=torch.channels_last)
    mask = (torch.rand(2, 1, 4, 5, generator=draw) < 0.5).to(device)
    want = pyvae.reconstruction_loss(recon, x, likelihood="bernoulli_logits", weight=mask.float())
    absent = torch.where(mask, x, -1.0)
    for target in (absent, absent.flatten(1)):
        assert torch.equal(pyvae.reconstruction_loss(recon, target, likelihood="bernoulli_logits", weight=mask), want)


def test_derivatives_through_the_reference(device: str, backend: str) -> None:
    """By the target, second ones, and of transforms: none sees what is left out."""
    recon, target = leaf(torch.zeros(1, 2, device=device)), torch.tensor([[1.0, math.nan]], device=device)
    mask = torch.tensor([[True, False]], device=device)

    def value(r: Tensor, t: Tensor) -> Tensor:
        return pyvae.elbo_loss(r, t, likelihood="gaussian", weight=mask)

    by_target = grad(value(recon, target.requires_grad_()), target)[0]
    assert by_target.tolist() == [[1.0, 0.0]]
    first = grad(value(recon, target.detach()), recon, create_graph=True)[0]
    assert first.tolist() == [[-1.0, 0.0]]
    assert grad(first.sum(), recon)[0].tolist() == [[1.0, 0.0]]
    assert torch.func.grad(value)(recon.detach(), target.detach()).tolist() == [[-1.0, 0.0]]


@pytest.mark.parametrize("backend_name", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", ["bernoulli", "zero_inflated_negative_binomial"])
def test_compiled(name: str, backend_name: str) -> None:
    torch.compiler.reset()
    given = inputs(name, shape=(3, 17)).leaves()
    mask = torch.rand(3, 17, generator=generator(3)) < 0.5
    given = replace(given, target=hidden(given.target, mask, math.nan))

    def step(*tensors: Tensor) -> Tensor:
        return loss(given.with_differentiable([*tensors]), mask)

    compiled: Callable[..., Tensor] = torch.compile(step, backend=backend_name, fullgraph=True)
    results = [(value, *grad(value, given.differentiable)) for f in (step, compiled)
               for value in [f(*given.differentiable)]]  # fmt: skip
    assert all_equal(*results)


def test_a_mask_of_positions_needs_a_dimension(backend: str) -> None:
    """(B, T) against (B, T, D), of padded sequences."""
    recon = torch.zeros(2, 3, 4)
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(
        ValueError, match=r"`weight` must broadcast .*\(2, 3, 4\), but has shape \(2, 3\); .*`mask\[\.\.\., None\]`"
    ):
        pyvae.elbo_loss(recon, recon, likelihood="gaussian", weight=mask)
    with pytest.raises(ValueError, match=r"`mask\[\.\.\., None, None\]`"):
        pyvae.elbo_loss(recon, recon, likelihood="gaussian", weight=mask[:, 0])
    assert pyvae.elbo_loss(recon, recon, likelihood="gaussian", weight=mask[..., None]) == 0
