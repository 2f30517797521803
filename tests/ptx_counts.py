"""How many instructions of PTX each CUDA kernel executes: `python tests/ptx_counts.py [--write]`.

A row says for one call and one of its kernels how many instructions a warp executes for 32 elements, and how many of
these are in float64. The rows are in tests/cpp/ptx/instructions.csv; more than 5 % above what is there is an error.
"""

from __future__ import annotations

import csv
import ctypes
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import emulated  # noqa: E402
import ptx  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

CSV = ptx.HERE / "instructions.csv"
SHAPES = ((128, 20000), (4096, 784))
EXTREME_SHAPES = ((10**6, 3), (8, 10**6))  # short rows, and few wide ones: of what keeps rows apart
# Of mixtures: rows, components, features. 30 samples of 128 rows, and a minibatch as components.
MIXTURES = ((3840, 20, 10), (3840, 50, 10), (3840, 50, 30), (1024, 1024, 10))
ALLOWED = 1.05


class Row(NamedTuple):
    call: str
    shape: str
    kernel: str  # tile_kernel<NegativeBinomial, PackedRows<true> >
    instructions: float  # a warp and 32 elements, of a mixture its rows' for each component
    float64: float

    @property
    def key(self) -> tuple[str, str, str]:
        return self[:3]


# ---- the calls -------------------------------------------------------------------------------------------------------


def counts(shape: tuple[int, int]) -> Tensor:
    """A tenth of them is not 0."""
    draw = torch.Generator().manual_seed(1)
    nonzero = torch.rand(shape, generator=draw) < 0.1
    return torch.where(nonzero, torch.randint(1, 20, shape, generator=draw), 0).float()


def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()


def calls(batch: int, features: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each a step, forward and backward, by all that requires grad."""
    import pyvae

    shape = batch, features
    real, target = leaf(*shape), torch.rand(shape)

    def loss(recon: Tensor, target: Tensor, likelihood: object) -> Callable[[], Any]:
        return lambda: pyvae.elbo_loss(recon, target, likelihood=likelihood).backward()

    yield "gaussian", loss(real, target, "gaussian")
    yield "bernoulli_logits", loss(real, target, "bernoulli_logits")
    yield "bernoulli_logits, bfloat16", loss(leaf(*shape, dtype=torch.bfloat16), target.bfloat16(), "bernoulli_logits")
    yield "Gaussian, logvar (D,)", loss(real, target, pyvae.Gaussian(leaf(features)))
    yield "Gaussian, logvar (B, D)", loss(real, target, pyvae.Gaussian(leaf(*shape)))
    yield "Laplace, logscale (B, D)", loss(real, target, pyvae.Laplace(leaf(*shape)))
    log_theta, log_library, x = leaf(features), torch.full((batch, 1), 7.0), counts(shape)
    yield "Poisson", loss(real, x, pyvae.Poisson(log_library=log_library))
    yield "Multinomial", loss(real, x, pyvae.Multinomial())
    negative_binomial = pyvae.NegativeBinomial(log_theta, log_library=log_library)
    yield "NegativeBinomial, log theta (D,)", loss(real, x, negative_binomial)
    inflated = pyvae.ZeroInflatedNegativeBinomial(log_theta, leaf(*shape), log_library=log_library)
    yield "ZeroInflatedNegativeBinomial, zi_logits (B, D)", loss(real, x, inflated)
    for kind, rows in (("equal", torch.full((batch,), 1 / batch)), ("different", torch.linspace(1, 2, batch))):
        for name, likelihood in (("NegativeBinomial", negative_binomial), ("ZeroInflatedNegativeBinomial", inflated)):

            def by_row(rows: Tensor = rows, likelihood: object = likelihood) -> None:
                pyvae.elbo_loss(real, x, likelihood=likelihood, reduction="none").backward(rows)

            yield f"{name}, by row, {kind}", by_row
    for scale in ("logvar", "std", "rho"):
        given = {scale: leaf(*shape).detach().abs().requires_grad_()}

        def sample(given: dict[str, Tensor] = given) -> None:
            torch.autograd.backward(pyvae.reparameterize_kl(real, **given, seed=1), (target, target[:, 0].clone()))

        yield f"reparameterize_kl, {scale}", sample


def mixture_calls(rows: int, components: int, features: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Likewise, of a prior or an aggregate posterior."""
    import pyvae

    z, mean, logvar = leaf(rows, features), leaf(components, features), leaf(components, features)
    prior = pyvae.Mixture(mean, logvar, logits=leaf(components))
    for reduction in ("none", "elements"):

        def density(reduction: str = reduction) -> None:
            pyvae.mixture_log_prob(z, prior, reduction=reduction).sum().backward()

        yield f"mixture_log_prob, {reduction}", density


def steps() -> Iterator[tuple[str, str, int, Callable[[], Any]]]:
    """What is counted: a call, its shape, the elements, the step."""
    for batch, features in (*SHAPES, *EXTREME_SHAPES):
        for name, call in calls(batch, features):
            if (batch, features) in EXTREME_SHAPES and not name.startswith(("Gaussian, logvar (D,)", "Negative")):
                continue
            yield name, f"{batch}x{features}", batch * features, call
    for shape in MIXTURES:
        for name, call in mixture_calls(*shape):
            yield name, "x".join(map(str, shape)), math.prod(shape), call


# ---- counting --------------------------------------------------------------------------------------------------------


def short(symbol: str) -> str:
    """tile_kernel<NegativeBinomial, PackedRows<true> >, of the name that the compilers give it."""
    shown = subprocess.run(["c++filt", symbol], capture_output=True, text=True, check=True).stdout
    name = re.sub(r"\w+::|\(anonymous namespace\)::", "", shown.strip().removeprefix("void "))
    return name[: name.rindex("(")]


def measure() -> Iterator[Row]:
    translated = ptx.replace(emulated.install())
    translated.ptx_counts.restype = ctypes.c_char_p
    for name, shape, elements, call in steps():
        translated.ptx_counts()
        call()
        for line in translated.ptx_counts().decode().splitlines():
            symbol, instructions, doubles = line.split()
            each = float(instructions) / (elements / 32), float(doubles) / (elements / 32)
            yield Row(name, shape, short(symbol), *(round(number, 2) for number in each))


def read() -> dict[tuple[str, str, str], Row]:
    with CSV.open(newline="", encoding="utf-8") as file:
        rows = [Row(*line[:3], *map(float, line[3:])) for line in list(csv.reader(file))[1:]]
    return {row.key: row for row in rows}


def write(rows: list[Row]) -> None:
    with CSV.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([Row._fields, *rows])


def compare(rows: list[Row], before: dict[tuple[str, str, str], Row]) -> list[str]:
    """What is wrong: more instructions than before, or rows that are not the same ones."""
    wrong = [f"{' '.join(row.key)}: not in {CSV.name}" for row in rows if row.key not in before]
    wrong += [f"{' '.join(key)}: not measured" for key in before.keys() - {row.key for row in rows}]
    for row in rows:
        known = before.get(row.key, row)
        for what in ("instructions", "float64"):
            got, had = getattr(row, what), getattr(known, what)
            if got > ALLOWED * had + 0.01:
                wrong.append(f"{' '.join(row.key)}: {got:g} {what} a warp and 32 elements, {had:g} before")
    return wrong


def main() -> None:
    rows = []
    for row in measure():
        print(f"{row.call:<48}{row.shape:>11}  {row.kernel:<72}{row.instructions:>9.1f}{row.float64:>8.2f}", flush=True)
        rows.append(row)
    if "--write" in sys.argv[1:]:
        write(rows)
    elif wrong := compare(rows, read()):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
