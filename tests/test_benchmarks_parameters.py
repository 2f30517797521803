"""Likelihoods with parameters in the benchmark: what is compared, and the tables. The numbers in these are made up."""

from __future__ import annotations

import pytest
import torch

from benchmarks import Row, parameters, report, targets
from benchmarks.cases import PARAMETERS, Shape, make_cases
from benchmarks.speed import F64, counterpart

MEAN = "mean over the batch: losses per sample, then their mean, against"
SHORT, IMAGES = Shape(20000, 3, 0), Shape(128, 784, 0)


def timed(what: str, competitor: str, time: float, ratio: float, shape: Shape = SHORT, dtype: str = "float32") -> Row:
    return Row(what, competitor, time, "us", "both", *shape, ratio_to_fused=ratio, threads=1, dtype=dtype)


ROWS = [
    timed("gaussian", "fused", 50.0, 1.0),
    timed("gaussian", "eager", 45.0, 0.9),
    timed("gaussian", "eager_function", 30.0, 0.6),  # shown, but no target
    timed("gaussian", "fused_batch", 52.0, 1.04),
    timed("gaussian", "fused_none", 80.6, 1.55),
    timed("gaussian", "eager_none", 60.0, 0.75),
    timed("gaussian", "fused", 50.0, 1.0, dtype="float64"),
    timed("gaussian", "eager", 65.0, 1.3, dtype="float64"),
    timed("gaussian", "fused_none", 80.0, 1.25, IMAGES, "float64"),
    timed("gaussian_scalar", "fused", 99.0, 1.0),
    timed("gaussian_scalar", "fused", 101.0, 1.0, dtype="float64"),
    timed("gaussian_scalar", "fused", 200.0, 1.0, IMAGES),  # without "gaussian" at its side
    timed("poisson", "fused_none", 80.0, 1.2),
    timed("poisson", "eager_none", 88.0, 1.1),
]


@pytest.mark.parametrize("what", PARAMETERS)
def test_all_compute_the_same(what: str) -> None:
    """In float64: sums, and means over the batch; with the gradients of recon and of the parameter."""
    cases = make_cases(what, parameters.make_inputs((8, 5, 0), "cpu", F64))
    made = {case.name: case.step() for case in cases}
    value, gradients = made["eager"]
    assert len(gradients) == len(parameters.LIKELIHOODS[what].arguments.split()) - 1
    for name, (own, own_gradients) in made.items():
        scale = 1 / 8 if name.endswith(("_none", "_batch")) else 1
        # What the eps = 1e-8 of the negative binomial makes; the others agree to 1e-14.
        torch.testing.assert_close(own, scale * value, rtol=1e-5, atol=0)
        torch.testing.assert_close(
            own_gradients, tuple(scale * gradient for gradient in gradients), rtol=1e-4, atol=1e-6
        )


def test_what_each_is_compared_with() -> None:
    names = ("eager", "eager_function", "fused_batch", "fused_none", "eager_none")
    assert [counterpart(name) for name in names] == ["fused", "fused", "fused", "fused_batch", "fused_none"]


def test_every_likelihood_has_a_name_in_the_tables() -> None:
    assert tuple(targets.PARAMETERS) == PARAMETERS


def test_table_of_times() -> None:
    table = report.of_parameters(ROWS).split("\n\n")[0].splitlines()
    heads = '`F.mse_loss` | `"none"`, then mean: × of `"sum"` / B | eager so: × of `"none"`, then mean |'
    assert table[0] == f"| one thread | B×D, latent L | types | pyvae | eager | {heads}"
    times = "50 µs | 45 µs, 0.90× | 30 µs, 0.60× | 81 µs, 1.6× | 60 µs, 0.75× |"
    assert table[2] == f'| `"gaussian"` | 20000x3 | float32 | {times}'
    assert len(table) == 2 + 5


@pytest.mark.parametrize(
    ("target", "measured", "reached"),
    [
        ('`"gaussian"` forward + backward, against eager', "0.90× (at 20000x3) to 1.3×", "**no**"),
        ("`Laplace`, logscale (D,) forward + backward, against eager", "not measured", "**no**"),
        ('`Gaussian`, logvar () forward + backward, against `"gaussian"`', "2.02× (at 20000x3, float64)", "**no**"),
        (f"{MEAN} eager", '0.75× (`"gaussian"` at 20000x3)', "**no**"),
        (f'{MEAN} `"sum"` / B, counts and D ≥ 64', '1.25× (`"gaussian"` at 128x784, float64)', "yes"),
        (f'{MEAN} `"sum"` / B, the others', '1.55× (`"gaussian"` at 20000x3)', "yes"),
    ],
)
def test_targets_are_judged(target: str, measured: str, reached: str) -> None:
    lines = [line.strip("| ").split(" | ") for line in report.of_parameters(ROWS).splitlines()]
    (found,) = (line for line in lines if line[0] == target)
    assert found[2:] == [measured, reached]


def test_what_was_not_measured_is_said() -> None:
    assert report.of_parameters([]).count("not measured") == len(targets.PARAMETER_TARGETS)
    slower = [row for row in ROWS if row.what == "poisson"]
    slower = [timed("poisson", row.competitor, row.value, 1.26) for row in slower]
    assert '1.26× (`"poisson"` at 20000x3) | **no**' in report.of_parameters(slower)
