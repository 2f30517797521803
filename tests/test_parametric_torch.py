"""Likelihoods by rows through the rest of torch: transforms, compilers, autocast, checkpoints, modules, refusals."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from cases import all_equal, assert_whole, leaf
from parametric import ENTRIES, NAMES, WITH_LIBRARY, WITH_PARAMETERS
from parametric_calls import Call, call
from tolerances import GRADCHECK
from torch import Tensor
from torch.autograd import forward_ad, grad
from torch.utils.checkpoint import checkpoint

import pyvae
from pyvae import likelihoods as _likelihoods

WAYS = [(name, library) for name in NAMES for library in (False, True) if not library or name in WITH_LIBRARY]
EACH_WAY = pytest.mark.parametrize(("name", "library"), WAYS)
CODES = tuple(_likelihoods.LIKELIHOODS)
TWO = ("negative_binomial", "gaussian_logvar")


def of(given: Call, reduction: str = "sum") -> Callable[..., Tensor]:
    """The loss as a function of all that has a gradient."""
    return lambda *tensors: given.with_differentiable(list(tensors)).elbo_loss(reduction=reduction)


# ---- derivatives of derivatives, and forward ones --------------------------------------------------------------------


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("form", [(3,), (2, 1), (2, 3), ()], ids=str)
@EACH_WAY
def test_gradcheck_and_gradgradcheck(name: str, library: bool, form: tuple[int, ...], device: str) -> None:
    given = call(name, (2, 3), form, (torch.float64,) * 3, library, device=device).leaves()
    function, inputs = of(given, "none"), tuple(given.differentiable)
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, **GRADCHECK)
    assert torch.autograd.gradgradcheck(function, inputs, **GRADCHECK)


@pytest.mark.usefixtures("backend")
@EACH_WAY
def test_transforms(name: str, library: bool, device: str) -> None:
    """torch.func.grad, jvp, vmap over grad, and forward mode, against reverse mode."""
    given = call(name, (4, 30), (4, 30), library=library, device=device)
    tensors = given.differentiable
    places = tuple(range(len(tensors)))
    leaves = [leaf(x) for x in tensors]
    want = grad(of(given)(*leaves), leaves)
    for got, expected in zip(torch.func.grad(of(given), places)(*tensors), want, strict=True):
        assert_whole(got, expected)

    def one(target: Tensor, *sample: Tensor) -> Tensor:
        alone = given.with_differentiable([x[None] for x in sample])
        return replace(alone, target=target[None]).elbo_loss()

    each = torch.func.vmap(torch.func.grad(one, tuple(p + 1 for p in places)))(given.target, *tensors)
    for got, expected in zip(each, want, strict=True):
        assert_whole(got, expected)
    directions = [torch.rand_like(x) * g.sign() for x, g in zip(tensors, want, strict=True)]  # no cancellation
    slope = sum((g * d).sum() for g, d in zip(want, directions, strict=True))
    value, tangent = torch.func.jvp(of(given), tuple(tensors), tuple(directions))
    assert_whole(tangent, torch.as_tensor(slope))
    assert_whole(value, of(given)(*tensors))
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, d) for x, d in zip(tensors, directions, strict=True)]
        assert_whole(forward_ad.unpack_dual(of(given)(*duals)).tangent, torch.as_tensor(slope))


# ---- compilers, operators, autocast, checkpoints ---------------------------------------------------------------------


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled(name: str, compiler: str, device: str) -> None:
    torch._dynamo.reset()
    given = call(name, (6, 70), library=True, device=device).leaves()
    compiled = torch.compile(of(given), fullgraph=True, backend=compiler, dynamic=False)
    for reduction in ("sum", "none"):
        compiled = torch.compile(of(given, reduction), fullgraph=True, backend=compiler, dynamic=False)
        loss, want = compiled(*given.differentiable), given.elbo_loss(reduction=reduction)
        assert_whole(loss, want)
        upstream = torch.linspace(0.5, 2, want.numel(), device=device).reshape(want.shape)
        for got, expected in zip(
            grad(loss, given.differentiable, upstream), grad(want, given.differentiable, upstream), strict=True
        ):
            assert_whole(got, expected)


def data_term(given: Call) -> tuple[Any, ...]:
    """The arguments of `elbo_gradient`, but for the upstream gradient."""
    own = (CODES.index(given.name), given.parameters, given.log_library)
    return (given.recon, given.target, *own, given.weight, None)


def operands(given: Call, kl: Tensor | None = None, beta: float = 1.0, reduction: int = 1) -> tuple[Any, ...]:
    """The arguments of `elbo`."""
    recon, target, *own, weight, pos_weight = data_term(given)
    return (recon, target, None, None, 0, kl, *own, beta, None, weight, pos_weight, reduction)


@pytest.mark.usefixtures("kernels")
@EACH_WAY
def test_opcheck(name: str, library: bool, device: str) -> None:
    given = call(name, (3, 4, 5), (4, 1), library=library, device=device)
    every = 1 | (2 if library else 0) | sum(4 << k for k in range(len(given.parameters)))
    kl = torch.rand(3, device=device)
    for mask in (0, every):
        for reduction in range(3):
            torch.library.opcheck(torch.ops.pyvae.elbo_forward.default, (*operands(given, kl, 0.5, reduction), mask))
        torch.library.opcheck(torch.ops.pyvae.elbo_gradient.default, (*data_term(given), kl, mask))
    for reduction in range(3):
        torch.library.opcheck(torch.ops.pyvae.elbo.default, operands(given.leaves(), leaf(kl), 0.5, reduction))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_autocast_and_checkpoint(name: str, device: str) -> None:
    """bfloat16 activations beside float32 parameters and data; and the forward pass run again."""
    dtypes = (torch.bfloat16, torch.float32, torch.float32)
    given = call(name, (4, 90), dtypes=dtypes, library=True, device=device).leaves()
    want = [loss := given.elbo_loss(), *grad(loss, given.differentiable)]
    with torch.autocast(device, torch.bfloat16):
        loss = given.elbo_loss()
    assert all_equal([loss, *grad(loss, given.differentiable)], want)
    loss = checkpoint(of(given), *given.differentiable, use_reentrant=False)
    assert all_equal([loss, *grad(loss, given.differentiable)], want)  # type: ignore[list-item]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", NAMES)
def test_module(name: str, device: str) -> None:
    given = call(name, (4, 90), library=True, device=device)
    criterion = pyvae.ELBOLoss(likelihood=given.likelihood, reduction="batchmean").to(device)
    want = given.elbo_loss(reduction="batchmean")
    assert torch.equal(criterion(given.recon, given.target), want)
    assert type(given.likelihood).__name__ in repr(criterion)


# ---- refusals --------------------------------------------------------------------------------------------------------

FLOATS = "float16, bfloat16, float32, float64"
MISSHAPEN: dict[str, tuple[tuple[int, ...], ...]] = {
    "parameter": ((4,), (2, 6), (4, 6, 1), (1, 4, 6), (6, 4)),
    "log_library": ((6,), (4, 6), (), (1,), (4, 1, 1), (1, 4)),
}


def refusals(name: str, device: str) -> list[tuple[dict[str, Any], type[Exception], str]]:
    """What takes whose place in the likelihood's object, and the error."""
    here = torch.empty(0, device=device).device
    names = [parameter for parameter, _ in ENTRIES[name].parameters]
    found: list[tuple[dict[str, Any], type[Exception], str]] = []
    for given in (*names, *(["log_library"] if name in WITH_LIBRARY else [])):
        library = given == "log_library"
        for came, kind in ((True, "a bool"), ("0", "a str"), (None, "None"), ([1.0], "a list"), (1j, "a complex")):
            optional = came is None and (library or not ENTRIES[name].counts)  # then the object is another likelihood
            if not optional:
                found.append(({given: came}, TypeError, f"`{given}` must be a Tensor or a number, but is {kind}"))
        shape = (4,) if library else (6,)
        words = f"`{given}` must have one of the dtypes {FLOATS}, but has torch.int64; "
        words += f"convert it with `{given}.to(recon.dtype)`"
        found.append(({given: torch.ones(shape, dtype=torch.int64, device=device)}, TypeError, words))
        for bad in MISSHAPEN["log_library" if library else "parameter"]:
            expected = "broadcast to recon's shape (4, 6)"
            if library:
                expected = "have shape (4,) or (4, 1), one number a sample"
            words = f"`{given}` must {expected}, but has shape {bad}"
            found.append(({given: torch.ones(bad, device=device)}, ValueError, words))
        words = f"`{given}` must be on recon's device {here}, but is on meta"
        found.append(({given: torch.ones(shape, device="meta")}, ValueError, words))
        if not library:
            found.append(({given: torch.ones((), device="meta")}, ValueError, words))
    return found


