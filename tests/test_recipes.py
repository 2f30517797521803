"""What docs/recipes.md and the docstrings say of seeds, samples and backward passes. The page's code: test_docs.py."""

from __future__ import annotations

import pytest
import torch
from cases import leaf, posterior
from tolerances import FLOAT32_ROUNDING
from torch.autograd import grad

import pyvae
from pyvae._expect import is_elsewhere


def test_one_seed_is_one_noise(device: str, backend: str) -> None:
    """Of two layers of equal shape; another seed is another; and a step's number is a resumed run's noise."""
    first, second = (posterior("logvar", (5, 7), seed=seed, device=device) for seed in (1, 2))

    def noise(mu: torch.Tensor, logvar: torch.Tensor, seed: int) -> torch.Tensor:
        z = pyvae.reparameterize(torch.zeros_like(mu), torch.zeros_like(logvar), seed=seed)
        assert torch.equal(z, pyvae.reparameterize(torch.zeros_like(mu), torch.zeros_like(logvar), seed=seed))
        return z

    assert torch.equal(noise(*first, seed=3), noise(*second, seed=3))
    assert not (noise(*first, seed=3) == noise(*second, seed=4)).any()


def test_which_noises_one_seed_has(device: str) -> None:
    zeros = torch.zeros(64, 16, device=device)
    single, double, half = (
        pyvae.reparameterize(zeros.to(dtype), zeros.to(dtype), seed=5)
        for dtype in (torch.float32, torch.float64, torch.float16)
    )
    assert not torch.isclose(single.double(), double, rtol=1e-3).all()
    assert torch.equal(half, single.half())
    reference = pyvae.reference.reparameterize(zeros, zeros, seed=5)
    torch.testing.assert_close(reference, single, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)


def test_dimension_0_is_the_batch(device: str, backend: str) -> None:
    mu, logvar = posterior("logvar", (3, 4, 2), device=device)
    z, kl = pyvae.reparameterize_kl(mu, logvar)
    assert z.shape == (3, 4, 2) and kl.shape == (3,)
    flat = [x.flatten(0, 1) for x in (mu, logvar)]
    many = pyvae.reparameterize(*(x.repeat(6, 1) for x in flat), seed=1).view(6, 12, 2)
    eps = (many - flat[0]) / torch.exp(flat[1] / 2)
    assert len(eps[:, 0, 0].unique()) == 6  # each sample has a noise of its own


def test_z_and_kl_share_a_node(device: str, backend: str) -> None:
    mu, logvar = (leaf(x) for x in posterior("logvar", (3, 4), device=device))
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=1)
    if backend == "kernels":
        assert z.grad_fn is kl.grad_fn
    whole = grad(z.sum() + kl.sum(), (mu, logvar), retain_graph=True)
    apart = [grad(out.sum(), (mu, logvar), retain_graph=True) for out in (z, kl)]
    for both, of_z, of_kl in zip(whole, *apart, strict=True):
        torch.testing.assert_close(both, of_z + of_kl)


def test_free_bits_of_the_batch(device: str, backend: str) -> None:
    mu, logvar = (leaf(x) for x in posterior("logvar", (5, 3), device=device))
    x = torch.rand(5, 4, device=device)
    elements = pyvae.kl_divergence(mu, logvar, reduction="elements")
    assert elements.shape == (5, 3)
    free = elements.mean(0).clamp(min=1e3).sum()
    loss = pyvae.reconstruction_loss(x, x, likelihood="gaussian", reduction="batchmean") + free
    assert loss.item() == 3e3
    assert all((g == 0).all() for g in grad(loss, (mu, logvar)))


def test_a_generator_of_another_gpu_is_elsewhere() -> None:
    devices = [torch.device(name) for name in ("cpu", "cuda", "cuda:0", "cuda:1")]
    expected = [[0, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 1], [1, 0, 1, 0]]
    assert [[is_elsewhere(a, b) for b in devices] for a in devices] == [[bool(x) for x in row] for row in expected]


@pytest.mark.parametrize("function", ["reparameterize", "reparameterize_kl"])
def test_a_generator_elsewhere_is_refused(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its index, which a machine without two GPUs cannot show: mu says that it is on another."""
    mu = torch.zeros(2, 3)
    monkeypatch.setattr("pyvae._latent_checks.is_elsewhere", lambda *_: True)
    with (
        pyvae.backend("reference"),
        pytest.raises(ValueError, match=rf"^{function}: `generator` must be on mu's device"),
    ):
        getattr(pyvae, function)(mu, mu, generator=torch.Generator())
