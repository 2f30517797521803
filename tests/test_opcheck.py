"""torch's own check of every registered operator: torch.library.opcheck. Those by rows: test_parametric_torch.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cases import INTEGERS, LAYOUTS, data, leaf, posterior, prior
from families import LIKELIHOODS, SCALES, cycled, family

from pyvae._checks import KL_REDUCTIONS, REDUCTIONS

pytestmark = pytest.mark.usefixtures("kernels")

CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
OPERATORS = sorted(
    schema.name.removeprefix("pyvae::")
    for schema in torch._C._jit_get_all_schemas()
    if schema.name.startswith("pyvae::")
)
NO_PARAMETERS = (None, None, None)


def operator_calls(device: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Samples of every operator: each code, each optional argument there and absent, and layouts."""
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
    for (code, likelihood), reduction in cycled(tuple(enumerate(LIKELIHOODS)), tuple(range(len(REDUCTIONS)))):
        recon, target = data(likelihood, (3, 4, 2, 5), device=device)
        recon = LAYOUTS["channels_last" if code == 1 else "batch_last"](recon)
        mu, s = posterior("std", (3, 4), device=device)
        weight = torch.rand(4, 1, 5, device=device)
        positive = weight if family(likelihood).takes_pos_weight else None
        beta = torch.tensor(0.5, device=device)
        for wanted in (1, 0):
            kl = (mu, s, 1, None, beta, 2.0, reduction)
            yield "elbo_forward", (recon, target, weight, positive, code, *NO_PARAMETERS, *kl, wanted)
        yield (
            "elbo_gradient",
            (recon, target.flatten(1), weight, positive, code, *NO_PARAMETERS, torch.rand(3, device=device), 1),
        )
        upstream = torch.rand(3 if reduction == 0 else (), device=device)
        gradient = torch.randn_like(recon)
        for grads in ((gradient, upstream, None, None), (gradient, None, upstream, None), (None, None, None, upstream)):
            posterior_given = (mu, s, 1, None, beta, 2.0, reduction)
            kl_given = (None, None, 0, torch.rand(3, device=device), None, 0.5, reduction)
            for kl in (posterior_given, kl_given):
                to_kl = grads[1] is not None or grads[3] is not None
                yield "elbo_backward_", (recon, target, weight, positive, code, *NO_PARAMETERS, *kl, *grads, to_kl)
        for grads in ((upstream, None), (None, upstream), (upstream, upstream)):
            made = gradient.half() if code % 2 else gradient
            yield "elbo_backward", (recon.to(made), target, weight, positive, code, *NO_PARAMETERS, *kl, made, *grads)
        mu, s, recon, kl = leaf(mu), leaf(s), leaf(recon), leaf(torch.rand(3, device=device))
        yield "elbo", (recon, target, None, None, code, *NO_PARAMETERS, mu, s, 1, None, None, 0.5, reduction)
        whole = data(likelihood, (3, 4, 2, 5), (torch.float32, INTEGERS[code % len(INTEGERS)]), device=device)[1]
        yield "elbo", (recon, whole, None, None, code, *NO_PARAMETERS, mu, s, 1, None, None, 0.5, reduction)
        yield "elbo", (recon, target, weight, positive, code, *NO_PARAMETERS, None, None, 0, kl, beta, 1.0, reduction)


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
