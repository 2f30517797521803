"""Integer data: what its numbers give in float32 (float64 if recon is float64), by every way through torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from cases import INTEGERS, LAYOUTS, MIXED_DTYPES, REDUCTIONS, assert_whole, data, leaf, posterior
from families import PLAIN, family
from gpu import rows_share_blocks
from tolerances import FLOAT32_ROUNDING, SIXTEEN_BITS
from torch import Tensor
from torch.autograd import grad
from torch.autograd.graph import saved_tensors_hooks

import pyvae

pytestmark = [pytest.mark.usefixtures("backend"), pytest.mark.torch_sensitive("promotion of types")]
PAIRS = [dtypes for dtypes in MIXED_DTYPES if dtypes[1] in INTEGERS]
SHAPE = (4, 3, 5, 30)


def computed(recon: Tensor, target: Tensor) -> Tensor:
    """The target in the type that it is computed in."""
    return target.to(torch.float64 if recon.dtype == torch.float64 else torch.float32)


def assert_same(got: Sequence[Tensor], want: Sequence[Tensor], device: str) -> None:
    """Bit for bit; on CUDA, where float targets have kernels of their own, which sum in another order, up to that."""
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        if rows_share_blocks(device):
            finite = b.isfinite()  # float16 has no number for 1e12, a slope of probabilities
            assert torch.equal(a[~finite], b[~finite])
            assert_whole(a[finite], b[finite], SIXTEEN_BITS if a.element_size() == 2 else FLOAT32_ROUNDING)
        else:
            assert torch.equal(a, b)


# ---- ways through torch ----------------------------------------------------------------------------------------------

Options = dict[str, object]


def eager(recon: Tensor, target: Tensor, options: Options) -> list[Tensor]:
    """Every function and reduction, the upstream gradients 1 and 3, the second of them computed again."""
    out: list[Tensor] = []
    mu, logvar = (leaf(x) for x in posterior("logvar", (4, 5), device=recon.device.type))
    for reduction in REDUCTIONS:
        x = leaf(recon)
        terms = pyvae.elbo_terms(x, target, mu, logvar, beta=0.5, reduction=reduction, **options)
        losses = [terms.loss, pyvae.elbo_loss(x, target, kl=terms.kl.expand(4), reduction=reduction, **options)]
        losses.append(pyvae.reconstruction_loss(x, target, reduction=reduction, **options))
        out += [*terms, *losses]
        for loss in losses:
            out += [grad(loss, x, torch.full_like(loss, upstream), retain_graph=True)[0] for upstream in (1.0, 3.0)]
    return out


def double_backward(recon: Tensor, target: Tensor, options: Options) -> list[Tensor]:
    x = leaf(recon)
    (first,) = grad(pyvae.elbo_loss(x, target, **options), x, create_graph=True)
    return [first, *grad(first.sum(), x)]


def functional(recon: Tensor, target: Tensor, options: Options) -> list[Tensor]:
    def loss(x: Tensor, t: Tensor) -> Tensor:
        return pyvae.elbo_loss(x, t, **options)

    each = torch.func.vmap(lambda x, t: torch.func.grad(loss)(x[None], t[None])[0])(recon, target.reshape(recon.shape))
    return [torch.func.grad(loss)(recon, target), each, torch.func.hessian(lambda x: loss(x, target[:1]))(recon[:1])]


def forward_mode(recon: Tensor, target: Tensor, options: Options) -> list[Tensor]:
    with fwAD.dual_level():
        dual = fwAD.make_dual(recon, torch.ones_like(recon))
        value, tangent = fwAD.unpack_dual(pyvae.elbo_loss(dual, target, **options))
    assert tangent is not None
    return [value, tangent]


def autocast(recon: Tensor, target: Tensor, options: Options) -> list[Tensor]:
    x = leaf(recon)
    with torch.autocast(recon.device.type, torch.bfloat16):
        loss = pyvae.elbo_loss(x, target, **options)
    return [loss, *grad(loss, x)]


def factors(recon: Tensor, target: Tensor, options: Options) -> list[Tensor]:
    """Gradients of the tensors that the kernels leave to the reference, beside recon's."""
    x, weight = leaf(recon), leaf(torch.linspace(0.5, 1.5, SHAPE[-1], device=recon.device))
    positive = {"pos_weight": weight} if family(str(options["likelihood"])).takes_pos_weight else {}
    loss = pyvae.elbo_loss(x, target, weight=weight, **positive, **options)
    return [loss, *grad(loss, (x, weight))]


