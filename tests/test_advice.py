"""What some refusals advise, in their words, and that the advice holds."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from cases import data, posterior
from refusal import OBJECTIVES

import pyvae

SQUARED = (
    '"gaussian", half the squared error, summed over the features: `weight=2` makes it the squared error, and '
    '`weight=2 / features` with `reduction="batchmean"` the mean of `F.mse_loss`'
)
BINARY = 'with `reduction="sum"`: `weight=1 / features` with `reduction="batchmean"` makes it the mean'
MEANT = {
    "mse": SQUARED,
    "l2": SQUARED,
    "l1": '"laplace", the absolute error, summed over the features: `weight=1 / features` with `reduction="batchmean"` '
    "makes it the mean of `F.l1_loss`",
    "bce": f'"bernoulli" for probabilities, as `F.binary_cross_entropy` {BINARY}',
    "bce_with_logits": f'"bernoulli_logits", as `F.binary_cross_entropy_with_logits` {BINARY}',
    "normal": '"gaussian" for unit variance, without the constant 1/2 log(2 pi), or else `pyvae.Gaussian(logvar)`',
    "nb": "`pyvae.NegativeBinomial(log_theta)`, which takes log means and log theta, and sums over the features",
    "zinb": "`pyvae.ZeroInflatedNegativeBinomial(log_theta, zi_logits)`, which takes log means, log theta and a zero's "
    "logits, and sums over the features",
}


@pytest.mark.parametrize("name", MEANT)
@pytest.mark.parametrize("function", [*OBJECTIVES, "ELBOLoss"])
def test_the_names_of_others(functions: ModuleType, function: str, name: str) -> None:
    words = f'{function}: `likelihood` must be one of pyvae\'s own, but is "{name}"; that is {MEANT[name]}'
    with pytest.raises(ValueError) as caught:
        if function == "ELBOLoss":
            pyvae.ELBOLoss(likelihood=name)
        else:
            getattr(functions, function)(torch.rand(4, 6), torch.ones(4, 6), likelihood=name)
    assert str(caught.value) == words


def test_scaled_as_the_words_say(functions: ModuleType, device: str) -> None:
    """What the refusals of other libraries' names advise."""
    recon, target = (x.to(device) for x in data("bernoulli", (4, 6)))
    logits = torch.logit(recon)
    means = {
        "gaussian": (2, F.mse_loss(recon, target)),
        "laplace": (1, F.l1_loss(recon, target)),
        "bernoulli": (1, F.binary_cross_entropy(recon, target)),
        "bernoulli_logits": (1, F.binary_cross_entropy_with_logits(logits, target)),
    }
    for likelihood, (factor, want) in means.items():
        given = logits if likelihood == "bernoulli_logits" else recon
        options = {"likelihood": likelihood, "reduction": "batchmean", "weight": factor / 6}
        torch.testing.assert_close(functions.elbo_loss(given, target, **options), want)
    squares = functions.elbo_loss(recon, target, likelihood="gaussian", weight=2)
    torch.testing.assert_close(squares, F.mse_loss(recon, target, reduction="sum"))


def test_several_samples_as_the_words_say(functions: ModuleType, device: str) -> None:
    """Their KL, apart and expanded, counts once for each of them."""
    mu, logvar = posterior("logvar", (4, 3), device=device)
    recon, target = (x.to(device) for x in data("bernoulli", (8, 6)))
    kl = functions.kl_divergence(mu, logvar)
    loss = functions.elbo_loss(recon, target, kl=kl.expand(2, 4).flatten())
    torch.testing.assert_close(loss, functions.elbo_loss(recon, target) + 2 * kl.sum())
