"""The CPU measurements: speed against the competitors, bandwidth against a copy, call overhead of tiny tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F

import pyvae

from .competitors import CASES, COUNTERPART, Shape, eager_loss, fused_loss, make_inputs, necessary_bytes
from .rows import Row
from .timing import Case, Lap, interleave, spread

# Small, medium, large and very large, as in the measurements that the targets were set by.
SHAPES = (Shape(128, 784, 20), Shape(128, 3072, 128), Shape(256, 12288, 512), Shape(64, 196608, 4096))
TINY = Shape(1, 64, 2)


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def timed_rows(
    what: str, shape: Shape, laps: dict[str, list[Lap]], bytes_of_both: int | None, stages: Sequence[str] = Lap._fields
) -> list[Row]:
    """Only forward and backward together have a byte count that all share: fused makes the gradient in its forward."""
    rows = []
    for stage in stages:
        spreads = {name: spread([getattr(lap, stage) for lap in values]) for name, values in laps.items()}
        for name, times in spreads.items():
            bytes_ = bytes_of_both if stage == "both" else None
            rows.append(
                Row(
                    what,
                    name,
                    times.median,
                    "us",
                    stage,
                    *shape,
                    p20=times.p20,
                    p80=times.p80,
                    ratio_to_fused=times.median / spreads[COUNTERPART.get(name, "fused")].median,
                    bytes=bytes_,
                    gb_per_s=bytes_ / times.median / 1e3 if bytes_ else None,
                    threads=torch.get_num_threads(),
                )
            )
    return rows


def speed(what: str, shape: Shape, seconds: float, backend: str) -> list[Row]:
    """Loss or sampler at one shape, all competitors interleaved."""
    torch._dynamo.reset()  # each shape compiles afresh and statically: torch.compile at its best
    compilers = {"compiled": partial(torch.compile, backend=backend, fullgraph=True, dynamic=False)}
    laps = interleave(CASES[what](make_inputs(shape), compilers), seconds)
    return timed_rows(what, shape, laps, necessary_bytes(what, shape))


def bandwidth(elements: int, seconds: float) -> list[Row]:
    """The objective's forward with gradient against `a + b`: both read two arrays and write a fresh third one."""
    shape = Shape(64, elements // 64, 0)
    inputs = make_inputs(shape)
    logits, target = inputs.logits, inputs.target
    plain = logits.detach()
    cases = [
        Case("copy", lambda: torch.add(plain, target)),
        Case("fused", lambda: pyvae.elbo_loss(logits, target, likelihood="bernoulli_logits")),
    ]
    # Without a backward, "both" is the forward and the release of what it made.
    return timed_rows("bandwidth", shape, interleave(cases, seconds), 12 * shape.batch * shape.features, ["both"])


def overhead(seconds: float, device: str = "cpu") -> list[Row]:
    """What a call costs when there is next to nothing to compute: with and without a KL, against torch's BCE alone.

    On a GPU, too, it is the host's time: the GPU is through with each call before the host is.
    """
    logits, _, target, mu, logvar, *_ = make_inputs(TINY, device)
    cases = [
        Case(
            "bce_alone",
            lambda: F.binary_cross_entropy_with_logits(logits, target, reduction="sum"),
            lambda loss: torch.autograd.grad(loss, (logits,)),
        ),
        Case(
            "eager",
            lambda: eager_loss(logits, target, mu, logvar),
            lambda loss: torch.autograd.grad(loss, (logits, mu, logvar)),
        ),
        Case(
            "fused_reconstruction",
            lambda: pyvae.elbo_loss(logits, target, likelihood="bernoulli_logits"),
            lambda loss: torch.autograd.grad(loss, (logits,)),
        ),
        Case(
            "fused",
            lambda: fused_loss(logits, target, mu, logvar),
            lambda loss: torch.autograd.grad(loss, (logits, mu, logvar)),
        ),
    ]
    with thread_count(1):
        return timed_rows("overhead", TINY, interleave(cases, seconds), None)