@pytest.mark.parametrize("function", ["reconstruction_loss", "elbo_loss", "elbo_terms"])
@pytest.mark.parametrize("name", [*WITH_PARAMETERS, "poisson"])
def test_refusals(functions: ModuleType, function: str, name: str, device: str) -> None:
    given = call(name, (4, 6), device=device)
    legal = {parameter: x for (parameter, _), x in zip(ENTRIES[name].parameters, given.parameters, strict=True)}
    cases = refusals(name, device)
    assert len(cases) >= 9
    for changed, error, words in cases:
        likelihood = ENTRIES[name].make(**legal | changed)
        with pytest.raises(Exception, match=f"^{function}: {re.escape(words)}$") as caught:
            getattr(functions, function)(given.recon, given.target, likelihood=likelihood)
        assert type(caught.value) is error


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_a_name_with_parameters_is_refused_as_a_string(functions: ModuleType, name: str, device: str) -> None:
    given = call(name, (4, 6), device=device)
    parameters = ", ".join(parameter for parameter, _ in ENTRIES[name].parameters)
    words = f'`likelihood` "{name}" has parameters ({parameters}), so it must be given as an object'
    with pytest.raises(ValueError, match=re.escape(words)):
        functions.elbo_loss(given.recon, given.target, likelihood=name)


