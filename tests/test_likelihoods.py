"""Every likelihood's losses and gradients against closed forms: shapes, dtypes, layouts, weights, special data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from calls import call
from cases import DENSE_LAYOUTS, LAYOUTS, MIXED_DTYPES, REDUCTIONS, SHAPES, generator, leaf
from families import COUNTS, OTHERS, PLAIN, WAYS, WITH_LIBRARY, WITH_PARAMETERS, WITH_SOFTMAX, family
from tolerances import IN_UNITS, REFERENCE_COUNTS
from torch import Tensor

import pyvae

pytestmark = pytest.mark.usefixtures("backend")
EACH_WAY = pytest.mark.parametrize(("name", "library"), WAYS)
UPSTREAM = torch.tensor([1.0, 3.0, -0.7, 0.0, 2.5])
Check = Callable[..., tuple[Tensor, ...]]
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


# ---- shapes ----------------------------------------------------------------------------------------------------------


# Of very many numbers some lie in the far tails of counts, which are test_counts_hard.py's.
FEW = [*(shape for shape in SHAPES if math.prod(shape) < 50_000), (0, 0), (3, 2, 0)]
SHAPED = [
    *((name, library, shape, 1) for shape in FEW for name, library in WAYS),
    *((name, False, shape, 1) for shape in SHAPES if shape not in FEW for name in PLAIN),
    *((name, library, (3, 20_000), 0) for name, library in WAYS if name in OTHERS),
]


@pytest.mark.parametrize(("name", "library", "shape", "seed"), SHAPED, ids=str)
def test_every_shape(
    name: str, library: bool, shape: tuple[int, ...], seed: int, device: str, backend: str, check: Check
) -> None:
    slack = math.exp(5) * REFERENCE_COUNTS if backend == "reference" else 0.0  # its terms are as large as theta
    forms = (None, ()) if family(name).parameters else (None,)
    for dtype, form in itertools.product((F32, BF16), forms):
        given = call(name, shape, form, (dtype, F32, F32), library, seed, device)
        for reduction in ("none", "sum"):
            check(given, reduction=reduction, slack=slack, dtype=dtype, form=form)


@pytest.mark.parametrize(("name", "library"), [way for way in WAYS if way[0] in OTHERS])
@pytest.mark.parametrize("batch", [1, 3, 33, 129, 700])
def test_sums_of_gradients_over_every_batch(name: str, library: bool, batch: int, device: str, check: Check) -> None:
    """Groups of rows for sums per column, and rests of them."""
    for shape, parameter_shape in itertools.product(((batch, 17), (batch,)), ((), None)):
        for reduction in REDUCTIONS:
            check(call(name, shape, parameter_shape, library=library, device=device), reduction=reduction, shape=shape)


FORMS = {
    (5, 37): [(), (1,), (37,), (1, 1), (1, 37), (5, 1), (5, 37)],
    (5, 3, 4, 6): [
        *((), (6,), (4, 6), (1, 6), (4, 1), (3, 1, 1), (3, 4, 6), (3, 1, 6), (1, 1, 1, 1)),
        *((1, 3, 1, 1), (5, 1, 1, 1), (5, 3, 1, 1), (5, 1, 4, 1), (5, 3, 4, 6)),
    ],
    (1, 600): [(), (600,), (1, 1), (1, 600)],
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_parameters_of_every_shape(name: str, reduction: str, device: str, check: Check) -> None:
    """Their gradients come back in it; each alone as well."""
    for shape, forms in FORMS.items():
        for form in forms:
            given = call(name, shape, form, library=True, device=device)
            upstream = UPSTREAM[: shape[0]] if reduction == "none" else torch.tensor(3.0)
            together = check(given, upstream.to(device), reduction, shape=shape, form=form)
            if reduction != "sum":
                continue
            wanted = given.leaves()
            together = torch.autograd.grad(wanted.elbo_loss(), wanted.parameters)
            for parameter, gradient in zip(wanted.parameters, together, strict=True):
                assert torch.equal(torch.autograd.grad(wanted.elbo_loss(), parameter)[0], gradient)


@pytest.mark.parametrize("name", [name for name in WITH_PARAMETERS if len(family(name).parameters) > 1])
def test_parameters_of_different_shapes(name: str, device: str, check: Check) -> None:
    """Any two shapes, of parameters that are neighbors."""
    for shape, forms in FORMS.items():
        for pair in itertools.product(forms, forms):
            calls = [call(name, shape, form, device=device) for form in pair]
            parameters = tuple(calls[i % 2].parameters[i] for i in range(len(calls[0].parameters)))
            check(replace(calls[0], parameters=parameters), forms=pair)


@pytest.mark.parametrize("name", WITH_LIBRARY)
def test_log_library_as_a_column(name: str, device: str, check: Check) -> None:
    given = call(name, (4, 33), library=True, device=device)
    assert given.log_library is not None
    check(replace(given, log_library=given.log_library[:, None]), UPSTREAM[:4].to(device))


# ---- dtypes, layouts, weights ----------------------------------------------------------------------------------------

OF_PARAMETERS = {(F32, BF16): F16, (F32, F64): F32, (F64, F16): BF16, (F16, torch.bool): BF16}
DTYPES = [
    *((*pair, OF_PARAMETERS.get(pair, pair[0] if pair[0] == pair[1] else F32)) for pair in MIXED_DTYPES),
    *((F64, F32, BF16), (F32, F32, F64), (F64, torch.int64, F64)),
]


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
@EACH_WAY
def test_every_dtype_and_reduction(
    name: str, library: bool, dtypes: tuple[torch.dtype, ...], device: str, check: Check
) -> None:
    """Of recon, target and parameters. A batch and upstream gradients by which products are not rounded."""
    forms = (None, (8, 67), (8, 1), ()) if family(name).parameters else (None,)
    for form, reduction in itertools.product(forms, REDUCTIONS):
        given = call(name, (8, 67), form, dtypes, library, seed=1, device=device)  # type: ignore[arg-type]
        upstream = torch.tensor([2.0, 1.0, -0.5, 0.0, 4.0, 1.0, 8.0, 1.0] if reduction == "none" else 2.0)
        check(given, upstream.to(device), reduction, form=form)


# The combinations of layouts matter to what reads two tensors at once: for each kind of likelihood.
LAID_OUT = (*((name, False) for name in PLAIN), ("gaussian_logvar", False), ("negative_binomial", True))


@pytest.mark.parametrize(("recon_layout", "target_layout"), list(itertools.product(LAYOUTS, LAYOUTS)))
def test_layouts_of_recon_and_target(
    recon_layout: str, target_layout: str, device: str, backend: str, check: Check
) -> None:
    """And the gradient of a dense recon has its strides."""
    for (name, library), pair in itertools.product(LAID_OUT, ((F32, F32), (BF16, F32), (F32, torch.uint8))):
        given = call(name, (3, 4, 5, 6), (6,), (*pair, F32), library, device=device)
        if recon_layout == "flattened":
            given = replace(given, parameters=tuple(x.expand(4, 5, 6).reshape(120) for x in given.parameters))
        recon, target = LAYOUTS[recon_layout](given.recon), LAYOUTS[target_layout](given.target)
        gradient, *_ = check(replace(given, recon=recon, target=target), name=name, pair=pair)
        if recon_layout in DENSE_LAYOUTS and backend == "kernels":
            assert gradient.stride() == recon.stride()


@pytest.mark.parametrize("layout", list(LAYOUTS))
@EACH_WAY
def test_layouts_of_parameters(name: str, library: bool, layout: str, device: str, check: Check) -> None:
    """And of long rows: of recon, of the target, of parameters, and of all of them."""
    way = LAYOUTS[layout]
    for which in ("recon", "target", "parameters", "all"):
        given = call(name, (3, 4, 5, 40), (3, 4, 5, 40), library=library, device=device)
        recon = way(given.recon) if which in ("recon", "all") and layout != "flattened" else given.recon
        target = way(given.target) if which in ("target", "all") else given.target
        parameters = given.parameters
        if which in ("parameters", "all") and layout != "flattened":
            parameters = tuple(map(way, parameters))
        check(replace(given, recon=recon, target=target, parameters=parameters), which=which)


@EACH_WAY
def test_flattened_recon_and_wider_rows(name: str, library: bool, device: str, check: Check) -> None:
    given = call(name, (3, 60), library=library, device=device)
    check(replace(given, target=given.target.reshape(3, 3, 4, 5)))
    wide = call(name, (3, 700), library=library, device=device)
    for x in ("recon", "target"):
        padded = getattr(wide, x).new_full((3, 709), math.nan)
        padded[:, 5:705] = getattr(wide, x)
        check(replace(wide, **{x: padded[:, 5:705]}), padded=x)


WEIGHTS = {
    "number": lambda draw: torch.tensor(0.75),
    "row": lambda draw: torch.rand(600, generator=draw) + 0.5,
    "full": lambda draw: torch.rand(5, 600, generator=draw) - 0.2,
    "mask": lambda draw: torch.rand(5, 600, generator=draw) < 0.5,
    "sample": lambda draw: torch.rand(5, 1, generator=draw).double(),
}


@pytest.mark.parametrize("weight", WEIGHTS)
@EACH_WAY
def test_weights(name: str, library: bool, weight: str, device: str, check: Check) -> None:
    for form in (None, (5, 1), (5, 600)) if family(name).parameters else (None,):
        given = call(name, (5, 600), form, library=library, device=device)
        check(replace(given, weight=WEIGHTS[weight](generator(4)).to(device)), UPSTREAM.to(device), form=form)


@pytest.mark.parametrize(
    "shape", [(), (6,), (5, 6), (3, 1, 1), (3, 5, 6), (4, 1, 1, 1), (1, 3, 5, 6), (4, 3, 5, 6)], ids=str
)
@EACH_WAY
def test_weight_and_pos_weight_broadcast(
    name: str, library: bool, shape: tuple[int, ...], device: str, check: Check
) -> None:
    given = call(name, (4, 3, 5, 6), library=library, device=device)
    numbers = torch.rand(shape).to(device) + 0.5
    weights: list[Tensor] = [numbers, numbers > 1, numbers.double(), numbers.bfloat16(), -numbers]
    for weight in weights:
        check(replace(given, weight=weight), dtype=weight.dtype)
        if family(name).takes_pos_weight:
            positive = weight if weight.dtype == torch.bool else weight.abs()
            check(replace(given, weight=weight, pos_weight=positive), dtype=weight.dtype)


# ---- refused and special data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COUNTS)
def test_negative_counts_are_refused(name: str, device: str) -> None:
    """On the CPU in words; on CUDA that sample's loss is NaN."""
    given = call(name, (3, 700), device=device)
    given.target[1, 650] = -2
    if device == "cpu":
        for function in ("reconstruction_loss", "elbo_loss", "elbo_terms"):
            words = f'^{function}: `target` must hold counts >= 0 for likelihood="{name}", but holds -2$'
            with pytest.raises(ValueError, match=words):
                getattr(pyvae, function)(given.recon, given.target, likelihood=given.likelihood)
    else:
        assert given.elbo_loss(reduction="none").isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("place", ["recon", "target", "parameters"])
