"""torch's own check of every registered operator: torch.library.opcheck."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from calls import call, data_term, full_mask, operands
from cases import INTEGERS, LAYOUTS, leaf, posterior, prior, stored
from families import PLAIN, SCALES, WAYS, cycled, family

from pyvae._codes import KL_REDUCTIONS, REDUCTIONS

pytestmark = [
    pytest.mark.usefixtures("kernels"),
    pytest.mark.torch_sensitive("schemas, fake kernels and what AOTAutograd makes of the operators"),
]

CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
OPERATORS = sorted(
    schema.name.removeprefix("pyvae::")
    for schema in torch._C._jit_get_all_schemas()
    if schema.name.startswith("pyvae::")
)


def latent_calls(device: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """All calls of a logvar, which alone has a range; of the same calls the other scales and types take turns."""
    yield from latent_calls_of(0, "logvar", torch.float32, device)
    others = cycled(SCALES[1:], (torch.bfloat16, torch.float64))
    for place, (scale, dtype) in enumerate(others):
        yield from itertools.islice(latent_calls_of(1 + place, scale, dtype, device), place, None, len(others))
    seed = torch.tensor([3], device=device)
    yield "reference_normal", (seed, (3, 4), torch.float32, 0, 0)
    yield "reference_normal", (seed, (3, 2, 5), torch.float64, 7, 2)


def latent_calls_of(kind: int, scale: str, dtype: torch.dtype, device: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each optional argument there and absent, each reduction, and layouts."""
    seed = torch.tensor([3], device=device)
    mu, s = posterior(scale, (3, 4, 2, 5), dtype, device=device)
    mu, s = leaf(LAYOUTS["channels_last"](mu)), leaf(s)
    eps = torch.randn(3, 4, 2, 5, dtype=dtype, device=device)
    learned = [leaf(x) for x in prior(scale, (4, 1, 5), dtype, device=device)]
    bounds = (torch.tensor(-1.0).double(), torch.tensor(0.5)) if scale == "logvar" else (None, None)
    no_prior, no_range = (None, None), (None, None)
    own, plain = (mu, s, kind), (mu.detach(), s.detach(), kind)
    yield "reparameterize", (*own, *no_range, None, seed, 2, *no_prior, 0, True)
    yield "reparameterize", (*own, *no_range, eps.requires_grad_(), None, 0, *no_prior, 0, False)
    yield "reparameterize", (*own, *bounds, None, seed, 0, *learned, 0, True)
    several = torch.randn(2, 3, 4, 2, 5, dtype=dtype, device=device)
    yield "reparameterize", (*own, *bounds, None, seed, 1, *learned, 3, True)
    yield "reparameterize", (*own, *no_range, several.requires_grad_(), None, 0, *no_prior, 2, True)
    yield "latent_draw", (*plain, *no_range, None, None, 3, *no_prior, 0, None, True)
    yield "latent_draw", (*plain, *no_range, None, None, 0, *no_prior, 2, torch.Generator(device), False)
    fixed = [x.detach() for x in learned]
    for reduction in range(len(KL_REDUCTIONS)):
        low_high, given = (no_range, no_prior) if reduction % 2 else (bounds, fixed)
        asked = (reduction != 1, reduction != 2, reduction)
        yield "kl_divergence", (*own, *no_range, None, None, 0, *no_prior, 0, reduction)
        yield "kl_divergence", (*own, *bounds, None, None, 0, *learned, 0, reduction)
        yield "latent_forward", (*plain, *low_high, None, seed, 1, *given, reduction % 2, *asked)
    grads = torch.randn(3, 4, 2, 5, dtype=dtype, device=device), torch.randn(3, device=device)
    many = torch.randn(3, 3, 4, 2, 5, dtype=dtype, device=device)
    yield "latent_backward", (*plain, *no_range, None, seed, 1, *no_prior, 0, *grads, False)
    yield "latent_backward", (*plain, *bounds, None, seed, 1, *fixed, 3, many, grads[1], True)
    yield "latent_backward", (*plain, *no_range, eps.detach(), None, 0, *no_prior, 0, grads[0], None, False)
    yield "latent_backward", (*plain, *no_range, None, None, 0, *no_prior, 0, None, grads[1], False)
    yield "latent_backward", (*plain, *bounds, None, None, 0, *fixed, 0, None, grads[0], True)


