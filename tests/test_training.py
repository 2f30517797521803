"""What training loops do around a loss: hooks, threads, offloading, autocast, copies of the module."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from calls import call, of
from cases import all_equal, data, step_inputs
from families import PLAIN, WAYS, family
from tolerances import FLOAT32_ROUNDING, TRAJECTORY
from torch import Tensor, nn
from torch.autograd import grad
from torch.utils.checkpoint import checkpoint

import pyvae

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.torch_sensitive("hooks, threads, offloading, autocast, checkpoints"),
]


def inputs(device: str, seed: int = 0, batch: int = 6) -> list[Tensor]:
    return step_inputs("bernoulli_logits", (batch, 130), (batch, 9), seed=seed, device=device)


def step(recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor, seed: int = 11) -> Tensor:
    z, kl = pyvae.reparameterize_kl(mu, logvar, seed=seed)
    return pyvae.elbo_loss(recon * z.mean(1, keepdim=True), target, kl=kl, likelihood="bernoulli_logits", beta=0.5)


def gradients(tensors: list[Tensor], seed: int = 11) -> list[Tensor]:
    return list(grad(step(*tensors, seed), [x for x in tensors if x.requires_grad]))


# ---- hooks -----------------------------------------------------------------------------------------------------------


def test_hooks_see_and_change_the_gradient(device: str) -> None:
    tensors = inputs(device)
    want = gradients(tensors)
    seen: list[Tensor] = []
    handles = [x.register_hook(lambda g: (seen.append(g.clone()), 2 * g)[1]) for x in tensors if x.requires_grad]
    assert all_equal(gradients(tensors), [2 * g for g in want])
    assert len(seen) == 3
    for handle in handles:
        handle.remove()
    assert all_equal(gradients(tensors), want)


def test_a_hook_that_writes_into_the_gradient_spoils_no_later_pass(device: str) -> None:
    tensors = inputs(device)
    sources = [x for x in tensors if x.requires_grad]
    loss = step(*tensors)
    handle = tensors[0].register_hook(lambda g: g.zero_())
    assert not grad(loss, tensors[0], retain_graph=True)[0].any()
    handle.remove()
    assert all_equal(grad(loss, sources), gradients(tensors))


def test_saved_tensors_go_through_the_hooks(device: str) -> None:
    """Offloading to the CPU, and hooks of any kind, see what is saved; a gradient survives the round trip."""
    want = gradients(inputs(device))
    packed: list[torch.Size] = []

    def pack(x: Tensor) -> Tensor:
        packed.append(x.shape)
        return x.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x.clone()):
        assert all_equal(gradients(inputs(device)), want)
    assert packed
    with torch.autograd.graph.save_on_cpu():
        loss = step(*(tensors := inputs(device)))
    sources = [x for x in tensors if x.requires_grad]
    assert all_equal(list(grad(loss, sources, retain_graph=True)), want)
    assert all_equal(list(grad(loss, sources)), want)


# ---- threads ---------------------------------------------------------------------------------------------------------


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """work(0), ..., work(count - 1), started at the same moment in as many Python threads."""
    barrier = Barrier(count)

    def run(index: int) -> Any:
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_threads_with_steps_of_their_own(device: str) -> None:
    for batch in (6, 600):
        want = [gradients(inputs(device, seed, batch), seed) for seed in range(8)]
        got = in_threads(8, lambda s, batch=batch: [gradients(inputs(device, s, batch), s) for _ in range(10)])
        for results, expected in zip(got, want, strict=True):
            assert all(all_equal(result, expected) for result in results)


def test_threads_that_share_a_graph(device: str) -> None:
    """Only one of them may take the gradient that the forward made; the others recompute it."""
    tensors = inputs(device, batch=64)
    sources = [x for x in tensors if x.requires_grad]
    want = gradients(tensors)
    for _ in range(20):
        loss = step(*tensors)
        for got in in_threads(4, lambda _, loss=loss: list(grad(loss, sources, retain_graph=True))):
            assert all_equal(got, want)


# ---- automatic mixed precision ---------------------------------------------------------------------------------------


class VAE(nn.Module):
    """Just large enough to be one."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(130, 18), nn.Linear(9, 130)

    def forward(self, x: Tensor, seed: int | None = 3) -> tuple[Tensor, Tensor]:
        mu, logvar = self.encoder(x).chunk(2, 1)
        z, kl = pyvae.reparameterize_kl(mu, logvar, seed=seed)
        return self.decoder(z), kl


