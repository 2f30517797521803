"""csrc/math against exact values, in units in the last place; instruction sets against each other, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import mpmath
import noise_truth
import numpy as np
import probe
import pytest
from families import LIKELIHOODS, PLAIN, SCALES
from noise_truth import LONG, ulps
from numpy.typing import NDArray
from probe import Probe, evenly
from tolerances import ELEMENTARY_ULP, NORMAL_ULP

INF, NAN = float("inf"), float("nan")
FLOATS = [np.float32, np.float64]
KINDS = pytest.mark.parametrize("kind", FLOATS)
WIDER = {np.float32: np.float64, np.float64: LONG}  # where the truth is computed
SAMPLES = {np.float32: 1 << 21, np.float64: 1 << 19}


@pytest.fixture(scope="session")
def probes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Probe]:
    """The formulas, compiled for every instruction set that this machine has; the first is the widest."""
    folder = tmp_path_factory.mktemp("probe")
    return {name: probe.build(name, folder) for name in probe.supported()}


@pytest.fixture(scope="session")
def widest(probes: dict[str, Probe]) -> Probe:
    return next(iter(probes.values()))


# ---- elementary functions -------------------------------------------------------------------------------------------


def exp_excess(x: NDArray[np.longdouble]) -> NDArray[np.longdouble]:
    """e^x - 1 - x, by its series where the difference would cancel."""
    small = np.clip(x, -0.5, 0.5)
    series = np.ones_like(small)
    for k in range(30, 2, -1):
        series = 1 + series * small / k
    return np.where(np.abs(x) < 0.5, series * small * small / 2, np.expm1(x) - x)


class Function(NamedTuple):
    """The truth in a wider type, and with many digits; the ranges that are sampled: everything, then where the
    algorithm changes its way; and further arguments with exact results."""

    wider: Callable[[NDArray], NDArray]
    digits: Callable
    ranges: tuple[list[tuple[float, float]], list[tuple[float, float]]]  # of float32 and of float64
    special: Callable[[float, float], list[tuple[float, float]]]  # of the smallest and the largest number


UNIT = ([(0, 1), (0.25, 1)],) * 2
FUNCTIONS = {
    "exp": Function(
        np.exp,
        mpmath.exp,
        ([(-105, 90), (-1, 1)], [(-747, 711), (-1, 1)]),
        lambda tiny, big: [(0.0, 1), (-0.0, 1), (tiny, 1), (-tiny, 1), (big, INF), (-big, 0), (INF, INF), (-INF, 0)],
    ),
    "exp_negative": Function(
        np.exp,
        mpmath.exp,
        ([(-1e30, 0), (-1, 0)], [(-1e300, 0), (-1, 0)]),
        lambda tiny, big: [(0.0, 1), (-0.0, 1), (-tiny, 1), (-big, 0), (-INF, 0)],
    ),
    "expm1": Function(
        np.expm1,
        mpmath.expm1,
        ([(-105, 90), (0.25, 1.5)], [(-747, 711), (0.25, 1.5)]),
        lambda tiny, big: [(0.0, 0), *((x, x) for x in (2 * tiny, -2 * tiny, INF)), (big, INF), (-big, -1), (-INF, -1)],
    ),
    "exp_excess": Function(
        exp_excess,
        lambda x: mpmath.expm1(x) - x,
        ([(-1e30, 90), (-0.5, -0.2), (0.2, 0.5)], [(-1e300, 711), (-0.5, -0.2), (0.2, 0.5)]),
        lambda tiny, big: [(0.0, 0), (-0.0, 0), (tiny, 0), (big, INF), (-big, big), (INF, INF), (-INF, INF)],
    ),
    "log": Function(
        np.log,
        mpmath.log,
        ([(1e-45, 3.4028235e38), (0.5, 2)], [(5e-324, 1.7976931348623157e308), (0.5, 2)]),
        lambda tiny, _: [(1.0, 0), (0.0, -INF), (-0.0, -INF), (INF, INF), (-tiny, NAN), (-1.0, NAN), (-INF, NAN)],
    ),
    "log1p_unit": Function(np.log1p, mpmath.log1p, UNIT, lambda tiny, _: [(0.0, 0), (tiny, tiny)]),
    "log1m_unit": Function(
        lambda p: np.log1p(-p), lambda x: mpmath.log1p(-x), UNIT, lambda tiny, _: [(0.0, 0), (tiny, -tiny), (1.0, -INF)]
    ),
}


def check(function: Probe, name: str, x: NDArray) -> None:
    """Within the bound where the exact value is a normal or denormal number, and equal where it is zero or infinite."""
    (got,) = function(name, x)
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        exact = FUNCTIONS[name].wider(x.astype(WIDER[x.dtype.type]))
        rounded = exact.astype(x.dtype)
    finite = np.isfinite(rounded)
    assert np.array_equal(got[~finite], rounded[~finite])
    error = ulps(got[finite], exact[finite])
    worst = error.argmax()
    where = f"{name}({x[finite][worst]!r}) = {got[finite][worst]!r} is {error[worst]:.2f} ulp off"
    assert error[worst] <= ELEMENTARY_ULP[name], where


@KINDS
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_within_its_bound(widest: Probe, name: str, kind: type) -> None:
    for low, high in FUNCTIONS[name].ranges[FLOATS.index(kind)]:
        check(widest, name, evenly(low, high, SAMPLES[kind], kind))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_within_its_bound_for_every_float(widest: Probe, name: str) -> None:
    low, high = FUNCTIONS[name].ranges[0][0]
    edges = evenly(low, high, 256, np.float32)
    for a, b in itertools.pairwise(edges.tolist()):
        check(widest, name, evenly(a, b, 2**32, np.float32))


@KINDS
@pytest.mark.parametrize("name", FUNCTIONS)
def test_truth_is_true(name: str, kind: type) -> None:
    """The truth of the tests above, at a few points of each range, against many digits."""
    for low, high in FUNCTIONS[name].ranges[FLOATS.index(kind)]:
        x = evenly(low, high, 60, kind)[1:-1].astype(WIDER[kind])
        got = FUNCTIONS[name].wider(x)
        kept = (np.abs(got) > 1e-290) & np.isfinite(got.astype(np.float64))
        assert kept.sum() > 10
        for argument, value in zip(x[kept], got[kept], strict=True):
            with mpmath.workdps(700):
                true = FUNCTIONS[name].digits(mpmath.mpf(float(argument)))
                head = float(value)
                error = mpmath.mpf(head) + mpmath.mpf(float(value - WIDER[kind](head))) - true
                assert abs(error) <= abs(true) * mpmath.mpf(2) ** (3 - np.finfo(WIDER[kind]).nmant)


TINY = {np.float32: 2.0**-149, np.float64: 2.0**-1074}
BIG = {np.float32: 3.4028235e38, np.float64: 1.7976931348623157e308}


@KINDS
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(probes: dict[str, Probe], name: str, kind: type) -> None:
    cases = [*FUNCTIONS[name].special(TINY[kind], BIG[kind]), (NAN, NAN), (-NAN, NAN)]
    # Among 40 others, so that each meets the vector code as well as the remainder loop.
    for place in (0, 17, 39):
        for argument, expected in cases:
            x = np.full(40, 0.5, dtype=kind)
            x[place] = argument
            for name_of_variant, function in probes.items():
                (got,) = function(name, x)
                np.testing.assert_equal(got[place], kind(expected), err_msg=f"{name_of_variant}: {name}({argument})")


# ---- the noise ------------------------------------------------------------------------------------------------------

EDGES = np.array(
    [base + step for base in (0, 2**24, 2**29, 2**30, 3 * 2**29, 2**31, 3 * 2**30, 7 * 2**29) for step in (-1, 0, 1)]
    + [2**32 - 129, 2**32 - 128, 2**32 - 1],
    dtype=np.int64,
).astype(np.uint64) & np.uint64(2**32 - 1)


def words(kind: type, count: int) -> tuple[NDArray, NDArray]:
    """Radius and angle words: uniform ones, ones near zero (the tails), and all pairs of edges."""
    draw = np.random.default_rng(20)
    bits = 32 if kind == np.float32 else 64
    top = np.concatenate([EDGES << np.uint64(bits - 32), EDGES, EDGES << np.uint64(min(11, bits - 32))])
    small = np.exp2(draw.uniform(0, bits - 0.01, count)).astype(np.uint64)
    radius = np.concatenate([draw.integers(0, 2**bits, count, dtype=np.uint64), small, np.repeat(top, top.size)])
    angle = np.concatenate([draw.integers(0, 2**bits, 2 * count, dtype=np.uint64), np.tile(top, top.size)])
    unsigned = np.uint32 if bits == 32 else np.uint64
    return radius.astype(unsigned), angle.astype(unsigned)


def exact_pair(radius: NDArray, angle: NDArray) -> NDArray[np.longdouble]:
    if radius.dtype == np.uint32:
        return noise_truth.box_muller(noise_truth.uniform32(radius), angle.astype(np.uint64), 32)
    shifted = radius >> np.uint64(11), angle >> np.uint64(11)
    return noise_truth.box_muller((shifted[0] + np.uint64(1)).astype(np.float64) * 2.0**-53, shifted[1], 53)


def check_pairs(function: Probe, radius: NDArray, angle: NDArray) -> None:
    kind = np.float32 if radius.dtype == np.uint32 else np.float64
    got = function("box_muller", radius, angle, outputs=2, dtype=kind)
    assert ulps(np.stack(got, axis=1), exact_pair(radius, angle)).max() <= NORMAL_ULP


@KINDS
def test_box_muller_is_within_the_bound(widest: Probe, kind: type) -> None:
    check_pairs(widest, *words(kind, SAMPLES[kind] // 2))


def test_box_muller_is_within_the_bound_where_all_errors_add_up(widest: Probe) -> None:
    """Random words do not find the worst case: the worst radii, each with the worst cosines and sines."""
    turns = np.arange(509, 2**29 + 1, 509, dtype=np.uint32)
    tail = np.zeros_like(turns)  # one radius for all: what differs is the angle's error
    radii = np.random.default_rng(21).integers(0, 2**32 - 2**10, 1 << 20, dtype=np.uint64).astype(np.uint32)
    (radius_error, _), angle_errors = (
        (np.array(widest("box_muller", *at, outputs=2, dtype=np.float32)) / exact_pair(*at).T - 1).astype(np.float64)
        for at in ((radii, np.full_like(radii, 1)), (tail, turns))
    )
    for angle_error, sign in itertools.product(angle_errors, (1, -1)):
        worst = radii[np.argsort(sign * radius_error)[-5000:]], turns[np.argsort(sign * angle_error)[-100:]]
        check_pairs(widest, np.repeat(worst[0], 100), np.tile(worst[1], 5000))
    # Where earlier forms of the angle were 4.02 to 4.43 ulp off, found by a long search.
    radius = np.array([2658061646, 3379646207, 1607580141, 1625361724, 2744836109], dtype=np.uint32)
    check_pairs(widest, radius, np.array([175839064, 531049584, 533585391, 528291376, 22406021], dtype=np.uint32))


def test_tails_reach_as_far_as_promised(widest: Probe) -> None:
    for kind, sigma in ((np.float32, 6.7), (np.float64, 8.5)):
        unsigned = np.uint32 if kind == np.float32 else np.uint64
        zero, top = np.zeros(1, unsigned), np.full(1, np.iinfo(unsigned).max, unsigned)
        cosine, sine = widest("box_muller", zero, zero, outputs=2, dtype=kind)
        assert cosine[0] > sigma and sine[0] == 0
        assert widest("box_muller", top, zero, outputs=2, dtype=kind)[0][0] == 0  # u = 1


@KINDS
def test_draw_takes_its_words_in_order(probes: dict[str, Probe], kind: type) -> None:
    """From any index on, any number: groups begin where they must, and no chunk knows of another."""
    for seed, first in [(0, 0), (-1, 2**34 - 3), (0x0123456789ABCDEF, 2**63 + 1), (7, 2**33 + 2)]:
        for count in (1, 2, 3, 4, 5, 31, 32, 33, 511, 512, 513, 1500):
            exact = noise_truth.normals(seed, first, count, kind is np.float64)
            for function in probes.values():
                assert ulps(function.draw(seed, first, count, kind), exact).max() <= NORMAL_ULP


# Counter, key, result: the three philox4x32-10 lines of Random123's kat_vectors.
PUBLISHED = """
00000000 00000000 00000000 00000000  00000000 00000000  6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff  ffffffff ffffffff  408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344  a4093822 299f31d0  d16cfe09 94fdcceb 5001e420 24126ea1
"""


@pytest.mark.parametrize("line", PUBLISHED.strip().splitlines())
def test_philox_gives_the_published_vectors(probes: dict[str, Probe], line: str) -> None:
    counter, key, result = np.split(np.array([[int(word, 16) for word in line.split()]], np.uint32), [4, 6], axis=1)
    assert (noise_truth.philox(counter, key[0]) == result).all()
    for function in probes.values():
        assert (function.philox(np.repeat(counter, 37, 0), np.repeat(key, 37, 0)) == result).all()


# ---- one source, several instruction sets ---------------------------------------------------------------------------


SCALINGS = [("scale", (code, part)) for code in range(len(SCALES)) for part in range(3)]
LIKELIHOOD_CODES = [("likelihood", codes) for codes in itertools.product(map(LIKELIHOODS.index, PLAIN), (False, True))]


@KINDS
@pytest.mark.parametrize(
    ("name", "codes"), [*((name, ()) for name in (*FUNCTIONS, "box_muller", "draw")), *SCALINGS, *LIKELIHOOD_CODES]
)
def test_variants_agree(probes: dict[str, Probe], name: str, codes: tuple[int, ...], kind: type) -> None:
    special = np.array([NAN, INF, -INF, 0.0, -0.0, TINY[kind], -TINY[kind], BIG[kind], -BIG[kind]], dtype=kind)
    given = [np.concatenate([evenly(-BIG[kind], BIG[kind], 200_001, kind), evenly(-2, 2, 50_001, kind), special])]
    if name == "likelihood":
        given = [np.concatenate([evenly(-120, 120, 100_003, kind), evenly(0, 1, 100_003, kind)])]
        given += [*np.random.default_rng(3).uniform(size=(2, given[0].size)).astype(kind)]  # target and weight
    elif name == "box_muller":
        given = [*words(kind, 150_001)]
    options = {"outputs": 2 if name in ("likelihood", "box_muller") else 1, "dtype": kind, "codes": codes}
    results = [
        [function.draw(5, 2**34 - 1001, 80_001, kind)] if name == "draw" else function(name, *given, **options)
        for function in probes.values()
    ]
    assert all(probe.same(results[0], other) for other in results[1:])