def mixture_calls(device: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Shared components and each sample's own, by rows and by features, of which there are no CUDA kernels."""
    shapes = (((9, 3, 4), (5, 4)), ((2, 3, 4), (5, 4)), ((2, 3, 4), (3, 5, 4)), ((2, 3, 4), (3, 1, 4)))
    for i, (shape, components) in enumerate(shapes):
        dtype = (torch.float32, torch.float64, torch.bfloat16, torch.float32)[i]
        z, mean, scale = (torch.randn(x, dtype=dtype, device=device) for x in (shape, components, components))
        logits = None if i == 1 else torch.randn(components[:-1], dtype=dtype, device=device)
        bounds = (torch.tensor(-1.0).double(), torch.tensor(0.5)) if i % 2 else (None, None)
        for elements in (False, True):
            leaves = [x if x is None else leaf(x) for x in (z, mean, scale, logits)]
            yield "mixture_log_prob", (*leaves[:3], 0, leaves[3], *bounds, elements)
            given = (z, mean, scale, 0, logits, *bounds)
            yield "mixture_forward", (*given, elements, i < 2)
            values, normalizers = torch.ops.pyvae.mixture_forward(*given, elements, True)
            yield "mixture_backward", (*given, normalizers, torch.randn_like(values), elements, i != 1)


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
        source = {"posterior": (mu, s, 1)} if with_posterior else {"kl": kl}
        settings: dict[str, Any] = {"reduction": reduction, "beta": 2.0, "beta_tensor": beta} | source
        for mask in (full_mask(given), 0):
            yield "elbo_forward", (*operands(given, **settings), mask)
        flat = replace(given, target=given.target.flatten(1))
        yield "elbo_gradient", (*data_term(flat), torch.rand(3, device=device), full_mask(given))
        for mask in (full_mask(given), 0):
            yield "elements_forward", (*data_term(given), mask)
        yield "elements", data_term(flat)
        yield "elements", data_term(given.leaves())
        gradient = torch.randn_like(given.recon)
        upstream = {name: torch.rand(3 if reduction == 0 else (), device=device) for name in used}
        grads = [upstream.get(name) for name in ("loss", "recon", "kl")]
        of_data, to_kl = "loss" in used or "recon" in used, "loss" in used or "kl" in used
        scaled = [torch.randn(4, device=device), torch.randn((), device=device).double()]
        made = (gradient if of_data else None, scaled if of_data and reduction else [])
        yield "elbo_backward_", (*operands(given, **settings), *made, *grads, to_kl)
        half = gradient.half() if i % 2 and name in PLAIN else gradient  # of others 16 bits are not made apart
        grads = grads[:2] if of_data else [upstream["kl"], None]
        yield "elbo_backward", (*operands(replace(given, recon=given.recon.to(half)), **settings), half, *grads)
        leaves = given.leaves()
        yield "elbo", operands(leaves, reduction, kl=leaf(kl), beta_tensor=beta)
        whole = stored(given.target, INTEGERS[i % len(INTEGERS)])
        plain = replace(leaves, target=whole, weight=None, pos_weight=None)
        yield "elbo", operands(plain, reduction, (leaf(mu), leaf(s), 1), beta=0.5)


@pytest.mark.parametrize("name", OPERATORS)
def test_opcheck(name: str, device: str) -> None:
    """Schema, autograd registration, fake kernel, AOTAutograd with dynamic shapes."""
    operator = getattr(torch.ops.pyvae, name).default
    mixtures = mixture_calls("cpu") if name.startswith("mixture") else ()
    every = itertools.chain(latent_calls(device), objective_calls(device), mixtures)
    calls = [arguments for called, arguments in every if called == name]
    assert calls
    for arguments in calls:
        # AOTAutograd's check compares two runs, between which it puts back the state of torch's own generators alone.
        draws = any(isinstance(argument, torch.Generator) for argument in arguments)
        torch.library.opcheck(operator, arguments, test_utils=CHECKS[:-1] if draws else CHECKS)