@pytest.mark.parametrize("likelihood", PLAIN)
def test_autocast(likelihood: str, device: str) -> None:
    """bfloat16 activations against float32 data: nothing is cast down, losses are float32, as without autocast."""
    x = data(likelihood, (6, 130), device=device)[1]
    model = VAE().to(device)
    link = torch.sigmoid if family(likelihood).probabilities else nn.Identity()
    losses = []
    for enabled in (True, False):  # around the loss
        with torch.autocast(device, torch.bfloat16):
            recon, kl = model(x)
            recon = link(recon)
        assert (recon.dtype, kl.dtype) == (torch.bfloat16, torch.float32)
        with torch.autocast(device, torch.bfloat16, enabled=enabled):
            losses.append(pyvae.elbo_loss(recon, x, kl=kl, likelihood=likelihood))
    assert losses[0].dtype == torch.float32
    assert torch.equal(*losses)
    got, want = (grad(loss, list(model.parameters())) for loss in losses)
    assert all_equal(got, want)
    assert all(g.dtype == torch.float32 and g.isfinite().all() and g.any() for g in got)


# ---- the module ------------------------------------------------------------------------------------------------------


def test_copies_of_the_module(device: str) -> None:
    recon, target, mu, logvar = inputs(device)
    module = pyvae.ELBOLoss(likelihood="bernoulli_logits", beta=0.25, reduction="batchmean")
    want = pyvae.elbo_loss(recon, target, mu, logvar, likelihood="bernoulli_logits", beta=0.25, reduction="batchmean")
    for twin in (module, copy.deepcopy(module), copy.copy(module), pickle.loads(pickle.dumps(module)), module.double()):
        assert torch.equal(twin(recon, target, mu, logvar), want)
        kl = pyvae.kl_divergence(mu, logvar)
        torch.testing.assert_close(twin(recon, target, kl=kl), want, rtol=FLOAT32_ROUNDING, atol=0)
        assert repr(twin) == "ELBOLoss(likelihood='bernoulli_logits', beta=0.25, reduction='batchmean')"


def trained(start: VAE, loss_of: Callable[[VAE, int], Tensor], steps: int) -> Tensor:
    """The losses of a copy of `start` on its way."""
    model = copy.deepcopy(start)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for index in range(steps):
        loss = loss_of(model, index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def test_training_lowers_the_loss_as_the_textbook_does(device: str) -> None:
    """Two hundred steps of Adam on the same noise: the fused trajectory stays on the eager one."""
    start, x, eps = VAE().to(device), inputs(device)[1], torch.randn(200, 6, 9).to(device)

    def textbook(model: VAE, index: int) -> Tensor:
        mu, logvar = model.encoder(x).chunk(2, 1)
        logits = model.decoder(mu + eps[index] * torch.exp(logvar / 2))
        bce = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())

    def fused(model: VAE, index: int) -> Tensor:
        mu, logvar = model.encoder(x).chunk(2, 1)
        logits = model.decoder(pyvae.reparameterize(mu, logvar, eps=eps[index]))
        return pyvae.elbo_loss(logits, x, mu, logvar, likelihood="bernoulli_logits")

    got, want = trained(start, fused, 200), trained(start, textbook, 200)
    assert got[-1] < 0.8 * got[0]
    torch.testing.assert_close(got, want, rtol=TRAJECTORY, atol=0)


def test_a_gradient_scaler_changes_nothing(device: str) -> None:
    """It scales the loss by a power of two, and all gradients by its inverse."""
    x, start, trained = inputs(device)[1], VAE().to(device), []
    for enabled in (True, False):
        model = copy.deepcopy(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        scaler = torch.amp.GradScaler(device, init_scale=65536.0, enabled=enabled)
        for seed in range(3):
            with torch.autocast(device, torch.bfloat16):
                logits, kl = model(x, seed)
                loss = pyvae.elbo_loss(logits, x, kl=kl, likelihood="bernoulli_logits", reduction="batchmean")
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        trained.append([p.detach() for p in model.parameters()])
    assert all_equal(*trained)
    assert not all_equal(trained[0], [p.detach() for p in start.parameters()])


@pytest.mark.parametrize(("name", "library"), WAYS)
def test_autocast_and_checkpoints_change_no_bit(name: str, library: bool, device: str) -> None:
    """bfloat16 activations beside float32 parameters and data; and the forward pass run again."""
    dtypes = (torch.bfloat16, torch.float32, torch.float32)
    given = call(name, (4, 90), dtypes=dtypes, library=library, device=device).leaves()
    want = [loss := given.elbo_loss(), *grad(loss, given.differentiable)]
    with torch.autocast(device, torch.bfloat16):
        loss = given.elbo_loss()
    assert all_equal([loss, *grad(loss, given.differentiable)], want)
    loss = checkpoint(of(given), *given.differentiable, use_reentrant=False)
    assert all_equal([loss, *grad(loss, given.differentiable)], want)  # type: ignore[list-item]