def module(recon: Tensor, target: Tensor, options: Options) -> list[Tensor]:
    return [pyvae.ELBOLoss(**options)(recon, target)]  # type: ignore[arg-type]


WAYS: dict[str, Callable[[Tensor, Tensor, Options], list[Tensor]]] = {
    way.__name__: way for way in (eager, double_backward, functional, forward_mode, autocast, factors, module)
}


@pytest.mark.parametrize("dtypes", PAIRS, ids=str)
@pytest.mark.parametrize("likelihood", PLAIN)
@pytest.mark.parametrize("way", list(WAYS))
def test_as_the_same_numbers_in_floating_point(
    way: str, likelihood: str, dtypes: tuple[torch.dtype, torch.dtype], device: str
) -> None:
    recon, target = data(likelihood, SHAPE, dtypes, device=device)
    got, want = (WAYS[way](recon, t, {"likelihood": likelihood}) for t in (target, computed(recon, target)))
    assert_same(got, want, device)


# ---- layouts and ranges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("dtypes", PAIRS, ids=str)
def test_layouts(dtypes: tuple[torch.dtype, torch.dtype], layout: str, device: str) -> None:
    for likelihood in PLAIN:
        recon, target = data(likelihood, SHAPE, dtypes, device=device)
        target = LAYOUTS[layout](target)
        for recon_layout in ("contiguous", "channels_last", "odd_offset"):
            x = leaf(LAYOUTS[recon_layout](recon))
            losses = [pyvae.reconstruction_loss(x, t, likelihood=likelihood) for t in (target, computed(recon, target))]
            got, want = ([loss, *grad(loss.sum(), x)] for loss in losses)
            assert_same(got, want, device)


@pytest.mark.parametrize("dtypes", PAIRS, ids=str)
def test_the_whole_range(dtypes: tuple[torch.dtype, torch.dtype], device: str) -> None:
    """Both ends, signs, and what float32 and float64 have to round: halves to even, as `.float()`."""
    limits = range(2) if dtypes[1] == torch.bool else (torch.iinfo(dtypes[1]).min, torch.iinfo(dtypes[1]).max)
    odd = [1, 2**7, 2**8 - 1, 2**15, 2**24 + 1, 2**24 + 3, 2**31 - 65, 2**53 + 1, 2**53 + 3, 2**62 + 2**38]
    numbers = [n for n in (*limits, 0, *odd, *(-n for n in odd)) if limits[0] <= n <= limits[1]]
    for columns in (1, 2, 7, 16, 33):  # whole vectors, and what is left of them
        target = torch.tensor(numbers, dtype=dtypes[1], device=device).repeat(columns, 1)
        recon = torch.zeros(target.shape, dtype=dtypes[0], device=device)
        for t, x in ((target, recon), (target.T, recon.T)):
            x = leaf(x)
            (got,) = grad(pyvae.reconstruction_loss(x, t, likelihood="gaussian", reduction="sum"), x)
            assert torch.equal(got, (x - computed(x, t)).to(x.dtype))  # d 1/2 (x - t)^2 / dx = x - t


# ---- no copy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_data_is_kept_for_backward_as_it_is(dtype: torch.dtype, device: str, backend: str) -> None:
    """The very memory, which the reference, like all plain PyTorch, converts."""
    recon, target = data("gaussian", SHAPE, (torch.float32, dtype), device=device)
    kept: list[Tensor] = []
    with saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):  # type: ignore[func-returns-value]
        pyvae.elbo_loss(leaf(recon), target, likelihood="gaussian")
    same = [x for x in kept if x.dtype == dtype and x.data_ptr() == target.data_ptr()]
    assert bool(same) == (backend == "kernels")
