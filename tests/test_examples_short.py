"""The short examples run, and find what only right gradients can find."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from types import ModuleType

import pytest
from example_runs import check_picture
from tolerances import FLOAT32_ROUNDING

import bayes_by_backprop
import beta_tcvae
import evaluate
import graph_vae
import learned_noise
import mlp_digits
import pyvae
import squared_error
import vamp_prior

# Negative ELBOs of the digits in nats per image. 13.7 is the least that gray levels allow, and 27.1 is what a decoder
# reaches that ignores z and says the mean image, always.
MEAN_IMAGE = 27.1


pytestmark = pytest.mark.usefixtures("threads")  # the examples set their number; what comes after should not notice


def example_with(package: str, name: str, extra: str = "examples") -> ModuleType:
    """The example that needs this package, which this extra installs."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install --no-build-isolation '.[{extra}]'")
    return importlib.import_module(name)


def test_mlp_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert mlp_digits.main() < MEAN_IMAGE - 1.5  # 24.6
    rows = capsys.readouterr().out.splitlines()[-8:]
    assert {len(row) for row in rows} == {6 * 16 + 5 * 3}  # six digits side by side, of two letters a pixel
    assert all(" " in row and set(row) & set("*#%@") for row in rows[1:-1])  # neither blank nor black


def test_squared_error(capsys: pytest.CaptureFixture[str]) -> None:
    squared_error.main()  # raises where a value or a gradient differs
    printed = capsys.readouterr().out
    assert printed.count("elbo_loss(") == 1 + 7 and "elbo_loss(96, 'batchmean')" in printed


def test_squared_error_sees_another_beta(monkeypatch: pytest.MonkeyPatch) -> None:
    elbo_loss = pyvae.elbo_loss
    monkeypatch.setattr(pyvae, "elbo_loss", lambda *args, beta, **rest: elbo_loss(*args, beta=1.001 * beta, **rest))
    with pytest.raises(AssertionError, match="not close"):
        squared_error.main()


def test_learned_noise() -> None:
    found = learned_noise.main()
    _, _, kl = found["fixed at 1"]
    assert kl < 0.01  # the latent space is not used
    for name, (lowest, highest) in {"one number": (0.97, 1.1), "one for each feature": (0.93, 1.25)}.items():
        true, learned, kl = found[name]
        assert lowest < (learned / true).min() and (learned / true).max() < highest, name
        assert learned.shape == true.shape and kl > 1


def test_graph_vae() -> None:
    assert graph_vae.main() > 0.75  # 0.80; knowing the communities gives 0.83, guessing 0.5


def test_bayes_by_backprop() -> None:
    found = bayes_by_backprop.main()
    assert found.accuracy > 0.93  # 0.96
    assert found.unused == pytest.approx(0.1, rel=0.05)  # the prior's, to which the KL alone draws them
    assert found.used < 0.07  # 0.05: the data have narrowed them


def test_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate.main()
    bounds = list(found.bounds.values())
    assert bounds[0] == pytest.approx(found.elbo, abs=0.5)  # of other samples
    assert found.elbo < bounds[1] < bounds[2] < bounds[3] < 0  # tighter with every sample
    assert found.elbo > -20  # -18.5
    assert 10 <= found.active < evaluate.LATENT  # 26
    printed = capsys.readouterr().out.splitlines()
    assert f"{-bounds[3] / 64 / 0.6931:.3f}"[:4] in printed[4]
    assert {character for row in printed[-8:] for character in row} == {" ", "#"}


def test_vamp_prior(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = vamp_prior.main(str(tmp_path), epochs=20)
    assert max(found.values()) < MEAN_IMAGE - 1.5
    assert found["VampPrior"] < found["N(0, I)"]  # 24.5 and 24.8
    check_picture(tmp_path / "vamp-prior.png")
    assert "vamp-prior.png" in capsys.readouterr().out


def test_beta_tcvae(capsys: pytest.CaptureFixture[str]) -> None:
    found = beta_tcvae.main(epochs=30)
    plain, weighted = found[1.0], found[6.0]
    assert weighted.total_correlation < plain.total_correlation / 3 < 1
    assert weighted.mutual_information > 1.5  # the dimensions are still in use
    assert weighted.reconstruction < plain.reconstruction + 2.5
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_scvi_patch(capsys: pytest.CaptureFixture[str]) -> None:
    plain, patched = example_with("scvi", "scvi_patch", "scvi").main(epochs=2)
    assert patched.elbo == pytest.approx(plain.elbo, rel=1e-4)
    assert "log_zinb_positive" in capsys.readouterr().out


def test_lightning_vae() -> None:
    example = example_with("lightning", "lightning_vae")
    terms = example.main()
    assert terms["negative ELBO"] < MEAN_IMAGE - 1.5  # 24.7
    assert terms["negative ELBO"] == pytest.approx(terms["reconstruction"] + terms["KL"], rel=FLOAT32_ROUNDING)
    assert terms["KL"] > 1


def test_diffusers_vae() -> None:
    example = example_with("diffusers", "diffusers_vae")
    errors, scale = example.main()  # raises where sample, KL or a gradient differs from diffusers'
    assert mean(errors[-10:]) < 0.3  # 0.22; the median image's is 0.37
    assert scale == pytest.approx(mean(errors[-10:]), rel=0.25)  # the best scale is the mean absolute error
