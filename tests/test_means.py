"""link="identity" and theta=: counts whose recon is the mean, and whose inverse dispersion comes as itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mpmath as mp
import pytest
import torch
from cases import leaf
from counts_truth import DIGITS, Number, negative_binomial, poisson, zero_inflated_negative_binomial
from families import family
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = pytest.mark.usefixtures("backend")
EXACT: dict[str, Callable[..., Any]] = {
    "poisson_mean": poisson,
    "negative_binomial_mean": negative_binomial,
    "zero_inflated_negative_binomial_mean": zero_inflated_negative_binomial,
}
MAKE: dict[str, Callable[..., Any]] = {
    "Poisson": lambda **given: pyvae.Poisson(**given),
    "NegativeBinomial": lambda **given: pyvae.NegativeBinomial(**{"log_theta": 0.5} | given),
    "ZeroInflatedNegativeBinomial": lambda **given: pyvae.ZeroInflatedNegativeBinomial(
        **{"log_theta": 0.5, "zi_logits": -1.0} | given
    ),
}
MEANS = (1e-8, 1e-4, 0.02, 1.0, 2.9999, 3.0, 3.7, 150.0, 500.0, 1e6, 1e8)
COUNTS = (0.0, 1.0, 3.0, 7.0, 150.0, 1e6)
THETAS = (1e-8, 1e-4, 0.01, 1.0, 8.0, 1e4, 1e8)


def elements(recon: Tensor, x: Tensor, likelihood: Any) -> Tensor:
    return pyvae.reconstruction_loss(recon, x, likelihood=likelihood, reduction="elements")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_against_many_digits(name: str, dtype: torch.dtype, backend: str, device: str) -> None:
    """Value and every derivative, by theta itself too, wherever they are above 1e-30."""
    logits = (-40.0, -1.0, 5.0)
    shape = (len(MEANS), len(COUNTS), len(THETAS), len(logits))
    axes = torch.meshgrid(*(torch.tensor(a, dtype=dtype) for a in (MEANS, COUNTS, THETAS, logits)), indexing="ij")
    mean, x, theta, rho = (a.reshape(-1, 1).clone() for a in axes)
    own = [theta, rho][: {"poisson_mean": 0, "negative_binomial_mean": 1}.get(name, 2)]
    leaves = [leaf(v.to(device)) for v in (mean, *own)]
    fields = dict(zip(("theta", "zi_logits"), leaves[1:], strict=False))
    like = type(family(name).make(*[1.0] * len(family(name).parameters)))(link="identity", **fields)
    value = elements(leaves[0], x.to(device), like)
    got = [value.detach(), *grad(value.sum(), leaves)]
    # The reference takes differences of lgammas, which are large where theta is, and autograd's slopes of them.
    bound = 1e-10 if dtype == torch.float64 and backend == "kernels" else 1e-5
    lost = 1e-37 if backend == "kernels" else 1e-14
    wrong = []
    with mp.workdps(DIGITS):
        for i in range(math.prod(shape)):
            at: list[Number] = [mp.mpf(float(v[i])) for v in (mean, x, *own)]
            logs = [mp.log(at[0]), at[1], *([mp.log(at[2])] if own else []), *at[3:]]
            (exact, unit), (by_log, mean_unit), *others = EXACT[name](*logs)
            wanted = [(exact, unit), (by_log / at[0], mean_unit / at[0])]
            if own:
                wanted += [(others[0][0] / at[2], others[0][1] / at[2]), *others[1:]]
            for k, (want, size) in enumerate(wanted):
                if abs(want) > 1e-30 and not abs(mp.mpf(float(got[k][i])) - want) <= bound * size + lost * (size + 1):
                    wrong.append((k, [float(v) for v in at], float(got[k][i]), mp.nstr(want, 9)))
    assert not wrong, (len(wrong), wrong[:5])


@pytest.mark.parametrize("name", MAKE)
def test_a_mean_of_0(name: str, device: str) -> None:
    """A count of 0 has a finite loss and slope there, and an infinite one is what eps prevents."""
    recon, x = leaf(torch.zeros(1, 3, device=device)), torch.tensor([[0.0, 2.0, 0.0]], device=device)
    value = elements(recon, x, MAKE[name](link="identity"))
    (slope,) = grad(value.sum(), recon)
    assert torch.isinf(value).tolist() == [[False, True, False]]
    assert torch.isinf(slope).tolist() == [[False, True, False]]
    if name != "ZeroInflatedNegativeBinomial":
        assert value[0, 0] == 0 and slope[0, 0] == 1
    kept = elements(recon, x, MAKE[name](link="identity", eps=1e-8))
    by_hand = elements(recon + 1e-8, x, MAKE[name](link="identity"))
    torch.testing.assert_close(kept, by_hand)
    assert kept.isfinite().all() and grad(kept.sum(), recon)[0].isfinite().all()
    below = elements(torch.tensor([[-1.0, -1.0]], device=device), x[:, :2], MAKE[name](link="identity"))
    assert below.isnan().all()


@pytest.mark.parametrize("name", MAKE)
def test_the_links_agree(name: str, device: str) -> None:
    recon, x = torch.randn(5, 40, device=device), torch.poisson(torch.ones(5, 40)).to(device)
    of_log, of_mean = leaf(recon), leaf(recon.exp())
    want = pyvae.elbo_loss(of_log, x, likelihood=MAKE[name]())
    got = pyvae.elbo_loss(of_mean, x, likelihood=MAKE[name](link="identity"))
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(grad(got, of_mean)[0] * of_mean, *grad(want, of_log), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in MAKE if name != "Poisson"])
def test_theta_is_as_its_log(name: str, device: str) -> None:
    """Of every shape, expanded or not; and refused by its own name."""
    recon, x = torch.randn(5, 40, device=device), torch.poisson(torch.ones(5, 40)).to(device)
    for shape in ((), (40,), (5, 1), (5, 40)):
        log_theta = leaf(torch.randn(shape, device=device))
        theta = leaf(log_theta.exp())
        want = pyvae.elbo_loss(recon, x, likelihood=MAKE[name](log_theta=log_theta))
        for given in (theta, theta.expand(5, 40)):
            got = pyvae.elbo_loss(recon, x, likelihood=MAKE[name](log_theta=None, theta=given))
            torch.testing.assert_close(got, want)
            torch.testing.assert_close(grad(got, theta)[0] * theta, *grad(want, log_theta, retain_graph=True))
    for wrong, words in ((torch.ones(3), r"broadcast to recon's shape \(5, 40\)"), (torch.ones(40).int(), "dtypes")):
        with pytest.raises((TypeError, ValueError), match=f"elbo_loss: `theta` must .*{words}"):
            pyvae.elbo_loss(recon, x, likelihood=MAKE[name](log_theta=None, theta=wrong.to(device)))
    for wrong in (torch.ones(40).expand(3, 40), torch.ones(1).expand(5, 41)):
        with pytest.raises(ValueError, match="elbo_loss: `theta` must broadcast to recon's shape"):
            pyvae.elbo_loss(recon, x, likelihood=MAKE[name](log_theta=None, theta=wrong.to(device)))
    number = pyvae.elbo_loss(recon, x, likelihood=MAKE[name](log_theta=None, theta=2.0))
    torch.testing.assert_close(number, pyvae.elbo_loss(recon, x, likelihood=MAKE[name](log_theta=math.log(2.0))))


@pytest.mark.parametrize("function", [pyvae.elbo_loss, pyvae.reference.elbo_loss])
@pytest.mark.parametrize("name", MAKE)
def test_what_does_not_go_together(name: str, function: Callable[..., Tensor]) -> None:
    x = torch.ones(2, 3)
    wrong: dict[str, dict[str, Any]] = {
        rf"`link` of {name} must be \"log\" or \"identity\", but is 'logit'": {"link": "logit"},
        rf"`eps` of {name} must come with link=\"identity\"": {"eps": 1e-8},
        rf"`eps` of {name} must be >= 0, but is -1.0": {"eps": -1.0, "link": "identity"},
        rf"`log_library` of {name} must come with link=\"log\"": {"link": "identity", "log_library": torch.zeros(2)},
    }
    if name != "Poisson":
        wrong[f"`theta` of {name} must come without `log_theta`, but both came"] = {"theta": 1.0}
        wrong[f"`theta` of {name} must be a Tensor or a number > 0, but is -2.0"] = {"theta": -2.0, "log_theta": None}
    for words, given in wrong.items():
        with pytest.raises(ValueError, match=words):
            function(x, x, likelihood=MAKE[name](**given))
    for part in {"NegativeBinomial": ["log_theta"], "ZeroInflatedNegativeBinomial": ["log_theta", "zi_logits"]}.get(
        name, []
    ):
        with pytest.raises(TypeError, match=f"`{part}` must be a Tensor or a number, but is None"):
            function(x, x, likelihood=MAKE[name](**{part: None}))


def test_settings_are_seen_and_kept() -> None:
    like = pyvae.NegativeBinomial(theta=2.0, link="identity", eps=1e-8)
    assert repr(like) == "NegativeBinomial(theta=2.0, eps=1e-08, link='identity')"
    assert repr(replace(like, theta=3.0)) == "NegativeBinomial(theta=3.0, eps=1e-08, link='identity')"
    assert repr(pyvae.NegativeBinomial(0.5)) == "NegativeBinomial(log_theta=0.5)"
