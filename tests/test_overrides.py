"""The public functions under `__torch_function__`, which sees them as it sees torch's own, and under a default device,
which is a mode of that kind. torch.fx: test_fx.py."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from calls import call
from cases import all_equal, data, posterior
from families import SCALES, WAYS
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import pyvae

pytestmark = pytest.mark.usefixtures("backend")

PUBLIC = (
    "reparameterize",
    "reparameterize_kl",
    "kl_divergence",
    "reconstruction_loss",
    "elbo_loss",
    "elbo_terms",
    "gaussian_log_prob",
    "mixture_log_prob",
)
RECON, TARGET = data("bernoulli_logits", (4, 6))
MU, LOGVAR = posterior("logvar", (4, 3))
CALLS: dict[str, Callable[[Any, Any], Any]] = {  # of recon and mu
    "reparameterize": lambda recon, mu: pyvae.reparameterize(mu, LOGVAR, seed=2**63),
    "reparameterize_kl": lambda recon, mu: pyvae.reparameterize_kl(
        mu, LOGVAR, seed=3, row_offset=2, prior=(0.5, -1.0), logvar_range=(-3, 0.5)
    ),
    "kl_divergence": lambda recon, mu: pyvae.kl_divergence(mu, LOGVAR, prior=(0, 1.0), reduction="elements"),
    "reconstruction_loss": lambda recon, mu: pyvae.reconstruction_loss(
        recon, TARGET, likelihood="bernoulli_logits", weight=2, pos_weight=3.0
    ),
    "elbo_loss": lambda recon, mu: pyvae.elbo_loss(recon, TARGET, mu, LOGVAR, likelihood="gaussian", weight=0.5),
    "elbo_terms": lambda recon, mu: pyvae.elbo_terms(
        recon, TARGET, mu, std=LOGVAR.exp(), likelihood=pyvae.NegativeBinomial(TARGET, MU[:, 0]), beta=0.5
    ),
    "gaussian_log_prob": lambda recon, mu: pyvae.gaussian_log_prob(mu, mu, LOGVAR, logvar_range=(None, 0.5)),
    "mixture_log_prob": lambda recon, mu: pyvae.mixture_log_prob(
        mu, pyvae.Mixture(MU, 0.5, logits=LOGVAR[:, 0]), reduction="elements"
    ),
}
# Tensors that stand where only `__torch_function__` of a part can be seen.
PARTS: dict[str, Callable[[Any], Any]] = {
    "a prior's": lambda x: pyvae.kl_divergence(MU, LOGVAR, prior=(x, 0.5)),
    "a likelihood's": lambda x: pyvae.elbo_loss(RECON[:, :3], TARGET[:, :3], likelihood=pyvae.Gaussian(x)),
    "a likelihood's last": lambda x: pyvae.elbo_loss(
        RECON[:, :3], TARGET[:, :3].round(), likelihood=pyvae.NegativeBinomial(0.5, x[:, 0])
    ),
    "weight": lambda x: pyvae.reconstruction_loss(RECON[:, :3], TARGET[:, :3], likelihood="laplace", weight=x),
    "kl": lambda x: pyvae.elbo_loss(RECON, TARGET, kl=x[:, 0], likelihood="gaussian"),
    "a mixture's": lambda x: pyvae.mixture_log_prob(MU, pyvae.Mixture(x, std=1.0)),
    "eps": lambda x: pyvae.reparameterize(MU, LOGVAR, eps=x),
}


def tensors(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_every_public_function_is_here() -> None:
    assert list(CALLS) == list(PUBLIC)
    assert set(PUBLIC) == {name for name in pyvae.reference.__all__ if name[0].islower() and name != "normal"}


# ---- a default device ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLIC)
def test_a_default_device_changes_nothing(name: str) -> None:
    """Numbers, seeds and the reference's own tensors go where the arguments are."""
    want = CALLS[name](RECON, MU)
    with torch.device("meta"):
        got = CALLS[name](RECON, MU)
    assert type(got) is type(want)
    assert all_equal(tensors(got), tensors(want))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_default_device_changes_nothing_for_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its functions have no mode set aside for them."""
    for public in PUBLIC:
        monkeypatch.setattr(pyvae, public, getattr(pyvae.reference, public))
    want = CALLS[name](RECON, MU)
    with torch.device("meta"):
        got = CALLS[name](RECON, MU)
    assert all_equal(tensors(got), tensors(want))


@pytest.mark.parametrize("draw", ["reparameterize", "reparameterize_kl"])
def test_a_default_device_draws_the_same_noise(functions: Any, draw: str) -> None:
    torch.manual_seed(5)
    want = tensors(getattr(functions, draw)(MU, LOGVAR))
    torch.manual_seed(5)
    with torch.device("meta"):
        got = tensors(getattr(functions, draw)(MU, LOGVAR))
    assert all_equal(got, want)


@pytest.mark.parametrize(("name", "library"), WAYS)
def test_every_likelihood_under_a_default_device(functions: Any, name: str, library: bool) -> None:
    given = call(name, (4, 6), library=library)
    want = functions.reconstruction_loss(given.recon, given.target, likelihood=given.likelihood, weight=0.5)
    with torch.device("meta"):
        got = functions.reconstruction_loss(given.recon, given.target, likelihood=given.likelihood, weight=0.5)
    assert torch.equal(got, want)


def test_numbers_of_likelihoods_under_a_default_device(functions: Any) -> None:
    for likelihood in (pyvae.Gaussian(0.5), pyvae.ZeroInflatedNegativeBinomial(0.5, -1, 2.0)):
        want = functions.reconstruction_loss(RECON, TARGET.round(), likelihood=likelihood)
        with torch.device("meta"):
            got = functions.reconstruction_loss(RECON, TARGET.round(), likelihood=likelihood)
        assert torch.equal(got, want)


def test_gradients_under_a_default_device() -> None:
    """Of the backward pass too, and of a second one, which is the reference's."""

    def derivatives() -> list[Tensor]:
        recon, mu = (x.detach().clone().requires_grad_() for x in (RECON, MU))
        z, kl = pyvae.reparameterize_kl(mu, LOGVAR, seed=3, prior=(0.5, -1.0))
        loss = pyvae.elbo_loss(recon, TARGET, kl=kl, likelihood="gaussian", weight=0.5, beta=2) + z.sum()
        first = torch.autograd.grad(loss, (recon, mu), create_graph=True)
        return [*first, *torch.autograd.grad(sum(x.square().sum() for x in first), (recon, mu))]

    want = derivatives()
    with torch.device("meta"):
        got = derivatives()
    assert all_equal(got, want)


