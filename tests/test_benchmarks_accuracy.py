"""The errors over theta are those of the formulas that they are said to be of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import pyvae.reference
from benchmarks import accuracy, read, report


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
    monkeypatch.setattr(sys, "argv", ["accuracy", "--out", str(tmp_path / "errors.csv")])
    accuracy.main()
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "errors.csv")

    rows, where = read(tmp_path / "errors.csv")
    assert where.device == "cpu"
    keys = {(row.what, row.competitor, row.count, row.theta) for row in rows}
    assert len(keys) == len(rows) == 2 * 2 * 2 * 11
    assert min(row.theta for row in rows) == pytest.approx(1e-2) and max(row.theta for row in rows) == pytest.approx(
        1e8
    )
    worst = {name: max(row.value for row in rows if row.competitor == name) for name in accuracy.COMPETITORS}
    assert worst["fused"] <= 1e-5 < 1 < worst["eager"]


def test_the_file_in_the_repository_is_the_commands() -> None:
    rows, _ = read(report.RESULTS / report.COUNT_ERRORS_CSV)
    again = accuracy.rows()
    key = [(row.what, row.competitor, row.count, pytest.approx(row.theta, rel=1e-5)) for row in again]
    assert [(row.what, row.competitor, row.count, row.theta) for row in rows] == key
