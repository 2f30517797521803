"""The registry has an entry for each member of the library and no other, and its formulas agree with each other."""

from __future__ import annotations

import pytest
import torch
from cases import data, generator, leaf
from families import ENTRIES, LIKELIHOODS, SCALE_ENTRIES, SCALES, cycled, family, scaling
from parametric import ENTRIES as BY_ROWS
from parametric_calls import call
from tolerances import BY_ROWS as BY_ROWS_BOUND
from tolerances import FLOAT64_ROUNDING
from torch.autograd import grad

from pyvae import likelihoods as _likelihoods


def test_every_member_has_an_entry_and_every_entry_is_a_member() -> None:
    assert set(ENTRIES) == set(LIKELIHOODS)
    assert not set(ENTRIES) & set(BY_ROWS)
    assert {*ENTRIES, *BY_ROWS} == set(_likelihoods.LIKELIHOODS)
    for name, entry in BY_ROWS.items():
        member = _likelihoods.LIKELIHOODS[name]
        assert tuple(parameter for parameter, _ in entry.parameters) == member.parameters
        assert (entry.counts, entry.softmax) == (member.is_count, member.softmax)
    assert set(SCALE_ENTRIES) == set(SCALES)


@pytest.mark.parametrize(("lookup", "kind"), [(family, "likelihood"), (scaling, "scale")])
def test_an_unknown_name_is_no_other(lookup: object, kind: str) -> None:
    with pytest.raises(LookupError, match=f"^{kind} 'unheard-of' has no entry in tests/families.py"):
        lookup("unheard-of")  # type: ignore[operator]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_samples_lie_in_their_ranges(likelihood: str) -> None:
    entry = family(likelihood)
    for values, (low, high) in zip(data(likelihood, (1, 20_000)), (entry.recon, entry.target), strict=True):
        assert low <= values.min() < values.max() <= high
    assert entry.target.low <= min(entry.targets) < max(entry.targets) <= entry.target.high
    assert len(entry.legal(torch.tensor(entry.extremes))) == len(entry.extremes)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_slopes_are_those_of_the_values(likelihood: str) -> None:
    entry, double = family(likelihood), (torch.float64, torch.float64)
    recon, target = data(likelihood, (1, 2000), double)
    x = leaf(recon)
    for pos_weight in (1.0, 2.5):
        slope, units = entry.slope_and_units(recon, target, pos_weight)
        (want,) = grad(entry.value(x, target, pos_weight).sum(), x)
        assert ((slope - want).abs() <= FLOAT64_ROUNDING * units).all()
        assert (units >= slope.abs() * (1 - FLOAT64_ROUNDING)).all()
    takes = not torch.equal(entry.value(recon, target, 1.0), entry.value(recon, target, 2.5))
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


@pytest.mark.parametrize("name", BY_ROWS)
def test_those_by_rows_agree_with_torch_and_their_slopes_with_their_values(name: str) -> None:
    given = call(name, (1, 2000), (1, 2000), (torch.float64,) * 3)
    recon, target = given.recon, given.target
    if BY_ROWS[name].softmax == "always":
        recon = torch.log_softmax(recon, 1)
    at = [leaf(recon), *map(leaf, given.parameters)]
    (value, _), *slopes = BY_ROWS[name].terms(at[0], target, *at[1:])
    bound = BY_ROWS_BOUND[torch.float64]
    torch.testing.assert_close(value, BY_ROWS[name].torch(at[0], target, *at[1:]), rtol=bound, atol=bound)
    for got, (want, unit) in zip(grad(value.sum(), at), slopes, strict=True):
        # What autograd makes of the value by log theta is a difference of numbers that grow with theta.
        assert ((got - want).abs() <= bound * (unit + 1e-2)).all()
        assert (unit >= want.abs() * (1 - FLOAT64_ROUNDING)).all()
