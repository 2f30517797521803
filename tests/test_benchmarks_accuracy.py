"""The errors over theta and over the logit are those of the formulas that they are said to be of."""

from __future__ import annotations

import sys
from pathlib import Path

import mpmath as mp
import pytest
import torch

import pyvae.reference
from benchmarks import COUNT_ERRORS_CSV, LOGIT_ERRORS_CSV, RESULTS, accuracy, read


@pytest.mark.parametrize("x", accuracy.COUNTS)
def test_the_truth_is_the_negative_binomials(x: int) -> None:
    """By the reference in float64, which leaves lgamma above theta = 8, and by the usual formula below."""
    log_theta = torch.linspace(-4, 18, 12, dtype=torch.float64, requires_grad=True)
    log_mean, counts = torch.full_like(log_theta, 0.7).detach(), torch.full_like(log_theta, x).detach()
    likelihood = pyvae.NegativeBinomial(log_theta[:, None])
    value = pyvae.reference.reconstruction_loss(log_mean[:, None], counts[:, None], likelihood=likelihood)
    (slope,) = torch.autograd.grad(value.sum(), log_theta)
    truth = [accuracy.exact(0.7, x, r) for r in log_theta.tolist()]
    for got, exact in zip((value, slope), zip(*truth, strict=True), strict=True):
        torch.testing.assert_close(got, torch.tensor(list(map(float, exact)), dtype=got.dtype), rtol=1e-7, atol=0)

    small = log_theta.detach() < 2
    usual = accuracy.usual(log_mean, counts, log_theta.detach())
    torch.testing.assert_close(usual[small], value.detach()[small], rtol=1e-5, atol=0)


def test_what_is_written_is_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accuracy, "PER_DECADE", 1)
    monkeypatch.setattr(accuracy, "LOGIT_DECADES", (-3, 1))
    monkeypatch.setattr(sys, "argv", ["accuracy", "--out", str(tmp_path)])
    accuracy.main()
    files = [tmp_path / name for name in (COUNT_ERRORS_CSV, LOGIT_ERRORS_CSV)]
    assert [line for line in capsys.readouterr().out.splitlines() if "=" not in line] == list(map(str, files))
    assert len(read(files[1])[0]) == 2 * 4 * 2 * 4

    rows, where = read(files[0])
    assert where.device == "cpu"
    keys = {(row.what, row.competitor, row.count, row.theta) for row in rows}
    assert len(keys) == len(rows) == 2 * 2 * 2 * 11
    assert min(row.theta for row in rows) == pytest.approx(1e-2) and max(row.theta for row in rows) == pytest.approx(
        1e8
    )
    worst = {name: max(row.value for row in rows if row.competitor == name) for name in accuracy.COMPETITORS}
    assert worst["fused"] <= 1e-5 < 1 < worst["eager"]


def test_the_truth_is_the_bernoullis() -> None:
    """By mpmath: values and derivatives, in both tails and for both targets."""
    logit = torch.tensor([-79.0, -17.0, -1e-3, 0.0, 1e-3, 17.0, 79.0])
    for target in (0, 1):
        with mp.workdps(accuracy.DIGITS):
            wrong = [mp.mpf(float(x)) * (1 - 2 * target) for x in logit]
            value = [float(mp.log1p(mp.exp(x))) for x in wrong]
            slope = [float((1 - 2 * target) / (1 + mp.exp(-x))) for x in wrong]
        for got, right in zip(accuracy.exact_logits(logit, target), (value, slope), strict=True):
            torch.testing.assert_close(got, torch.tensor(right, dtype=torch.float64), rtol=1e-14, atol=0)


def test_pyvaes_errors_in_the_repository_are_a_rounding() -> None:
    """Everywhere; torch's as well but for large logits on the target's side, where its digits are lost."""
    rows, _ = read(RESULTS / LOGIT_ERRORS_CSV)
    assert max(row.value for row in rows if row.competitor == "fused") <= 1e-6
    of_torch = [(row.logit or 0.0, row.value) for row in rows if row.competitor == "eager"]
    assert max(error for logit, error in of_torch if logit < 0) <= 1e-6 < 0.5 < max(error for _, error in of_torch)


def test_the_files_in_the_repository_are_the_commands() -> None:
    rows, _ = read(RESULTS / COUNT_ERRORS_CSV)
    again = accuracy.rows()
    key = [(row.what, row.competitor, row.count, pytest.approx(row.theta, rel=1e-5)) for row in again]
    assert [(row.what, row.competitor, row.count, row.theta) for row in rows] == key

    rows, _ = read(RESULTS / LOGIT_ERRORS_CSV)
    key = [(row.what, row.competitor, pytest.approx(row.logit, rel=1e-5)) for row in accuracy.logit_rows()]
    assert [(row.what, row.competitor, row.logit) for row in rows] == key
