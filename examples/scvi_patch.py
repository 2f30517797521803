"""scvi-tools, as it is and with one line before: its models then take their log-probabilities from pyvae's kernels.

Made-up counts of 1,000 genes, 93 % of them zeros; the same model, seed and data, trained twice. The losses agree to
float32's rounding, and the second training is faster: the more genes there are, the more (see the table in README.md).

pip install scvi-tools, then: python examples/scvi_patch.py
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import NamedTuple

import anndata
import numpy as np
import scvi
import torch

import pyvae.integrations.scvi

CELLS, GENES = 2048, 1000


class Training(NamedTuple):
    seconds: float  # of an epoch
    elbo: float  # the negative one of the cells, nats per cell


def counts() -> anndata.AnnData:
    """Gamma-Poisson counts."""
    draw = np.random.default_rng(0)
    return anndata.AnnData(draw.poisson(draw.gamma(0.3, 0.3, size=(CELLS, GENES))).astype(np.float32))


def train(data: anndata.AnnData, epochs: int) -> Training:
    """scvi-tools' own model and training."""
    scvi.settings.seed = 0
    model = scvi.model.SCVI(data, gene_likelihood="zinb")
    start = time.perf_counter()
    model.train(max_epochs=epochs, accelerator="cpu", train_size=1.0, batch_size=128, enable_progress_bar=False)
    seconds = (time.perf_counter() - start) / epochs
    torch.manual_seed(0)  # of the sample that the ELBO is taken at
    return Training(seconds, -float(model.get_elbo(return_mean=True)))


def main(epochs: int = 5) -> tuple[Training, Training]:
    """Trains as it is and with the line, and says how long an epoch took and what came of it."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    scvi.settings.verbosity = logging.ERROR
    data = counts()
    scvi.model.SCVI.setup_anndata(data)
    train(data, 1)  # what happens once
    plain = train(data, epochs)
    with pyvae.integrations.scvi.patch() as handle:
        print(handle)
        patched = train(data, epochs)
    for name, (seconds, elbo) in {"scvi-tools": plain, "with pyvae": patched}.items():
        print(f"{name}: {seconds:.2f} s an epoch, negative ELBO {elbo:.3f} nats per cell")
    return plain, patched


if __name__ == "__main__":
    main()
