"""The example on counts trains, finds the drawn dispersions again, draws, and comes to the same with either loss."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from example_runs import check_picture, history, printed_by, refusal_of
from tolerances import FLOAT32_ROUNDING, TRAJECTORY

import cells
import objective
import pyvae
import train_counts
from count_training import Settings, train

CELLS, GENES, EPOCHS, BATCH = 1500, 50, 20, 100
ARGUMENTS = f"--cells {CELLS} --genes {GENES} --latent 4 --batch-size {BATCH} --lr 0.005 --threads 1".split()
# Of log theta, learned against drawn. It is 0.94 to 0.98 for the first seeds, and with a gradient of the wrong sign, or
# one from which a term is missing, 0 or negative.
CORRELATION = 0.9


def example(out: Path, *arguments: str) -> str:
    """Runs it in this process; what it printed."""
    return printed_by(train_counts.main, [*ARGUMENTS, "--out", str(out), *arguments])


def losses_of(epochs: list[dict[str, Any]]) -> list[float]:
    return [loss for record in epochs for loss in record["steps"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run: its folder and what it printed."""
    out = tmp_path_factory.mktemp("counts")
    return out, example(out, "--epochs", str(EPOCHS))


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison takes longer than the training here."""
    monkeypatch.setattr(train_counts, "time_counts", lambda *_: [(1.0, 1.0)] * 2)


def test_it_draws_its_pictures_and_ends_with_the_comparison(finished: tuple[Path, str]) -> None:
    out, printed = finished
    for name in ("latent_plane", "theta", "curves"):
        check_picture(out / f"{name}.png")
    last = printed.splitlines()[-1]
    assert last.startswith("Objective") and last.count("fused") == last.count("eager") == 2 and "Whole step" in last
    assert printed.startswith("1200 cells of 50 genes to train on, 300 held out")


def test_it_learns(finished: tuple[Path, str]) -> None:
    for loss in ("fused", "eager"):
        records = history(finished[0], loss)
        assert [record["epoch"] for record in records] == list(range(1, EPOCHS + 1))
        for part in ("train", "held_out"):
            values = [record[part] for record in records]
            assert values[-1] < values[len(values) // 2] < values[0]
        for record in records:
            assert record["train"] == pytest.approx(np.mean(record["steps"]), rel=FLOAT32_ROUNDING)


def test_the_dispersions_are_found_again(finished: tuple[Path, str]) -> None:
    found = re.findall(r"correlation (\S+), slope (\S+)", finished[1])
    assert len(found) == 2  # by either loss
    for correlation, slope in found:
        assert float(correlation) > CORRELATION
        assert 0.75 < float(slope) < 1.25


@pytest.fixture
def one_thread(threads: None) -> None:
    """As in the runs, whose arguments say so: the networks are too small to share."""
    torch.set_num_threads(1)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("zero_inflated", [False, True], ids=["nb", "zinb"])
def test_both_losses_go_the_same_way(zero_inflated: bool) -> None:
    """From the same weights and with the same noise, step by step: objective, and gradients of all that is learned."""
    drawn = cells.draw(500, 50, 0, zero_inflated)
    settings = Settings(zero_inflated, 3, 10, BATCH, 0.003, 0)
    fused = objective.objective("fused", counts=True)
    eager = fused._replace(negative_elbo=objective.objective("eager", counts=True).negative_elbo)
    (one, ours), (other, theirs) = (train("", loss, drawn, drawn.part(0, 50), settings) for loss in (fused, eager))
    assert len(losses_of(ours)) == 50
    assert losses_of(ours) == pytest.approx(losses_of(theirs), rel=TRAJECTORY)
    assert losses_of(ours)[0] == pytest.approx(losses_of(theirs)[0], rel=FLOAT32_ROUNDING)
    assert (one.log_theta - other.log_theta).abs().max() < 0.05 * one.log_theta.abs().max()


def test_the_eps_of_the_usual_formulas_hides_counts_of_genes_whose_mean_is_tiny() -> None:
    """As docs/migrating.md says: a loss of -log 1e-8 a count, and no gradient that would pull the mean back."""
    likelihood = pyvae.NegativeBinomial(torch.zeros(2), torch.zeros(1))
    counts, nothing = torch.tensor([[1, 0]]), torch.zeros(1)
    slopes = {}
    for name, loss in (("fused", 40.0), ("eager", -math.log(1e-8))):
        scores = torch.tensor([[-40.0, 0.0]], requires_grad=True)
        value = objective.objective(name, counts=True).negative_elbo(scores, counts, nothing, likelihood)
        value.backward()
        assert value.item() == pytest.approx(loss + math.log(2), rel=FLOAT32_ROUNDING)  # log 2: of the other gene
        slopes[name] = scores.grad[0, 0].item()
    assert slopes["fused"] == pytest.approx(-1, rel=FLOAT32_ROUNDING)
    assert -1e-6 < slopes["eager"] < 0


def test_a_run_repeats_itself(tmp_path: Path, untimed: None) -> None:
    for out in (tmp_path / "one", tmp_path / "two"):
        example(out, "--epochs", "1")
    for loss in ("fused", "eager"):
        assert history(tmp_path / "one", loss) == history(tmp_path / "two", loss)


@pytest.mark.usefixtures("one_thread", "untimed")
def test_zero_inflation_explains_what_a_plain_negative_binomial_takes_for_dispersion(tmp_path: Path) -> None:
    printed = example(tmp_path, "--epochs", "2", "--likelihood", "zinb")
    assert "likelihood zinb" in printed
    check_picture(tmp_path / "theta.png")
    drawn = cells.draw(CELLS, GENES, 0, zero_inflated=True)
    correlations, losses = [], []
    for zero_inflated in (False, True):
        settings = Settings(zero_inflated, 4, EPOCHS, BATCH, 0.005, 0)
        model, epochs = train("", objective.objective("fused", counts=True), drawn, drawn, settings)
        both = torch.stack([model.log_theta.detach(), drawn.log_theta])
        correlations.append(torch.corrcoef(both)[0, 1].item())
        losses.append(epochs[-1]["held_out"])
    assert correlations[1] > correlations[0] + 0.1  # 0.74 and 0.53
    assert losses[1] < losses[0]


def test_the_cells_are_as_described() -> None:
    drawn = cells.draw(4000, 200, 1)
    assert drawn.counts.dtype == torch.int32 and drawn.counts.min() == 0
    assert drawn.types.bincount().tolist() == pytest.approx([1000] * 4, rel=0.1)
    assert drawn.counts.float().mean().item() == pytest.approx(cells.READS, rel=0.1)
    again, other = cells.draw(4000, 200, 1), cells.draw(4000, 200, 2)
    assert torch.equal(drawn.counts, again.counts) and not torch.equal(drawn.counts, other.counts)
    lossy = cells.draw(4000, 200, 1, zero_inflated=True)
    lost = (lossy.counts != drawn.counts).float().mean(0) / (drawn.counts > 0).float().mean(0)  # of each gene's counts
    assert (lossy.counts[lossy.counts != drawn.counts] == 0).all() and 0.1 < lost.mean() < 0.4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "0"], "argument --epochs: expected a whole number of at least 1, got '0'"),
        (["--cells", "5"], "argument --cells: expected a whole number of at least 10, got '5'"),
        (["--likelihood", "poisson"], "invalid choice: 'poisson'"),
        (["--out", __file__], f"--out: {__file__} is a file, not a folder"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_bad_arguments_are_answered_in_words(arguments: list[str], words: str, tmp_path: Path) -> None:
    assert words in refusal_of(train_counts.main, ["--out", str(tmp_path), *arguments])
    assert not list(tmp_path.iterdir())


def test_missing_scanpy_is_answered_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)  # as if not installed, where it is
    with pytest.raises(SystemExit, match="--data blood needs scanpy"):
        example(tmp_path, "--data", "blood")


def test_blood(tmp_path: Path, untimed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for scanpy's file, made of known counts: those are had again."""
    random = np.random.default_rng(0)
    counts = random.poisson(2.0, size=(40, 12))
    counts[:, 0] += 1
    totals = counts.sum(1) + 100  # of all genes, others included
    cell, gene = np.nonzero(counts)
    obs = np.zeros(40, dtype=[("n_counts", "f4"), ("bulk_labels", "i1")])
    obs["n_counts"], obs["bulk_labels"] = totals, np.arange(40) % 2
    raw = {
        "data": np.log1p(counts[cell, gene] * 10_000 / totals[cell]).astype(np.float32),
        "indices": gene.astype(np.int32),
        "indptr": np.concatenate([[0], (counts > 0).sum(1).cumsum()]).astype(np.int32),
    }
    names = np.array([b"odd", b"even"])
    file = {"raw.X": raw, "obs": obs, "uns/bulk_labels_categories": names, "raw.var": np.zeros(12)}
    h5py = ModuleType("h5py")
    h5py.File = lambda path: contextlib.nullcontext(file)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "h5py", h5py)
    monkeypatch.setattr(cells, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))

    loaded = cells.blood()
    assert loaded.names == ["odd", "even"] and loaded.log_theta is None
    rows = sorted(map(tuple, torch.cat([loaded.counts, loaded.types[:, None]], dim=1).tolist()))
    assert rows == sorted((*row, place % 2) for place, row in enumerate(counts.tolist()))
    printed = example(tmp_path, "--data", "blood", "--epochs", "1")
    assert printed.startswith("32 cells of 12 genes to train on, 8 held out") and "correlation" not in printed
    check_picture(tmp_path / "latent_plane.png")
    assert not (tmp_path / "theta.png").exists()
