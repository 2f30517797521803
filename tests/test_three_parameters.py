"""A likelihood with three parameters, which the library has none of yet: its functor alone is new (probe_three.cpp)."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import probe
import pytest


@pytest.fixture(scope="module")
def parabola(tmp_path_factory: pytest.TempPathFactory) -> probe.Probe:
    folder: Path = tmp_path_factory.mktemp("three")
    return probe.build(probe.supported()[0], folder, "probe_three")


@pytest.mark.parametrize("shape", [(1, 1), (700, 3), (33, 64), (40, 513), (17, 1100)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_and_gradients_by_recon_and_three_parameters(
    parabola: probe.Probe, dtype: type, shape: tuple[int, int]
) -> None:
    rows, features = shape
    draw = np.random.default_rng(0)
    recon, target = (draw.normal(size=shape).astype(dtype) for _ in range(2))
    a, b, c = (draw.normal(size=size).astype(dtype) for size in (features, rows, 1))
    outputs = [np.full(size, np.nan, dtype) for size in (1, shape, features, rows, 1)]
    entry = getattr(parabola.library, f"parabola_{'float' if dtype == np.float32 else 'double'}")
    entry(
        ctypes.c_int64(rows),
        ctypes.c_int64(features),
        *(ctypes.c_void_p(array.ctypes.data) for array in (recon, target, a, b, c, *outputs)),
    )

    d, (a, b, c) = recon.astype(float) - target, (x.astype(float) for x in (a, b, c))
    summands = (a * d**2 / 2, b[:, None] * d, c + 0 * d)
    truth = (
        sum(summands).sum(keepdims=True).reshape(1),
        2 * (a * d + b[:, None]),
        (d**2).sum(0),
        2 * d.sum(1),
        np.full(1, 2.0 * d.size),
    )
    sizes = (sum(map(abs, summands)).sum(), 2 * (abs(a * d) + abs(b[:, None])), (d**2).sum(0), 2 * abs(d).sum(1))
    for got, want, size in zip(outputs, truth, (*sizes, 2.0 * d.size), strict=True):
        assert (abs(got - want) <= 8 * np.finfo(dtype).eps * size).all()
