"""A mixture as an object: copies, trees, programs that take one; and the ways of autograd around its log density."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from cases import all_equal, leaf
from test_mixture import Case, inputs, log_prob
from torch import Tensor, nn
from torch.autograd import grad
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

import pyvae
from pyvae._objects import held


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def mixture() -> pyvae.Mixture:
    _, mean, logvar, logits = inputs(Case((), 4, 3, 2, False), "logvar", torch.float32)
    return pyvae.Mixture(*(x.detach() for x in (mean, logvar)), logits=logits.detach())


def test_identity_and_immutability() -> None:
    one, other = mixture(), mixture()
    assert one == one and one != other and bool(one) and len({one, other}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.mean = one.mean  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        pyvae.Mixture(one.mean, one.mean, one.mean)  # type: ignore[misc]


def test_copies() -> None:
    given, saved = mixture(), io.BytesIO()
    torch.save(given, saved)
    saved.seek(0)
    made: tuple[Any, ...] = (copy.copy(given), copy.deepcopy(given), pickle.loads(pickle.dumps(given)))
    for each in (*made, torch.load(saved)):
        assert type(each) is pyvae.Mixture and each is not given
        assert all_equal(held(each).values(), held(given).values())


def test_trees() -> None:
    leaves, spec = pytree.tree_flatten(mixture())
    assert len(leaves) == 3 and pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec


@pytest.mark.usefixtures("backend")
def test_vmap_over_mixtures() -> None:
    z, mean = torch.randn(4, 2), torch.randn(5, 3, 2)
    many = pyvae.Mixture(mean, torch.zeros(5, 3, 2))
    want = torch.stack([pyvae.mixture_log_prob(z, pyvae.Mixture(x, 0.0)) for x in mean])
    for dims in (0, pyvae.Mixture(0, 0)):  # type: ignore[arg-type]
        got = torch.func.vmap(lambda each: pyvae.mixture_log_prob(z, each), in_dims=(dims,))(many)
        torch.testing.assert_close(got, want)


class Taking(nn.Module):
    def forward(self, z: Tensor, given: Any) -> Tensor:
        return pyvae.mixture_log_prob(z, given)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("strict", [False, True])
def test_export(strict: bool) -> None:
    z, given = torch.randn(4, 2), mixture()
    program = torch.export.export(Taking(), (z, given), strict=strict)
    assert "pyvae.mixture_log_prob" in program.graph_module.code
    torch.testing.assert_close(program.module()(z, given), pyvae.mixture_log_prob(z, given))


@pytest.mark.usefixtures("kernels")
def test_other_numbers_take_no_other_graph() -> None:
    """A second at the most, when torch makes the number symbolic at its first change."""
    z, given, graphs = torch.randn(4, 2), mixture(), []

    def counting(graph: torch.fx.GraphModule, example: Any) -> Any:
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, example)

    def step(width: float) -> Tensor:
        return pyvae.mixture_log_prob(z, pyvae.Mixture(given.mean, std=width))

    compiled = torch.compile(step, backend=counting, fullgraph=True)
    for width in (0.5, 1.25, 2.0, 3.0):
        torch.testing.assert_close(compiled(width), step(width))
    assert len(graphs) <= 2


@pytest.mark.parametrize("dynamic", [None, True])
def test_the_reference_compiles(dynamic: bool | None) -> None:
    """As it does on CUDA."""
    z, given = torch.randn(4, 2), mixture()

    @torch.compile(backend="aot_eager", fullgraph=True, dynamic=dynamic)
    def step(z: Tensor, mean: Tensor) -> Tensor:
        return pyvae.mixture_log_prob(z, pyvae.Mixture(mean, 0.0)) + pyvae.gaussian_log_prob(z, z, z)

    with pyvae.backend("reference"):
        want = pyvae.mixture_log_prob(z, pyvae.Mixture(given.mean, 0.0)) + pyvae.gaussian_log_prob(z, z, z)
        torch.testing.assert_close(step(z, given.mean), want)


AROUND: dict[str, Callable[[Callable[[], Tensor]], Tensor]] = {
    "hooks": lambda run: _on_cpu(run),
    "checkpoint": lambda run: checkpoint(lambda: run(), use_reentrant=False),
}


def _on_cpu(run: Callable[[], Tensor]) -> Tensor:
    with torch.autograd.graph.save_on_cpu():
        return run()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("way", AROUND)
@pytest.mark.parametrize("reduction", ["none", "elements"])
def test_what_is_saved_may_be_moved_and_made_again(way: str, reduction: str) -> None:
    given = [leaf(x) for x in inputs(Case((3,), 4, 5, 6, False), "logvar", torch.float32)]
    want = grad(log_prob(given, "logvar", reduction).sum(), given)
    got = grad(AROUND[way](lambda: log_prob(given, "logvar", reduction)).sum(), given)
    assert all_equal(got, want)
