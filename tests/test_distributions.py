"""pyvae.distributions: values and gradients are those of torch in float64; shapes, samples, warnings; others' use."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributions as torch_distributions
from cases import assert_whole, leaf
from torch import Tensor
from torch.autograd import grad

import pyvae
from pyvae.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial, of

pytestmark = pytest.mark.usefixtures("kernels")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parameters() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Counts, means, theta and logits of an extra 0, in shapes that broadcast to (6, 9)."""
    x = torch.poisson(3 * drawn(6, 9, seed=1), generator=torch.Generator().manual_seed(4))
    return x, leaf(5 * drawn(6, 9, seed=2) + 0.01), leaf(3 * drawn(9, seed=3) + 0.1), leaf(drawn(6, 1, seed=5) - 0.5)


def torch_nb(mu: Tensor, theta: Tensor) -> torch_distributions.NegativeBinomial:
    return torch_distributions.NegativeBinomial(theta, logits=torch.log(mu / theta))


def torch_zinb(x: Tensor, mu: Tensor, theta: Tensor, zi: Tensor) -> Tensor:
    rest = torch_nb(mu, theta).log_prob(x) + torch.nn.functional.logsigmoid(-zi)
    return torch.where(x == 0, torch.logaddexp(torch.nn.functional.logsigmoid(zi), rest), rest)


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-11), (torch.float32, 2e-5)], ids=str)
def test_values_and_gradients(dtype: torch.dtype, bound: float) -> None:
    x, mu, theta, zi = parameters()
    logits = leaf(torch.log(mu / theta).detach())
    wanted = {
        "nb": (torch_nb(mu, theta).log_prob(x), (mu, theta)),
        "logits": (torch_distributions.NegativeBinomial(theta, logits=logits).log_prob(x), (logits, theta)),
        "zinb": (torch_zinb(x, mu, theta, zi), (mu, theta, zi)),
        "poisson": (torch_distributions.Poisson(mu).log_prob(x), (mu,)),
    }
    made: dict[str, Callable[..., Any]] = {
        "nb": lambda mu, theta: NegativeBinomial(mu=mu, theta=theta, eps=0.0),
        "logits": lambda logits, theta: NegativeBinomial(theta, logits=logits),
        "zinb": lambda mu, theta, zi: ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=zi, eps=0.0),
        "poisson": lambda mu: Poisson(mu),
    }
    upstream = drawn(6, 9, seed=7)
    for name, (value, inputs) in wanted.items():
        own = [leaf(y.detach().to(dtype)) for y in inputs]
        got = made[name](*own).log_prob(x.to(dtype))
        assert got.dtype == dtype and "Elements" in got.grad_fn.next_functions[0][0].name() + got.grad_fn.name()
        assert_whole(got, value, bound)
        slopes = grad(got, own, upstream.to(dtype))
        for slope, right in zip(slopes, grad(value, inputs, upstream), strict=True):
            assert slope.shape == right.shape
            assert_whole(slope, right, bound)


def test_probs_are_torchs() -> None:
    x, mu, theta, _ = parameters()
    truth = torch_nb(mu, theta)
    made = NegativeBinomial(theta, probs=truth.probs)
    assert_whole(made.log_prob(x), truth.log_prob(x), 1e-10)
    for name in ("mean", "variance", "probs", "logits", "total_count"):
        assert_whole(getattr(made, name), getattr(truth, name).expand(6, 9), 1e-10)
    assert_whole(made.scale, truth.mean / truth.mean.sum(-1, keepdim=True), 1e-10)


def test_eps_is_added_to_means() -> None:
    """As scvi-tools does: a count above 0 is possible where the mean is 0. Without it, it is not."""
    x, theta = torch.tensor([3.0, 0.0]), torch.ones(2)
    made = NegativeBinomial(mu=torch.zeros(2), theta=theta).log_prob(x)
    assert_whole(made, torch.tensor([3 * torch.log(torch.tensor(1e-8)).item(), 0.0]), 1e-6)
    assert NegativeBinomial(mu=torch.zeros(2), theta=theta, eps=0.0).log_prob(x).tolist() == [-torch.inf, 0.0]


