"""Speed and bandwidth on a GPU: pyvae and its competitors in turns.

Inputs are many sets in turn, which together exceed the GPU's second-level cache: they come from memory, as a decoder's
output of a real step mostly does. Outputs are freshly allocated on all sides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from math import ceil, nan
from typing import NamedTuple

import torch

import pyvae

from .competitors import CASES, COUNTERPART, Inputs, Shape, make_inputs, necessary_bytes
from .device import Call, Cuda
from .rounds import Budget, Competitor, Outcome, compete
from .rows import Row
from .timing import Case, spread

MOST_SETS = 256  # of inputs; those that then still fit in the cache are so small that launches alone decide
HOST_BOUND = 2**24  # elements: below, launches take longer than their work, and bandwidth is measured inside a graph
LATENT = 4 * 32 * 32  # of the sampler's bandwidth rows

F32, BF16 = torch.float32, torch.bfloat16
COMPILED = {"compiled": "default", "compiled_reduce_overhead": "reduce-overhead"}
OWN_GRAPHS = ("compiled_reduce_overhead", "compiled_max_autotune")  # torch makes them, and copies the inputs into them


class Cell(NamedTuple):
    """One comparison."""

    what: str
    shape: Shape
    dtype: torch.dtype = F32
    target_dtype: torch.dtype | None = None
    modes: dict[str, str] = COMPILED


def dtype_name(dtype: torch.dtype, target_dtype: torch.dtype | None = None) -> str:
    name = str(dtype).removeprefix("torch.")
    return name if target_dtype in (None, dtype) else f"{name}, {str(target_dtype).removeprefix('torch.')} target"


def input_sets(device: Cuda, bytes_: int, make: Callable[[], Inputs]) -> list[Inputs]:
    """As many sets of inputs as exceed the cache about twice, where `bytes_` of each are read."""
    return [make() for _ in range(min(MOST_SETS, ceil(2 * device.cache_bytes() / bytes_)))]


def outcome_rows(row: Row, outcomes: dict[str, Outcome], counterpart: Callable[[str], str]) -> list[Row]:
    """`row` for each competitor, with its times and its ratio to pyvae's."""
    medians = {name: spread(outcome.times).median for name, outcome in outcomes.items() if outcome.times}
    rows = []
    for name, (times, note) in outcomes.items():
        fields = {**vars(row), "competitor": name, "note": note}
        if times:
            p20, median, p80 = spread(times)
            own = medians.get(counterpart(name))
            fields |= {"value": median, "p20": p20, "p80": p80, "ratio_to_fused": median / own if own else None}
            fields["gb_per_s"] = row.bytes / median / 1e3 if row.bytes else None
        rows.append(Row(**fields))
    return rows


def speed_counterpart(name: str) -> str:
    """Graphs against pyvae's in a graph, torch's own graphs too; probabilities against probabilities."""
    plain = name.removesuffix("_graph")
    graph = "_graph" if plain != name or name in OWN_GRAPHS else ""
    return COUNTERPART.get(plain, "fused") + graph