@pytest.mark.parametrize("name", NAMES)
def test_pos_weight_is_refused(functions: ModuleType, name: str, device: str) -> None:
    given = call(name, (4, 6), device=device)
    words = f'^elbo_loss: `pos_weight` must come with likelihood="bernoulli_logits", but likelihood is "{name}"$'
    with pytest.raises(ValueError, match=words):
        functions.elbo_loss(given.recon, given.target, likelihood=given.likelihood, pos_weight=2.0)


@pytest.mark.usefixtures("kernels")
def test_operators_refuse_what_python_would_not_send(device: str) -> None:
    two = call(NAMES[4], (4, 6), library=True, device=device)
    first, second = two.parameters

    def elbo(name: str, parameters: Sequence[Any], library: Tensor | None = None) -> Any:
        own = (CODES.index(name), parameters, library)
        return torch.ops.pyvae.elbo(two.recon, two.target, None, None, 0, None, *own, 1.0, None, None, None, 1)

    number = "the likelihood has another number of parameters"
    for own in ((), (first,), (None, second), (first, None), (first, second, None), (first,) * 3, (first,) * 9):
        with pytest.raises(ValueError, match=number):
            elbo(two.name, own, two.log_library)
    for own in ((), (None,), (first, second)):
        with pytest.raises(ValueError, match=number):
            elbo("negative_binomial", own, two.log_library)
    for plain in ("gaussian", "poisson"):
        with pytest.raises(ValueError, match=number):
            elbo(plain, (first,))
    for takes_none in ("gaussian", "multinomial"):
        with pytest.raises(ValueError, match="takes no log_library"):
            elbo(takes_none, (), two.log_library)
    given, upstream = call("poisson", (4, 6), device=device), torch.ones(4, device=device)
    for mask in (2, 4, 8, 3, 16, -1):
        with pytest.raises(ValueError, match="output_mask has"):
            torch.ops.pyvae.elbo_forward(*operands(given), mask)
        with pytest.raises(ValueError, match="output_mask has"):
            torch.ops.pyvae.elbo_gradient(*data_term(given), upstream, mask)
