"""How fast pyvae and its competitors are, in turns, and what they hold in memory; the rows that come of it.

Where the device has a cache to speak of, inputs are many sets in turn, which together exceed it: they come from memory,
as a decoder's output of a real step mostly does. Outputs are freshly allocated on all sides.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from math import ceil, inf, nan
from typing import Any, NamedTuple

import torch

from . import Row, names
from .cases import (
    CONTESTS,
    COUNTS,
    KERNELS,
    ONE_LARGE,
    PARAMETERS,
    TINY,
    TRAFFIC,
    AnyInputs,
    Inputs,
    Shape,
    kernel_case,
    make_cases,
    make_inputs,
    make_inputs_of,
)
from .timing import Case, Competitor, Device, Outcome, compete, spread

HOST_BOUND = 2**24  # elements: below, launches take longer than their work, and bandwidth is measured inside a graph
LATENT = 4 * 32 * 32  # of the sampler's bandwidth rows
MOST_SETS = 256  # of inputs; those that then still fit in the cache are so small that launches alone decide

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
# Competitors' names, and torch.compile's modes.
ONLY_COMPILED = {"compiled": "default"}
COMPILED = ONLY_COMPILED | {"compiled_reduce_overhead": "reduce-overhead"}


class Cell(NamedTuple):
    """One comparison."""

    what: str
    shape: Shape
    dtype: torch.dtype = F32
    target_dtype: torch.dtype | None = None
    modes: Mapping[str, str] = COMPILED

    @property
    def dtypes(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        other = self.target_dtype not in (None, self.dtype)
        return f"{name}, {str(self.target_dtype).removeprefix('torch.')} target" if other else name

    @property
    def bytes(self) -> int:
        """What has to be moved at least, in and out."""
        recon, target, latent, row = TRAFFIC[self.what]
        size = self.dtype.itemsize
        of_features = recon * size + target * (self.target_dtype or self.dtype).itemsize
        return self.shape.batch * (of_features * self.shape.features + latent * size * self.shape.latent + row)

    def row(self, stage: str, device: Device) -> Row:
        """One without value and competitor."""
        threads = torch.get_num_threads() if device.name == "cpu" else None
        return Row(self.what, "", nan, "us", stage, *self.shape, bytes=self.bytes, dtype=self.dtypes, threads=threads)

    def input_sets(self, device: Device) -> list[AnyInputs]:
        """As many as exceed the cache about twice: at least half of the bytes are read."""
        count = max(1, min(MOST_SETS, ceil(4 * device.cache_bytes() / self.bytes)))
        return [make_inputs_of(self.what, self.shape, device.name, self.dtype, self.target_dtype) for _ in range(count)]


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def captured(competitor: Competitor, count: int, device: Device) -> Competitor:
    """The same with all its cases, `count`, in one graph."""
    name = f"{competitor.name}_graph"
    return Competitor(name, lambda: [Case(name, device.capture(competitor.prepare))], count)


def counterpart(competitor: str) -> str:
    """What of pyvae it is compared with: probabilities with probabilities; graphs, torch's own too, with graphs."""
    plain = competitor.removesuffix("_graph")
    graph = "_graph" if plain != competitor or competitor in names.OWN_GRAPHS else ""
    return ("fused_probabilities" if plain.endswith("_probabilities") else "fused") + graph


def timed_rows(row: Row, outcomes: Mapping[str, Outcome], stages: Sequence[str]) -> list[Row]:
    """`row` for each stage and competitor, with its times and its ratio to pyvae's.

    Only the whole, which comes last, has a byte count that all share: pyvae makes the gradient in its forward.
    """
    rows = []
    for index, stage in enumerate(stages):
        bytes_ = row.bytes if stage == stages[-1] else None
        timed = {name: [sample[index] for sample in samples] for name, (samples, _) in outcomes.items()}
        spreads = {name: spread(times) for name, times in timed.items() if times}
        for name, (_, note) in outcomes.items():
            one = replace(row, competitor=name, stage=stage, bytes=bytes_, note=note)
            if name in spreads:
                p20, median, p80 = spreads[name]
                _, own, _ = spreads.get(counterpart(name), (None, None, None))
                ratio, speed = own and median / own, bytes_ and bytes_ / median / 1e3
                one = replace(one, value=median, p20=p20, p80=p80, ratio_to_fused=ratio, gb_per_s=speed)
            rows.append(one)
    return rows


def speed(cell: Cell, seconds: float, device: Device, end: float = inf) -> list[Row]:
    """Forward and backward of one contest at one shape, all competitors in turns; on a GPU also in CUDA graphs."""
    device.release()
    sets = cell.input_sets(device)
    compilers = {name: cache(partial(device.compile, mode=mode)) for name, mode in cell.modes.items()}
    turns: dict[str, list[Case]] = {}
    for inputs in sets:
        for case in make_cases(cell.what, inputs, compilers):
            turns.setdefault(case.name, []).append(case)
    competitors = []
    for name, cases in turns.items():
        competitors.append(Competitor(name, lambda cases=cases: cases))
        if device.captures and name not in names.OWN_GRAPHS:
            competitors.append(captured(competitors[-1], len(sets), device))
    return timed_rows(cell.row("both", device), compete(competitors, seconds, device, end), device.stages)


