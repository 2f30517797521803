"""The pictures: reconstructions, samples from the prior, a walk through the latent plane, the curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: works without a display

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

import pyvae
from data import Data
from model import VAE

plt.rcParams.update({"font.size": 11, "axes.titlesize": 13, "figure.dpi": 150, "legend.frameon": False})
plt.rcParams.update({"figure.constrained_layout.w_pad": 0.12, "figure.constrained_layout.h_pad": 0.1})  # inches

ZOOM = 8
PAIRS = 20  # columns of originals and reconstructions, in two bands
SAMPLES = 10  # a side
WALK = 15  # a side
REACH = 2.2  # of the walk, in standard deviations
PRINCIPAL = "principal direction {} (standard deviations)"


@torch.no_grad()
def pictures(folder: Path, model: VAE, data: Data, runs: dict[str, list[dict[str, Any]]]) -> list[Path]:
    """Writes all of them; `runs` are histories by the name of their loss, the model's own first."""
    x = data.held_out.to(next(model.parameters()).device)
    means, _ = model.encode(x)
    reconstructions(x, model.decoder(means).sigmoid())
    samples(model)
    latent_plane(model, means, data)
    curves(runs)
    return save(folder)


def save(folder: Path) -> list[Path]:
    """Writes every figure under its name, and closes it."""
    paths = [folder / f"{name}.png" for name in plt.get_figlabels()]
    for path in paths:
        plt.figure(path.stem).savefig(path)
        plt.close(path.stem)
    return paths


def show(axes: Axes, images: Tensor, columns: int, **options: Any) -> None:
    """(N, 1, H, W) in rows of `columns`, enlarged, with a thin frame around each."""
    large = images[:, 0].float().cpu().repeat_interleave(ZOOM, dim=1).repeat_interleave(ZOOM, dim=2)
    framed = torch.nn.functional.pad(large, (2, 2, 2, 2), value=torch.nan)  # NaN: drawn as background
    rows = torch.cat([torch.cat([*row], dim=1) for row in framed.split(columns)])
    axes.imshow(rows.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest", **options)
    if not options:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)


def reconstructions(x: Tensor, again: Tensor) -> None:
    figure, bands = plt.subplots(2, 1, num="reconstructions", figsize=(12, 3.1), layout="constrained")
    for band, axes in enumerate(bands):
        part = slice(band * PAIRS, (band + 1) * PAIRS)
        show(axes, torch.cat([x[part], again[part]]), PAIRS)
        height = axes.get_ylim()[0]
        axes.set_yticks([height / 4, 3 * height / 4], ["original", "reconstruction"])
        axes.tick_params(length=0)
    figure.suptitle("Held-out images and their reconstructions")


def samples(model: VAE) -> None:
    zeros = torch.zeros(SAMPLES**2, model.latent, device=next(model.parameters()).device)
    z = pyvae.reparameterize(zeros, zeros, seed=0)  # mean 0, log-variance 0: the prior
    _, axes = plt.subplots(num="samples", figsize=(6, 6), layout="constrained")
    show(axes, model.decoder(z).sigmoid(), SAMPLES)
    axes.set_title("Samples from the prior: decoder(z), z ~ N(0, I)")


def principal_plane(means: Tensor) -> tuple[Tensor, Tensor]:
    """The plane in which the means spread most, in units of their spread: its center, and two directions."""
    center = means.mean(0)
    _, spread, axes = torch.linalg.svd(means - center, full_matrices=False)
    return center, axes[:2] * (spread[:2, None] / len(means) ** 0.5)


def latent_plane(model: VAE, means: Tensor, data: Data) -> None:
    """Decoded images over a plane of the latent space, and beside it where the held-out images lie in that plane."""
    center, directions, axis_name = torch.zeros_like(means[0]), torch.eye(2).to(means), "$z_{}$"
    if model.latent == 1:
        directions = directions[:, :1]  # a line: every row of the walk is alike
    elif model.latent > 2:
        center, directions = principal_plane(means)
        axis_name = PRINCIPAL
    places = torch.linspace(-REACH, REACH, WALK, device=means.device)
    plane = torch.cartesian_prod(places.flip(0), places).flip(1)  # the first row of the picture is the upper one
    where = ((means - center) @ torch.linalg.pinv(directions)).cpu()

    edge = REACH * WALK / (WALK - 1)  # half a tile beyond the last place
    _, (walk, scatter) = plt.subplots(1, 2, num="latent_plane", figsize=(13.6, 6.4), layout="constrained")
    show(walk, model.decoder(center + plane @ directions).sigmoid(), WALK, extent=(-edge, edge, -edge, edge))
    walk.set_title("A walk through the latent plane: decoder(z)")
    colors = {"c": data.held_out_labels.numpy(), "cmap": "tab10", "vmin": 0, "vmax": 9}
    points = scatter.scatter(*where.T.numpy(), s=16, linewidths=0, **colors)
    handles, _ = points.legend_elements(num=range(len(data.classes)))
    scatter.legend(handles, data.classes, loc="center left", bbox_to_anchor=(1, 0.5))
    scatter.set_title("Where the encoder puts the held-out images: mean of q(z|x)")
    scatter.add_patch(Rectangle((-edge, -edge), 2 * edge, 2 * edge, fill=False, edgecolor="gray", linestyle="--"))
    scatter.annotate("the walk", (-edge, edge), xytext=(3, 3), textcoords="offset points", color="gray")
    far = max(edge + 0.3, 1.05 * where.abs().max().item())
    for axes, limit in ((walk, edge), (scatter, far)):
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axes.set(xlabel=axis_name.format(1), ylabel=axis_name.format(2))


def curves(runs: dict[str, list[dict[str, Any]]]) -> None:
    _, panels = plt.subplots(1, 3, num="curves", figsize=(13.6, 4.2), layout="constrained")
    own, rival = runs
    titles = {"elbo": "ELBO", "reconstruction": "Reconstruction, $-$log p(x|z)", "kl": "KL(q(z|x) ‖ p(z))"}
    for axes, (term, title) in zip(panels, titles.items(), strict=True):
        for loss, part, style in ((own, "train", "-"), (own, "held_out", "-"), (rival, "held_out", "k:")):
            epochs, values = zip(*((record["epoch"], record[part][term]) for record in runs[loss]), strict=True)
            axes.plot(epochs, values, style, label=f"{part.replace('_', ' ')}, {loss} loss", linewidth=1.3)
        axes.set(title=title, xlabel="epoch", ylabel="nats per image", xscale="log")  # most happens in the first epochs
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.grid(alpha=0.3)
    panels[0].legend()
