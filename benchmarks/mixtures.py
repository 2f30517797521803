"""`python -m benchmarks.mixtures`: mixtures as priors, their log density alone and in whole training steps.

Competitors: torch.distributions, the same formula compiled by torch, and for densities of vectors two matrix products
in place of the differences, which loses digits where z is near a mean. Forward and backward, to everything. Writes
results/mixtures.csv, of which `python -m benchmarks.report` makes a table.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import pyvae

from . import MIXTURES_CSV, RESULTS, Row, environment, write
from .formulas import log_nb
from .speed import contest
from .timing import Case, Device

Function = Callable[..., Tensor]
LOG_TWO_PI = math.log(2 * math.pi)


class Size(NamedTuple):
    samples: int
    batch: int
    latent: int
    components: int


JOINT = (Size(30, 128, 10, 20), Size(30, 128, 10, 50), Size(30, 128, 30, 50), Size(1, 1024, 10, 1024))
EACH = (Size(1, 1024, 10, 1024),)


def by_torch(z: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor) -> Tensor:
    """(S, B), of z (S, B, L), mean and logvar (K, L), logits (K,)."""
    components = Independent(Normal(mean, torch.exp(logvar / 2), validate_args=False), 1, validate_args=False)
    return MixtureSameFamily(Categorical(logits=logits), components, validate_args=False).log_prob(z)


def terms(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """(S, B, K, L)."""
    return -((z[..., None, :] - mean).square() * torch.exp(-logvar) + logvar + LOG_TWO_PI) / 2


def by_formula(z: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor) -> Tensor:
    return torch.logsumexp(terms(z, mean, logvar).sum(-1) + torch.log_softmax(logits, 0), -1)


def by_products(z: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor) -> Tensor:
    """(z - m)^2 / s^2 as z^2 / s^2 - 2 z m / s^2 + m^2 / s^2: two matrix products."""
    weight = torch.exp(-logvar)
    of_component = (mean.square() * weight + logvar + LOG_TWO_PI).sum(1) / 2
    squares = z.square() @ weight.t() / 2 - z @ (mean * weight).t()
    return torch.logsumexp(torch.log_softmax(logits, 0) - of_component - squares, -1)


def fused(z: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor) -> Tensor:
    return pyvae.mixture_log_prob(z, pyvae.Mixture(mean, logvar, logits=logits))


def each_by_torch(z: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor) -> Tensor:
    """(S, B, L), of each dimension its own."""
    wide = logits[:, None].expand(mean.shape).t()  # (L, K)
    components = Normal(mean.t(), torch.exp(logvar.t() / 2), validate_args=False)
    return MixtureSameFamily(Categorical(logits=wide), components, validate_args=False).log_prob(z)


def each_by_formula(z: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor) -> Tensor:
    return torch.logsumexp(terms(z, mean, logvar) + torch.log_softmax(logits, 0)[:, None], -2)


def fused_each(z: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor) -> Tensor:
    return pyvae.mixture_log_prob(z, pyvae.Mixture(mean, logvar, logits=logits), reduction="elements")


# By competitor; "compiled" is made of its own formula, which torch.compile takes whole.
DENSITIES: dict[str, dict[str, Function]] = {
    "mixture": {"eager": by_torch, "compiled": by_formula, "eager_products": by_products, "fused": fused},
    "mixture_elements": {"eager": each_by_torch, "compiled": each_by_formula, "fused": fused_each},
}


def density_inputs(size: Size) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    samples, batch, latent, components = size
    shapes = (samples, batch, latent), (components, latent), (components, latent), (components,)
    return [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]


# ---- whole steps: everything but the optimizer -----------------------------------------------------------------------

GENES, HIDDEN, LATENT, SAMPLES = 2000, 128, 10, 30


class CountModel(nn.Module):
    """In the shape of scVI, with a learned mixture as prior."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(GENES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, GENES))
        self.log_theta = nn.Parameter(torch.zeros(GENES))
        self.mean = nn.Parameter(torch.randn(components, LATENT))
        self.logvar = nn.Parameter(torch.zeros(components, LATENT))
        self.logits = nn.Parameter(torch.zeros(components))

    def eager(self, counts: Tensor) -> Tensor:
        """As scvi-tools: 30 samples for the KL, the first of them for the decoder."""
        mu, logvar = self.encoder(torch.log1p(counts)).chunk(2, 1)
        posterior = Normal(mu, torch.exp(logvar / 2), validate_args=False)
        z = posterior.rsample((SAMPLES,))
        kl = (posterior.log_prob(z).sum(-1) - by_torch(z, self.mean, self.logvar, self.logits)).mean(0)
        mean = counts.sum(1, keepdim=True) * torch.softmax(self.decoder(z[0]), 1)
        return (kl - log_nb(counts, mean, torch.exp(self.log_theta)).sum(1)).mean()

    def fused(self, counts: Tensor) -> Tensor:
        mu, logvar = self.encoder(torch.log1p(counts)).chunk(2, 1)
        prior = pyvae.Mixture(self.mean, self.logvar, logits=self.logits)
        z, kl = pyvae.reparameterize_kl(mu, logvar, prior=prior, samples=SAMPLES)
        likelihood = pyvae.NegativeBinomial(self.log_theta, counts.sum(1).log())
        return pyvae.elbo_loss(self.decoder(z[0]), counts, kl=kl, likelihood=likelihood, reduction="batchmean")