SHAPES = [((), ()), ((4,), ()), ((3, 4), (4,)), ((2, 3, 4), (3, 1)), ((0, 4), (4,)), ((5, 1), (1, 4))]


@pytest.mark.parametrize("mu_shape, theta_shape", SHAPES, ids=str)
def test_shapes_broadcast(mu_shape: tuple[int, ...], theta_shape: tuple[int, ...]) -> None:
    mu, theta = drawn(*mu_shape) + 0.5, drawn(*theta_shape, seed=1) + 0.5
    batch = torch.broadcast_shapes(mu_shape, theta_shape)
    made = (
        NegativeBinomial(mu=mu, theta=theta, eps=0.0),
        ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=-60.0, eps=0.0),
    )
    truth = torch_nb(mu, theta)
    for each in made:
        assert each.batch_shape == batch and each.mu.shape == each.theta.shape == each.mean.shape == batch
        assert each.sample().shape == batch and each.sample((2, 3)).shape == (2, 3, *batch)
        for shape in (batch, (), (2, 1, *batch), (*batch[:-1], 1) if batch else (7,)):
            x = torch.poisson(3 * drawn(*shape, seed=2))
            assert_whole(each.log_prob(x), truth.log_prob(x), 1e-10)
        wide = each.expand((2, *batch))
        assert type(wide) is type(each) and wide.batch_shape == (2, *batch) and wide.mean.shape == (2, *batch)
        assert_whole(wide.log_prob(torch.zeros(batch)), truth.log_prob(torch.zeros(batch)).expand(2, *batch), 1e-10)
        if 0 not in batch:  # of which torch cannot sum the last dimension
            out = torch_distributions.Independent(wide, 1).log_prob(torch.zeros(batch))
            assert out.shape == wide.batch_shape[:-1]


def test_theta_is_not_expanded() -> None:
    """Its gradient is summed where it is made: nothing between it and log_prob but its log."""
    x, mu, theta, _ = parameters()
    made = NegativeBinomial(mu=mu, theta=theta).expand((2, 6, 9))
    assert made._likelihood.theta is theta
    node = made.log_prob(x).grad_fn
    while "Elements" not in node.name():
        node = node.next_functions[0][0]
    assert any(child is not None and "LogBackward" in child.name() for child, _ in node.next_functions)


def test_samples_have_their_moments() -> None:
    torch.manual_seed(0)
    _, mu, theta, zi = parameters()
    with torch.no_grad():
        made = (
            NegativeBinomial(mu=mu, theta=theta + 0.5),
            ZeroInflatedNegativeBinomial(mu=mu, theta=theta + 0.5, zi_logits=zi),
            Poisson(mu),
        )
    for each in made:
        draws = each.sample((40000,))
        assert draws.dtype == torch.float64 and not draws.requires_grad and (draws == draws.round()).all()
        error = (each.variance / 40000).sqrt()
        assert ((draws.mean(0) - each.mean).abs() < 6 * error + 1e-3).all()
        torch.testing.assert_close(draws.var(0), each.variance, rtol=0.25, atol=0.02)
    assert NegativeBinomial(mu=torch.zeros(2), theta=torch.ones(2)).sample().tolist() == [0, 0]
    assert NegativeBinomial(mu=torch.ones(2).half(), theta=torch.ones(2).half()).sample().dtype == torch.float16


