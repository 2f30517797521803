"""The registry has an entry for each member of the library and no other, and its formulas agree with each other."""

from __future__ import annotations

import pytest
import torch
from calls import call
from cases import data, generator, leaf
from families import ENTRIES, LIKELIHOODS, PLAIN, SCALE_ENTRIES, SCALES, cycled, family, scaling
from tolerances import FLOAT64_ROUNDING, IN_UNITS
from torch.autograd import grad

from pyvae import _posterior
from pyvae import likelihoods as _likelihoods
from pyvae.likelihoods import resolve


def test_every_member_has_an_entry_and_every_entry_is_a_member() -> None:
    assert set(ENTRIES) == set(LIKELIHOODS)
    assert set(SCALE_ENTRIES) == set(SCALES)
    assert tuple(_posterior.FORMS) == SCALES


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_an_entry_says_the_same_of_a_likelihood_as_the_library(name: str) -> None:
    entry, member = family(name), _likelihoods.LIKELIHOODS[name]
    assert tuple(parameter for parameter, _ in entry.parameters) == member.parameters
    assert (entry.counts, entry.softmax) == (member.is_count, member.softmax)
    assert (entry.probabilities, entry.takes_pos_weight) == (member.is_probability, member.takes_pos_weight)
    assert (name in PLAIN) == (not member.parameters and not member.is_count)
    given = call(name, (2, 3), library=True)
    assert given.target.min() >= 0 or not entry.counts
    assert resolve(given.likelihood).name == name


@pytest.mark.parametrize(("lookup", "kind"), [(family, "likelihood"), (scaling, "scale")])
def test_an_unknown_name_is_no_other(lookup: object, kind: str) -> None:
    with pytest.raises(LookupError, match=f"^{kind} 'unheard-of' has no entry in tests/families.py"):
        lookup("unheard-of")  # type: ignore[operator]


@pytest.mark.parametrize("likelihood", PLAIN)
def test_samples_lie_in_their_ranges(likelihood: str) -> None:
    entry = family(likelihood)
    sweep = entry.sweep
    for values, (low, high) in zip(data(likelihood, (1, 20_000)), (sweep.recon, sweep.target), strict=True):
        assert low <= values.min() < values.max() <= high
    assert sweep.target.low <= min(sweep.targets) < max(sweep.targets) <= sweep.target.high
    assert len(entry.legal(torch.tensor(sweep.extremes))) == len(sweep.extremes)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_values_are_torchs_and_slopes_are_those_of_the_values(name: str) -> None:
    entry, given = family(name), call(name, (1, 2000), (1, 2000), (torch.float64,) * 3)
    target, recon = given.target, torch.log_softmax(given.recon, 1) if given.has_softmax else given.recon
    at = [leaf(recon), *map(leaf, given.parameters)]
    bound = FLOAT64_ROUNDING if name in PLAIN else IN_UNITS[torch.float64]
    # What autograd makes of the value by log theta is a difference of numbers that grow with theta.
    others = 0.0 if name in PLAIN else 1e-2
    for pos_weight in (1.0, 2.5):
        (value, size), *slopes = entry.at(at[0], target, *at[1:], pos_weight=pos_weight)
        assert (size >= value.abs()).all()
        if pos_weight == 1:
            torch.testing.assert_close(value, entry.torch(at[0], target, *at[1:]), rtol=bound, atol=bound)
        for got, (want, unit) in zip(grad(value.sum(), at), slopes, strict=True):
            assert ((got - want).abs() <= bound * (unit + others)).all()
            assert (unit >= want.abs() * (1 - FLOAT64_ROUNDING)).all()
    takes = not torch.equal(*(entry.at(at[0], target, *at[1:], pos_weight=w)[0][0] for w in (1.0, 2.5)))
    assert takes == entry.takes_pos_weight


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_one_distribution(scale: str) -> None:
    entry, logvar = scaling(scale), 0.8 * torch.randn(2000, generator=generator(3), dtype=torch.float64)
    s = leaf(entry.of(logvar))
    torch.testing.assert_close(entry.std(s), torch.exp(logvar / 2), rtol=FLOAT64_ROUNDING, atol=0)
    torch.testing.assert_close(grad(entry.std(s).sum(), s)[0], entry.std_slope(s), rtol=FLOAT64_ROUNDING, atol=0)
    (slope,) = grad(entry.spread(s).sum(), s)
    torch.testing.assert_close(slope, entry.spread_slope(s), rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING)


def test_cycled_pairs_have_every_member() -> None:
    assert cycled((1, 2, 3), ("a", "b")) == [(1, "a"), (2, "b"), (3, "a")]