class ImageModel(nn.Module):
    """beta-TCVAE's objective, with the minibatch's own posteriors as the aggregate."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, 400), nn.ReLU(), nn.Linear(400, 784))

    def eager(self, x: Tensor) -> Tensor:
        mu, logvar = self.encoder(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * torch.exp(logvar / 2)
        own = -((z - mu).square() * torch.exp(-logvar) + logvar + LOG_TWO_PI).sum(1) / 2
        prior = -(z.square() + LOG_TWO_PI).sum(1) / 2
        pairs = terms(z, mu, logvar)  # (B, B, L)
        whole, marginals = torch.logsumexp(pairs.sum(2), 1), torch.logsumexp(pairs, 1).sum(1)
        recon = nn.functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum") / len(x)
        return recon + (own - whole + 6 * (whole - marginals) + marginals - prior).mean()

    def fused(self, x: Tensor) -> Tensor:
        mu, logvar = self.encoder(x).chunk(2, 1)
        z = pyvae.reparameterize(mu, logvar)
        aggregate, zeros = pyvae.Mixture(mu, logvar), torch.zeros_like(mu)
        own, prior = pyvae.gaussian_log_prob(z, mu, logvar), pyvae.gaussian_log_prob(z, zeros, zeros)
        whole = pyvae.mixture_log_prob(z, aggregate)
        marginals = pyvae.mixture_log_prob(z, aggregate, reduction="elements").sum(1)
        recon = pyvae.reconstruction_loss(self.decoder(z), x, likelihood="bernoulli_logits", reduction="batchmean")
        return recon + (own - whole + 6 * (whole - marginals) + marginals - prior).mean()


def models() -> Iterator[tuple[str, Size, nn.Module, Tensor]]:
    """A name, its size, the model and a batch."""
    draw = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.rand(128, GENES, generator=draw) ** 4, generator=draw)
    for components in (20, 50):
        torch.manual_seed(0)
        yield "step_scvi_mixture", Size(SAMPLES, 128, LATENT, components), CountModel(components), counts
    torch.manual_seed(0)
    yield "step_beta_tcvae", Size(1, 1024, LATENT, 1024), ImageModel(), torch.rand(1024, 784, generator=draw)


# ---- rows ------------------------------------------------------------------------------------------------------------


def cases(functions: dict[str, Function], wanted: list[Tensor], device: Device) -> list[Case]:
    """Each returns a tensor whose sum is differentiated by `wanted`."""

    def backward(out: Tensor) -> object:
        return torch.autograd.grad(out.sum(), wanted, allow_unused=True)

    made = {name: device.compile(f, mode="default") if name == "compiled" else f for name, f in functions.items()}
    return [Case(name, function, backward) for name, function in made.items()]


def measure(seconds: float, device: Device) -> Iterator[Row]:
    row = Row("", "", math.nan, "us", "both", threads=torch.get_num_threads())
    for what, sizes in (("mixture", JOINT), ("mixture_elements", EACH)):
        for size in sizes:
            inputs = density_inputs(size)
            functions = {name: partial(function, *inputs) for name, function in DENSITIES[what].items()}
            yield from contest(named(row, what, size), cases(functions, inputs, device), seconds, device)
    for what, size, model, batch in models():
        functions = {"eager": partial(model.eager, batch), "compiled": partial(model.eager, batch)}
        functions["fused"] = partial(model.fused, batch)
        yield from contest(named(row, what, size), cases(functions, [*model.parameters()], device), seconds, device)


def named(row: Row, what: str, size: Size) -> Row:
    """Rows of the density as the batch, dimensions as features, components as what is latent."""
    return replace(row, what=what, batch=size.samples * size.batch, features=size.latent, latent=size.components)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixtures", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each comparison (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows, where = [], environment("cpu")
    for row in measure(options.seconds, Device("inductor")):
        if row.stage == "both":
            rows.append(row)
            ratio = f"{row.ratio_to_fused:.2f}x" if row.ratio_to_fused else ""
            print(f"{row.what:18} {row.shape:16} {row.competitor:15} {row.value:10.0f} us {ratio} {row.note or ''}")
    write(options.out / MIXTURES_CSV, rows, where)


if __name__ == "__main__":
    main()
