"""logvar_range: one-sided, numbers that change under a compiler, packaged; with a prior in the whole objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from cases import all_equal, leaf, posterior, prior
from families import SCALES
from tolerances import FLOAT32_ROUNDING
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import grad, gradcheck, gradgradcheck

import pyvae

pytestmark = pytest.mark.torch_sensitive("numbers that stay symbolic, torch.export")

SIDES = ((None, 0.25), (-0.5, None), (-0.5, 0.25), (None, None))


def sides(logvar: Tensor, low: float | None, high: float | None) -> Tensor:
    """The clamp by hand, with a derivative of 1 at the ends."""
    out = logvar
    if high is not None:
        out = torch.where(out > high, torch.full_like(out, high), out)
    return out if low is None else torch.where(out < low, torch.full_like(out, low), out)


# ---- one-sided -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bounds", SIDES, ids=str)
def test_either_side_may_be_none(
    bounds: tuple[float | None, float | None], dtype: torch.dtype, device: str, backend: str
) -> None:
    mu, logvar = posterior("logvar", (5, 19), dtype, device=device)
    results = []
    for inside in (True, False):
        m, s = leaf(mu), leaf(logvar)
        scale, options = (s, {"logvar_range": bounds}) if inside else (sides(s, *bounds), {})
        z, kl = pyvae.reparameterize_kl(m, scale, seed=2, **options)
        alone = pyvae.kl_divergence(m, scale, reduction="elements", **options)
        sample = pyvae.reparameterize(m, scale, seed=2, **options)
        assert torch.equal(z, sample)
        results.append((z, kl, alone, *grad((z.sum() + kl.sum()), (m, s))))
    assert all_equal(*results)


def test_derivatives_of_one_side(backend: str) -> None:
    """gradcheck, and second derivatives, which go through the reference with bounds that are scalars."""
    mu, logvar = (x.requires_grad_() for x in posterior("logvar", (3, 4), torch.float64))
    for bounds in SIDES:
        assert gradcheck(lambda m, s, b=bounds: pyvae.reparameterize_kl(m, s, logvar_range=b, seed=1), (mu, logvar))
        assert gradgradcheck(lambda m, s, b=bounds: pyvae.kl_divergence(m, s, logvar_range=b), (mu, logvar))


def test_a_range_belongs_to_a_logvar_and_a_nan_has_no_slope(functions: ModuleType) -> None:
    mu, std = posterior("std", (2, 3))
    for call in (functions.kl_divergence, functions.reparameterize):
        with pytest.raises(ValueError, match=r"`logvar_range` must come with `logvar`, but came with `std`"):
            call(mu, std=std, logvar_range=(None, None))
    logvar = torch.tensor([[math.nan, 0.0, 9.0]], requires_grad=True)
    kl = functions.kl_divergence(torch.zeros(1, 3), logvar, logvar_range=(None, 1.0))
    assert kl.isnan()
    assert grad(kl, logvar)[0].tolist() == [[0.0, 0.0, 0.0]]


# ---- numbers that change, compiled -----------------------------------------------------------------------------------

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "reparameterize": lambda m, s, **options: pyvae.reparameterize(m, s, seed=1, **options),
    "reparameterize_kl": lambda m, s, **options: pyvae.reparameterize_kl(m, s, seed=1, **options)[1],
    "kl_divergence": lambda m, s, **options: pyvae.kl_divergence(m, s, **options),
    "elbo_loss": lambda m, s, **options: pyvae.elbo_loss(m, m, m, s, likelihood="gaussian", **options),
}


CHANGING: dict[str, Callable[[float], dict[str, Any]]] = {
    "logvar_range": lambda number: {"logvar_range": (-30.0, number)},
    "prior's mean": lambda number: {"prior": (number, 0.5)},
    "prior's scale": lambda number: {"prior": (0.5, number)},
}
CASES = [
    (name, which) for which in CHANGING for name in FUNCTIONS if which == "logvar_range" or name != "reparameterize"
]


@pytest.mark.parametrize(("name", "which"), CASES, ids=str)
def test_a_number_that_changes_makes_no_graph_for_each(name: str, which: str, backend: str) -> None:
    """At most two for four values: of a constant at first, then of any number."""
    torch.compiler.reset()
    dynamic = True if backend == "reference" else None
    function, options = FUNCTIONS[name], CHANGING[which]
    counter = CompileCounterWithBackend("aot_eager")  # which, unlike "eager", makes constants of what is not symbolic
    compiled = torch.compile(
        lambda m, s, number: function(m, s, **options(number)), fullgraph=True, dynamic=dynamic, backend=counter
    )
    mu, logvar = posterior("logvar", (3, 4))
    for i in range(4):
        number = 0.25 + i / 16
        assert torch.equal(compiled(mu, logvar, number), function(mu, logvar, **options(number)))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled_gradients(compiler: str) -> None:
    torch.compiler.reset()
    mu, logvar = (x.requires_grad_() for x in posterior("logvar", (3, 4)))

    def step(m: Tensor, s: Tensor, top: float) -> Tensor:
        z, kl = pyvae.reparameterize_kl(m, s, seed=1, logvar_range=(None, top), prior=(0.5, -0.5))
        return z.square().sum() + kl.sum()

    compiled = torch.compile(step, backend=compiler, fullgraph=True)
    for top in (0.5, 0.0, -0.5):
        eager, traced = (grad(f(mu, logvar, top), (mu, logvar)) for f in (step, compiled))
        assert all_equal(eager, traced)


def test_a_sampler_in_an_aot_package(tmp_path: Path) -> None:
    options = {"logvar_range": (-1.0, None)}

    class Sampler(torch.nn.Module):
        def forward(self, mu: Tensor, logvar: Tensor) -> Any:
            return pyvae.reparameterize_kl(mu, logvar, seed=5, **options)

    given = posterior("logvar", (4, 3))
    with torch.no_grad():
        exported = torch.export.export(Sampler(), given)
        path = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "sampler.pt2"))
        assert all_equal(torch._inductor.aoti_load_package(path)(*given), Sampler()(*given))


# ---- a range and a prior of the whole objective ----------------------------------------------------------------------

OPTIONS = [
    *(({"logvar_range": bounds}, "logvar") for bounds in SIDES[:3]),
    *(({"prior": True}, kind) for kind in SCALES),
    ({"prior": True, "logvar_range": (-0.5, None)}, "logvar"),
]


@pytest.mark.parametrize(("options", "kind"), OPTIONS, ids=str)
@pytest.mark.parametrize("reduction", ["none", "sum", "batchmean"])
def test_the_objective_takes_what_the_kl_takes(
    options: dict[str, Any], kind: str, reduction: str, device: str, functions: ModuleType
) -> None:
    """As the KL handed over: values, terms, and the gradients of posterior and prior."""
    x = torch.rand(5, 7, device=device)
    tensors = [torch.randn(5, 7, device=device), *posterior(kind, (5, 19), device=device)]
    tensors += prior(kind, (19,), device=device)
    results = []
    for whole in (True, False):
        recon, mu, scale, mean, spread = given = [leaf(t) for t in tensors]
        chosen = options | ({"prior": (mean, spread)} if "prior" in options else {})
        settings = {"likelihood": "gaussian", "beta": 0.5, "reduction": reduction}
        if whole:
            terms = functions.elbo_terms(recon, x, mu, **{kind: scale}, **chosen, **settings)
            loss = functions.elbo_loss(recon, x, mu, **{kind: scale}, **chosen, **settings)
        else:
            kl = functions.kl_divergence(mu, **{kind: scale}, **chosen)
            terms = functions.elbo_terms(recon, x, kl=kl, **settings)
            loss = functions.elbo_loss(recon, x, kl=kl, **settings)
        used = given if "prior" in options else given[:3]
        results.append((*terms, loss, *grad(loss.sum(), used)))
    for whole, apart in zip(*results, strict=True):
        torch.testing.assert_close(whole, apart, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)


@pytest.mark.parametrize("function", ["elbo_loss", "elbo_terms"])
def test_a_clamp_in_sampler_and_loss_is_one(function: str, functions: ModuleType) -> None:
    x, mu, logvar = torch.zeros(1, 1), torch.zeros(1, 2), torch.full((1, 2), -50.0)
    out = getattr(functions, function)(x, x, mu, logvar, likelihood="gaussian", logvar_range=(-30, 20))
    assert (out if function == "elbo_loss" else out.loss).item() == pytest.approx(29.0)
    out = getattr(functions, function)(x, x, mu, mu, likelihood="gaussian", prior=(1.0, 0.0))
    assert (out if function == "elbo_loss" else out.loss).item() == pytest.approx(1.0)


def test_the_module(backend: str) -> None:
    criterion = pyvae.ELBOLoss(likelihood="gaussian", logvar_range=(-30, None))
    x, mu, logvar = torch.zeros(1, 1), torch.zeros(1, 2), torch.full((1, 2), -50.0)
    assert criterion(x, x, mu, logvar).item() == pytest.approx(29.0)
    assert criterion.terms(x, x, mu, logvar, prior=(1.0, 0.0)).kl.item() == pytest.approx(30.0)
    assert criterion(x, x).item() == 0
    assert "logvar_range=(-30, None)" in repr(criterion)
    with pytest.raises(
        ValueError, match=r"^elbo_loss: `kl` must be given without a posterior, but came with `logvar_range`"
    ):
        criterion(x, x, kl=torch.zeros(1))
    for wrong, error in (((1, 0), ValueError), (3, TypeError), ((math.nan, 1), ValueError)):
        with pytest.raises(error, match=r"^ELBOLoss: `logvar_range` must"):
            pyvae.ELBOLoss(likelihood="gaussian", logvar_range=wrong)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_the_compiled_objective(compiler: str) -> None:
    torch.compiler.reset()
    x = torch.rand(3, 5)
    given = [leaf(t) for t in (torch.randn(3, 5), *posterior("logvar", (3, 4)), *prior("logvar", (4,)))]

    def step(recon: Tensor, mu: Tensor, logvar: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        return pyvae.elbo_loss(
            recon, x, mu, logvar, likelihood="gaussian", prior=(mean, spread), logvar_range=(None, 0.5)
        )

    eager, traced = (
        (loss, *grad(loss, given)) for f in (step, torch.compile(step, backend=compiler, fullgraph=True))
        for loss in [f(*given)]
    )  # fmt: skip
    assert all_equal(eager, traced)


# ---- ends of the range -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_a_negative_std_is_refused_on_the_cpu(dtype: torch.dtype, functions: ModuleType) -> None:
    mu, good = torch.zeros(3, 5, dtype=dtype), torch.ones(3, 5, dtype=dtype)
    bad = good.clone()
    bad[2, 3] = -0.5
    words = r": `std` must hold standard deviations >= 0, but holds -0\.5"
    calls: dict[str, Callable[[], Any]] = {
        "reparameterize": lambda: functions.reparameterize(mu, std=bad, seed=1),
        "reparameterize_kl": lambda: functions.reparameterize_kl(mu, std=bad, eps=mu),
        "kl_divergence": lambda: functions.kl_divergence(mu, std=bad, reduction="elements"),
        "elbo_loss": lambda: functions.elbo_loss(mu, mu, mu, std=bad, likelihood="gaussian"),
        "elbo_terms": lambda: functions.elbo_terms(mu, mu, mu, std=bad, likelihood="gaussian", prior=(0.0, 1.0)),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"^{name}{words}"):
            call()
    with pytest.raises(ValueError, match=r"^kl_divergence: `prior\[1\]` must hold standard deviations >= 0"):
        functions.kl_divergence(mu, std=good, prior=(0.0, -1.0))
    zero = torch.zeros_like(good)
    zero[0, 0] = -0.0
    assert torch.equal(functions.reparameterize(mu + 1, std=zero, seed=1), mu + 1)
    bad[2, 3] = math.nan
    assert functions.kl_divergence(mu, std=bad).isnan().tolist() == [False, False, True]


def test_where_values_cannot_be_read_a_negative_std_is_nan() -> None:
    mu, std = torch.zeros(2, 3), torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    for call in (
        lambda s: pyvae.reference.reparameterize(mu, std=s, seed=1).sum(1),
        lambda s: pyvae.reference.kl_divergence(mu, std=s),
        lambda s: pyvae.reference.kl_divergence(mu, std=s, prior=(0.0, 2.0)),
        lambda s: pyvae.reference.kl_divergence(mu, std=torch.ones_like(s), prior=(0.0, s)),
    ):
        out, _ = torch.func.jvp(call, (std,), (torch.ones_like(std),))
        assert out.isnan().tolist() == [True, False]


@pytest.mark.parametrize("reduction", ["none", "sum", "batchmean"])
@pytest.mark.parametrize("likelihood", ["gaussian", pyvae.Poisson(), pyvae.Gaussian(torch.zeros(3))], ids=str)
@pytest.mark.parametrize("latent", ["none", "kl", "posterior", "prior"])
def test_an_empty_batch_is_the_same_in_both(latent: str, likelihood: Any, reduction: str, device: str) -> None:
    """The mean of no rows is NaN, in each term; a sum is 0."""
    x, mu = torch.zeros(0, 3, device=device), torch.zeros(0, 2, device=device)
    if isinstance(likelihood, pyvae.Gaussian):
        likelihood = pyvae.Gaussian(torch.zeros(3, device=device))
    options: dict[str, dict[str, Any]] = {
        "none": {},
        "kl": {"kl": torch.zeros(0, device=device)},
        "posterior": {"mu": mu, "logvar": mu},
        "prior": {"mu": mu, "logvar": mu, "prior": (0.0, 0.0)},
    }
    results = [
        module.elbo_terms(x, x, likelihood=likelihood, reduction=reduction, **options[latent])
        for module in (pyvae, pyvae.reference)
    ]
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
        assert got.shape == ((0,) if reduction == "none" else ())
        assert got.isnan().all() if reduction == "batchmean" else (got == 0).all()
