"""The pictures of the counts: where cells lie in the latent space, dispersions found again, the curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LogNorm
from torch import Tensor

from cells import Cells
from model import CountVAE
from plots import PRINCIPAL, principal_plane, save


@torch.no_grad()
def pictures(folder: Path, model: CountVAE, cells: Cells, runs: dict[str, list[dict[str, Any]]]) -> list[Path]:
    """Writes all of them; `runs` are histories by the name of their loss, the model's own first."""
    means, _ = model.encode(cells.counts)
    latent_plane(means, cells)
    if cells.log_theta is not None:
        dispersions(model.log_theta, cells.log_theta, cells.counts.float().mean(0))
    curves(runs)
    return save(folder)


def latent_plane(means: Tensor, cells: Cells) -> None:
    center, directions = principal_plane(means)
    where = ((means - center) @ torch.linalg.pinv(directions)).cpu()
    _, axes = plt.subplots(num="latent_plane", figsize=(8.6, 6), layout="constrained")
    for place, name in enumerate(cells.names):
        of_type = where[cells.types == place]
        axes.scatter(*of_type.T.numpy(), s=12, linewidths=0, color=f"C{place}", label=f"{name} ({len(of_type)})")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="type (cells)", markerscale=2)
    axes.set_title("Cells by the mean of q(z|counts)")
    axes.set(xlabel=PRINCIPAL.format(1), ylabel=PRINCIPAL.format(2))
    axes.set_aspect("equal", adjustable="datalim")


def dispersions(found: Tensor, true: Tensor, mean: Tensor) -> None:
    """Genes of few counts say little about their dispersion: the colors tell how many there were."""
    found, true = found.exp().cpu(), true.exp().cpu()
    _, axes = plt.subplots(num="theta", figsize=(7.4, 6), layout="constrained")
    colors = {"c": mean.cpu().numpy(), "cmap": "viridis", "norm": LogNorm()}
    points = axes.scatter(true.numpy(), found.numpy(), s=10, linewidths=0, **colors)
    ends = [true.min().item(), true.max().item()]
    axes.plot(ends, ends, color="black", linewidth=1, linestyle="--", label="learned = true")
    axes.set(xscale="log", yscale="log", xlabel="true θ", ylabel="learned θ")
    axes.set_title("Each gene's inverse dispersion θ")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    axes.figure.colorbar(points, label="mean count of the gene")


def curves(runs: dict[str, list[dict[str, Any]]]) -> None:
    _, axes = plt.subplots(num="curves", figsize=(7.4, 5), layout="constrained")
    own, rival = runs
    for loss, part, style in ((own, "train", "C0-"), (own, "held_out", "C1-"), (rival, "held_out", "k:")):
        epochs, values = zip(*((record["epoch"], record[part]) for record in runs[loss]), strict=True)
        axes.plot(epochs, values, style, label=f"{part.replace('_', ' ')}, {loss} loss", linewidth=1.5)
    axes.set(title="Negative ELBO", xlabel="epoch", ylabel="nats per cell", xscale="log")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.grid(alpha=0.3)
    axes.legend()