def test_values_outside_the_support() -> None:
    """By default as of scvi-tools'; asked to validate, as of torch's."""
    x, mu, theta, zi = parameters()
    given: dict[str, Any] = {"mu": mu, "theta": theta}
    plain, inflated = NegativeBinomial(**given), ZeroInflatedNegativeBinomial(**given, zi_logits=zi)
    text = "The value argument must be within the support of the distribution"
    for each, value in ((plain, -1 - x), (plain, -1 - x.int()), (inflated, -1 - x), (inflated, x + 0.5)):
        with pytest.warns(UserWarning, match=text) as seen:
            out = each.log_prob(value)
        assert seen[0].filename == __file__
        assert bool(out.isnan().all()) == bool((value < 0).all())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plain.log_prob(x + 0.5).isfinite().all()
        inflated.log_prob(x)
        inflated.log_prob(x.int())
    for cls, more in ((NegativeBinomial, {}), (ZeroInflatedNegativeBinomial, {"zi_logits": zi})):
        checked = cls(**given, **more, validate_args=True)
        assert_whole(checked.log_prob(x), cls(**given, **more).log_prob(x), 0)
        for value in (-1 - x, x + 0.5):
            with pytest.raises(ValueError, match="support"):
                checked.log_prob(value)
        with pytest.raises(ValueError, match="mu"):
            cls(mu=-mu, theta=theta, **more, validate_args=True)
    with pytest.raises(ValueError, match="support"):
        Poisson(mu, validate_args=True).log_prob(x + 0.5)


def test_what_scvi_tools_asks_for() -> None:
    mu, scale = torch.ones(3), torch.full((3,), 1 / 3)
    made = (
        NegativeBinomial(mu=mu, theta=mu, scale=scale),
        ZeroInflatedNegativeBinomial(mu=mu, theta=mu, zi_logits=mu, scale=scale),
        Poisson(mu, scale=scale),
    )
    for each in made:
        for held in (each, each.expand((2, 3)), copy.deepcopy(each), pickle.loads(pickle.dumps(each))):
            assert torch.equal(held.scale, scale) and torch.equal(held.get_normalized("scale"), scale)
            assert held.get_normalized("mu").shape == held.batch_shape
        assert f"{type(each).__name__}(" in repr(each)
    assert_whole(made[1].zi_probs, torch.sigmoid(mu), 1e-6)


def test_slopes_by_the_value_at_a_count_of_0() -> None:
    """As torch's: log p is differentiable in the value there, too. And so is the loss in its target."""
    x = leaf(torch.zeros(3, dtype=torch.float64))
    mu = torch.tensor([0.5, 20.0, 4e4], dtype=torch.float64)
    theta = torch.tensor([2.0, 0.5, 30.0], dtype=torch.float64)
    pairs = (
        (Poisson(mu), torch_distributions.Poisson(mu)),
        (NegativeBinomial(mu=mu, theta=theta, eps=0.0), torch_nb(mu, theta)),
        (NegativeBinomial(theta, logits=torch.log(mu / theta)), torch_nb(mu, theta)),
    )
    for own, truth in pairs:
        got, want = (grad(each.log_prob(x).sum(), x)[0] for each in (own, truth))
        assert_whole(got, want, 1e-9)
    row = pyvae.reconstruction_loss(mu[None], x[None], likelihood="multinomial").sum()
    assert_whole(grad(row, x)[0], -torch.log_softmax(mu, 0), 1e-12)


def test_draws_at_the_ends() -> None:
    """Of theta, where it is 0 or infinite, or its log is beyond 80: nothing, and Poisson's counts."""
    torch.manual_seed(0)
    none = NegativeBinomial(torch.tensor([0.0, 2.0]), probs=torch.tensor(0.5)).sample((1000,))
    assert not none[:, 0].any() and none[:, 1].any()
    for each in (NegativeBinomial(mu=torch.full((9,), 4.0), theta=math.inf),
                 of(pyvae.NegativeBinomial(89.0), torch.full((1, 9), math.log(4.0)))):  # fmt: skip
        draws = each.sample((5000,))
        assert abs(draws.var().item() / draws.mean().item() - 1) < 0.05


def test_what_is_checked_of_probs() -> None:
    for probs in (1.5, -0.5, math.nan):
        with pytest.raises(ValueError, match=r"NegativeBinomial: `probs` must lie in \[0, 1\)"):
            NegativeBinomial(torch.tensor(2.0), probs=torch.tensor(probs), validate_args=True)
        NegativeBinomial(torch.tensor(2.0), probs=torch.tensor(probs))
