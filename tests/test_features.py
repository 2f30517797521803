"""The table of PyTorch's features in docs/pytorch.md is true: a check for each row."""

from __future__ import annotations

import copy
import io
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.autograd.forward_ad as fwAD
import torch.distributed as dist
import torch.nn.functional as F
from cases import all_equal, assert_whole, leaf
from test_readme import ROOT, rows
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import save_on_cpu
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import pyvae

pytestmark = [
    pytest.mark.usefixtures("kernels"),
    pytest.mark.torch_sensitive("what docs/pytorch.md promises of torch's features"),
]


def tensors(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(1)
    return [leaf(torch.randn(4, 6, dtype=dtype)), torch.rand(4, 6, dtype=dtype), *torch.randn(2, 4, 3, dtype=dtype)]


def loss(recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return pyvae.elbo_loss(recon, target, mu, logvar, likelihood="bernoulli_logits")


class Program(nn.Module):
    def forward(self, recon: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        return loss(recon, target, mu, logvar)


def compiles() -> None:
    for size in (4, 7):
        recon, target, mu, logvar = (x.detach()[:1].repeat(size, 1) for x in tensors())
        run = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
        assert_whole(run(recon, target, mu, logvar), loss(recon, target, mu, logvar))


def exports() -> None:
    given = tuple(x.detach() for x in tensors())
    program = torch.export.export(Program(), given)
    assert "pyvae.elbo" in program.graph_module.code
    assert_whole(program.module()(*given), loss(*given))


def traces() -> None:
    traced = torch.fx.symbolic_trace(Program())
    assert any(node.target is pyvae.elbo_loss for node in traced.graph.nodes)
    assert_whole(traced(*tensors()), loss(*tensors()))


def transforms() -> None:
    recon, *rest = (x.detach() for x in tensors(torch.float64))
    want = torch.autograd.grad(loss(leaf(recon), *rest), leaf(recon), allow_unused=True)
    assert want == (None,)
    x = leaf(recon)
    (want_gradient,) = torch.autograd.grad(loss(x, *rest), x)
    assert_whole(torch.func.grad(loss)(recon, *rest), want_gradient)
    assert_whole(torch.func.jacrev(loss)(recon, *rest), want_gradient)
    hessian = torch.func.hessian(loss)(recon, *rest)
    assert hessian.shape == (4, 6, 4, 6) and hessian.flatten(2).flatten(0, 1).diagonal().all()
    each = torch.func.vmap(loss)(*(t.unsqueeze(1) for t in (recon, *rest)))
    assert_whole(each.sum(), loss(recon, *rest))


def differentiates_twice() -> None:
    recon, target, mu, logvar = tensors(torch.float64)
    given = (recon, target, leaf(mu), leaf(logvar))
    assert gradcheck(loss, given, check_forward_ad=True)
    assert gradgradcheck(loss, given)
    with fwAD.dual_level():
        dual = fwAD.make_dual(recon.detach(), torch.ones_like(recon))
        tangent = fwAD.unpack_dual(loss(dual, target, mu, logvar)).tangent
    assert_whole(tangent, torch.autograd.grad(loss(recon, target, mu, logvar), recon)[0].sum())


def autocasts() -> None:
    x, layer = torch.rand(4, 6), nn.Linear(6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        recon = layer(x)
        value = pyvae.elbo_loss(recon, x, likelihood="bernoulli_logits")
    value.backward()
    assert (recon.dtype, value.dtype) == (torch.bfloat16, torch.float32)
    assert layer.weight.grad is not None and layer.weight.grad.isfinite().all()


def packs() -> None:
    recon, *rest = tensors()
    (want,) = torch.autograd.grad(loss(recon, *rest), recon)
    assert_whole(torch.autograd.grad(checkpoint(loss, recon, *rest, use_reentrant=False), recon)[0], want)
    with save_on_cpu():
        value = loss(recon, *rest)
    assert_whole(torch.autograd.grad(value, recon)[0], want)


def accumulates() -> None:
    recon, *rest = tensors()
    value = loss(recon, *rest)
    value.backward(retain_graph=True)
    assert recon.grad is not None
    once = recon.grad.clone()
    value.backward()
    assert_whole(recon.grad, 2 * once)


def is_a_module() -> None:
    criterion = pyvae.ELBOLoss(likelihood="bernoulli_logits", beta=torch.tensor(0.5), weight=torch.rand(6))
    want = criterion(*tensors())
    buffer = io.BytesIO()
    torch.save(criterion.state_dict(), buffer)
    assert set(criterion.state_dict()) == {"beta", "weight"}
    for other in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert torch.equal(other(*tensors()), want)

    class Softplus(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.softplus(x)

    learned = pyvae.ELBOLoss(likelihood="bernoulli_logits", beta=nn.Parameter(torch.tensor(0.5)))
    nn.utils.parametrize.register_parametrization(learned, "beta", Softplus())
    assert learned(*tensors()).requires_grad


class Functions(TorchFunctionMode):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def is_seen() -> None:
    given = [x.detach() for x in tensors()]
    with Functions() as functions:
        loss(*given)
    assert pyvae.elbo_loss in functions.seen
    with Operators() as operators:
        loss(*given)
    assert any("pyvae" in name for name in operators.seen)

    class Marked(Tensor):
        pass

    assert isinstance(loss(given[0].as_subclass(Marked), *given[1:]), Marked)


@contextmanager
def alone() -> Iterator[None]:
    """A process group of this process: what more of them do is tested in test_dtensor.py."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_wrapped() -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, init_device_mesh

    def step(model: nn.Module) -> list[Tensor]:
        loss(model(target), target, mu, logvar).backward()
        gradients = [p.grad for p in model.parameters()]
        return [g.full_tensor() if isinstance(g, DTensor) else g for g in gradients]

    _, target, mu, logvar = tensors()
    model = nn.Linear(6, 6)
    copies = [copy.deepcopy(model) for _ in range(2)]
    want = step(model)
    with alone():
        assert all_equal(step(nn.parallel.DistributedDataParallel(copies[0])), want)
        assert all_equal(step(fully_shard(copies[1], mesh=init_device_mesh("cpu", (1,)))), want)


def is_distributed() -> None:
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    given = [x.detach() for x in tensors()]
    with alone():
        mesh = init_device_mesh("cpu", (1,))
        parts = [distribute_tensor(x, mesh, [Shard(0)]) for x in given]
        for function in (loss, torch.compile(loss, fullgraph=True, dynamic=False, backend="aot_eager")):
            assert torch.equal(function(*parts).full_tensor(), loss(*given))


def has_no_data() -> None:
    given = [x.detach() for x in tensors()]
    want = loss(*given)
    assert loss(*(x.to("meta") for x in given)).device.type == "meta"
    with FakeTensorMode() as mode:
        fake = loss(*map(mode.from_tensor, given))
    assert (fake.shape, fake.dtype) == (want.shape, want.dtype)
    with torch.device("meta"):
        assert torch.equal(loss(*given), want)


def refuses_other_layouts() -> None:
    plain = torch.rand(4, 6)
    for other in (plain.to_sparse(), plain.to(torch.complex64), torch.nested.nested_tensor([plain[0]] * 4)):
        with pytest.raises((TypeError, ValueError), match=r"reconstruction_loss: `recon` must"):
            pyvae.reconstruction_loss(other, plain, likelihood="gaussian")
    with pytest.raises((TypeError, ValueError), match=r"reconstruction_loss: `recon` must"):
        pyvae.reconstruction_loss(torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8), plain, likelihood="gaussian")


def is_not_scripted() -> None:
    with pytest.raises(torch.jit.frontend.NotSupportedError):
        torch.jit.script(Program())


CHECKS: dict[str, Callable[[], None]] = {
    "`torch.compile`": compiles,
    "`torch.export`": exports,
    "`torch.fx.symbolic_trace`": traces,
    "`torch.func`": transforms,
    "second derivatives": differentiates_twice,
    "autocast": autocasts,
    "`torch.utils.checkpoint`": packs,
    "`retain_graph`": accumulates,
    "`torch.nn.utils.parametrize`": is_a_module,
    "subclasses": is_seen,
    "DDP": is_wrapped,
    "DTensor": is_distributed,
    "meta tensors": has_no_data,
    "sparse": refuses_other_layouts,
    "`torch.jit.script`": is_not_scripted,
}


def name(feature: str) -> str:
    return re.split(r"[,:]", feature)[0].strip()


def test_each_feature_has_a_check() -> None:
    page = (ROOT / "docs" / "pytorch.md").read_text(encoding="utf-8")
    assert [name(row[0]) for row in rows("| feature | works |", page)] == list(CHECKS)


@pytest.mark.parametrize("feature", CHECKS)
def test_feature(feature: str) -> None:
    CHECKS[feature]()
