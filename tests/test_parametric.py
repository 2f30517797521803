"""Likelihoods with parameters, of counts, and through a softmax: values and gradients against closed forms."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from cases import INTEGERS, LAYOUTS, REDUCTIONS, generator, leaf, posterior
from parametric import COUNTS, ENTRIES, NAMES, WITH_LIBRARY, WITH_PARAMETERS
from parametric_calls import assert_sided, call, check
from tolerances import BY_ROWS, REFERENCE_COUNTS
from torch import Tensor

import pyvae

pytestmark = pytest.mark.usefixtures("backend")
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
WAYS = [(name, library) for name in NAMES for library in (False, True) if not library or name in WITH_LIBRARY]
EACH_WAY = pytest.mark.parametrize(("name", "library"), WAYS)
UPSTREAM = torch.tensor([1.0, 3.0, -0.7, 0.0, 2.5])


# ---- shapes ----------------------------------------------------------------------------------------------------------


@EACH_WAY
@pytest.mark.parametrize("features", [1, 7, 511, 512, 513, 1030, 20_000])
def test_features(name: str, library: bool, features: int, device: str, backend: str) -> None:
    slack = math.exp(5) * REFERENCE_COUNTS if backend == "reference" else 0.0  # its terms are as large as theta
    for batch, reduction in ((3, "none"), (1, "sum")):
        given = call(name, (batch, features), library=library, device=device)
        check(given, reduction=reduction, slack=slack, batch=batch)


@EACH_WAY
@pytest.mark.parametrize("batch", [1, 3, 33, 129, 700])
def test_batches(name: str, library: bool, batch: int, device: str) -> None:
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
def test_parameters_of_every_shape(name: str, reduction: str, device: str) -> None:
    """Their gradients come back in it; each alone as well."""
    for shape, forms in FORMS.items():
        for form in forms:
            given = call(name, shape, form, library=True, device=device)
            upstream = UPSTREAM[: shape[0]] if reduction == "none" else torch.tensor(3.0)
            check(given, upstream.to(device), reduction, shape=shape, form=form)
            if reduction != "sum":
                continue
            wanted = given.leaves()
            together = torch.autograd.grad(wanted.elbo_loss(), wanted.parameters)
            for parameter, gradient in zip(wanted.parameters, together, strict=True):
                assert torch.equal(torch.autograd.grad(wanted.elbo_loss(), parameter)[0], gradient)


def test_two_parameters_of_different_shapes(device: str) -> None:
    for shape, forms in FORMS.items():
        for first, second in itertools.product(forms, forms):
            given, other = (
                call("zero_inflated_negative_binomial", shape, form, device=device) for form in (first, second)
            )
            check(replace(given, parameters=(given.parameters[0], other.parameters[1])), first=first, second=second)


@EACH_WAY
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0,), (0, 0), (3, 2, 0)], ids=str)
def test_empty(name: str, library: bool, shape: tuple[int, ...], device: str) -> None:
    for form, reduction in itertools.product((None, ()), ("none", "sum")):
        check(call(name, shape, form, library=library, device=device), reduction=reduction)


@pytest.mark.parametrize("name", WITH_LIBRARY)
def test_log_library_as_a_column(name: str, device: str) -> None:
    given = call(name, (4, 33), library=True, device=device)
    assert given.log_library is not None
    check(replace(given, log_library=given.log_library[:, None]), UPSTREAM[:4].to(device))


# ---- terms, KL and beta ----------------------------------------------------------------------------------------------


@EACH_WAY
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_objective(name: str, library: bool, reduction: str, device: str) -> None:
    """elbo_terms and their gradients, with the KL of a posterior, given, and without."""
    mu, logvar = (leaf(x) for x in posterior("logvar", (5, 4), device=device))
    kl = leaf(pyvae.kl_divergence(mu, logvar))
    given = call(name, (5, 70), library=library, device=device).leaves()
    sources, mean = given.differentiable, 1 / 5 if reduction == "batchmean" else 1.0
    want = given.truth(1.7 * mean)
    value, unit = want.loss
    expected = (value, unit) if reduction == "none" else (mean * value.sum(), mean * unit.sum())
    for source, beta in itertools.product(({"mu": mu, "logvar": logvar}, {"kl": kl}, {}), (0.5, torch.tensor(0.5))):
        options = {"likelihood": given.likelihood, "beta": beta, "reduction": reduction} | source
        terms = pyvae.elbo_terms(given.recon, given.target, **options)
        assert_sided(terms.recon, expected)
        whole = 0.0 if not source else kl.detach() if reduction == "none" else mean * kl.detach().sum()
        torch.testing.assert_close(terms.kl, torch.as_tensor(whole).to(terms.kl).expand(terms.kl.shape))
        torch.testing.assert_close(terms.loss, terms.recon + 0.5 * terms.kl)
        torch.testing.assert_close(pyvae.elbo_loss(given.recon, given.target, **options), terms.loss)
        upstream = [torch.full_like(x, factor) for x, factor in zip(terms, (1.0, 0.7, 2.0), strict=True)]
        others = list(source.values())
        outputs = terms if source else terms[:2]
        got = torch.autograd.grad(outputs, [*sources, *others], upstream[: len(outputs)])
        for gradient, sided in zip(got, want.gradients, strict=False):
            assert_sided(gradient, sided)
        slopes = {"kl": torch.ones(5), "mu": mu, "logvar": torch.expm1(logvar) / 2}
        for key, gradient in zip(source, got[len(sources) :], strict=True):  # 1/2 from the loss, 2 from the KL itself
            torch.testing.assert_close(gradient, 2.5 * mean * slopes[key].detach().to(gradient))
        alone = pyvae.reconstruction_loss(given.recon, given.target, likelihood=given.likelihood, reduction=reduction)
        assert torch.equal(
            alone, pyvae.elbo_loss(given.recon, given.target, **options | {"mu": None, "logvar": None, "kl": None})
        )


# ---- dtypes, layouts, weights ----------------------------------------------------------------------------------------

DTYPES = [
    *((x, x, x) for x in (F16, BF16, F32, F64)),
    *((BF16, F32, F32), (F16, F32, F32), (F32, BF16, F16), (F32, F64, F32), (F64, F32, BF16), (F32, F32, F64)),
    *((F32, x, F32) for x in INTEGERS),
    *((BF16, torch.uint8, F32), (F64, torch.int64, F64), (F16, torch.bool, BF16)),
]


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
@EACH_WAY
def test_dtypes(name: str, library: bool, dtypes: tuple[torch.dtype, ...], device: str) -> None:
    for form, reduction in itertools.product((None, (5, 70), (5, 1), ()), REDUCTIONS):
        given = call(name, (5, 70), form, dtypes, library, device=device)  # type: ignore[arg-type]
        upstream = UPSTREAM.abs() if reduction == "none" else torch.tensor(1.5)
        check(given, upstream.to(device), reduction, form=form)


@pytest.mark.parametrize("layout", list(LAYOUTS))
@EACH_WAY
def test_layouts(name: str, library: bool, layout: str, device: str) -> None:
    for which in ("recon", "target", "parameters", "all"):
        given = call(name, (3, 4, 5, 40), (3, 4, 5, 40), library=library, device=device)
        way = LAYOUTS[layout]
        recon = way(given.recon) if which in ("recon", "all") and layout != "flattened" else given.recon
        target = way(given.target) if which in ("target", "all") else given.target
        parameters = given.parameters
        if which in ("parameters", "all") and layout != "flattened":
            parameters = tuple(map(way, parameters))
        check(replace(given, recon=recon, target=target, parameters=parameters), which=which)


@EACH_WAY
def test_flattened_recon_and_wider_rows(name: str, library: bool, device: str) -> None:
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
def test_weights(name: str, library: bool, weight: str, device: str) -> None:
    for form in (None, (5, 1), (5, 600)):
        given = call(name, (5, 600), form, library=library, device=device)
        check(replace(given, weight=WEIGHTS[weight](generator(4)).to(device)), UPSTREAM.to(device), form=form)


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


@pytest.mark.parametrize("name", [name for name in COUNTS if ENTRIES[name].softmax != "never"])
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
            torch.testing.assert_close(got[1], rest.elbo_loss(reduction="none")[1], rtol=BY_ROWS[F32], atol=0)
            given.target[1, 550] = 3
            assert given.elbo_loss(reduction="none")[1] == math.inf


def test_counts_need_not_be_integers(device: str) -> None:
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
