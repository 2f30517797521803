"""The likelihoods' objects: what they are, whatever they hold, and how the rest of torch takes them apart."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from calls import Call, call
from cases import all_equal, assert_whole, leaf
from families import HOLDING, OTHERS, WITH_LIBRARY, family
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import pyvae
from pyvae._objects import held, settings
from pyvae.likelihoods import CLASSES

pytestmark = pytest.mark.torch_sensitive(
    "pytrees and frozen dataclasses in torch.func, the compilers, torch.export and torch.fx"
)

OBJECTS: dict[str, Callable[[Any], Any]] = {  # of one tensor, or number, for all that they hold
    "Gaussian": pyvae.Gaussian,
    "Laplace": pyvae.Laplace,
    "Poisson": pyvae.Poisson,
    "NegativeBinomial": pyvae.NegativeBinomial,
    "ZeroInflatedNegativeBinomial": lambda x: pyvae.ZeroInflatedNegativeBinomial(x, x),
    "Multinomial": lambda x: pyvae.Multinomial(),
}
EACH = pytest.mark.parametrize("name", OBJECTS)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_every_class_is_here() -> None:
    assert list(OBJECTS) == [cls.__name__ for cls in CLASSES]


# ---- what they are ---------------------------------------------------------------------------------------------------


@EACH
def test_identity(name: str) -> None:
    """Equal if they are one, whatever they hold; hashed so; and true."""
    x = torch.zeros(3)
    one, other = OBJECTS[name](x), OBJECTS[name](x)
    assert one == one and one != other
    assert len({one, other, one}) == 2
    assert bool(one)
    for another in (pyvae.Gaussian(), pyvae.Laplace(), pyvae.Poisson(), pyvae.Multinomial()):
        assert one != another
        assert another
    assert not isinstance(one, tuple)


@EACH
def test_immutable(name: str) -> None:
    given = OBJECTS[name](torch.zeros(3))
    for field in ("logvar", *(x.name for x in dataclasses.fields(given))):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(given, field, 1.0)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(given, field)


@EACH
def test_copies(name: str) -> None:
    """By copy, deepcopy, pickle, torch.save and dataclasses.replace: of one class, with the same numbers."""
    given = OBJECTS[name](nn.Parameter(torch.arange(3.0)))
    saved = io.BytesIO()
    torch.save(given, saved)
    saved.seek(0)
    for made in (
        copy.copy(given),
        copy.deepcopy(given),
        pickle.loads(pickle.dumps(given)),
        torch.load(saved),  # which takes no classes but those it knows
        dataclasses.replace(given),
    ):
        assert type(made) is type(given) and made is not given
        assert all_equal(*([x for x in held(each).values() if x is not None] for each in (made, given)))
    if held(given):
        assert copy.copy(given).resolved[1:] == given.resolved[1:]  # the same tensors
        assert dataclasses.replace(given, **dict.fromkeys(held(given), 1.0)).resolved.name == given.resolved.name


def test_repr_has_shapes_and_numbers() -> None:
    shown = {
        "Gaussian()": pyvae.Gaussian(),
        "Gaussian(logvar=Tensor(3,))": pyvae.Gaussian(torch.zeros(3)),
        "Gaussian(logvar=Parameter())": pyvae.Gaussian(nn.Parameter(torch.zeros(()))),
        "Laplace(logscale=-2.0)": pyvae.Laplace(-2.0),
        "NegativeBinomial(log_theta=Tensor(4, 1), log_library=3)": pyvae.NegativeBinomial(torch.zeros(4, 1), 3),
        "Multinomial()": pyvae.Multinomial(),
    }
    assert [repr(each) for each in shown.values()] == list(shown)


# ---- trees -----------------------------------------------------------------------------------------------------------


@EACH
def test_pytrees(name: str) -> None:
    """Leaves are what it holds, in order; what is not there is none."""
    given = OBJECTS[name](torch.ones(3))
    leaves, spec = pytree.tree_flatten(given)
    assert all_equal(leaves, [x for x in held(given).values() if x is not None])
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec
    twice = pytree.tree_map(lambda x: 2 * x, given)
    assert type(twice) is type(given)
    assert all_equal(pytree.tree_leaves(twice), [2 * x for x in leaves])
    assert [x is None for x in held(twice).values()] == [x is None for x in held(given).values()]
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(given)[0]]
    assert paths == [f".{field}" for field, x in held(given).items() if x is not None]


def of_rows(likelihood: Any, recon: Tensor, target: Tensor) -> Tensor:
    return pyvae.elbo_loss(recon[None], target[None], likelihood=likelihood)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", HOLDING)
@pytest.mark.parametrize("library", [False, True])
def test_transforms_of_functions_of_an_object(name: str, library: bool, device: str) -> None:
    """Its gradient is an object; so is what is said of its dimensions."""
    given = call(name, (4, 30), library=library, device=device)
    likelihood, tensors = given.likelihood, given.differentiable[1:]
    leaves = given.leaves()
    want = torch.autograd.grad(leaves.elbo_loss(), leaves.differentiable[1:]) if tensors else ()

    def loss(likelihood: Any) -> Tensor:
        return pyvae.elbo_loss(given.recon, given.target, likelihood=likelihood)

    got = torch.func.grad(loss)(likelihood)
    assert type(got) is type(likelihood)
    for mine, wanted in zip(pytree.tree_leaves(got), want, strict=True):
        assert_whole(mine, wanted)
    absent = {} if given.log_library is None else {"log_library": None}

    own = [parameter for parameter, _ in family(name).parameters]
    dims = dataclasses.replace(likelihood, **dict.fromkeys(own), **dict.fromkeys(absent, 0))
    if given.log_library is not None:
        library_of_one = dataclasses.replace(likelihood, log_library=given.log_library[:, None])
        each = torch.func.vmap(of_rows, in_dims=(dims, 0, 0))(library_of_one, given.recon, given.target)
        assert_whole(each, given.elbo_loss(reduction="none"))
    wide = dataclasses.replace(
        likelihood, **{x: value.expand(4, 30) for x, value in zip(own, given.parameters, strict=True)}, **absent
    )
    without = torch.func.vmap(of_rows)(wide, given.recon, given.target)
    assert_whole(without, pyvae.elbo_loss(given.recon, given.target, likelihood=wide, reduction="none"))


def test_dimensions_may_name_what_is_not_there() -> None:
    recon, target, theta = torch.randn(4, 6), torch.ones(4, 6), torch.zeros(4, 6)
    given, want = pyvae.NegativeBinomial(theta), of_rows(pyvae.NegativeBinomial(theta[0]), recon[0], target[0])
    for dims in (0, pyvae.NegativeBinomial(0), pyvae.NegativeBinomial(0, None), pyvae.NegativeBinomial(0, 0)):
        torch.testing.assert_close(torch.func.vmap(of_rows, in_dims=(dims, 0, 0))(given, recon, target)[0], want)
    one = pyvae.Poisson()
    assert torch.func.vmap(of_rows)(one, recon, target).shape == (4,)
    assert torch.func.vmap(of_rows)(pyvae.Multinomial(), recon, target).shape == (4,)
    with_number = torch.func.vmap(of_rows, in_dims=(None, 0, 0))(pyvae.NegativeBinomial(0.0), recon, target)
    torch.testing.assert_close(with_number[0], want)


# ---- compilers and graphs --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", OTHERS)
def test_compiled_functions_take_and_give_objects(name: str, compiler: str, device: str) -> None:
    given = call(name, (4, 30), library=name in WITH_LIBRARY, device=device)

    @torch.compile(fullgraph=True, backend=compiler)
    def step(likelihood: Any) -> tuple[Tensor, Any, Any]:
        made = pytree.tree_map(lambda x: x + 0, likelihood)
        return pyvae.elbo_loss(given.recon, given.target, likelihood=made), made, likelihood

    likelihood = given.likelihood
    loss, made, same = step(likelihood)
    assert_whole(loss, given.elbo_loss())
    assert same is likelihood
    assert type(made) is type(same)
    assert all_equal(pytree.tree_leaves(made), pytree.tree_leaves(same))


class Taking(nn.Module):
    def forward(self, recon: Tensor, target: Tensor, likelihood: Any) -> Tensor:
        return pyvae.elbo_loss(recon, target, likelihood=likelihood)


class Making(nn.Module):
    def __init__(self, cls: Callable[..., Any], names: list[str], settings: dict[str, Any]) -> None:
        super().__init__()
        self.cls, self.names, self.settings = cls, names, settings

    def forward(self, recon: Tensor, target: Tensor, given: list[Tensor]) -> Tensor:
        likelihood = self.cls(**{name: given[i] for i, name in enumerate(self.names)}, **self.settings)
        return pyvae.elbo_loss(recon, target, likelihood=likelihood)


def making(given: Call) -> tuple[Making, list[Tensor]]:
    within = held(given.likelihood)
    return Making(type(given.likelihood), list(within), settings(given.likelihood)), list(within.values())


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_export(name: str, strict: bool, device: str) -> None:
    """Of an object that is given, saved and loaded too; and of one that is made within."""
    for library in (False, True) if name in WITH_LIBRARY else (False,):
        given = call(name, (4, 30), library=library, device=device)
        want = given.elbo_loss()
        taking = torch.export.export(Taking(), (given.recon, given.target, given.likelihood), strict=strict)
        saved = io.BytesIO()
        torch.export.save(taking, saved)
        saved.seek(0)
        for program in (taking, torch.export.load(saved)):
            assert "pyvae.elbo" in program.graph_module.code
            assert_whole(program.module()(given.recon, given.target, given.likelihood), want)
        module, tensors = making(given)
        made = torch.export.export(module, (given.recon, given.target, tensors), strict=strict)
        assert_whole(made.module()(given.recon, given.target, tensors), want)


@pytest.mark.parametrize("name", OTHERS)
def test_a_node_of_fx_makes_the_object(name: str) -> None:
    given = call(name, (4, 30), library=name in WITH_LIBRARY)
    module, tensors = making(given)
    traced = torch.fx.symbolic_trace(module)
    made = [node for node in traced.graph.nodes if node.target is type(given.likelihood)]
    assert len(made) == 1
    for function in (traced, torch.compile(traced, fullgraph=True, backend="eager")):
        assert_whole(function(given.recon, given.target, tensors), given.elbo_loss())


# ---- numbers ---------------------------------------------------------------------------------------------------------

NUMBERS: dict[str, Callable[[float], Any]] = {
    "Gaussian": pyvae.Gaussian,
    "Laplace": pyvae.Laplace,
    "NegativeBinomial": lambda x: pyvae.NegativeBinomial(x, 3 * x),
    "ZeroInflatedNegativeBinomial": lambda x: pyvae.ZeroInflatedNegativeBinomial(x, -x),
    "Poisson": pyvae.Poisson,
}
FOUR = (0.5, -1.25, 0.0, 2.0)


def step(recon: Tensor, target: Tensor, x: float, make: Callable[[float], Any]) -> Tensor:
    return pyvae.elbo_loss(recon, target, likelihood=make(x))


def given_to(function: Callable[..., Tensor], recon: Tensor, target: Tensor, *rest: Any) -> list[Tensor]:
    x = leaf(recon)
    loss = function(x, target, *rest)
    return [loss.detach(), *torch.autograd.grad(loss, x)]


MADE = ("within", "before", "held")
# All that is dynamic comes to the same code: one likelihood shows it.
CHANGING = [*((name, made, None) for name in NUMBERS for made in MADE), *(("NegativeBinomial", x, True) for x in MADE)]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("name", "made", "dynamic"), CHANGING)
def test_other_numbers_take_no_other_graph(name: str, made: str, dynamic: bool | None) -> None:
    """A second at the most, when torch makes the number symbolic at its first change. By aot_eager: unlike eager it
    makes constants of what is not symbolic."""
    recon, target = torch.randn(4, 6), torch.randint(0, 4, (4, 6)).float()
    graphs = 0

    def counting(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    make, criterion = NUMBERS[name], pyvae.ELBOLoss(likelihood=NUMBERS[name](FOUR[0]))
    function = {"within": lambda r, t, x: step(r, t, x, make), "before": Taking(), "held": criterion}[made]
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=counting)
    for x in FOUR:
        want = given_to(step, recon, target, x, make)
        if made == "held":
            criterion.likelihood = make(x)
        rest = {"within": (x,), "before": (make(x),), "held": ()}[made]
        for got, wanted in zip(given_to(compiled, recon, target, *rest), want, strict=True):
            torch.testing.assert_close(got, wanted)
    assert graphs <= 2
