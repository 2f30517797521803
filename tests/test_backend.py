"""`pyvae.backend`: blocks that overlap in any order leave the process as they found it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

import pyvae

pytestmark = pytest.mark.usefixtures("kernels")


def runs_reference() -> bool:
    """Whether a call comes by the reference, whose graph is made of torch's own operators."""
    node = pyvae.kl_divergence(torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3)).grad_fn
    return type(node).__name__ != "CppFunction"


def test_nested_blocks_restore_what_was_before() -> None:
    assert not runs_reference()
    with pyvae.backend("reference"):
        assert runs_reference()
        with pyvae.backend("auto"):
            assert not runs_reference()
            with pyvae.backend("reference"):
                assert runs_reference()
            assert not runs_reference()
        assert runs_reference()
    assert not runs_reference()


def test_an_error_restores_it_too() -> None:
    with pytest.raises(RuntimeError, match="inside"), pyvae.backend("reference"):
        raise RuntimeError("inside")
    assert not runs_reference()


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r'^backend: `name` must be "auto" or "reference", but is \'cpu\'$'):
        pyvae.backend("cpu").__enter__()
    assert not runs_reference()


@pytest.mark.parametrize("leaving", list(itertools.permutations(range(3))))
def test_blocks_leave_in_any_order(leaving: tuple[int, ...]) -> None:
    """The last that is still there decides."""

    def block(name: str) -> Iterator[None]:
        with pyvae.backend(name):
            yield

    names = ["reference", "auto", "reference"]
    blocks = [block(name) for name in names]
    for entered in blocks:
        next(entered)
    left = dict(enumerate(names))
    for index in leaving:
        blocks[index].close()
        del left[index]
        assert runs_reference() == bool(left and left[max(left)] == "reference")


def test_threads_leave_in_any_order() -> None:
    """The first thread leaves its block within the second's."""
    in_first, in_second, out_of_first = (threading.Event() for _ in range(3))
    seen = []

    def first() -> None:
        with pyvae.backend("reference"):
            in_first.set()
            assert in_second.wait(30)
        out_of_first.set()

    def second() -> None:
        assert in_first.wait(30)
        with pyvae.backend("reference"):
            in_second.set()
            assert out_of_first.wait(30)
            seen.append(runs_reference())

    threads = [threading.Thread(target=run) for run in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True]
    assert not runs_reference()


def test_many_threads_at_once() -> None:
    def enter_and_leave() -> None:
        for _ in range(2000):
            with pyvae.backend("reference"):
                pass

    threads = [threading.Thread(target=enter_and_leave) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not runs_reference()


def test_tasks_leave_in_any_order() -> None:
    async def task(steps: int) -> None:
        with pyvae.backend("reference"):
            for _ in range(steps):
                await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(task(2), task(5), task(1))

    asyncio.run(both())
    assert not runs_reference()


@pytest.mark.parametrize("within", [False, True], ids=["around", "within"])
def test_compiled_code_follows(within: bool) -> None:
    """The choice is guarded: one graph for each, whether the block is around the compiled code or in it."""
    torch._dynamo.reset()
    graphs = []

    def compiler(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., object]:
        graphs.append("reference" if "pyvae" not in graph.code else "auto")
        return graph.forward

    @torch.compile(fullgraph=True, backend=compiler)
    def kl(mu: torch.Tensor, name: str) -> torch.Tensor:
        if not within:
            return pyvae.kl_divergence(mu, mu)
        with pyvae.backend(name):
            return pyvae.kl_divergence(mu, mu)

    for name in ("auto", "reference", "auto", "reference"):
        if within:
            kl(torch.ones(2, 3), name)
        else:
            with pyvae.backend(name):
                kl(torch.ones(2, 3), name="")
    assert graphs == ["auto", "reference"]
    torch._dynamo.reset()
    assert not runs_reference()