# Of the reference a function a side, since all of one share its code.
@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "kernels") for name in PUBLIC), *((name, "reference") for name in ("reparameterize_kl", "elbo_terms"))],
    indirect=["backend"],
)
def test_compiled_under_a_default_device(name: str, backend: str) -> None:
    torch._dynamo.reset()
    want = CALLS[name](RECON, MU)
    with torch.device("meta"):
        got = torch.compile(CALLS[name], fullgraph=True, backend="aot_eager")(RECON, MU)
    assert all_equal(tensors(got), tensors(want))
    torch._dynamo.reset()


# ---- __torch_function__ ----------------------------------------------------------------------------------------------


class Listening(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


class Listener(Tensor):
    """Keeps what it is passed to, and does it."""

    seen: ClassVar[list[Any]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(func)
        return super().__torch_function__(func, types, args, kwargs or {})


class Stranger:
    """No tensor: answers in its own way."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func, len(args), sorted(kwargs)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_mode_sees_the_function(name: str) -> None:
    want = CALLS[name](RECON, MU)
    with Listening() as mode:
        got = CALLS[name](RECON, MU)
    assert mode.seen.count(getattr(pyvae, name)) == 1
    assert type(got) is type(want)
    assert all_equal(tensors(got), tensors(want))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_subclass_sees_the_function(name: str) -> None:
    """And its results are of its kind, as torch's functions give them."""
    want = CALLS[name](RECON, MU)
    Listener.seen.clear()
    got = CALLS[name](RECON.as_subclass(Listener), MU.as_subclass(Listener))
    assert Listener.seen.count(getattr(pyvae, name)) == 1
    assert type(got) is (Listener if isinstance(want, Tensor) else type(want))
    assert {type(x) for x in tensors(got)} == {Listener}
    assert all_equal(tensors(got), tensors(want))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_plain_subclass_goes_through(name: str) -> None:
    class Plain(Tensor):
        pass

    want = CALLS[name](RECON, MU)
    got = CALLS[name](RECON.as_subclass(Plain), MU.as_subclass(Plain))
    assert {type(x) for x in tensors(got)} == {Plain}
    assert all_equal(tensors(got), tensors(want))


@pytest.mark.parametrize("name", PUBLIC)
def test_an_object_answers_in_the_functions_place(name: str) -> None:
    """It gets what is positional by position, and the rest by name."""
    func, positional, keywords = CALLS[name](Stranger(), Stranger())
    assert func is getattr(pyvae, name)
    assert positional == {"elbo_loss": 4, "elbo_terms": 4, "gaussian_log_prob": 3}.get(name, 2)
    assert name in ("reconstruction_loss", "mixture_log_prob") or set(SCALES[1:]) <= set(keywords)
    assert "recon" not in keywords


@pytest.mark.parametrize("where", list(PARTS))
def test_parts_of_arguments_are_seen(where: str) -> None:
    Listener.seen.clear()
    got = PARTS[where](MU.as_subclass(Listener))
    assert any(getattr(func, "__module__", "").startswith("pyvae") for func in Listener.seen)
    assert torch.equal(got.as_subclass(Tensor), PARTS[where](MU))


def test_nn_parameters_are_plain() -> None:
    assert type(pyvae.kl_divergence(nn.Parameter(MU), nn.Parameter(LOGVAR))) is Tensor


def test_the_terms_are_a_named_tuple() -> None:
    """However they are made: of terms, by name, of an iterable, by what copies and maps tuples."""
    terms = pyvae.elbo_terms(RECON, TARGET, MU, LOGVAR, likelihood="gaussian")
    for made in (
        pyvae.ELBO(*terms),
        pyvae.ELBO(**terms._asdict()),
        pyvae.ELBO(x for x in terms),
        pickle.loads(pickle.dumps(terms)),
        terms._replace(kl=terms.kl),
        torch.utils._pytree.tree_map(lambda x: x.clone(), terms),
    ):
        assert type(made) is pyvae.ELBO
        assert all_equal(made, (terms.loss, terms.recon, terms.kl))
    with pytest.raises(TypeError):
        pyvae.ELBO(terms.loss, terms.recon)
