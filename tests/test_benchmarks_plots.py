"""Pictures are made of small CSVs, and are seen on a white page and on a dark one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from benchmarks import Environment, Row, plots, write
from benchmarks.names import LOGIT_COMPETITORS, LOGIT_ERRORS
from benchmarks.plots import COLORS, INK

WHERE = Environment("cpu", "Example CPU", "avx2", "2.13.0", "0.1.0", "abc1234")
SHAPES = ((128, 784, 20), (64, 196608, 4096))


def timed(what: str, ratios: dict[str, float]) -> list[Row]:
    return [
        Row(what, competitor, 100 * ratio, "us", "both", *shape, ratio_to_fused=ratio, threads=2)
        for shape in SHAPES
        for competitor, ratio in {"fused": 1.0, **ratios}.items()
    ]


def held(what: str, stage: str | None, own: float, eager: float) -> list[Row]:
    return [Row(what, name, value, "buffers", stage, 64, 8, 1) for name, value in (("fused", own), ("eager", eager))]


LOSS = [*timed("loss", {"eager": 4.0, "eager_probabilities": 8.0, "compiled": 0.7}), *held("loss_memory", None, 1, 2)]
SAMPLER = [*timed("sample_kl", {"eager": 3.0, "compiled": 5.0}), *held("sample_kl_memory", "both", 3, 8)]
COUNTS = [*timed("nb", {"eager": 9.0}), *held("nb_memory", "both", 1, 12)]
OF_THETA = [
    Row(what, competitor, error, "relative", count=count, theta=theta)
    for what in ("nb_error", "nb_theta_error")
    for competitor in ("eager", "fused")
    for count in (3, 0)
    for theta, error in ((1.0, 1e-7), (1e8, 1e-3))
]
OF_LOGIT = [
    Row(what, competitor, error, "relative", logit=side * logit)
    for what in LOGIT_ERRORS
    for competitor in LOGIT_COMPETITORS
    for side in (1, -1)
    for logit, error in ((1e-3, 0.0), (1.0, 1e-7), (50.0, 1.0))  # a logarithm has no place for an error of 0
]


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (LOSS, ["some-speed-up", "some-memory"]),
        ([*LOSS, *SAMPLER, *COUNTS], ["some-speed-up", "some-memory"]),  # of four panels one stays empty
        (OF_THETA, ["some"]),
        (OF_LOGIT, ["some"]),
    ],
    ids=["loss", "all", "theta", "logit"],
)
def test_pictures_have_lines_on_nothing(rows: list[Row], names: list[str], tmp_path: Path) -> None:
    write(tmp_path / "some.csv", rows, WHERE)
    written = plots.pictures(tmp_path / "some.csv", tmp_path / "new")
    assert written == [tmp_path / "new" / f"{name}.png" for name in names]
    for path in written:
        picture = imread(path)  # [height, width, RGBA]
        opaque = picture[picture[..., 3] == 1][:, :3]
        assert np.mean(picture[..., 3] == 0) > 0.5
        for color in (INK, COLORS["fused"], COLORS["eager"]):
            assert np.any(np.all(np.abs(opaque - to_rgb(color)) < 0.01, axis=1)), color


@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"])
@pytest.mark.parametrize("color", [INK, *COLORS.values()])
def test_colors_are_in_contrast_with_either_page(color: str, page: str) -> None:
    """As WCAG defines it and demands it of graphics, 3 to 1."""

    def luminance(name: str) -> float:
        rgb = np.array(to_rgb(name))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(color), luminance(page)))
    assert (high + 0.05) / (low + 0.05) >= 3
