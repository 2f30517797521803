"""Counts of single cells: drawn from a known model, or real blood cells that come with scanpy."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TYPES = 4
PROGRAMS = 16  # of genes that rise and fall together
READS = 4  # a cell's mean total, for each gene


class Cells(NamedTuple):
    counts: Tensor  # (N, D) int32: the kernels read integers as they are
    types: Tensor  # (N,) int64, places in `names`
    names: list[str]  # of the types
    log_theta: Tensor | None  # (D,) float32: the genes' inverse dispersions, where they are known

    def part(self, begin: int, end: int | None) -> Cells:
        return self._replace(counts=self.counts[begin:end], types=self.types[begin:end])


def draw(cells: int, genes: int, seed: int, zero_inflated: bool = False) -> Cells:
    """Cells that differentiate into four types, and their negative binomial counts; some lost, if zero-inflated.

    A cell's state is a point of the plane, on one of four branches that leave one root and bend. Programs of genes
    follow it, each with a threshold of its own; their mixture gives the logarithm of a gene's share.
    """
    random = np.random.default_rng(seed)
    types = random.integers(TYPES, size=cells)
    time = random.uniform(size=cells)  # 0 at the root
    angle = np.pi / 2 * (types + time)
    state = 2 * time[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (N, 2)
    programs = np.tanh(state @ random.normal(size=(2, PROGRAMS)) + random.normal(size=PROGRAMS))  # (N, PROGRAMS)
    abundance, effects = random.normal(size=genes), random.normal(size=(PROGRAMS, genes)) / PROGRAMS**0.5
    share = np.exp(abundance + programs @ effects)  # (N, D)
    library = READS * genes * np.exp(0.3 * random.normal(size=(cells, 1)))
    mean = library * share / share.sum(axis=1, keepdims=True)

    log_theta = np.log(2) + 0.8 * random.normal(size=genes)
    theta = np.exp(log_theta)
    counts = random.poisson(mean * random.gamma(theta, 1 / theta, size=mean.shape))  # variance mean + mean^2 / theta
    if zero_inflated:
        lost = 1 / (1 + np.exp(1.5 - random.normal(size=genes)))  # a probability for each gene
        counts[random.uniform(size=counts.shape) < lost] = 0
    counts, log_theta = torch.as_tensor(counts, dtype=torch.int32), torch.as_tensor(log_theta, dtype=torch.float32)
    names = [f"branch {letter}" for letter in "ABCD"]
    return Cells(counts, torch.as_tensor(types), names, log_theta)


def blood() -> Cells:
    """700 mononuclear cells of human blood, 765 genes, ten types (Zheng et al. 2017), from a file in scanpy's package.

    The file has log(1 + 10,000 count / total), and each cell's total over all genes: the counts can be had again.
    """
    try:
        import h5py

        folder = find_spec("scanpy").submodule_search_locations[0]
    except (ImportError, AttributeError) as error:
        raise SystemExit(
            "--data blood needs scanpy, which ships it, and h5py, which reads it.\n"
            "Install them (pip install scanpy), or use --data drawn, which needs nothing."
        ) from error
    with h5py.File(Path(folder, "datasets", "10x_pbmc68k_reduced.h5ad")) as file:
        values, columns, rows = (file["raw.X"][part][:] for part in ("data", "indices", "indptr"))
        totals, labels = (file["obs"][:][column] for column in ("n_counts", "bulk_labels"))
        names = [name.decode() for name in file["uns/bulk_labels_categories"][:]]
        genes = len(file["raw.var"])
    cells = np.repeat(np.arange(len(totals)), np.diff(rows))  # of each value
    counts = torch.zeros(len(totals), genes, dtype=torch.int32)
    counts[cells, columns] = torch.as_tensor(np.rint(np.expm1(values) * totals[cells] / 10_000)).int()
    types = torch.as_tensor(labels.astype(np.int64))
    order = torch.randperm(len(types), generator=torch.Generator().manual_seed(0))  # always alike
    return Cells(counts[order], types[order], names, None)
