"""Values against float64 formulas, torch.distributions and torch's own losses. By shape, dtype and layout of the data:
test_likelihoods.py."""

from __future__ import annotations

import itertools

import pytest
import torch
import truth
from calls import assert_sided, call
from cases import DTYPES, LAYOUTS, REDUCTIONS, SHAPES, assert_relative, data, posterior, result_dtype
from families import LIKELIHOODS, PLAIN, SCALES, WAYS, cycled, family
from tolerances import FLOAT32_ROUNDING, GIVEN_NOISE_EPS, IN_UNITS, LOSS
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import pyvae

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.torch_sensitive("torch's own losses and torch.distributions, of every type and layout"),
]


def scalars(value: float, device: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """A 0-d tensor on the device, and on the CPU, which goes with every device."""
    return [torch.tensor(value, dtype=dtype, device=place) for place in dict.fromkeys((device, "cpu"))]


# ---- every scale x dtype x reduction, with every likelihood ----------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_kl_divergence(scale: str, dtype: torch.dtype, device: str) -> None:
    mu, s = posterior(scale, (6, 3, 11), dtype, device=device)
    for reduction in REDUCTIONS:
        got = pyvae.kl_divergence(mu, **{scale: s}, reduction=reduction)
        assert got.dtype == result_dtype(mu)
        assert_relative(got, truth.kl_divergence(scale, mu, s, reduction), LOSS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("name", "library"), WAYS)
def test_objective(name: str, library: bool, scale: str, dtype: torch.dtype, device: str) -> None:
    """elbo_terms and elbo_loss, the KL from the posterior or given, beta as a number and as tensors."""
    given = call(name, (7, 33), None, (dtype,) * 3, library, device=device)
    mu, s = posterior(scale, (7, 5), dtype, device=device)
    kl, exact_kl = pyvae.kl_divergence(mu, **{scale: s}), truth.kl_divergence(scale, mu, s)
    betas = (1, 0.7, 0, *scalars(0.7, device), *scalars(2.5, device, torch.float64))
    bound, exactly = LOSS if name in PLAIN else IN_UNITS, (*given.truth().loss, exact_kl)
    for reduction, beta in itertools.product(REDUCTIONS, betas):
        value, unit, divergence = (truth.reduce(x, reduction) for x in exactly)
        weighted = truth.exact(beta) * divergence
        context = {"reduction": reduction, "beta": beta}
        for source in ({"mu": mu, scale: s}, {"kl": kl}):
            options = {"likelihood": given.likelihood, "beta": beta, "reduction": reduction} | source
            got = pyvae.elbo_terms(given.recon, given.target, **options)
            assert {x.dtype for x in got} == {result_dtype(given.recon)}
            assert_sided(got.recon, (value, unit), bound, **context)
            assert_relative(got.kl, divergence, LOSS, **context)
            assert_sided(got.loss, (value + weighted, unit + weighted), bound, **context)
            assert torch.equal(pyvae.elbo_loss(given.recon, given.target, **options), got.loss)


@pytest.mark.parametrize(("name", "library"), WAYS)
def test_objective_without_kl_is_the_reconstruction(name: str, library: bool, device: str) -> None:
    given = call(name, (4, 9), library=library, device=device)
    for reduction in REDUCTIONS:
        options = {"likelihood": given.likelihood, "reduction": reduction}
        terms = pyvae.elbo_terms(given.recon, given.target, beta=3.0, **options)
        want = pyvae.reconstruction_loss(given.recon, given.target, **options)
        assert torch.equal(terms.loss, want)
        assert torch.equal(terms.recon, want)
        assert torch.equal(terms.kl, torch.zeros_like(want))
        assert torch.equal(given.elbo_loss(reduction=reduction), want)


def test_mu_and_scale_of_different_dtypes(device: str) -> None:
    for first, second in itertools.permutations(DTYPES, 2):
        mu, logvar = posterior("logvar", (3, 7), first, device=device)[0], posterior("logvar", (3, 7), second)[1]
        got = pyvae.kl_divergence(mu, logvar.to(device))
        assert got.dtype == result_dtype(mu, logvar)
        assert_relative(got, truth.kl_divergence("logvar", mu, logvar), LOSS)


def test_a_wider_kl_widens_the_loss(device: str) -> None:
    """float64 if an input is; the reconstruction term by itself stays that of recon and target."""
    recon, target = data("gaussian", (4, 9), device=device)
    mu, logvar = posterior("logvar", (4, 3), torch.float64, device=device)
    for source in ({"mu": mu, "logvar": logvar}, {"kl": pyvae.kl_divergence(mu, logvar)}):
        terms = pyvae.elbo_terms(recon, target, **source, likelihood="gaussian")
        assert [term.dtype for term in terms] == [torch.float64, torch.float32, torch.float64]


def test_lazily_negated_inputs(device: str) -> None:
    """Tensors whose sign is not in the memory yet, as the imaginary part of a conjugate is."""
    recon, target = data("bernoulli_logits", (4, 9), device=device)
    mu, logvar = posterior("logvar", (4, 9), device=device)
    negated = [torch._neg_view(-x) for x in (recon, target, mu, logvar, torch.ones(9, device=device))]
    got = pyvae.elbo_loss(*negated[:4], weight=negated[4], likelihood="bernoulli_logits", beta=negated[4][0])
    assert torch.equal(got, pyvae.elbo_loss(recon, target, mu, logvar, likelihood="bernoulli_logits"))
    assert torch.equal(pyvae.reparameterize(*negated[2:4], seed=1), pyvae.reparameterize(mu, logvar, seed=1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_reparameterize_with_given_noise(scale: str, dtype: torch.dtype, device: str) -> None:
    """z = mu + sigma eps, one rounding of z's dtype away from float64; and the KL that comes with it."""
    mu, s = posterior(scale, (6, 19), dtype, device=device)
    eps = torch.randn(6, 19, dtype=torch.float64).to(device, dtype)
    z, kl = pyvae.reparameterize_kl(mu, **{scale: s}, eps=eps)
    want = truth.exact(mu) + truth.std(scale, s) * truth.exact(eps)
    size = truth.exact(mu).abs() + (want - truth.exact(mu)).abs()
    assert z.dtype == dtype
    assert ((truth.exact(z) - want).abs() <= GIVEN_NOISE_EPS * torch.finfo(dtype).eps * size).all()
    assert torch.equal(z, pyvae.reparameterize(mu, **{scale: s}, eps=eps))
    assert_relative(kl, truth.kl_divergence(scale, mu, s), LOSS)


# ---- shapes and layouts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape: tuple[int, ...], device: str) -> None:
    for likelihood, scale in cycled(PLAIN, SCALES):
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            recon, target = data(likelihood, shape, (dtype, dtype), device=device)
            mu, s = posterior(scale, shape, dtype, device=device)
            kl = truth.kl_divergence(scale, mu, s)
            for reduction in ("none", "sum"):
                want = truth.objective(likelihood, recon, target, kl, reduction=reduction)
                _, unit = truth.sided(likelihood, recon, target, reduction=reduction)
                got = pyvae.elbo_terms(recon, target, mu, **{scale: s}, likelihood=likelihood, reduction=reduction)
                for value, expected, size in zip(got, want, (unit + want.kl, unit, want.kl), strict=True):
                    context = {"likelihood": likelihood, "dtype": dtype, "reduction": reduction}
                    assert_sided(value, (expected, size), LOSS, **context)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "flattened"])
@pytest.mark.parametrize("scale", SCALES)
def test_layouts_of_the_posterior(layout: str, scale: str, device: str, backend: str) -> None:
    """The noise stays where it is; torch sums in an order that depends on the strides."""
    orders = ("contiguous", layout), (layout, "contiguous"), (layout, layout)
    for dtype, (first, second) in itertools.product((torch.float32, torch.bfloat16, torch.float64), orders):
        mu, s = posterior(scale, (3, 4, 5, 6), dtype, device=device)
        mu, s = LAYOUTS[first](mu), LAYOUTS[second](s)
        assert_relative(pyvae.kl_divergence(mu, **{scale: s}), truth.kl_divergence(scale, mu, s), LOSS)
        z, kl = pyvae.reparameterize_kl(mu, **{scale: s}, seed=5)
        plain, plain_kl = pyvae.reparameterize_kl(mu.contiguous(), **{scale: s.contiguous()}, seed=5)
        assert torch.equal(z, plain)
        assert_relative(kl, truth.exact(plain_kl), LOSS)
        assert torch.equal(kl, plain_kl) or backend == "reference"


@pytest.mark.parametrize("dtype", (torch.bool, torch.bfloat16, torch.float32, torch.float64), ids=str)
def test_weights_of_one_number(dtype: torch.dtype, device: str) -> None:
    recon, target = data("bernoulli_logits", (4, 3, 5, 6), device=device)
    for weight, pos_weight in itertools.product([None, *scalars(0.5, device, dtype)], scalars(2.5, device, dtype)):
        got = pyvae.elbo_loss(recon, target, likelihood="bernoulli_logits", weight=weight, pos_weight=pos_weight)
        factor = 1.0 if weight is None else weight
        want = truth.reconstruction("bernoulli_logits", recon, target, factor, pos_weight, reduction="sum")
        assert_relative(got, want, LOSS)


def test_weight_of_a_flattened_recon(device: str) -> None:
    """The weight follows recon's shape, whatever the target's."""
    recon, target = data("bernoulli_logits", (4, 3, 5, 6), device=device)
    weight = torch.rand(90).to(device)
    for pos_weight in (3.0, 2, weight, *scalars(3.0, device)):
        options = {"likelihood": "bernoulli_logits", "weight": weight, "pos_weight": pos_weight}
        got = pyvae.reconstruction_loss(recon.flatten(1), target, **options)
        want = truth.reconstruction("bernoulli_logits", recon.flatten(1), target, weight, pos_weight)
        assert_relative(got, want, LOSS)


# ---- against torch ---------------------------------------------------------------------------------------------------


def test_textbook_loss_function(device: str) -> None:
    """BCELoss(reduction="sum") + KL, the loss_function(recon_x, x, mu, logvar) that VAE scripts share."""
    recon, target = data("bernoulli", (128, 1, 28, 28), device=device)
    mu, logvar = posterior("logvar", (128, 20), device=device)
    textbook = torch.nn.BCELoss(reduction="sum")(recon.view(-1, 784), target.view(-1, 784))
    textbook = textbook - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    got = pyvae.elbo_loss(recon.view(-1, 784), target, mu, logvar)
    torch.testing.assert_close(got, textbook, rtol=FLOAT32_ROUNDING, atol=0)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_losses_of_torch(name: str, device: str) -> None:
    given = call(name, (6, 40), None, (torch.float64,) * 3, device=device)
    recon, target, *own = (x.cpu() for x in (given.recon, given.target, *given.parameters))
    recon = torch.log_softmax(recon, 1) if given.has_softmax else recon
    want = family(name).torch(recon, target, *own).sum(1)
    bound = LOSS if name in PLAIN else IN_UNITS
    assert_sided(given.elbo_loss(reduction="none"), (want, given.truth().loss[1]), bound)


@pytest.mark.parametrize("scale", SCALES)
def test_kl_of_torch_distributions(scale: str, device: str) -> None:
    mu, s = posterior(scale, (6, 40), torch.float64, device=device)
    want = kl_divergence(Normal(mu.cpu(), truth.std(scale, s)), Normal(0.0, 1.0)).sum(1)
    assert_relative(pyvae.kl_divergence(mu, **{scale: s}), want, LOSS)
