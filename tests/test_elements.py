"""reduction="elements" of the reconstruction: each element's own, for every likelihood and every upstream gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from calls import Call, call
from cases import DTYPES, LAYOUTS, assert_whole, generator, leaf
from families import PLAIN, WAYS, cycled, family
from family_formulas import Shape
from tolerances import GRADCHECK
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.profiler import ProfilerActivity, profile

import pyvae

pytestmark = pytest.mark.usefixtures("backend")
EACH = pytest.mark.parametrize(("name", "library"), WAYS)
SHAPES = ((5, 7), (40, 1030), (300, 3), (2, 3, 4), (11,), (3, 0), (0, 4))

# What may come after: sums, whose upstream gradient is one number or one a row, and what gives each element its own.
AFTERWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda e: e.sum(),
    "mean": lambda e: 3 * e.mean(),
    "mean of rows": lambda e: (e.flatten(1).sum(1) if e.ndim > 1 else e).mean(),
    "a factor a row": lambda e: ((e.flatten(1).sum(1) if e.ndim > 1 else e) * torch.linspace(1, 2, len(e)).to(e)).sum(),
    "a factor each": lambda e: (e * torch.linspace(-1, 2, e.numel()).view(e.shape).to(e)).sum(),
}


def elements(given: Call) -> Tensor:
    return pyvae.reconstruction_loss(given.recon, given.target, **given.options, reduction="elements")


def wide(x: Tensor | None) -> Tensor | None:
    return x if x is None or not x.is_floating_point() else x.double()


def in_float64(given: Call) -> Call:
    """The same call, computed by the specification in double."""
    tensors = [leaf(x.double()) for x in given.differentiable]
    moved = given.with_differentiable(tensors)
    return replace(moved, target=wide(given.target), weight=wide(given.weight), pos_weight=wide(given.pos_weight))


def assert_right(given: Call, after: Callable[[Tensor], Tensor], **context: object) -> None:
    given, exact = given.leaves(), in_float64(given)
    got = elements(given)
    with pyvae.backend("reference"):
        want = elements(exact)
        wanted = grad(after(want), exact.differentiable)
    assert (got.shape, got.dtype) == (given.recon.shape, torch.float32 if got.dtype != torch.float64 else torch.float64)
    torch.testing.assert_close(got, want.to(got), rtol=1e-5, atol=1e-6, equal_nan=True)
    for x, y, source in zip(grad(after(got), given.differentiable), wanted, given.differentiable, strict=True):
        assert (x.dtype, x.shape) == (source.dtype, source.shape), context
        # Sums over the batch cancel: relative to what they are made of.
        largest = y.abs().max().clamp(min=1) if y.numel() else 1.0
        assert_whole(x / largest, (y / largest).to(x), 2e-5 if x.element_size() > 2 else 1e-2)


def forms(name: str, shape: Shape) -> tuple[Shape | None, ...]:
    """Of the parameters: a number; of features, rows, elements."""
    return ((), shape[1:], (shape[0], *(1,) * (len(shape) - 1)), shape) if family(name).parameters else (None,)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@EACH
def test_values_and_gradients(name: str, library: bool, shape: Shape, device: str) -> None:
    for form, after in cycled(forms(name, shape), tuple(AFTERWARDS)):
        if after == "mean" and 0 in shape:
            continue
        given = call(name, shape, form, library=library, device=device)
        assert_right(given, AFTERWARDS[after], form=form, kind=after)


@pytest.mark.parametrize("after", AFTERWARDS)
@EACH
def test_weights_and_masks(name: str, library: bool, after: str, device: str) -> None:
    """A factor multiplies, a mask makes 0 of whatever there is."""
    shape = (9, 33)
    for form, masked in cycled(forms(name, shape), (False, True)):
        given = call(name, shape, form, library=library, device=device)
        weight = torch.rand(shape, generator=generator(1)).to(device)
        positive = torch.full((33,), 2.0, device=device) if family(name).takes_pos_weight else None
        given = replace(given, weight=weight < 0.6 if masked else weight + 0.5, pos_weight=positive)
        if not masked:
            assert_right(given, AFTERWARDS[after], form=form)
            continue
        want = elements(given)
        assert not want[~given.weight].any()
        hidden = replace(given, target=given.target.masked_fill(~given.weight, torch.nan)).leaves()
        got = elements(hidden)
        assert torch.equal(got, want)
        assert all(not x.isnan().any() for x in grad(AFTERWARDS[after](got), hidden.differentiable))
        assert_right(given, AFTERWARDS[after], form=form)


@EACH
def test_a_mask_hides_the_upstream_gradient_too(name: str, library: bool, device: str) -> None:
    given = call(name, (6, 20), library=library, device=device)
    mask = (torch.rand(6, 20, generator=generator(2)) < 0.6).to(device)
    upstream = torch.rand(6, 20, generator=generator(3)).to(device)
    results = []
    for hidden in (0.0, torch.nan):
        leaves = replace(given, weight=mask).leaves()
        results.append(grad(elements(leaves), leaves.differentiable, upstream.masked_fill(~mask, hidden)))
    for x, y in zip(*results, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@EACH
def test_every_dtype_and_layout(name: str, library: bool, dtype: torch.dtype, device: str) -> None:
    names = [each for each in LAYOUTS if each not in ("flattened", "expanded_features")]
    for layout, after in cycled(tuple(names), tuple(AFTERWARDS)):
        given = call(name, (3, 4, 2, 5), None, (dtype, torch.float32, dtype), library, device=device)
        if name in PLAIN:  # float16 has no gradient at the ends of [0, 1]
            given = replace(given, recon=family(name).sweep.recon.inside(given.recon, 0.01))
        given = given.with_differentiable([LAYOUTS[layout](given.recon), *given.differentiable[1:]])
        assert_right(given, AFTERWARDS[after], layout=layout)
    flat = replace(given, target=given.target.abs().clamp(max=1).flatten(1).round().to(torch.uint8))
    assert_right(flat, AFTERWARDS["sum"])


@EACH
def test_a_loss_scale_is_not_lost_in_16_bits(name: str, library: bool, device: str) -> None:
    """A gradient of 1e-6, which float16 has 4 bits of, times 65536: as exact as from float32."""
    given = call(name, (6, 20), None, (torch.float16, torch.float32, torch.float16), library, device=device).leaves()
    scale = 1e-6 * torch.linspace(1, 2, 120, device=device).view(6, 20)
    for factors in (scale, torch.full_like(scale, 1e-6), scale[:, :1]):
        got = grad((elements(given) * factors).sum() * 65536, given.recon)[0]
        wider = in_float64(given)
        want = grad((elements(wider) * factors.double()).sum() * 65536, wider.recon)[0]
        torch.testing.assert_close(got.double(), want, rtol=2e-3, atol=1e-6)


@EACH
def test_backward_passes_do_not_share_memory(name: str, library: bool, device: str) -> None:
    given = call(name, (8, 40), library=library, device=device).leaves()
    for upstream in (torch.ones(8, 40), torch.full((8, 40), 2.0), torch.rand(8, 1).expand(8, 40), torch.rand(8, 40)):
        values = elements(given)
        first = grad(values, given.differentiable, upstream.to(device), retain_graph=True)
        kept = [x.clone() for x in first]
        again = grad(values, given.differentiable, upstream.to(device), retain_graph=True)
        three = grad(values, given.differentiable, 3 * upstream.to(device))
        for x, y, z, w in zip(first, kept, again, three, strict=True):
            assert torch.equal(x, y)
            assert_whole(z, y, 1e-5)
            assert_whole(w, 3 * y, 1e-5)


@EACH
def test_the_sum_over_features_is_the_loss(name: str, library: bool, device: str) -> None:
    given = call(name, (40, 300), library=library, device=device)
    assert_whole(elements(given).sum(1), given.elbo_loss(reduction="none"), 1e-5)


@EACH
def test_higher_derivatives(name: str, library: bool, device: str) -> None:
    given = call(name, (2, 3), None, (torch.float64,) * 3, library, device=device).leaves()
    function = lambda *tensors: elements(given.with_differentiable(list(tensors)))  # noqa: E731
    assert gradcheck(function, given.differentiable, check_forward_ad=True, check_batched_grad=True, **GRADCHECK)
    assert gradgradcheck(function, given.differentiable, **GRADCHECK)


@pytest.mark.parametrize(("way", "after"), cycled(WAYS, tuple(AFTERWARDS)))
def test_compiled(way: tuple[str, bool], after: str, device: str) -> None:
    name, library = way
    torch.compiler.reset()
    given = call(name, (6, 20), library=library, device=device).leaves()

    def work(*tensors: Tensor) -> Tensor:
        return AFTERWARDS[after](elements(given.with_differentiable(list(tensors))))

    compiled = torch.compile(work, fullgraph=True, backend="aot_eager")
    got, want = compiled(*given.differentiable), work(*given.differentiable)
    assert_whole(got, want, 1e-5)
    for x, y in zip(grad(got, given.differentiable), grad(want, given.differentiable), strict=True):
        assert_whole(x, y, 1e-5)


@pytest.mark.usefixtures("kernels")
def test_a_parameter_of_features_has_no_gradient_of_elements() -> None:
    """Where the upstream gradient is one number or one a row."""
    given = call("negative_binomial", (512, 600)).leaves()
    for after in ("sum", "mean of rows", "a factor a row"):
        with pyvae.backend("auto"):
            loss = AFTERWARDS[after](elements(given))
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
                grad(loss, [given.parameters[0]])
        assert max(event.cpu_memory_usage for event in recorded.events()) < 512 * 600 * 4 / 2


def test_the_loss_has_no_elements(device: str) -> None:
    x = torch.zeros(2, 3, device=device)
    for function in (pyvae.elbo_loss, pyvae.elbo_terms, pyvae.reference.elbo_loss):
        with pytest.raises(ValueError, match=r'`reduction` must be .*but is "elements".*reconstruction_loss'):
            function(x, x, likelihood="gaussian", reduction="elements")
    with pytest.raises(ValueError, match="reduction"):
        pyvae.ELBOLoss(reduction="elements")
    with pytest.raises(ValueError, match=r"reconstruction_loss: `target` must have recon's shape"):
        pyvae.reconstruction_loss(x, x[:1], reduction="elements")