@EACH_WAY
def test_nan_goes_to_its_sample_alone(name: str, library: bool, place: str, device: str) -> None:
    given = call(name, (3, 700), (3, 700), library=library, device=device)
    want = given.elbo_loss(reduction="none")
    for tensor in given.parameters if place == "parameters" else (getattr(given, place),):
        before = tensor[1, 650].clone()
        tensor[1, 650] = math.nan
        got = given.elbo_loss(reduction="none")
        assert torch.equal(got[::2], want[::2])
        assert got[1].isnan()
        assert given.elbo_loss().isnan()
        tensor[1, 650] = before


@pytest.mark.parametrize("name", WITH_SOFTMAX)
def test_infinite_scores_are_as_torchs_softmax(name: str, device: str) -> None:
    """-inf is a probability of 0, impossible where something is counted; inf and rows of -inf are NaN."""
    for value, everywhere in ((-math.inf, False), (math.inf, False), (-math.inf, True)):
        given = call(name, (3, 600), library=True, device=device)
        given.target[1, 550] = 0
        if everywhere:
            given.recon[1] = value
        else:
            given.recon[1, 550] = value
        defined = not torch.log_softmax(given.recon[1], 0).isnan().any()
        got = given.elbo_loss(reduction="none")
        assert got.isnan().tolist() == [False, not defined, False]
        if defined:
            keep = torch.arange(600, device=device) != 550
            rest = replace(given, recon=given.recon[:, keep], target=given.target[:, keep])
            rest = replace(rest, parameters=tuple(p[keep] for p in rest.parameters))
            torch.testing.assert_close(got[1], rest.elbo_loss(reduction="none")[1], rtol=IN_UNITS[F32], atol=0)
            given.target[1, 550] = 3
            assert given.elbo_loss(reduction="none")[1] == math.inf


def test_counts_need_not_be_integers(device: str, check: Check) -> None:
    for name in COUNTS:
        given = call(name, (5, 600), library=True, device=device)
        check(replace(given, target=(given.target * 0.37).to(device)))


def test_a_name_is_its_object(device: str) -> None:
    for name in ("poisson", "multinomial", "gaussian", "laplace"):
        recon, target = torch.randn(3, 40).to(device), torch.randint(0, 5, (3, 40)).to(device)
        objects = {"poisson": pyvae.Poisson, "multinomial": pyvae.Multinomial, "gaussian": pyvae.Gaussian}
        losses: list[Tensor] = []
        for likelihood in (name, objects.get(name, pyvae.Laplace)()):
            x = leaf(recon)
            loss = pyvae.elbo_loss(x, target, likelihood=likelihood)
            losses += [loss, *torch.autograd.grad(loss, x)]
        assert torch.equal(losses[0], losses[2])
        assert torch.equal(losses[1], losses[3])
