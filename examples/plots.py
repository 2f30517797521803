"""The pictures: reconstructions, samples from the prior, a walk through the latent plane, the curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: works without a display

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

import pyvae
from data import Data
from model import VAE

plt.rcParams.update({"font.size": 11, "axes.titlesize": 13, "figure.dpi": 150})
plt.rcParams.update({"figure.constrained_layout.w_pad": 0.12, "figure.constrained_layout.h_pad": 0.1})  # inches

ZOOM = 8
PAIRS = 20  # columns of originals and reconstructions, in two bands
SAMPLES = 10  # a side
WALK = 15  # a side
REACH = 2.2  # of the walk, in standard deviations


@torch.no_grad()
def pictures(folder: Path, model: VAE, data: Data, runs: dict[str, list[dict[str, Any]]]) -> list[Path]:
    """Writes all of them; `runs` are histories by the name of their loss, the model's own first."""
    figures = {
        "reconstructions": reconstructions(model, data),
        "samples": samples(model),
        "latent_plane": latent_plane(model, data),
        "curves": curves(runs),
    }
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1])
        plt.close(figure)
    return paths


def device_of(model: VAE) -> torch.device:
    return next(model.parameters()).device


def tiles(images: Tensor, columns: int) -> Tensor:
    """(N, 1, H, W) in rows of `columns`, enlarged, with a thin frame around each."""
    large = images[:, 0].float().cpu().repeat_interleave(ZOOM, dim=1).repeat_interleave(ZOOM, dim=2)
    framed = torch.nn.functional.pad(large, (2, 2, 2, 2), value=torch.nan)  # NaN: drawn as background
    _, height, width = framed.shape
    return framed.reshape(-1, columns, height, width).transpose(1, 2).reshape(-1, columns * width)


def show(axes: Axes, images: Tensor, columns: int, extent: tuple[float, float, float, float] | None = None) -> None:
    axes.imshow(tiles(images, columns).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
    if extent is None:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)


def reconstructions(model: VAE, data: Data) -> Figure:
    x = data.held_out[: 2 * PAIRS].to(device_of(model))
    means, _ = model.encode(x)
    again = torch.sigmoid(model.decode(means))
    figure, bands = plt.subplots(2, 1, figsize=(12, 3.1), layout="constrained")
    for band, first in zip(bands, (0, PAIRS), strict=True):
        part = slice(first, first + PAIRS)
        both = torch.cat([x[part], again[part]])
        show(band, both, PAIRS)
        height = len(tiles(both, PAIRS))
        band.set_yticks([height / 4, 3 * height / 4], ["original", "reconstruction"])
        band.tick_params(length=0)
    figure.suptitle("Held-out images and their reconstructions")
    return figure


def samples(model: VAE) -> Figure:
    zeros = torch.zeros(SAMPLES * SAMPLES, model.latent, device=device_of(model))
    z = pyvae.reparameterize(zeros, zeros, seed=0)  # mean 0, log-variance 0: the prior
    figure, axes = plt.subplots(figsize=(6, 6), layout="constrained")
    show(axes, torch.sigmoid(model.decode(z)), SAMPLES)
    axes.set_title("Samples from the prior: decoder(z), z ~ N(0, I)")
    return figure


def latent_plane(model: VAE, data: Data) -> Figure:
    """Decoded images over a plane of the latent space, and beside it where the held-out images lie in that plane."""
    means, _ = model.encode(data.held_out.to(device_of(model)))
    center, directions, axis_name = torch.zeros_like(means[0]), torch.eye(2).to(means), "$z_{}$"
    if means.shape[1] == 1:
        directions = directions[:, :1]  # a line: every row of the walk is alike
    elif means.shape[1] > 2:
        # The plane in which the means spread most, in units of their spread.
        center = means.mean(0)
        _, spread, axes = torch.linalg.svd(means - center, full_matrices=False)
        directions = axes[:2] * (spread[:2, None] / len(means) ** 0.5)
        axis_name = "principal direction {} (standard deviations)"
    places = torch.linspace(-REACH, REACH, WALK, device=means.device)
    across, up = torch.meshgrid(places, places.flip(0), indexing="xy")  # the first row of the picture is the upper one
    z = center + torch.stack([across.flatten(), up.flatten()], dim=1) @ directions
    where = ((means - center) @ torch.linalg.pinv(directions)).cpu()

    edge = REACH * WALK / (WALK - 1)  # half a tile beyond the last place
    figure, (walk, scatter) = plt.subplots(1, 2, figsize=(13.6, 6.4), layout="constrained")
    show(walk, torch.sigmoid(model.decode(z)), WALK, extent=(-edge, edge, -edge, edge))
    walk.set_title("A walk through the latent plane: decoder(z)")
    colors = plt.get_cmap("tab10")
    for label, name in enumerate(data.classes):
        chosen = data.held_out_labels == label
        scatter.scatter(*where[chosen].T.numpy(), s=16, color=colors(label), label=name, linewidths=0)
    scatter.set_title("Where the encoder puts the held-out images: mean of q(z|x)")
    scatter.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2)
    scatter.add_patch(Rectangle((-edge, -edge), 2 * edge, 2 * edge, fill=False, edgecolor="gray", linestyle="--"))
    scatter.annotate("the walk", (-edge, edge), xytext=(3, 3), textcoords="offset points", color="gray")
    far = max(edge + 0.3, 1.05 * where.abs().max().item())
    for axes, limit in ((walk, edge), (scatter, far)):
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axes.set(xlabel=axis_name.format(1), ylabel=axis_name.format(2))
    return figure


def curves(runs: dict[str, list[dict[str, Any]]]) -> Figure:
    figure, panels = plt.subplots(1, 3, figsize=(13.6, 4.2), layout="constrained")
    own, rival = runs
    lines = [
        (own, "train", "-", f"train, {own} loss"),
        (own, "held_out", "-", f"held out, {own} loss"),
        (rival, "held_out", "k:", f"held out, {rival} loss"),
    ]
    titles = {"elbo": "ELBO", "reconstruction": "Reconstruction, $-$log p(x|z)", "kl": "KL(q(z|x) ‖ p(z))"}
    for axes, (term, title) in zip(panels, titles.items(), strict=True):
        for name, part, style, label in lines:
            epochs = [record["epoch"] for record in runs[name]]
            axes.plot(epochs, [record[part][term] for record in runs[name]], style, label=label, linewidth=1.3)
        axes.set(title=title, xlabel="epoch", ylabel="nats per image")
        axes.set_xscale("log")  # most happens in the first epochs
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    return figure
