"""pyvae.distributions: what constructors and `log_prob` are given. Types that differ, 16 bits, subclasses, refusals."""

from __future__ import annotations

import itertools
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

pytestmark = [
    pytest.mark.usefixtures("kernels"),
    pytest.mark.torch_sensitive("promotion of types, draws, and expand of torch.distributions"),
]

ONES = torch.ones(3)
COUNTS = NegativeBinomial(mu=ONES, theta=1.0)
REFUSED = [
    (lambda: NegativeBinomial(mu=1.0), ValueError, "NegativeBinomial: expected `mu` and `theta`.* but got `mu`$"),
    (lambda: NegativeBinomial(), ValueError, "but got none of them"),
    (lambda: NegativeBinomial(1.0, 0.5, 0.0), ValueError, "but got `total_count`, `probs`, `logits`"),
    (lambda: ZeroInflatedNegativeBinomial(mu=1.0, theta=1.0), ValueError, "NegativeBinomial: `zi_logits` is missing"),
    (lambda: Poisson(torch.ones(3), False).log_prob(2.0), TypeError, "Poisson.log_prob: `value` must be a Tensor, but"),
    (
        lambda: NegativeBinomial(mu=torch.ones(3), theta=1.0).log_prob(torch.ones(4)),
        ValueError,
        r"NegativeBinomial.log_prob: `value` must broadcast with the distribution's shape \(3,\), but has shape \(4,\)",
    ),
    (lambda: NegativeBinomial(mu=1.0, theta=1.0).get_normalized("x"), ValueError, '`key` must be "mu" or "scale", but'),
    (lambda: of("nb", torch.ones(2, 3)), ValueError, "distributions.of: `likelihood` must be one of pyvae's own"),
    (lambda: of(pyvae.Gaussian(torch.ones(2)), torch.ones(2, 3)), ValueError, "of: `logvar` must broadcast to recon's"),
    (
        lambda: of("gaussian", torch.ones(2, 3), total_count=3),
        ValueError,
        "of: `total_count` must come with likelihood",
    ),
    (lambda: of("multinomial", torch.ones(2, 3)).sample(), ValueError, "Multinomial: `total_count` must be given"),
    (lambda: Poisson("x"), TypeError, "^Poisson: `rate` must be a Tensor or a number, but is a str"),
    (lambda: NegativeBinomial(mu=[1.0], theta=1.0), TypeError, "^NegativeBinomial: `mu` must be a Tensor .* is a list"),
    (
        lambda: NegativeBinomial(mu=ONES * 1j, theta=1.0),
        TypeError,
        "^NegativeBinomial: `mu` must have one of the dtype",
    ),
    (lambda: NegativeBinomial(mu=ONES.to_sparse(), theta=1.0), TypeError, "^NegativeBinomial: `mu` must be a dense"),
    (
        lambda: NegativeBinomial(mu=ONES, theta=torch.ones(4)),
        ValueError,
        r"^NegativeBinomial: `mu`, `theta` must broadcast, but have shapes \(3,\), \(4,\)$",
    ),
    (
        lambda: ZeroInflatedNegativeBinomial(mu=ONES, theta=1.0, zi_logits=torch.ones(4)),
        ValueError,
        r"^ZeroInflatedNegativeBinomial: `mu`, `zi_logits` must broadcast, but have shapes \(3,\), \(4,\)$",
    ),
    (
        lambda: NegativeBinomial(mu=ONES, theta=ONES.to("meta")),
        ValueError,
        "^NegativeBinomial: `theta` must be on mu's device cpu, but is on meta",
    ),
    (
        lambda: NegativeBinomial(mu=ONES, theta=1.0, eps="0"),
        TypeError,
        "^NegativeBinomial: `eps` must be a number, but",
    ),
    (
        lambda: NegativeBinomial(mu=ONES, theta=1.0, eps=-1.0),
        ValueError,
        "^NegativeBinomial: `eps` .* must be >= 0, but",
    ),
    (
        lambda: COUNTS.log_prob(ONES.to("meta")),
        ValueError,
        "^NegativeBinomial.log_prob: `value` must be on the",
    ),
    (lambda: COUNTS.log_prob(ONES * 1j), TypeError, "^NegativeBinomial.log_prob: `value` must have one of the dtypes"),
    (lambda: COUNTS.log_prob(ONES.to_sparse()), TypeError, "^NegativeBinomial.log_prob: `value` must be a dense"),
    (
        lambda: Poisson(ONES, False).log_prob(-ONES),
        ValueError,
        "^Poisson.log_prob: `value` must hold counts >= 0",
    ),
    (lambda: Poisson(ONES).log_prob(ONES * 1j), TypeError, "^Poisson.log_prob: `value` must have one of the dtypes"),
    (
        lambda: of("multinomial", torch.ones(2, 3), validate_args=False).log_prob(-torch.ones(2, 3)),
        ValueError,
        "^Multinomial.log_prob: `value` must hold counts >= 0, but holds -1$",
    ),
    (
        lambda: of("bernoulli_logits", torch.ones(2, 3), validate_args=False).log_prob(torch.full((2, 3), 2.0)),
        ValueError,
        r"^Bernoulli.log_prob: `value` must lie in \[0, 1\], but holds 2$",
    ),
    (
        lambda: of("bernoulli", torch.full((2, 3), 2.0), validate_args=False).log_prob(torch.ones(2, 3)),
        ValueError,
        r"^Bernoulli.log_prob: `probs` must lie in \[0, 1\], but holds 2$",
    ),
    (
        lambda: of("gaussian", torch.ones(2, 3)).log_prob(torch.ones(2, 4)),
        ValueError,
        r"^Normal.log_prob: `value` must broadcast with the distribution's shape \(2, 3\), but has shape \(2, 4\)$",
    ),
]


