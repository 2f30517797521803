"""What a step costs: launches on the GPU, and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from calls import call
from cases import DTYPES, leaf, step_inputs
from families import PLAIN, WAYS, family
from gpu import launches, needs_cuda
from torch import Tensor
from torch.autograd import grad

import pyvae

pytestmark = [needs_cuda, pytest.mark.usefixtures("cuda_kernels")]
SMALL, MANY_BLOCKS = (128, 784), (16, 49_157)
SLACK = 4 << 20  # bytes: what torch rounds a block of its cache up by, and results of a number a row


@pytest.fixture(scope="module", autouse=True)
def _profiler_works() -> None:
    """An empty record would let every count below pass for want of a profiler."""
    x = torch.zeros(5, device="cuda")
    for _ in range(2):  # the first one starts the profiler up
        recorded = launches(lambda: x.add_(1))
    assert len(recorded) == 1, recorded


def inputs(likelihood: str, shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    return step_inputs(likelihood, shape, (shape[0], 20), (dtype, torch.float32), device="cuda")


def assert_launches(count: int, work: Callable[[], Any]) -> None:
    """So many, and all of them pyvae's own kernels: no copy, no fill, nothing of torch's."""
    names = launches(work)
    assert len(names) == count, names
    assert all("pyvae" in name for name in names), names


def both_ways(
    call: Callable[[], list[Tensor]], leaves: tuple[Tensor, ...], factor: float
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The forward and the backward pass of `call`, to be counted; each has run once. `factor`: of the first output."""
    outputs: list[Tensor] = []

    def forward() -> None:
        outputs[:] = call()

    def backward() -> None:
        grad(outputs, leaves, upstream)

    forward()
    upstream = [torch.full_like(outputs[0], factor), *(torch.ones_like(x) for x in outputs[1:])]
    backward()
    return forward, backward


OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "defaults": dict,
    "beta": lambda: {"beta": 0.3},
    "beta on the host": lambda: {"beta": torch.tensor(0.3)},
    "beta on the device": lambda: {"beta": torch.tensor(0.3, device="cuda")},
    "batchmean": lambda: {"reduction": "batchmean", "beta": 0.3},
    "none": lambda: {"reduction": "none", "beta": 0.3},
}


@pytest.mark.parametrize("shape", (SMALL, MANY_BLOCKS), ids=str)
@pytest.mark.parametrize("factor", (1.0, 65536.0))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_step_has_two_launches_each_way(name: str, dtype: torch.dtype, factor: float, shape: tuple[int, ...]) -> None:
    """Sampler and objective; backward with any upstream gradient, by which the device scales."""
    recon, target, mu, logvar = inputs("bernoulli_logits", shape, dtype)
    given = {"likelihood": "bernoulli_logits"} | OPTIONS[name]()

    def call() -> list[Tensor]:
        z, kl = pyvae.reparameterize_kl(mu, logvar)
        return [pyvae.elbo_loss(recon, target, kl=kl, **given), z]

    for way in both_ways(call, (recon, mu, logvar), factor):
        assert_launches(2, way)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("likelihood", PLAIN)
def test_the_drop_in_is_one_launch(likelihood: str, dtype: torch.dtype, name: str) -> None:
    """Likelihood, KL and both sums; per sample, where the rows of both are summed by themselves, it is two."""
    recon, target, mu, logvar = inputs(likelihood, MANY_BLOCKS, dtype)
    given = {"likelihood": likelihood} | OPTIONS[name]()
    call = lambda: [pyvae.elbo_loss(recon, target, mu, logvar, **given)]  # noqa: E731
    forward, backward = both_ways(call, (recon, mu, logvar), 3.0)
    assert_launches(2 if name == "none" else 1, forward)
    assert_launches(1, backward)


@pytest.mark.parametrize("shape", (SMALL, MANY_BLOCKS), ids=str)
@pytest.mark.parametrize("factor", (1.0, 3.0))
@pytest.mark.parametrize(("name", "library"), [way for way in WAYS if way[0] not in PLAIN])
def test_likelihoods_by_tiles_are_at_most_three_launches(
    name: str, library: bool, factor: float, shape: tuple[int, ...]
) -> None:
    """Through a softmax three, without one two, and one more for what is prepared of theta; one that scales."""
    given = call(name, shape, library=library, device="cuda").leaves()
    forward, backward = both_ways(lambda: [given.elbo_loss()], tuple(given.differentiable), factor)
    prepares = "binomial" in name
    softmax = library or family(name).softmax == "always"
    assert_launches(3 if softmax or prepares else 2, forward)
    assert_launches(1, backward)


