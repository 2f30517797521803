"""A VampPrior (Tomczak & Welling 2018): the prior is a mixture of the posteriors of inputs that are learned themselves.

p(z) = 1/K sum_k q(z|u_k). The K pseudo-inputs u_k have the shape of data, and become what the model takes for typical.
From a mixture the KL has no closed form: `reparameterize_kl(..., prior=pyvae.Mixture(...))` estimates it from the
sample that it draws, in fused passes. The picture shows the pseudo-inputs, what the model draws from their posteriors,
and what the same model with the prior N(0, I) draws.

python examples/vamp_prior.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only: works without a display

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import pyvae

LATENT, HIDDEN, PIXELS, COMPONENTS, SHOWN = 8, 256, 64, 50, 25


class VAE(nn.Module):
    """With `pseudo`, (COMPONENTS, PIXELS), the prior is theirs; without, N(0, I)."""

    def __init__(self, pseudo: Tensor | None) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, PIXELS))
        # Kept in (0, 1), as the pixels are, by a sigmoid.
        self.pseudo = None if pseudo is None else nn.Parameter(torch.logit(pseudo.clamp(0.05, 0.95)))

    def prior(self) -> pyvae.Mixture | None:
        """Anew in each step: the encoder and the pseudo-inputs have moved."""
        if self.pseudo is None:
            return None
        mean, logvar = self.encoder(torch.sigmoid(self.pseudo)).chunk(2, dim=1)  # both (COMPONENTS, LATENT)
        return pyvae.Mixture(mean, logvar)

    def negative_elbo(self, x: Tensor) -> Tensor:
        mu, logvar = self.encoder(x).chunk(2, dim=1)  # both (B, LATENT)
        z, kl = pyvae.reparameterize_kl(mu, logvar, prior=self.prior())
        return pyvae.elbo_loss(self.decoder(z), x, kl=kl, likelihood="bernoulli_logits", reduction="batchmean")

    def draw(self, count: int) -> Tensor:
        """Means of the pixels of images that nobody wrote, (count, PIXELS)."""
        prior = self.prior()
        if prior is None:
            z = torch.randn(count, LATENT)
        else:
            component = torch.randint(COMPONENTS, (count,))
            z = pyvae.reparameterize(prior.mean[component], prior.logvar[component])
        return self.decoder(z).sigmoid()


def train(model: VAE, images: Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for x in images[torch.randperm(len(images))].split(64):
            loss = model.negative_elbo(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def picture(path: Path, grids: dict[str, Tensor]) -> None:
    """Images (SHOWN, PIXELS) under their titles, five in a row."""
    figure, axes = plt.subplots(1, len(grids), figsize=(4 * len(grids), 4.3), layout="constrained")
    for axis, (title, images) in zip(axes, grids.items(), strict=True):
        rows = images.view(5, 5, 8, 8).permute(0, 2, 1, 3).reshape(40, 40)
        axis.imshow(rows, cmap="gray_r", vmin=0, vmax=1)
        for line in range(8, 40, 8):
            axis.axhline(line - 0.5, color="0.8", linewidth=0.6)
            axis.axvline(line - 0.5, color="0.8", linewidth=0.6)
        axis.set_title(title, fontsize=12)
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(folder: str = "runs", epochs: int = 60) -> dict[str, float]:
    """Held-out negative ELBO of both priors, nats per image; writes the picture into the folder."""
    torch.set_num_threads(1)  # networks as small as these are slower on several
    torch.manual_seed(0)
    images = torch.as_tensor(load_digits().data, dtype=torch.float32) / 16  # (1797, PIXELS), levels of gray in [0, 1]
    images = images[torch.randperm(len(images))]  # the file is ordered by writer
    held_out, data = images[:360], images[360:]
    start = 0.6 * data[:COMPONENTS] + 0.1 * torch.rand(COMPONENTS, PIXELS)  # data, paler
    models = {"N(0, I)": VAE(None), "VampPrior": VAE(start)}
    found = {}
    for name, model in models.items():
        train(model, data, epochs)
        with torch.no_grad():
            found[name] = torch.stack([model.negative_elbo(held_out) for _ in range(10)]).mean().item()
        print(f"{name:<10} held-out negative ELBO {found[name]:.2f} nats per image")
    with torch.no_grad():
        vamp = models["VampPrior"]
        assert vamp.pseudo is not None
        grids = {
            "pseudo-inputs of the VampPrior": torch.sigmoid(vamp.pseudo[:SHOWN]),
            "drawn from the VampPrior": vamp.draw(SHOWN),
            "drawn with the prior N(0, I)": models["N(0, I)"].draw(SHOWN),
        }
    path = Path(folder) / "vamp-prior.png"
    picture(path, grids)
    print(path)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:2])
