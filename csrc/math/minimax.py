"""Prints the polynomial coefficients of elementary.h, normal.h, gamma.h, softplus.h and likelihood.h: minimax fits of
the relative error, or where it says so of the absolute one, by Remez exchange in mpmath.

    python csrc/math/minimax.py

The fits are made in 90 digits; rounding to the working type is left to the compiler that reads the decimal literal.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp

mp.mp.dps = 90
Function = Callable[[mp.mpf], mp.mpf]


def remez(f: Function, lo: float, hi: float, degree: int, weight: Function) -> tuple[list[mp.mpf], mp.mpf]:
    """Coefficients c with max |(sum c_k x^k - f(x)) / weight(x)| smallest on [lo, hi], and that maximum."""
    lo, hi = mp.mpf(lo), mp.mpf(hi)
    n = degree + 2
    nodes = [(lo + hi) / 2 - (hi - lo) / 2 * mp.cos(mp.pi * k / (n - 1)) for k in range(n)]
    for _ in range(12):
        rows = [[x**k for k in range(degree + 1)] + [(-1) ** i * weight(x)] for i, x in enumerate(nodes)]
        solution = mp.lu_solve(mp.matrix(rows), mp.matrix([f(x) for x in nodes]))
        c = [solution[k] for k in range(degree + 1)]

        def error(x: mp.mpf, c: list[mp.mpf] = c) -> mp.mpf:
            return (mp.polyval(c[::-1], x) - f(x)) / weight(x)

        # The extrema of the error between consecutive sign changes are the next nodes.
        grid = [(lo + hi) / 2 - (hi - lo) / 2 * mp.cos(mp.pi * k / 1200) for k in range(1201)]
        values = [error(x) for x in grid]
        extrema: list[int] = []
        for i, v in enumerate(values):
            if extrema and (v > 0) == (values[extrema[-1]] > 0):
                if abs(v) > abs(values[extrema[-1]]):
                    extrema[-1] = i
            else:
                extrema.append(i)
        if len(extrema) < n:
            break
        while len(extrema) > n:  # drop the smaller end
            extrema.pop(0 if abs(values[extrema[0]]) < abs(values[extrema[-1]]) else -1)
        nodes = [grid[i] for i in extrema]
        heights = [abs(values[i]) for i in extrema]
        if min(heights) / max(heights) > mp.mpf("0.999"):
            break
    return c, max(abs(v) for v in values)


def show(name: str, f: Function, lo: float, hi: float, degrees: tuple[int, int], weight: Function) -> None:
    for kind, degree, digits in zip(("float", "double"), degrees, (10, 20), strict=True):
        c, error = remez(f, lo, hi, degree, weight)
        print(f"{name} {kind}: degree {degree}, error {mp.nstr(error, 3)} (2^{mp.nstr(mp.log(error, 2), 4)})")
        print("  ", ", ".join(mp.nstr(v, digits, strip_zeros=False) for v in c))


def safe(f: Function) -> Function:
    """f away from 0, its neighbour's value at 0 (the fits have removable singularities there)."""
    return lambda x: f(x if abs(x) > mp.mpf("1e-25") else mp.mpf("1e-25"))


if __name__ == "__main__":
    ln2_half = mp.log(2) / 2 * mp.mpf("1.0001")
    quadratic = safe(lambda r: (mp.exp(r) - 1 - r) / r**2)
    show("(exp(r) - 1 - r) / r^2 on |r| <= ln2/2", quadratic, -ln2_half, ln2_half, (5, 11), quadratic)
    show("the same, as part of exp(r)", quadratic, -ln2_half, ln2_half, (4, 9), quadratic)
    lo, hi = mp.sqrt(mp.mpf(1) / 2) - 1, mp.sqrt(2) - 1
    cubic = safe(lambda f: (mp.log1p(f) - f + f * f / 2) / f**3)
    weight = safe(lambda f: mp.log1p(f) / f**3)
    show("(log1p(f) - f + f^2/2) / f^3 on sqrt(1/2)-1 .. sqrt(2)-1", cubic, lo, hi, (7, 18), lambda f: abs(weight(f)))
    show("the same on 0 .. 1", cubic, 0, 1, (8, 19), weight)
    slope, weight = safe(lambda u: (mp.log1p(u) / u - 1) / u), safe(lambda u: mp.log1p(u) / u / u)
    show("(log1p(u) / u - 1) / u on 0 .. 1", slope, 0, 1, (7, 19), weight)
    square = safe(lambda q: (-mp.log1p(-q) - q) / q**2)
    show("(-log1p(-q) - q) / q^2 on 0 .. 1/2", square, 0, 0.5, (8, 17), square)
    trigamma = safe(lambda y: (mp.psi(1, 1 / y) / y**2 - 1 / y - mp.mpf(1) / 2) / y)
    show("(psi'(1/y) / y^2 - 1/y - 1/2) / y on 0 .. 1, absolute", trigamma, 0, 1, (6, 18), lambda _: mp.mpf(1))
    one, share = mp.log(mp.e - 1), 1 - mp.exp(-1)  # where softplus is 1, and its slope there
    above_one = lambda x: mp.log1p(share * mp.expm1(x))  # softplus(one + x) - 1  # noqa: E731
    value = safe(lambda x: (above_one(x) * (above_one(x) + 2) / 2 - mp.log1p(above_one(x))) / x**2)
    slope = safe(lambda x: above_one(x) * (1 + 1 / (1 + above_one(x))) / (1 + mp.exp(-one - x)) / x)
    show("(1/2 (sigma^2 - 1) - log sigma) / x^2, sigma = softplus(one + x), |x| <= 1", value, -1, 1, (8, 19), value)
    show("its derivative / x", slope, -1, 1, (9, 20), slope)
    log_partition = safe(lambda s: (mp.log(-mp.expm1(-mp.sqrt(s)) / mp.sqrt(s)) + mp.sqrt(s) / 2) / s)
    mean = safe(lambda s: (-1 / mp.expm1(-mp.sqrt(s)) - 1 / mp.sqrt(s) - mp.mpf(1) / 2) / mp.sqrt(s))
    show("(log((1 - e^-y) / y) + y/2) / y^2 in s = y^2, y <= 2", log_partition, 0, 4, (4, 10), log_partition)
    show("(1 / (1 - e^-y) - 1/y - 1/2) / y in s = y^2, y <= 2", mean, 0, 4, (4, 10), mean)
    half_pi, top = mp.pi / 2, mp.mpf("0.25")
    sine = safe(lambda s: (mp.sin(half_pi * mp.sqrt(s)) / mp.sqrt(s) - half_pi) / s)
    cosine = safe(lambda s: (mp.cos(half_pi * mp.sqrt(s)) - 1) / s)
    sine_weight = safe(lambda s: mp.sin(half_pi * mp.sqrt(s)) / mp.sqrt(s) / s)
    cosine_weight = safe(lambda s: mp.cos(half_pi * mp.sqrt(s)) / s)
    show("(sin(pi/2 t)/t - pi/2) / t^2 in s = t^2", sine, 0, top, (2, 5), sine_weight)
    show("(cos(pi/2 t) - 1) / t^2 in s = t^2", cosine, 0, top, (3, 6), cosine_weight)
