"""`python -m benchmarks.scvi_train`: scvi-tools' own training, with and without `pyvae.integrations.scvi.patch()`.

Needs scvi-tools. `train` of its models on made-up counts of which 93 % are zeros, in turns; an epoch's wall time by a
callback, the first epoch of each training left out. Then what the losses of a step differ by, of the same weights and
noise, and where the time of an epoch goes. Writes results/scvi.csv; `python -m benchmarks.report` makes its table.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scipy.sparse
import scvi
import torch
from lightning.pytorch import Callback
from torch.profiler import ProfilerActivity, profile

from pyvae.integrations.scvi import patch

from . import RESULTS, SCVI_CSV, Row, environment, write
from .report import LOG_PROBABILITIES
from .timing import spread

BATCH = 128
MODELS: dict[str, tuple[type, dict[str, Any], dict[str, Any]]] = {  # arguments to set up the data, and of the model
    "scvi_zinb": (scvi.model.SCVI, {}, {"gene_likelihood": "zinb"}),
    "scvi_nb": (scvi.model.SCVI, {}, {"gene_likelihood": "nb"}),
    "scanvi": (scvi.model.SCANVI, {"labels_key": "kind", "unlabeled_category": "unknown"}, {}),
    "totalvi": (scvi.model.TOTALVI, {"protein_expression_obsm_key": "proteins"}, {}),
    "autozi": (scvi.model.AUTOZI, {}, {}),
}
PROTEINS = 100
LARGE = ("scvi_zinb", "scvi_nb")  # at every number of genes, the others at the first
COMPETITOR = {False: "eager", True: "fused"}
SHARES = {  # of an epoch's time, by operators' names; what none of them names is the rest
    LOG_PROBABILITIES: ("pyvae", "lgamma", "digamma", "elements"),
    "matrix products": ("mm", "linear", "matmul"),
    "optimizer": ("foreach", "adam"),
    "loading": ("dataloader",),
    "batch norm, softmax": ("batch_norm", "softmax"),
}


class Clock(Callback):
    """Seconds of each epoch, and the loss of each step."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.losses: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_end(self, *_: Any) -> None:
        self.epochs.append(time.perf_counter() - self._start)


def counts(cells: int, genes: int) -> anndata.AnnData:
    """Gamma-Poisson counts of which 93 % are zeros."""
    draw = np.random.default_rng(0)
    means = draw.gamma(0.3, 0.3, size=(cells, genes)).astype(np.float32)
    data = anndata.AnnData(scipy.sparse.csr_matrix(draw.poisson(means).astype(np.float32)))
    data.obs["kind"] = draw.choice(["a", "b", "unknown"], cells)
    data.obsm["proteins"] = draw.poisson(draw.gamma(1.0, 20.0, size=(cells, PROTEINS))).astype(np.float32)
    return data


def train(data: anndata.AnnData, name: str, epochs: int, patched: bool) -> Clock:
    scvi.settings.seed = 0
    clock = Clock()
    cls, _, own = MODELS[name]
    with patch() if patched else contextlib.nullcontext():
        model = cls(data, **own)
        model.train(
            max_epochs=epochs,
            accelerator="cpu",
            batch_size=BATCH,
            train_size=0.9,
            check_val_every_n_epoch=None,
            early_stopping=False,
            enable_progress_bar=False,
            callbacks=[clock],
        )
    return clock


def measure(genes: int, cells: int, name: str, rounds: int, epochs: int) -> Iterator[Row]:
    """Microseconds a step, the relative difference of a first step's loss, and shares of an epoch."""
    data = counts(cells, genes)
    cls, setup, _ = MODELS[name]
    cls.setup_anndata(data, **setup)
    samples: dict[bool, list[float]] = {False: [], True: []}
    losses: dict[bool, float] = {}
    train(data, name, 1, False)
    for i in range(rounds):
        for patched in (False, True) if i % 2 == 0 else (True, False):
            clock = train(data, name, epochs, patched)
            steps = len(clock.losses) / epochs  # of an epoch
            samples[patched] += [1e6 * seconds / steps for seconds in clock.epochs[1:]]
            losses[patched] = clock.losses[0]
    middle = {patched: spread(values) for patched, values in samples.items()}
    size = {"batch": BATCH, "features": genes, "threads": torch.get_num_threads()}
    for patched, (p20, p50, p80) in middle.items():
        ratio = None if patched else p50 / middle[True][1]
        yield Row(name, COMPETITOR[patched], p50, "us", "both", p20=p20, p80=p80, ratio_to_fused=ratio, **size)
    difference = abs(losses[True] - losses[False]) / abs(losses[False])
    yield Row(f"{name}_loss", "fused", difference, "relative", note="of the first step", **size)
    for patched in (False, True):
        for part, share in shares(data, name, patched).items():
            yield Row(f"{name}_share", COMPETITOR[patched], share, "of an epoch", note=part, **size)


def shares(data: anndata.AnnData, model: str, patched: bool) -> dict[str, float]:
    """Where an epoch's time goes: of the main thread's own time in torch's operators, by their names."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        clock = train(data, model, 1, patched)
    whole = 1e6 * sum(clock.epochs)
    found = dict.fromkeys([*SHARES, "other operators"], 0.0)
    for event in seen.key_averages():
        named = (name for name, parts in SHARES.items() if any(part in event.key.lower() for part in parts))
        found[next(named, "other operators")] += event.self_cpu_time_total
    return {name: time / whole for name, time in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scvi_train", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV (%(default)s)")
    parser.add_argument("--genes", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--elements", type=int, default=2**25, help="of the counts: cells times genes (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="trainings each (%(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="of a training (%(default)s)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    scvi.settings.verbosity = logging.ERROR
    where, rows = environment("cpu"), []
    for genes in options.genes:
        for name in MODELS if genes == options.genes[0] else LARGE:
            for row in measure(genes, options.elements // genes, name, options.rounds, options.epochs):
                rows.append(row)
                print(row.what, row.shape, row.competitor, f"{row.value:.4g}", row.unit, row.ratio_to_fused or "",
                      row.note or "", flush=True)  # fmt: skip
            write(options.out / SCVI_CSV, rows, where)


if __name__ == "__main__":
    main()
