"""The formulas of counts in csrc/math against exact values, and instruction sets against each other, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mpmath as mp
import numpy as np
import probe
import pytest
from counts_truth import DIGITS, Exact, Number, multinomial, negative_binomial, poisson, zero_inflated_negative_binomial
from numpy.typing import NDArray
from probe import Probe, evenly
from tolerances import COUNTS, COUNTS_BELOW, GAMMA

INF, NAN = float("inf"), float("nan")
FLOATS = [np.float32, np.float64]
KINDS = pytest.mark.parametrize("kind", FLOATS)


@pytest.fixture(scope="session")
def probes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Probe]:
    folder = tmp_path_factory.mktemp("probe_counts")
    return {name: probe.build(name, folder, "probe_counts") for name in probe.supported()}


@pytest.fixture(scope="session")
def widest(probes: dict[str, Probe]) -> Probe:
    return next(iter(probes.values()))


# ---- what they are made of ------------------------------------------------------------------------------------------


def check(got: NDArray, exact: list[mp.mpf], kind: type) -> None:
    error = [float(abs(mp.mpf(float(a)) / b - 1)) for a, b in zip(got, exact, strict=True)]
    assert max(error) <= GAMMA[kind] and len(error) > 100


@KINDS
def test_logarithm_and_its_defect(widest: Probe, kind: type) -> None:
    w = np.concatenate([evenly(-0.875, -1e-9, 400, kind), evenly(1e-9, 1e30, 400, kind)])
    value, defect = widest("log1p", w, outputs=2)
    with mp.workdps(DIGITS):
        exact = [mp.log1p(mp.mpf(float(v))) for v in w]
        check(value, exact, kind)
        check(defect, [mp.mpf(float(v)) - log for v, log in zip(w, exact, strict=True)], kind)


@KINDS
def test_slopes_of_stirlings_remainders(widest: Probe, kind: type) -> None:
    """Between two points, also where these are so close that float32 could not tell their difference."""
    draw = np.random.default_rng(42)
    y1 = np.concatenate([np.ones(200), draw.uniform(0, 1, 300), 10 ** draw.uniform(-7, 0, 300)])
    y2 = np.where(draw.random(800) < 0.5, draw.uniform(0, 1, 800), y1 * (1 - 10 ** draw.uniform(-6, -1, 800)))
    y1, y2 = y1.astype(kind), y2.astype(kind)
    remainder, phi = widest("stirling", y1, y2, outputs=2)

    def stirling(y: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
        z = 1 / y
        return mp.loggamma(z) - ((z - 0.5) * mp.log(z) - z + mp.log(2 * mp.pi) / 2), mp.log(z) - mp.digamma(z)

    with mp.workdps(DIGITS):
        points = [(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(y1, y2, strict=True)]
        exact = [[(c - d) / (a - b) for c, d in zip(stirling(a), stirling(b), strict=True)] for a, b in points]
    check(remainder, [pair[0] for pair in exact], kind)
    check(phi, [pair[1] for pair in exact], kind)


@KINDS
def test_saturated_term(widest: Probe, kind: type) -> None:
    x = np.concatenate([evenly(1e-6, 1e6, 600, kind), np.arange(1, 200, dtype=kind)])
    (got,) = widest("saturated", x)
    assert widest("saturated", np.zeros(40, kind))[0].tolist() == [0.0] * 40
    with mp.workdps(DIGITS):
        numbers = [mp.mpf(float(v)) for v in x]
        check(got, [mp.loggamma(v + 1) + v - v * mp.log(v) for v in numbers], kind)


# ---- the likelihoods ------------------------------------------------------------------------------------------------


class Likelihood(NamedTuple):
    exact: Callable[..., Exact]
    parameters: int


LIKELIHOODS = {
    "poisson": Likelihood(poisson, 0),
    "multinomial": Likelihood(multinomial, 0),
    "negative_binomial": Likelihood(negative_binomial, 1),
    "zero_inflated_negative_binomial": Likelihood(zero_inflated_negative_binomial, 2),
}
EACH = pytest.mark.parametrize("name", LIKELIHOODS)


@EACH
def test_truth_is_true(name: str) -> None:
    """The probabilities of all counts add up to 1, and each derivative is the value's."""
    exact, parameters = LIKELIHOODS[name]
    with mp.workdps(DIGITS):
        for a, r, rho in ((1.25, 0.5, -0.75), (-3.0, 3.0, 2.0), (2.0, -1.5, -40.0)):
            given = [mp.mpf(v) for v in (r, rho)][:parameters]
            if name != "multinomial":
                total = mp.fsum(mp.exp(-exact(mp.mpf(a), mp.mpf(x), *given)[0][0]) for x in range(1500))
                assert abs(total - 1) < mp.mpf("1e-12")
            for x in (0, 3):
                at = [mp.mpf(a), *given]
                for place in range(1 + parameters):

                    def along(v: Number, at: list[Number] = at, place: int = place, x: int = x) -> Number:
                        moved = [*at[:place], v, *at[place + 1 :]]
                        return exact(moved[0], mp.mpf(x), *moved[1:])[0][0]

                    slope = mp.diff(along, at[place])
                    assert abs(slope - exact(at[0], mp.mpf(x), *given)[1 + place][0]) < mp.mpf("1e-20")


