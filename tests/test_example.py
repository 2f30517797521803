"""The example trains, draws, resumes exactly, and comes to the same on two processes as on one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from example_runs import EXAMPLES, check_picture, history, printed_by, refusal_of
from tolerances import FLOAT32_ROUNDING

import data
import train_vae
from training import Settings, train
from workers import Workers

EPOCHS = 4
# 1,437 = 4 * 359 + 1: the last batch is a single image, of which two processes share out 0 and 1 rows.
ARGUMENTS = ("--batch-size", "359", "--lr", "0.005")
PICTURES = ("reconstructions", "samples", "latent_plane", "curves")


def example(out: Path, *arguments: str) -> str:
    """Runs it in this process; what it printed."""
    return printed_by(train_vae.main, [*ARGUMENTS, "--out", str(out), *arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run: its folder and what it printed."""
    out = tmp_path_factory.mktemp("example")
    return out, example(out, "--epochs", str(EPOCHS))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than the training here."""
    monkeypatch.setattr(train_vae, "pictures", lambda *_: [])


def test_it_draws_its_pictures_and_ends_with_the_comparison(finished: tuple[Path, str]) -> None:
    out, printed = finished
    for name in PICTURES:
        check_picture(out / f"{name}.png")
    last = printed.splitlines()[-1]
    assert "fused" in last and "eager" in last and "Held-out ELBO" in last
    assert printed.count("nats per image") == 2


def test_it_learns(finished: tuple[Path, str]) -> None:
    for loss in ("fused", "eager"):
        records = history(finished[0], loss)
        assert [record["epoch"] for record in records] == list(range(1, EPOCHS + 1))
        for part in ("train", "held_out"):
            elbos = [record[part]["elbo"] for record in records]
            assert elbos[-1] > elbos[0]
            assert elbos[-1] > -64 * math.log(2)  # better than a gray image, whose pixels cost ln 2 each


def test_the_terms_add_up(finished: tuple[Path, str]) -> None:
    for record in history(finished[0]):
        for part in ("train", "held_out"):
            terms = record[part]
            assert terms["elbo"] == pytest.approx(-terms["reconstruction"] - terms["kl"], rel=FLOAT32_ROUNDING)
        sizes = [359, 359, 359, 359, 1]
        mean = sum(loss * size for loss, size in zip(record["steps"], sizes, strict=True)) / sum(sizes)
        assert record["train"]["elbo"] == pytest.approx(-mean, rel=FLOAT32_ROUNDING)


def test_both_losses_start_from_the_same_weights(tmp_path: Path) -> None:
    images = data.load("digits", "")
    alone = Workers(0, 1, torch.device("cpu"))
    fused, eager = (
        train(Settings("digits", loss, 2, 64, 0.001, 1.0, 0, None), images, 0, alone, tmp_path / "none", False, 1)[0]
        for loss in ("fused", "eager")
    )
    assert all(map(torch.equal, fused.parameters(), eager.parameters()))


@pytest.mark.usefixtures("undrawn")
def test_a_resumed_run_equals_an_uninterrupted_one(finished: tuple[Path, str], tmp_path: Path) -> None:
    whole, _ = finished
    example(tmp_path, "--epochs", "1")
    for _ in range(2):  # the second time there is nothing left to train
        example(tmp_path, "--epochs", str(EPOCHS), "--resume")
    for loss in ("fused", "eager"):
        assert history(tmp_path, loss) == history(whole, loss)
        once, twice = (torch.load(out / f"checkpoint-{loss}.pt", weights_only=True) for out in (whole, tmp_path))
        assert all(torch.equal(once["model"][name], twice["model"][name]) for name in once["model"])


def test_two_processes_equal_one(finished: tuple[Path, str], tmp_path: Path) -> None:
    one, _ = finished
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [str(EXAMPLES / "train_vae.py"), *ARGUMENTS, "--epochs", str(EPOCHS), "--out", str(tmp_path)]
    path = os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command + script, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("Held-out ELBO") == 1  # only the first process speaks
    for alone, shared in zip(history(one), history(tmp_path), strict=True):
        assert shared["steps"] == pytest.approx(alone["steps"], rel=FLOAT32_ROUNDING)
        assert shared["held_out"] == pytest.approx(alone["held_out"], rel=FLOAT32_ROUNDING)


@pytest.mark.parametrize(
    "arguments",
    ["--loss compile --latent 5", "--loss eager --latent 1", "--loss fused --amp bf16 --beta 0.5"],
)
def test_the_other_ways(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without code generation, which takes half a minute and is torch's own affair.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    printed = example(tmp_path, "--epochs", "1", *arguments.split())
    assert all((tmp_path / f"{name}.png").exists() for name in PICTURES)
    loss = arguments.split()[1]
    assert history(tmp_path, loss)[0]["held_out"]["elbo"] > -64 * math.log(2)
    assert f"{loss} loss" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "0"], "argument --epochs: expected a whole number of at least 1, got '0'"),
        (["--batch-size", "1.5"], "argument --batch-size: expected a whole number of at least 1, got '1.5'"),
        (["--latent", "-2"], "argument --latent: expected a whole number of at least 1, got '-2'"),
        (["--beta", "nan"], "argument --beta: expected a number of at least 0, got 'nan'"),
        (["--seed", "-1"], "argument --seed: expected a whole number of at least 0, got '-1'"),
        (["--loss", "fast"], "invalid choice: 'fast'"),
        (["--data", "cats"], "invalid choice: 'cats'"),
        (["--device", "abacus"], "argument --device: 'abacus' cannot be used here"),
        (["--resume"], "--resume: there is no checkpoint-fused.pt in "),
        (["--out", __file__], f"--out: {__file__} is a file, not a folder"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_bad_arguments_are_answered_in_words(arguments: list[str], words: str, tmp_path: Path) -> None:
    assert words in refusal_of(train_vae.main, ["--out", str(tmp_path), *arguments])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", str(EPOCHS - 1)], f"has {EPOCHS} epochs already"),
        (["--latent", "3"], "was trained with latent = 2, this run asks for 3"),
    ],
)
def test_resuming_what_does_not_fit_is_refused(arguments: list[str], words: str, finished: tuple[Path, str]) -> None:
    with pytest.raises(SystemExit, match=words):
        example(finished[0], "--resume", *arguments)


def test_missing_torchvision_is_answered_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # as if not installed, where it is
    with pytest.raises(SystemExit, match="--data mnist needs torchvision"):
        example(tmp_path, "--data", "mnist")


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in: the real one downloads."""

    def dataset(folder: str, *, train: bool, download: bool) -> SimpleNamespace:
        images = torch.randint(0, 256, (128 if train else 64, 28, 28), dtype=torch.uint8)
        return SimpleNamespace(data=images, targets=torch.arange(len(images)) % 10, classes=[*"abcdefghij"])

    datasets = SimpleNamespace(MNIST=dataset, FashionMNIST=dataset)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=datasets))


@pytest.mark.usefixtures("torchvision", "undrawn")
@pytest.mark.parametrize(("name", "first_class"), [("mnist", "0"), ("fashion-mnist", "a")])
def test_data_sets_of_torchvision(name: str, first_class: str, tmp_path: Path) -> None:
    loaded = data.load(name, "")
    assert loaded.train.shape == (128, 1, 28, 28) and loaded.held_out.shape == (64, 1, 28, 28)
    assert loaded.train.dtype == torch.float32 and loaded.train.min() == 0 and loaded.train.max() == 1
    assert len(loaded.classes) == 10 and loaded.classes[0] == first_class
    printed = example(tmp_path, "--data", name, "--epochs", "1")
    assert printed.startswith("128 images of 28x28 to train on, 64 held out")
