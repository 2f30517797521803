"""Every CUDA kernel on tiny tensors against the CPU's: what compute-sanitizer runs, under which all is 50 times slower.

Between them these tests have short rows and rows of several blocks, vectors with remainders, misaligned and strided
memory, every dtype and way to the noise, the backward kernels in each of their forms, and a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from calls import TILED, Call, call
from cases import DTYPES, LAYOUTS, REDUCTIONS, assert_whole, data, leaf, posterior, step_inputs
from families import PLAIN, SCALES, cycled, family
from gpu import capture, copies, needs_cuda, step
from tolerances import FLOAT32_ROUNDING, SIXTEEN_BITS
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = [needs_cuda, pytest.mark.sanitizer, pytest.mark.usefixtures("cuda_kernels", "kernels")]
SHORT, ODD, SPLIT = (5, 16), (3, 23), (2, 4099)  # several rows a block; a remainder; several blocks a row


def on_both(work: Callable[..., list[Tensor]], *given: Tensor) -> None:
    """Outputs, and the gradients by whatever requires one, from the same values on the CPU and on the GPU."""
    results = []
    for device in ("cuda", "cpu"):
        moved = [leaf(x.detach().to(device)) if x.requires_grad else x.to(device) for x in given]
        outputs = work(*moved)
        upstream = [torch.full_like(x, factor) for x, factor in zip(outputs, (1.0, 3.0, -2.0), strict=False)]
        leaves = [x for x in moved if x.requires_grad]
        results.append([*outputs, *(grad(outputs, leaves, upstream) if leaves else [])])
    for got, want in zip(*results, strict=True):
        # The two devices sum in different orders, and round 16 bits now and then differently.
        assert_whole(got, want, SIXTEEN_BITS if want.element_size() == 2 else FLOAT32_ROUNDING)


@pytest.mark.parametrize("shape", (SHORT, ODD, SPLIT), ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_objective(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    for likelihood, reduction in cycled(PLAIN, REDUCTIONS):
        recon, target = data(likelihood, shape, (dtype, torch.float32))
        recon = family(likelihood).sweep.recon.inside(recon, 0.01)  # float16 has no gradient at the ends of [0, 1]
        on_both(
            lambda x, t, n=likelihood, r=reduction: [pyvae.elbo_loss(x, t, likelihood=n, reduction=r)],
            leaf(recon), target,
        )  # fmt: skip


@pytest.mark.parametrize("shape", (SHORT, ODD, SPLIT), ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_counts_and_parameters(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """By tiles: a parameter for each feature, sample and element; gradients that are scaled, and computed again."""
    forms = (shape[1:], (shape[0], 1), shape)
    for (name, library), form, reduction in cycled(TILED, forms, REDUCTIONS):
        given = call(name, shape, form, (dtype, torch.float32, torch.float32), library)

        def work(target: Tensor, *tensors: Tensor, given: Call = given, reduction: str = reduction) -> list[Tensor]:
            moved = replace(given.with_differentiable(list(tensors)), target=target)
            return [moved.elbo_loss(reduction=reduction)]

        on_both(work, given.target, *given.leaves().differentiable)


@pytest.mark.parametrize("shape", (SHORT, ODD, SPLIT), ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sampler(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    for scale in SCALES:
        given = [leaf(x) for x in posterior(scale, shape, dtype)]
        on_both(lambda m, s, k=scale: [*pyvae.reparameterize_kl(m, **{k: s}, seed=9, row_offset=1)], *given)


def test_drop_in_with_both_of_its_segments() -> None:
    for shape, reduction in ((SHORT, "sum"), (SPLIT, "batchmean"), (ODD, "none")):
        recon, target = data("bernoulli", shape)
        given = [leaf(recon), target, *map(leaf, posterior("logvar", (shape[0], 7)))]
        on_both(lambda *x, r=reduction: [*pyvae.elbo_terms(*x, beta=0.5, reduction=r)], *given)


def test_kl_and_noise_by_themselves() -> None:
    mu, logvar = (leaf(x) for x in posterior("logvar", SPLIT))
    eps = torch.linspace(-2, 2, mu.numel()).view_as(mu)
    on_both(lambda m, s: [pyvae.kl_divergence(m, s), pyvae.kl_divergence(m, s, reduction="sum")], mu, logvar)
    on_both(lambda m, s, e: [pyvae.reparameterize(m, s, eps=e)], mu, logvar, eps)
    on_both(lambda m, s, k: [pyvae.reparameterize(m, s, seed=k)], mu, logvar, torch.tensor([5]))


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("contiguous", "flattened")])
def test_layouts(layout: str) -> None:
    """Laid out on each device anew: a move to another device would make most of them contiguous."""
    laid = LAYOUTS[layout]

    def work(x: Tensor, t: Tensor, m: Tensor, s: Tensor) -> list[Tensor]:
        z, kl = pyvae.reparameterize_kl(laid(m), laid(s), seed=4)
        return [pyvae.elbo_loss(laid(x), laid(t), kl=kl, likelihood="gaussian", reduction="none"), z]

    shape = (3, 2, 3, 5)
    recon, target = data("gaussian", shape, (torch.bfloat16, torch.float32))
    mu, logvar = posterior("logvar", shape, torch.float16)
    on_both(work, leaf(recon), target, leaf(mu), leaf(logvar))


def test_weights() -> None:
    recon, target = data("bernoulli_logits", (3, 2, 11))
    weight, pos_weight = torch.linspace(0.5, 2, 11), torch.linspace(0.5, 3, 22).view(2, 11)
    options = {"likelihood": "bernoulli_logits", "reduction": "none"}
    on_both(
        lambda x, t, w, p, b: [pyvae.elbo_loss(x, t, weight=w > 1, pos_weight=p, kl=b * t[:, 0, 0], beta=b, **options)],
        leaf(recon), target, weight, pos_weight, torch.tensor(0.5),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reduction", "dtype"), [("none", torch.float32), ("sum", torch.bfloat16), ("batchmean", torch.float64)]
)
def test_second_backward(reduction: str, dtype: torch.dtype) -> None:
    """Which computes the gradient again, per sample and for all."""

    def work(x: Tensor, t: Tensor) -> list[Tensor]:
        x = leaf(x)
        loss = pyvae.elbo_loss(x, t, reduction=reduction)
        return [grad(loss, x, torch.full_like(loss, factor), retain_graph=True)[0] for factor in (2.0, 1.0, 0.5)]

    on_both(work, *data("bernoulli", ODD, (dtype, torch.float32)))


def test_drawn_seeds_and_probabilities_outside_of_0_to_1() -> None:
    mu, logvar = posterior("logvar", ODD, device="cuda")
    first, second = (pyvae.reparameterize(mu, logvar) for _ in range(2))
    assert not (first == second).any()
    recon, target = data("bernoulli", SPLIT, device="cuda")
    recon[1, -1] = 1.5
    assert pyvae.reconstruction_loss(recon, target).isnan().tolist() == [False, True]


def test_graph_of_a_step() -> None:
    given = step_inputs("gaussian", SPLIT, (2, 5), device="cuda")
    graph, results = capture(lambda: step(given, "gaussian"))
    samples = []
    for _ in range(2):
        graph.replay()
        samples += copies(results[:1])
    torch.cuda.synchronize()
    assert not torch.equal(*samples)