# ---- arguments ------------------------------------------------------------------------------------------------------


def arguments(kind: type) -> list[NDArray]:
    """a, x, log theta, zi_logits: the corners of the ranges, random points, means near the count, and zeros of a value
    n that compete with an inflation of about e^-n."""
    draw = np.random.default_rng(40)
    corners = np.meshgrid(
        np.log([1e-8, 1e-4, 0.02, 1, 3.7, 500, 1e8]),
        [0, 1, 2, 7, 150, 1e6],
        [-80, -60, -38, *np.log([1e-4, 0.01, 0.9, 1, 8, 1e4, 1e8]), 40, 60, 80],
        [-50, -1, 50],
    )
    grid = np.stack([axis.ravel() for axis in corners])
    count = 600
    x = np.floor(10 ** draw.uniform(0, 6, count))
    x[: count // 4] = draw.integers(0, 5, count // 4)
    x[count // 4 : count // 2] = 10 ** draw.uniform(-6, 2, count // 4)  # not integers
    a, r = np.log(10 ** draw.uniform(-8, 8, count)), np.log(10 ** draw.uniform(-4, 8, count))
    near = (draw.random(count) < 0.5) & (x > 0)
    a[near] = (np.log(np.maximum(x, 1e-6)) + draw.normal(size=count) * 10 ** draw.uniform(-6, 0.5, count))[near]
    random = np.stack([a.clip(np.log(1e-8), np.log(1e8)), x, r, draw.uniform(-50, 50, count)])

    # All theta, with means and counts in any ratio: below a theta of e^-38 and above one of e^40, too.
    wide_x = np.where(draw.random(count) < 0.5, draw.integers(0, 20, count), np.floor(10 ** draw.uniform(0, 6, count)))
    wide = np.stack([draw.uniform(-70, 86, count), wide_x, draw.uniform(-80, 80, count), draw.uniform(-50, 50, count)])
    n, log_theta = 10 ** draw.uniform(0, 2.08, count), draw.uniform(-2, np.log(1e8), count)
    ratio = n / np.exp(log_theta)
    log_mean = log_theta + np.where(ratio > 30, ratio, np.log(np.expm1(np.minimum(ratio, 30))))
    rho = (draw.uniform(-8, 69, count) - n).clip(-50, 50)
    rivals = np.stack([log_mean, np.zeros(count), log_theta, rho])[:, log_mean < np.log(1e8)]
    return [*np.ascontiguousarray(np.concatenate([grid, random, wide, rivals], axis=1).astype(kind))]


def call(function: Probe, name: str, given: Sequence[NDArray], zero: bool) -> list[NDArray]:
    """Value and derivatives; given a, x and the parameters, of which zero leaves out x."""
    parameters = LIKELIHOODS[name].parameters
    inputs = [given[0], *([] if zero else [given[1]]), *given[2 : 2 + parameters]]
    return function(name + "_zero" * zero, *inputs, outputs=2 + parameters)


@KINDS
@EACH
@pytest.mark.parametrize("zero", [False, True])
def test_terms_are_exact(widest: Probe, name: str, zero: bool, kind: type) -> None:
    """Each within its bound wherever it is above 1e-30; of 0 by its own function."""
    exact, parameters = LIKELIHOODS[name]
    given = arguments(kind)
    given = [given[0], np.zeros_like(given[1]), *given[2:]] if zero else [v[given[1] > 0] for v in given]
    used = given[: 2 + parameters]
    results = call(widest, name, given, zero)
    worst = [(0.0, "")] * len(results)
    with mp.workdps(DIGITS):
        for i in range(used[0].size):
            point = [float(v[i]) for v in used]
            at = [mp.mpf(v) for v in point]
            for k, (value, unit) in enumerate(exact(*at)):
                if abs(value) < COUNTS_BELOW:
                    continue
                error = float(abs(mp.mpf(float(results[k][i])) - value) / (unit * COUNTS[kind]))
                if not error <= worst[k][0]:  # NaN as well
                    worst[k] = error, f"output {k} at {point}: {results[k][i]!r}, exactly {mp.nstr(value, 9)}"
    assert all(error <= 1 for error, _ in worst), worst


# ---- what is special ------------------------------------------------------------------------------------------------


@KINDS
@EACH
def test_what_is_no_count_and_what_is_no_number_give_nan(probes: dict[str, Probe], name: str, kind: type) -> None:
    ordinary = [np.full(40, v, kind) for v in (0.5, 3.0, 1.0, -0.5)]
    used = 2 + LIKELIHOODS[name].parameters
    for function in probes.values():
        assert all(np.isfinite(out).all() for out in call(function, name, ordinary, False))
        for place in (0, 17, 39):  # the vector code and the loop for the rest
            for bad in (-1.0, -0.001, -INF, NAN):
                given = [v.copy() for v in ordinary]
                given[1][place] = bad
                results = call(function, name, given, False)
                assert all(np.flatnonzero(np.isnan(out)).tolist() == [place] for out in results)
            for argument in {*range(used)} - {1}:
                given = [v.copy() for v in ordinary]
                given[argument][place] = NAN
                for zero in (False, True):
                    value, *_ = call(function, name, given, zero)
                    assert np.flatnonzero(np.isnan(value)).tolist() == [place]


@KINDS
@EACH
def test_mean_of_zero(widest: Probe, name: str, kind: type) -> None:
    """Certain where nothing is counted, impossible where something is."""
    for theta in (-5.0, 5.0):
        given = [np.full(40, v, kind) for v in (-INF, 0.0, theta, -0.5)]
        value, derivative, *_ = call(widest, name, given, True)
        assert (value == 0).all() and (derivative == 0).all()
        given[1][:] = 3
        value, derivative, *_ = call(widest, name, given, False)
        assert (value == INF).all()
        np.testing.assert_allclose(derivative, -3, rtol=COUNTS[kind])


@KINDS
def test_certain_and_impossible_inflation_and_infinite_means(widest: Probe, kind: type) -> None:
    a, r = (v.ravel() for v in np.meshgrid(np.array([-5.0, 3.0], kind), np.array([-2.0, 6.0], kind)))
    plain = call(widest, "negative_binomial", [a, a, r], True)
    name = "zero_inflated_negative_binomial"
    never = call(widest, name, [a, a, r, np.full_like(a, -INF)], True)
    for got, expected in zip(never, [*plain, np.zeros_like(a)], strict=True):
        np.testing.assert_allclose(got, expected, rtol=COUNTS[kind])
    assert all((out == 0).all() for out in call(widest, name, [a, a, r, np.full_like(a, INF)], True))
    value, derivative, _, by_rho = call(widest, name, [np.full_like(a, INF), a, r, np.ones_like(a)], True)
    np.testing.assert_allclose(value, np.log1p(np.exp(-1.0)), rtol=COUNTS[kind])
    assert (derivative == 0).all()
    np.testing.assert_allclose(by_rho, -1 / (1 + np.e), rtol=COUNTS[kind])


@KINDS
def test_large_theta_is_poisson_and_small_theta_stays_finite(widest: Probe, kind: type) -> None:
    a, x = (v[np.log(1e4) > arguments(kind)[0]] for v in arguments(kind)[:2])
    expected = call(widest, "poisson", [a, x], False)
    for r in (45.0, 1000.0, INF):
        value, derivative, by_r = call(widest, "negative_binomial", [a, x, np.full_like(a, r)], False)
        np.testing.assert_allclose(value, expected[0], rtol=COUNTS[kind])
        np.testing.assert_allclose(derivative, expected[1], rtol=COUNTS[kind], atol=COUNTS[kind] * float(x.max()))
        assert (np.abs(by_r) < 1e-4).all()
    for r in (-45.0, -1000.0, -INF):
        assert all(np.isfinite(v).all() for v in call(widest, "negative_binomial", [a, x, np.full_like(a, r)], False))


# ---- one source, several instruction sets ---------------------------------------------------------------------------


@KINDS
@EACH
@pytest.mark.parametrize("zero", [False, True])
def test_variants_agree(probes: dict[str, Probe], name: str, zero: bool, kind: type) -> None:
    draw = np.random.default_rng(41)
    size = 30_011
    given = [draw.uniform(-20, 20, size), draw.integers(0, 20, size), draw.uniform(-12, 20, size)]
    given = [v.astype(kind) for v in (*given, draw.uniform(-60, 60, size))]
    for v, special in zip(given, ([INF, -INF, NAN], [-1, NAN, 1e6], [INF, -INF, NAN], [200, -200, NAN]), strict=True):
        v[:3] = special
    results = [call(function, name, given, zero) for function in probes.values()]
    assert len(results) == 1 or all(probe.same(results[0], other) for other in results[1:])