def bandwidth(
    cell: Cell, copy: Callable[[Inputs], Case], seconds: float, device: Device, end: float = inf,
    graphs: bool = False,
) -> list[Row]:  # fmt: skip
    """One kernel against a copy that moves as many bytes, read and written, in turns."""
    sets = cell.input_sets(device)
    competitors = []
    for name, make in (("fused", partial(kernel_case, cell.what)), ("copy", copy)):
        one = Competitor(name, lambda make=make: [make(inputs) for inputs in sets])
        competitors.append(captured(one, len(sets), device)._replace(name=name) if graphs else one)
    outcomes = compete(competitors, seconds, device, end)
    whole = {name: Outcome([sample[-1:] for sample in timed], note) for name, (timed, note) in outcomes.items()}
    _, stage = KERNELS[cell.what]
    return timed_rows(cell.row(stage, device), whole, [stage])


def bandwidths(elements: int, seconds: float, device: Device, end: float) -> Iterator[Row]:
    """All kernels, each in turns with a device-to-device copy of as many bytes."""
    device.release()
    for what in KERNELS:
        rows = min(elements // LATENT, 2**16) if what.startswith("sampler") else 64
        shape = Shape(rows, 1, elements // rows) if what.startswith("sampler") else Shape(rows, elements // rows, 0)
        cells = [Cell(what, shape), Cell(what, shape, BF16)]
        if what == "objective_forward" and elements >= ONE_LARGE:
            cells.append(Cell(what, shape, BF16, F32))
        for cell in cells:

            def copy(_: Inputs, cell: Cell = cell) -> Case:
                return Case("copy", torch.randn(cell.bytes // 8, device=device.name).clone)  # half of them read

            yield from bandwidth(cell, copy, seconds, device, end, graphs=elements < HOST_BOUND)


def contest(row: Row, cases: Sequence[Case], seconds: float, device: Device, end: float = inf) -> list[Row]:
    """All cases in turns, each on the one set of inputs that it has."""
    competitors = [Competitor(case.name, lambda case=case: [case]) for case in cases]
    return timed_rows(row, compete(competitors, seconds, device, end), device.stages)


def overhead(seconds: float, device: Device) -> list[Row]:
    """What a call costs when there is next to nothing to compute.

    On a GPU, too, it is the host's time: the GPU is through with each call before the host is.
    """
    cases = make_cases("overhead", make_inputs(TINY, device.name))
    with thread_count(1):
        return contest(Row("overhead", "", nan, "us", "both", *TINY, threads=1), cases, seconds, Device())


def likelihoods(shape: Shape, dtype: torch.dtype, seconds: float, device: Device, end: float = inf) -> Iterator[Row]:
    """All likelihoods with parameters at one shape, on one thread: in one contest, since they are compared as well."""
    device.release()
    inputs = make_inputs_of(PARAMETERS[0], shape, device.name, dtype)
    cases = {(what, case.name): case for what in PARAMETERS for case in make_cases(what, inputs)}
    competitors = [Competitor(" ".join(key), lambda case=case: [case]) for key, case in cases.items()]
    threads = 1 if device.name == "cpu" else None
    with thread_count(1):
        outcomes = compete(competitors, seconds, device, end)
        for what in PARAMETERS:
            own = {name: outcomes[" ".join((of, name))] for of, name in cases if of == what}
            row = Row(what, "", nan, "us", "both", *shape, threads=threads, dtype=str(dtype).removeprefix("torch."))
            yield from timed_rows(row, own, device.stages)


# ---- memory ----------------------------------------------------------------------------------------------------------


def isolated(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns in a process of its own, a copy of one that imported all and did nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def memory_rows(elements: int, device: Device) -> Iterator[Row]:
    """Peak beyond the inputs, in buffers of the size of recon (losses, forward + backward) or of z (sampler).

    Outputs count: a loss makes one buffer, its gradient, and the zero-inflated one another for its logits'; the sampler
    one forward, z, and two more backward. Counts take a quarter of the elements, for drawing them takes time.
    """
    device.release()
    for what, shape, stage in (
        ("loss", Shape(64, elements // 64, 1), None),
        ("sample_kl", Shape(64, 1, elements // 64), None),
        ("sample_kl", Shape(64, 1, elements // 64), "both"),
        *((what, Shape(128, elements // 4 // 128, 0), "both") for what in COUNTS),
    ):
        for name in CONTESTS[what] if device.counts_memory else ("eager", "fused"):
            call = (what, name, stage, shape, device)
            peak = peak_bytes(*call) if device.counts_memory else isolated(peak_bytes, *call)
            buffer = 4 * shape.batch * max(shape.features, shape.latent)
            yield Row(f"{what}_memory", name, peak / buffer, "buffers", stage, *shape)


def peak_bytes(what: str, name: str, stage: str | None, shape: Shape, device: Device) -> int:
    """How far one call raises the peak.

    Arrays must be larger than what start-up took and gave back, or the call stays below an older peak.
    """
    for size in (Shape(2, 64, 64), shape):  # the first loads what is loaded once: libraries, threads
        inputs = make_inputs_of(what, size, device.name)  # kept to the end: one that goes makes room below the peak
        (case,) = (case for case in make_cases(what, inputs) if case.name == name)
        peak = device.peak_bytes(case.step if what == "loss" or stage else case.forward)
    return peak
