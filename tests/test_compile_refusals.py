"""Refusals under torch.compile: of the public function, the argument and what came, as in eager mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import pyvae

pytestmark = pytest.mark.usefixtures("kernels")

RECON, TARGET, MU = torch.full((4, 6), 0.5), torch.ones(4, 6), torch.zeros(4, 3)
# Of recon, target and mu; in the error the public function and the argument.
CASES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "reconstruction_loss: `weight`": lambda r, t, m: pyvae.reconstruction_loss(r, t, weight=m),
    "elbo_loss: `recon`": lambda r, t, m: pyvae.elbo_loss(r.long(), t),
    "elbo_loss: `target`": lambda r, t, m: pyvae.elbo_loss(r, t[:, :5]),
    "elbo_loss: `mu`": lambda r, t, m: pyvae.elbo_loss(r, t, m[:3], m[:3]),
    "elbo_loss: `beta`": lambda r, t, m: pyvae.elbo_loss(r, t, m, m, beta="1"),
    "elbo_loss: `reduction`": lambda r, t, m: pyvae.elbo_loss(r, t, reduction="mean"),
    "elbo_terms: `likelihood`": lambda r, t, m: pyvae.elbo_terms(r, t, likelihood="mse"),
    "elbo_terms: `kl`": lambda r, t, m: pyvae.elbo_terms(r, t, kl=m),
    "kl_divergence: exactly one of `logvar`": lambda r, t, m: pyvae.kl_divergence(m),
    "kl_divergence: `std`": lambda r, t, m: pyvae.kl_divergence(m, std=r),
    "kl_divergence: `logvar_range`": lambda r, t, m: pyvae.kl_divergence(m, m, logvar_range=(3, 1)),
    "reparameterize: `seed`": lambda r, t, m: pyvae.reparameterize(m, m, seed=0.5),
    "reparameterize_kl: `prior[0]`": lambda r, t, m: pyvae.reparameterize_kl(m, m, prior=(r, 0)),
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def refusal(function: Callable[[Tensor, Tensor, Tensor], Any]) -> Exception:
    with pytest.raises(Exception) as caught:  # the type is compared by the tests
        function(RECON, TARGET, MU)
    return caught.value


# The refusal is raised while dynamo traces, before a backend is asked: no other backend can make it another one. Sizes
# that dynamo keeps symbolic are printed by it, so one case that has them in its words is traced so.
SETTINGS = [*((start, False) for start in CASES), ("elbo_loss: `target`", True)]


@pytest.mark.parametrize(("start", "dynamic"), SETTINGS)
def test_a_compiled_call_raises_the_error_of_the_eager_one(start: str, dynamic: bool) -> None:
    want = refusal(CASES[start])
    assert str(want).startswith(start)
    got = refusal(torch.compile(CASES[start], dynamic=dynamic, backend="eager"))
    assert (type(got), str(got)) == (type(want), str(want))


@pytest.mark.parametrize("dynamic", [False, True])
def test_one_graph_tells_the_error_within_the_compilers_own(dynamic: bool) -> None:
    """Sizes that it keeps symbolic have their symbols there, so not beyond a shape."""
    start = "elbo_loss: `target`"
    want = str(refusal(CASES[start]))
    got = str(refusal(torch.compile(CASES[start], fullgraph=True, dynamic=dynamic, backend="eager")))
    assert (start if dynamic else want.partition("(")[0]) in got.replace("\\'", "'")


def test_a_compiled_call_names_the_functions_whose_data_the_kernel_refuses() -> None:
    """The compiled call knows the operator alone: its error names the public functions that end there, one of which was
    called; the eager call's has that one."""

    def call(recon: Tensor, target: Tensor, mu: Tensor) -> Tensor:
        return pyvae.reconstruction_loss(recon, 255 * target, likelihood="bernoulli_logits")

    assert str(refusal(call)).startswith("reconstruction_loss: `target`")
    got = refusal(torch.compile(call, fullgraph=True))
    assert type(got) is ValueError
    assert "reconstruction_loss, likelihood='bernoulli_logits': `target` must lie in [0, 1]" in str(got)
    for advice in ("bytes are to be divided by 255", "real numbers go with likelihood='gaussian'"):
        assert advice in str(got)  # it knows the range alone, and not which of the two they are