@pytest.mark.parametrize("call, error, text", REFUSED, ids=range(len(REFUSED)))
def test_refusals(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("first", TYPES, ids=str)
def test_types_of_parameters_may_differ(first: torch.dtype) -> None:
    """Results have the type that torch.distributions gives, and at least float32."""
    x, draw = torch.tensor([0.0, 1.0, 7.0]), torch.Generator().manual_seed(1)
    for other, shape in itertools.product(TYPES, ((3,), ())):
        mu, theta = (torch.rand(n, generator=draw) + 0.5 for n in ((3,), shape))
        mu, theta = leaf(mu.to(first)), leaf(theta.to(other))
        theirs = torch_distributions.NegativeBinomial(theta, logits=(mu / theta).log()).log_prob(x.to(first))
        exact = [leaf(y.detach().double()) for y in (mu, theta)]
        truth = torch_distributions.NegativeBinomial(exact[1], logits=(exact[0] / exact[1]).log()).log_prob(x.double())
        made = NegativeBinomial(mu=mu, theta=theta, eps=0.0)
        got = made.log_prob(x.to(first))
        assert got.dtype == torch.promote_types(theirs.dtype, torch.float32)
        bound = 1e-5 if got.dtype == torch.float32 else 1e-10
        assert_whole(got, truth, bound)
        for slope, right, of_ in zip(grad(got.sum(), (mu, theta)), grad(truth.sum(), exact), (mu, theta), strict=True):
            assert slope.dtype == of_.dtype
            assert_whole(slope, right, 4 * torch.finfo(of_.dtype).eps + bound)
        assert made.sample().dtype == torch.promote_types(first, other if shape else first)
    assert NegativeBinomial(mu=ONES.int(), theta=2).log_prob(ONES).dtype == torch.float32
    assert NegativeBinomial(3, logits=ONES.double()).log_prob(ONES).dtype == torch.float64


DRAWN: dict[str, Callable[[torch.dtype], Any]] = {
    "a mean near the end": lambda dtype: NegativeBinomial(mu=torch.full((4000,), 6e4, dtype=dtype), theta=1.0),
    "Poisson": lambda dtype: Poisson(torch.full((4000,), 65500.0, dtype=dtype)),
    "means beyond": lambda dtype: NegativeBinomial(torch.full((4000,), 3e4, dtype=dtype), logits=2.0),
    "zero-inflated": lambda dtype: ZeroInflatedNegativeBinomial(
        mu=torch.full((4000,), 6e4, dtype=dtype), theta=1.0, zi_logits=-3.0
    ),
    "log mean": lambda dtype: of(pyvae.NegativeBinomial(0.0), torch.full((2, 2000), 11.0, dtype=dtype)),
    "a total": lambda dtype: of("multinomial", torch.zeros(4, 1, dtype=dtype), total_count=70000),
}


@pytest.mark.parametrize("dtype", TYPES[:2], ids=str)
@pytest.mark.parametrize("name", DRAWN)
def test_no_draw_of_16_bits_is_infinite(name: str, dtype: torch.dtype) -> None:
    """What is beyond the type's numbers is the largest of them."""
    torch.manual_seed(0)
    draws = DRAWN[name](dtype).sample((2,))
    assert draws.dtype == dtype and draws.isfinite().all() and (draws >= 0).all()


@pytest.mark.parametrize("dtype", TYPES[:2], ids=str)
def test_draws_of_16_bits_have_their_moments(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mu, theta = torch.tensor([0.25, 4.0, 300.0], dtype=dtype), torch.tensor([0.5, 2.0, 8.0], dtype=dtype)
    given: dict[str, Any] = {"mu": mu, "theta": theta}
    for made in (NegativeBinomial(**given), ZeroInflatedNegativeBinomial(**given, zi_logits=-6.0), Poisson(mu)):
        draws = made.sample((40000,)).double()
        error = (made.variance.double() / 40000).sqrt()
        assert ((draws.mean(0) - made.mean.double()).abs() < 6 * error + 4e-3 * made.mean.double()).all()


class Own(NegativeBinomial):
    """Of other arguments, and with an attribute of its own."""

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__(mu=mean, theta=1 / spread)
        self.spread = spread


class Expanding(Own):
    """The same, the way of torch.distributions."""

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__(mean, spread)
        self._private = spread

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(Expanding, _instance)
        new.spread = self.spread.expand(batch_shape)
        new._private = self._private.expand(batch_shape)
        return super().expand(batch_shape, _instance=new)


class OwnPoisson(Poisson):
    def __init__(self, log_rate: Tensor) -> None:
        super().__init__(log_rate.exp())
        self.log_rate = log_rate

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(OwnPoisson, _instance)
        new.log_rate = self.log_rate.expand(batch_shape)
        return super().expand(batch_shape, _instance=new)


def test_subclasses_with_a_constructor_of_their_own_expand() -> None:
    x = torch.tensor([0.0, 1.0, 2.0])
    for cls, shape in ((Own, (3,)), (Expanding, (2, 3))):
        made = cls(2 * ONES, ONES)
        wide = made.expand((2, 3))
        assert type(wide) is cls and wide.batch_shape == (2, 3) and wide.spread.shape == shape
        assert torch.equal(wide.log_prob(x), made.log_prob(x).expand(2, 3)) and wide.sample().shape == (2, 3)
        assert torch_distributions.Independent(made, 1).expand((4,)).log_prob(x).shape == (4,)
    assert wide._private.shape == (2, 3)
    poisson = OwnPoisson(ONES).expand((2, 3))
    assert type(poisson) is OwnPoisson and poisson.log_rate.shape == poisson.rate.shape == (2, 3)
    assert poisson.log_prob(x).shape == poisson.sample().shape == (2, 3)
