"""torch's own check of every registered operator: torch.library.opcheck. Those by rows: test_parametric_torch.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cases import INTEGERS, LAYOUTS, data, leaf, posterior, prior
from families import LIKELIHOODS, SCALES, cycled, family

from pyvae._codes import KL_REDUCTIONS, REDUCTIONS

pytestmark = pytest.mark.usefixtures("kernels")

CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
OPERATORS = sorted(
    schema.name.removeprefix("pyvae::")
    for schema in torch._C._jit_get_all_schemas()
    if schema.name.startswith("pyvae::")
)
NO_PARAMETERS = ((), None)  # and no log_library


def operator_calls(device: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Samples of every operator: each code, each optional argument there and absent, and layouts."""
    seed = torch.tensor([3], device=device)
    for (kind, scale), dtype in cycled(tuple(enumerate(SCALES)), (torch.float32, torch.bfloat16, torch.float64)):
        mu, s = posterior(scale, (3, 4, 2, 5), dtype, device=device)
        mu, s = leaf(LAYOUTS["channels_last"](mu)), leaf(s)
        eps = torch.randn(3, 4, 2, 5, dtype=dtype, device=device)
        learned = [leaf(x) for x in prior(scale, (4, 1, 5), dtype, device=device)]
        bounds = (torch.tensor(-1.0).double(), torch.tensor(0.5)) if scale == "logvar" else (None, None)
        no_prior, no_range = (None, None), (None, None)
        own, plain = (mu, s, kind), (mu.detach(), s.detach(), kind)
        yield "reparameterize", (*own, *no_range, None, seed, 2, *no_prior, True)
        yield "reparameterize", (*own, *no_range, eps.requires_grad_(), None, 0, *no_prior, False)
        yield "reparameterize", (*own, *bounds, None, seed, 0, *learned, True)
        yield "latent_draw", (*plain, *no_range, None, None, 3, *no_prior, None, True)
        yield "latent_draw", (*plain, *no_range, None, None, 0, *no_prior, torch.Generator(device), False)
        fixed = [x.detach() for x in learned]
        for reduction in range(len(KL_REDUCTIONS)):
            low_high, given = (no_range, no_prior) if reduction % 2 else (bounds, fixed)
            asked = (reduction != 1, reduction != 2, reduction)
            yield "kl_divergence", (*own, *no_range, None, None, 0, *no_prior, reduction)
            yield "kl_divergence", (*own, *bounds, None, None, 0, *learned, reduction)
            yield "latent_forward", (*plain, *low_high, None, seed, 1, *given, *asked)
        grads = torch.randn(3, 4, 2, 5, dtype=dtype, device=device), torch.randn(3, device=device)
        yield "latent_backward", (*plain, *no_range, None, seed, 1, *no_prior, *grads, False)
        yield "latent_backward", (*plain, *bounds, None, seed, 1, *fixed, *grads, True)
        yield "latent_backward", (*plain, *no_range, eps.detach(), None, 0, *no_prior, grads[0], None, False)
        yield "latent_backward", (*plain, *no_range, None, None, 0, *no_prior, None, grads[1], False)
        yield "latent_backward", (*plain, *bounds, None, None, 0, *fixed, None, grads[0], True)
    yield "reference_normal", (seed, (3, 4), torch.float32, 0)
    yield "reference_normal", (seed, (3, 2, 5), torch.float64, 7)
    for (code, likelihood), reduction in cycled(tuple(enumerate(LIKELIHOODS)), tuple(range(len(REDUCTIONS)))):
        recon, target = data(likelihood, (3, 4, 2, 5), device=device)
        recon = LAYOUTS["channels_last" if code == 1 else "batch_last"](recon)
        mu, s = posterior("std", (3, 4), device=device)
        weight = torch.rand(4, 1, 5, device=device)
        positive = weight if family(likelihood).takes_pos_weight else None
        beta = torch.tensor(0.5, device=device)
        own = (code, *NO_PARAMETERS)
        no_kl, factors = (None, None, 0, None), (weight, positive)
        settings = (2.0, beta, *factors, reduction)
        for mask in (1, 0):
            yield "elbo_forward", (recon, target, mu, s, 1, None, *own, *settings, mask)
        flat = target.flatten(1)
        yield "elbo_gradient", (recon, flat, *own, *factors, torch.rand(3, device=device), 1)
        upstream = torch.rand(3 if reduction == 0 else (), device=device)
        gradient = torch.randn_like(recon)
        others = [] if reduction == 0 else [torch.randn(4, device=device), torch.randn((), device=device).double()]
        for grads in (
            (gradient, [], upstream, None, None),
            (gradient, others, None, upstream, None),
            (None, others, upstream, upstream, upstream),
            (None, [], None, None, upstream),
        ):
            for kl in ((mu, s, 1, None), (None, None, 0, torch.rand(3, device=device))):
                to_kl = grads[2] is not None or grads[4] is not None
                yield "elbo_backward_", (recon, target, *kl, *own, *settings, *grads, to_kl)
        for grads in ((upstream, None), (None, upstream), (upstream, upstream)):
            made = gradient.half() if code % 2 else gradient
            yield "elbo_backward", (recon.to(made), target, *kl, *own, *settings, made, *grads)
        mu, s, recon, kl = leaf(mu), leaf(s), leaf(recon), leaf(torch.rand(3, device=device))
        plain = (0.5, None, None, None, reduction)
        yield "elbo", (recon, target, mu, s, 1, None, *own, *plain)
        whole = data(likelihood, (3, 4, 2, 5), (torch.float32, INTEGERS[code % len(INTEGERS)]), device=device)[1]
        yield "elbo", (recon, whole, mu, s, 1, None, *own, *plain)
        yield "elbo", (recon, target, *no_kl[:3], kl, *own, 1.0, beta, *factors, reduction)


@pytest.mark.parametrize("name", OPERATORS)
def test_opcheck(name: str, device: str) -> None:
    """Schema, autograd registration, fake kernel, AOTAutograd with dynamic shapes."""
    operator = getattr(torch.ops.pyvae, name).default
    calls = [arguments for called, arguments in operator_calls(device) if called == name]
    assert calls
    for arguments in calls:
        # AOTAutograd's check compares two runs, between which it puts back the state of torch's own generators alone.
        draws = any(isinstance(argument, torch.Generator) for argument in arguments)
        torch.library.opcheck(operator, arguments, test_utils=CHECKS[:-1] if draws else CHECKS)
