"""torch's own check of every registered operator: torch.library.opcheck."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from calls import all_wanted, call, operands
from cases import INTEGERS, LAYOUTS, leaf, posterior, prior, stored
from families import PLAIN, SCALES, WAYS, cycled, family

from pyvae._checks import KL_REDUCTIONS, REDUCTIONS

pytestmark = pytest.mark.usefixtures("kernels")

CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
OPERATORS = sorted(
    schema.name.removeprefix("pyvae::")
    for schema in torch._C._jit_get_all_schemas()
    if schema.name.startswith("pyvae::")
)


def latent_calls(device: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each scale, each optional argument there and absent, and layouts."""
    seed = torch.tensor([3], device=device)
    for (kind, scale), dtype in cycled(tuple(enumerate(SCALES)), (torch.float32, torch.bfloat16, torch.float64)):
        mu, s = posterior(scale, (3, 4, 2, 5), dtype, device=device)
        mu, s = leaf(LAYOUTS["channels_last"](mu)), leaf(s)
        eps = torch.randn(3, 4, 2, 5, dtype=dtype, device=device)
        learned = [leaf(x) for x in prior(scale, (4, 1, 5), dtype, device=device)]
        bounds = (torch.tensor(-1.0).double(), torch.tensor(0.5)) if scale == "logvar" else (None, None)
        alone, beside = (None,) * 4, (*learned, *bounds)
        yield "reparameterize", (mu, s, None, seed, kind, 2, *alone, True)
        yield "reparameterize", (mu, s, eps.requires_grad_(), None, kind, 0, *alone, False)
        yield "reparameterize", (mu, s, None, seed, kind, 0, *beside, True)
        yield "latent_draw", (mu.detach(), s.detach(), None, None, kind, 3, *alone, None, True)
        yield "latent_draw", (mu.detach(), s.detach(), None, None, kind, 0, *alone, torch.Generator(device), False)
        plain, fixed = (mu.detach(), s.detach()), (*(x.detach() for x in learned), *bounds)
        for reduction in range(len(KL_REDUCTIONS)):
            options = alone if reduction % 2 else fixed
            yield "kl_divergence", (mu, s, None, None, kind, 0, *alone, reduction)
            yield "kl_divergence", (mu, s, None, None, kind, 0, *beside, reduction)
            yield "latent_forward", (*plain, None, seed, kind, 1, *options, reduction != 1, reduction != 2, reduction)
        grads = torch.randn(3, 4, 2, 5, dtype=dtype, device=device), torch.randn(3, device=device)
        yield "latent_backward", (*plain, None, seed, kind, 1, *alone, *grads, False)
        yield "latent_backward", (*plain, None, seed, kind, 1, *fixed, *grads, True)
        yield "latent_backward", (*plain, eps.detach(), None, kind, 0, *alone, grads[0], None, False)
        yield "latent_backward", (*plain, None, None, kind, 0, *alone, None, grads[1], False)
        yield "latent_backward", (*plain, None, None, kind, 0, *fixed, None, grads[0], True)
    yield "reference_normal", (seed, (3, 4), torch.float32, 0)
    yield "reference_normal", (seed, (3, 2, 5), torch.float64, 7)


def objective_calls(device: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every likelihood, and beside it, in turn, what does not depend on that: reductions, layouts, which upstream
    gradients there are, where the KL comes from."""
    upstreams = tuple(c for n in (1, 2, 3) for c in itertools.combinations(("loss", "recon", "kl"), n))
    turns = cycled(WAYS, tuple(range(len(REDUCTIONS))), ("channels_last", "batch_last"), upstreams, (0, 1))
    for i, ((name, library), reduction, layout, used, with_posterior) in enumerate(turns):
        given = call(name, (3, 4, 2, 5), (2, 1), library=library, device=device)
        weight, beta = torch.rand(4, 1, 5, device=device), torch.tensor(0.5, device=device)
        positive = weight if family(name).takes_pos_weight else None
        given = replace(given, recon=LAYOUTS[layout](given.recon), weight=weight, pos_weight=positive)
        mu, s = posterior("std", (3, 4), device=device)
        kl = torch.rand(3, device=device)
        from_posterior, from_kl = (mu, s, 1, None, beta, 2.0, reduction), (None, None, 0, kl, None, 0.5, reduction)
        either = from_posterior if with_posterior else from_kl
        for wanted in (all_wanted(given), 0):
            yield "elbo_forward", (*operands(given), *either, wanted)
        flat = replace(given, target=given.target.flatten(1))
        yield "elbo_gradient", (*operands(flat), torch.rand(3, device=device), all_wanted(given))
        gradient = torch.randn_like(given.recon)
        upstream = {name: torch.rand(3 if reduction == 0 else (), device=device) for name in used}
        made = gradient if "loss" in used or "recon" in used else None
        grads = tuple(upstream.get(name) for name in ("loss", "recon", "kl"))
        to_kl = "loss" in used or "kl" in used
        yield "elbo_backward_", (*operands(given), *either, made, *grads, to_kl)
        made = gradient.half() if i % 2 and name in PLAIN else gradient  # of others 16 bits are not made apart
        grads = grads[:2] if used != ("kl",) else (upstream["kl"], None)
        yield "elbo_backward", (*operands(replace(given, recon=given.recon.to(made))), *either, made, *grads)
        leaves = given.leaves()
        yield "elbo", (*operands(leaves), None, None, 0, leaf(kl), beta, 1.0, reduction)
        whole = stored(given.target, INTEGERS[i % len(INTEGERS)])
        plain = replace(leaves, target=whole, weight=None, pos_weight=None)
        yield "elbo", (*operands(plain), leaf(mu), leaf(s), 1, None, None, 0.5, reduction)


@pytest.mark.parametrize("name", OPERATORS)
def test_opcheck(name: str, device: str) -> None:
    """Schema, autograd registration, fake kernel, AOTAutograd with dynamic shapes."""
    operator = getattr(torch.ops.pyvae, name).default
    every = itertools.chain(latent_calls(device), objective_calls(device))
    calls = [arguments for called, arguments in every if called == name]
    assert calls
    for arguments in calls:
        # AOTAutograd's check compares two runs, between which it puts back the state of torch's own generators alone.
        draws = any(isinstance(argument, torch.Generator) for argument in arguments)
        torch.library.opcheck(operator, arguments, test_utils=CHECKS[:-1] if draws else CHECKS)