@pytest.mark.parametrize(("name", "library"), [way for way in WAYS if way[0] not in PLAIN])
def test_without_reduction_a_second_launch_for_sums_per_column(name: str, library: bool) -> None:
    given = call(name, SMALL, library=library, device="cuda").leaves()
    forward, backward = both_ways(lambda: [given.elbo_loss(reduction="none")], tuple(given.differentiable), 0.3)
    assert_launches(3 if given.has_softmax or "binomial" in name else 2, forward)
    assert_launches(2 if given.parameters else 1, backward)


def test_the_other_functions_are_one_launch() -> None:
    recon, target, mu, logvar = (x.detach() for x in inputs("gaussian", MANY_BLOCKS, torch.float32))
    eps, seed = torch.randn_like(mu), torch.tensor([3], device="cuda")
    calls: list[Callable[[], Any]] = [
        lambda: pyvae.reconstruction_loss(recon, target, likelihood="gaussian"),
        lambda: pyvae.reconstruction_loss(recon, target, likelihood="gaussian", reduction="sum"),
        lambda: pyvae.kl_divergence(mu, logvar),
        lambda: pyvae.kl_divergence(mu, logvar, reduction="batchmean"),
        lambda: pyvae.reparameterize(mu, logvar),
        lambda: pyvae.reparameterize(mu, logvar, seed=7),
        lambda: pyvae.reparameterize(mu, logvar, seed=seed),
        lambda: pyvae.reparameterize_kl(mu, logvar, generator=torch.cuda.default_generators[0]),
        lambda: pyvae.reparameterize_kl(mu, logvar, eps=eps),
    ]
    for function in calls:
        function()
        assert_launches(1, function)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_users_pass_takes_the_vector_kernels(dtype: torch.dtype) -> None:
    """Numbers, a row or a whole tensor as factors, a mask, another type of data, and an upstream gradient per row."""
    recon, target = inputs("bernoulli_logits", SMALL, dtype)[:2]
    row, mask = torch.rand(SMALL[1], device="cuda"), torch.rand(SMALL, device="cuda") < 0.5
    for weight, pos_weight in ((None, 2.5), (row, None), (mask, row), (torch.rand_like(target), row)):
        names = launches(
            lambda w=weight, p=pos_weight: pyvae.reconstruction_loss(
                recon, target, likelihood="bernoulli_logits", weight=w, pos_weight=p
            ).backward(torch.ones(SMALL[0], device="cuda"))
        )
        ours = [name for name in names if "pyvae" in name]
        assert ours and all("Packed" in name for name in ours), names


# ---- memory ----------------------------------------------------------------------------------------------------------


def peak(work: Callable[[], Any], warm_up: bool = True) -> tuple[int, Any]:
    """Bytes that `work` allocates at most beyond what is there before, and its result."""
    if warm_up:
        work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = work()
    return torch.cuda.max_memory_allocated() - before, result


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_memory_of_a_step(dtype: torch.dtype) -> None:
    """Beyond inputs and outputs one buffer of recon's size, which becomes its gradient; nothing of the noise."""
    shape = (512, 64 * 1024)
    recon, target = (torch.rand(shape, device="cuda").to(d) for d in (dtype, torch.float32))
    mu, logvar = leaf(torch.zeros(shape, dtype=dtype, device="cuda")), leaf(torch.zeros_like(recon))
    recon.requires_grad_()
    size = recon.numel() * recon.element_size()

    used, (z, kl) = peak(lambda: pyvae.reparameterize_kl(mu, logvar))
    assert used <= size + SLACK  # the sample
    used, _ = peak(lambda: grad((z, kl), (mu, logvar), (z.detach(), torch.ones_like(kl)), retain_graph=True))
    assert used <= 2 * size + SLACK  # the two gradients

    used, _ = peak(lambda: pyvae.elbo_loss(recon, target, kl=kl.detach()))
    assert used <= size + SLACK  # the gradient to be
    with torch.no_grad():
        used, _ = peak(lambda: pyvae.elbo_loss(recon, target, kl=kl))
    assert used <= SLACK
    for factor in (1.0, 3.0):
        loss = pyvae.elbo_loss(recon, target, kl=kl.detach())
        used, _ = peak(lambda x=loss, f=factor: grad(x, recon, torch.full_like(x, f)), warm_up=False)
        assert used <= SLACK
