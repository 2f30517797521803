"""The noise, written a second time: Philox4x32-10 and the Box-Muller transform in numpy, exact far below a float64 ulp.

It shares no code with the kernels or with ``pyvae.reference``, so that a mistake has to be made twice to go unseen.
Real numbers are numpy's long double (64 bits of significand on x86, 113 on AArch64); angles are reduced in integers
first, so that sines and cosines keep their relative accuracy near their zeros.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LONG = np.longdouble
TWO_PI = LONG("6.283185307179586476925286766559005768394")
MASK = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


def philox(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Philox4x32-10 (Salmon et al. 2011): counters (n, 4) and one key (2,) to words (n, 4)."""
    c = counter.astype(np.uint64).T
    k0, k1 = (int(word) for word in key)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = np.stack([(p1 >> SHIFT) ^ c[1] ^ np.uint64(k0), p1 & MASK, (p0 >> SHIFT) ^ c[3] ^ np.uint64(k1), p0 & MASK])
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c.T.astype(np.uint32)


def words(seed: int, first: int, count: int) -> NDArray[np.uint32]:
    """Philox words (count, 4) of the groups ``first`` .. ``first + count - 1`` under ``seed`` (taken modulo 2^64)."""
    group = np.uint64(first) + np.arange(count, dtype=np.uint64)
    zero = np.zeros_like(group)
    counter = np.stack([zero, zero, group & MASK, group >> SHIFT], axis=1).astype(np.uint32)
    return philox(counter, np.array([seed % 2**32, (seed >> 32) % 2**32], dtype=np.uint32))


def box_muller(u: NDArray, turn: NDArray[np.uint64], bits: int) -> NDArray[np.longdouble]:
    """sqrt(-2 ln u) times (cos, sin) of ``turn`` / 2^bits of a full turn, as (n, 2) long doubles."""
    radius = np.sqrt(LONG(-2) * np.log(u.astype(LONG)))
    quarter = np.uint64(bits - 2)
    nearest = (turn + np.uint64(1 << (bits - 3))) >> quarter
    rest = turn.astype(np.int64) - (nearest << quarter).astype(np.int64)
    angle = TWO_PI * (rest.astype(LONG) * LONG(2) ** -bits)  # in [-pi/4, pi/4)
    cos, sin = np.cos(angle), np.sin(angle)
    quadrant = (nearest & np.uint64(3)).astype(np.intp)
    turned = np.choose(quadrant, [cos, -sin, -cos, sin]), np.choose(quadrant, [sin, cos, -sin, -cos])
    return radius[:, None] * np.stack(turned, axis=1)


def uniform32(r: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The radius's uniform in (0, 1]: float32(float32(r) 2^-32 + 2^-33), two roundings."""
    nearest = r.astype(np.float32).astype(np.float64)  # exact in float64, and so is the sum below
    return (nearest * 2.0**-32 + 2.0**-33).astype(np.float32)


def normals(seed: int, first: int, count: int, double: bool) -> NDArray[np.longdouble]:
    """The exact normals of the global element indices ``first`` .. ``first + count - 1``."""
    per_group = 2 if double else 4
    start = first // per_group
    r = words(seed, start, (first + count - 1) // per_group - start + 1).astype(np.uint64)
    if double:
        w0, w1 = r[:, 0] | r[:, 1] << SHIFT, r[:, 2] | r[:, 3] << SHIFT
        u = ((w0 >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53
        out = box_muller(u, w1 >> np.uint64(11), 53)
    else:
        u = uniform32(r[:, [0, 2]].astype(np.uint32).reshape(-1))
        out = box_muller(u, r[:, [1, 3]].reshape(-1), 32)
    skip = first - start * per_group
    return out.reshape(-1)[skip : skip + count]


def ulps(got: NDArray, exact: NDArray) -> NDArray[np.float64]:
    """|got - exact| in units of the last place that ``exact``, of a wider type, has in got's (or the denormals')."""
    info = np.finfo(got.dtype)
    exponent = np.frexp(exact)[1] - 1
    place = np.maximum(exponent, info.minexp) - info.nmant
    return np.ldexp(np.abs(got.astype(exact.dtype) - exact), -place).astype(np.float64)
