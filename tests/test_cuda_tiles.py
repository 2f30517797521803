"""Counts and likelihoods with parameters on CUDA: what the other files of CUDA show of plain ones, of these."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import truth
from calls import TILED, TILED_SHAPES, Call, assert_gradients, assert_sided, call, check
from cases import DTYPES, INTEGERS, REDUCTIONS, all_equal, assert_relative, generator
from families import COUNTS, cycled, family
from gpu import assert_same_at_the_same_time, capture, copies, free_memory, needs_cuda
from test_cuda_processes import finish, start
from tolerances import LOSS
from torch import Tensor
from torch.autograd import grad

pytestmark = [needs_cuda, pytest.mark.usefixtures("cuda_kernels")]
EACH = pytest.mark.parametrize(("name", "library"), TILED)
# A normalizer in parts and several slices of a row; groups of rows whose sums per column are added up at the end.
SPLIT, TALL = (3, 70_001), (3001, 65)
LARGE = ((128, 20_000), (4096, 784), (1_000_003, 3), (8, 1_000_000))


def forms(name: str, shape: tuple[int, int]) -> list[tuple[int, ...] | None]:
    """Of a likelihood's parameters: a number, and one for each feature, row or element."""
    return [(), shape[1:], (shape[0], 1), shape] if family(name).parameters else [None]


def step(given: Call, reduction: str = "sum", factor: float = 1.0) -> list[Tensor]:
    """The loss, all gradients of it, and again those by what is computed anew."""
    given = given.leaves()
    loss = given.elbo_loss(reduction=reduction)
    upstream = torch.linspace(1, 2, loss.numel(), device=loss.device).reshape(loss.shape).to(loss.dtype) * factor
    first = grad(loss, given.differentiable, upstream, retain_graph=True)
    return [x.detach() for x in (loss, *first, *grad(loss, given.differentiable, upstream))]