def speed(cell: Cell, seconds: float, device: Cuda, budget: Budget) -> list[Row]:
    """Forward + backward of loss or sampler at one shape: all competitors as they are, and captured in a CUDA graph."""
    device.release()
    sizes = cell.dtype.itemsize, (cell.target_dtype or cell.dtype).itemsize
    bytes_ = necessary_bytes(cell.what, cell.shape, *sizes)
    sets = input_sets(device, bytes_ // 2, lambda: make_inputs(cell.shape, device.name, cell.dtype, cell.target_dtype))
    compilers = {name: cache(partial(device.compile, mode=mode)) for name, mode in cell.modes.items()}

    def step(case: Case) -> None:
        outputs = case.forward()
        if case.backward is not None:
            case.backward(outputs)

    turns: dict[str, list[Call]] = {}
    for inputs in sets:
        for case in CASES[cell.what](inputs, compilers):
            turns.setdefault(case.name, []).append(partial(step, case))
    competitors = []
    for name, calls in turns.items():
        competitors.append(Competitor(name, lambda calls=calls: calls))
        if name not in OWN_GRAPHS:
            capture = partial(device.capture, lambda calls=calls: calls)
            competitors.append(Competitor(f"{name}_graph", lambda capture=capture: [capture()], len(calls)))
    outcomes = compete(competitors, seconds, device, budget)
    dtype = dtype_name(cell.dtype, cell.target_dtype)
    row = Row(cell.what, "", nan, "us", "both", *cell.shape, bytes=bytes_, dtype=dtype)
    return outcome_rows(row, outcomes, speed_counterpart)


def objective_forward(inputs: Inputs) -> Call:
    return partial(pyvae.elbo_loss, inputs.logits, inputs.target, likelihood="bernoulli_logits")


def sampler_forward(inputs: Inputs) -> Call:
    return partial(pyvae.reparameterize_kl, inputs.mu, inputs.logvar)


def sampler_backward(inputs: Inputs) -> Call:
    outputs = pyvae.reparameterize_kl(inputs.mu, inputs.logvar)
    upstream = inputs.z_grad, inputs.kl_grad
    return partial(torch.autograd.grad, outputs, (inputs.mu, inputs.logvar), upstream, retain_graph=True)


class Pass(NamedTuple):
    """One kernel. Numbers an element of its main type (float32: 4 bytes each, bfloat16: 2) that it has to move.

    The KL per sample and its gradient, 4 bytes a row, are not counted.
    """

    stage: str
    make: Callable[[Inputs], Call]
    inputs: int
    outputs: int
    targets: int = 0  # of the target's type


PASSES = {
    # logits and target in, gradient out: 12 bytes in float32, 6 in bfloat16, 8 with a float32 target
    "objective_forward": Pass("forward", objective_forward, 1, 1, 1),
    # mu, logvar in, z out: 12 bytes in float32, 6 in bfloat16
    "sampler_forward": Pass("forward", sampler_forward, 2, 1),
    # gradient of z, mu, logvar in, two gradients out, the noise drawn again: 20 bytes in float32, 10 in bfloat16
    "sampler_backward": Pass("backward", sampler_backward, 3, 2),
}


def bandwidth(
    what: str, elements: int, dtype: torch.dtype, target_dtype: torch.dtype | None, seconds: float, device: Cuda,
    budget: Budget,
) -> list[Row]:  # fmt: skip
    """One kernel against a device-to-device copy that moves as many bytes, read and written, in turns."""
    one = PASSES[what]
    target_size = one.targets * (target_dtype or dtype).itemsize
    bytes_ = elements * ((one.inputs + one.outputs) * dtype.itemsize + target_size)
    read = elements * (one.inputs * dtype.itemsize + target_size)
    rows = min(elements // LATENT, 2**16) if what.startswith("sampler") else 64
    shape = Shape(rows, 1, elements // rows) if what.startswith("sampler") else Shape(rows, elements // rows, 0)
    sets = input_sets(device, read, lambda: make_inputs(shape, device.name, dtype, target_dtype))
    sources = [torch.randn(bytes_ // 8, device=device.name) for _ in sets]  # half of the bytes, in float32

    def fused() -> list[Call]:
        return [one.make(inputs) for inputs in sets]

    def copy() -> list[Call]:
        return [source.clone for source in sources]

    competitors = [Competitor("fused", fused), Competitor("copy", copy)]
    if elements < HOST_BOUND:
        competitors = [
            Competitor(name, lambda make=make: [device.capture(make)], len(sets)) for name, make, _ in competitors
        ]
    outcomes = compete(competitors, seconds, device, budget)
    row = Row(what, "", nan, "us", one.stage, *shape, bytes=bytes_, dtype=dtype_name(dtype, target_dtype))
    return outcome_rows(row, outcomes, lambda _: "fused")