# ---- values and gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*TILED_SHAPES, SPLIT, TALL], ids=str)
@EACH
def test_values_and_gradients(name: str, library: bool, shape: tuple[int, int]) -> None:
    for form, reduction in cycled(tuple(forms(name, shape)), REDUCTIONS):
        given = call(name, shape, form, library=library, device="cuda")
        upstream = torch.linspace(0.5, 2, shape[0]) if reduction == "none" else torch.tensor(1.25)
        check(given, upstream.to("cuda"), reduction, reference=False, slack=1e-5 * shape[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@EACH
def test_every_dtype(name: str, library: bool, dtype: torch.dtype) -> None:
    """With targets of the same type and of others; rows of whole vectors and not."""
    targets = (dtype, *INTEGERS[:-1]) if name in COUNTS else (dtype, torch.float32)
    for features, target in cycled((268, 67), targets):
        given = call(name, (7, features), None, (dtype, target, dtype), library, device="cuda")
        check(given, reduction="sum", reference=False, slack=1e-4)


@pytest.mark.parametrize("shape", LARGE, ids=str)
@EACH
def test_large(name: str, library: bool, shape: tuple[int, int]) -> None:
    given = call(name, shape, library=library, device="cuda").leaves()
    loss = given.elbo_loss(reduction="none")
    want = given.truth()
    assert_sided(loss, want.loss)
    gradients = grad(loss.sum(), given.differentiable)
    assert_gradients(gradients, given, want=want.gradients, slack=1e-5 * shape[0])


ROWS, FEATURES = 5, 2**29 + 8  # the last row lies beyond 2^31 elements
EDGES = (0, 2**31 // FEATURES * FEATURES, 2**31 - 4096, ROWS * FEATURES - 8192)
PIECE = 8192


@pytest.mark.parametrize("name", ["gaussian_logvar", "negative_binomial"])
def test_more_than_2_to_the_31_elements(name: str) -> None:
    """The sum is that of the rows', which are computed from copies of their own; gradients are compared in pieces."""
    needed = 16 * ROWS * FEATURES  # bytes: four tensors of 16 bits, the parameter's, and scratch of a group of rows
    if free_memory() < needed:
        pytest.skip(f"{needed / 2**30:.0f} GiB of GPU memory are not free")
    small = call(name, (ROWS, PIECE), (PIECE,), (torch.bfloat16,) * 3, device="cuda")
    times = -(-FEATURES // PIECE)
    recon, target = (x.repeat(1, times)[:, :FEATURES] for x in (small.recon, small.target))
    parameter = small.parameters[0].repeat(times)[:FEATURES]
    given = Call(name, recon, target, (parameter,)).leaves()
    loss = given.elbo_loss(reduction="none")
    single = [Call(name, recon[i : i + 1], target[i : i + 1], (parameter,)).elbo_loss() for i in range(ROWS)]
    assert_relative(loss, truth.exact(torch.stack(single)), LOSS)
    by_recon, by_parameter = grad(loss.sum(), given.differentiable)
    for first in EDGES:
        row, column = divmod(min(first, ROWS * FEATURES - PIECE), FEATURES)
        part = slice(column, column + PIECE)
        piece = Call(name, recon[row : row + 1, part], target[row : row + 1, part], (parameter[part],))
        assert_gradients([by_recon[row : row + 1, part]], piece, want=piece.truth().gradients[:1])
        columns = Call(name, recon[:, part], target[:, part], (parameter[part],))
        assert_gradients([by_parameter[part]], columns, want=columns.truth().gradients[1:])


# ---- the same bits ---------------------------------------------------------------------------------------------------


@EACH
def test_calls_repeat_to_the_bit(name: str, library: bool) -> None:
    """Whatever order the blocks run in."""
    for shape, reduction in cycled((SPLIT, TALL, (128, 2000)), REDUCTIONS):
        given = call(name, shape, library=library, device="cuda")
        want = step(given, reduction)
        for _ in range(20):
            assert all_equal(step(given, reduction), want)


def steps(count: int) -> list[Callable[[], list[Tensor]]]:
    """Of every likelihood in turn, each with data of its own and sums over several blocks."""
    found = cycled(TILED, (SPLIT, TALL, (128, 2000)), tuple(range(count)))[:count]
    return [
        partial(step, call(name, shape, library=library, seed=seed, device="cuda"), "none", 3.0)
        for (name, library), shape, seed in found
    ]


def test_many_streams_at_the_same_time() -> None:
    works = steps(16)
    assert_same_at_the_same_time(works, [work() for work in works], 20)


@EACH
def test_replays_are_the_eager_calls(name: str, library: bool) -> None:
    """With data that change between the replays."""
    given = call(name, (40, 3001), library=library, device="cuda")
    graph, results = capture(lambda: step(given))
    for factor in (1.0, 0.5, -0.25):
        given.recon.mul_(factor)
        graph.replay()
        assert all_equal(copies(results), step(given))


@EACH
def test_replays_compare_the_rows_anew(name: str, library: bool) -> None:
    """Upstream gradients that are equal in one replay and differ in the next."""
    given = call(name, (40, 3001), library=library, device="cuda")
    factors = torch.full((40,), 0.3, device="cuda")

    def work() -> list[Tensor]:
        own = given.leaves()
        return list(grad(own.elbo_loss(reduction="none"), own.differentiable, factors))

    graph, results = capture(work)
    for end in (2.0, 0.3, -1.0):
        factors.copy_(torch.linspace(0.3, end, 40))
        graph.replay()
        assert all_equal(copies(results), work())


def test_no_call_waits_for_the_gpu() -> None:
    works = steps(len(TILED))
    for work in works:
        work()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for work in works:
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")


COLD = """
import torch
import test_cuda_tiles as tiles

given = [tiles.call(name, (40, 3001), library=library, device="cuda") for name, library in tiles.TILED]
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    results = [tiles.step(one) for one in given]
graph.replay()
torch.cuda.synchronize()
print([tiles.all_equal(got, tiles.step(one)) for got, one in zip(results, given)])
"""


def test_a_capture_in_a_fresh_process() -> None:
    """In which no kernel has been loaded yet."""
    assert finish(start(COLD)).splitlines()[-1] == str([True] * len(TILED))


@EACH
def test_masks_and_weights(name: str, library: bool) -> None:
    """A factor for each feature, and a mask, of rows that are whole vectors and of others."""
    for features in (268, 67):
        given = call(name, (9, features), library=library, device="cuda")
        weight = torch.rand(features, generator=generator(3)).to("cuda")
        mask = (torch.rand(9, features, generator=generator(4)) < 0.5).to("cuda")
        for options in ({"weight": weight}, {"weight": mask}):
            check(Call(**{**vars(given), **options}), reduction="none", reference=False, slack=1e-4)
