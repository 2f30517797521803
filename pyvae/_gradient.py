"""The gradients that the kernels do not compute, through the reference: second derivatives, and derivatives by target,
weight, pos_weight, beta and eps. The C++ backward passes call `reference_gradient`, which is handed to them here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _samples, reference
from ._arguments import LatentArguments, Posterior, Prior
from ._codes import KL_REDUCTIONS, LIKELIHOODS, REDUCTIONS, SCALES
from ._extension import _C
from ._mixture_checks import Components
from .likelihoods import Resolved, restore

Outputs = tuple[Tensor, ...]
Tensors = Sequence[Any]  # a Tensor, or None where the operator had none


def _reparameterize(inputs: Tensors, codes: Sequence[int], numbers: Sequence[float]) -> Outputs:
    mu, _, eps, _, _, seed, *_ = inputs
    scale_kind, row_offset, samples = codes
    if seed is not None:
        seed = seed.to(mu.device)  # a number is kept on the CPU
    given = LatentArguments(mu, eps=eps, seed=seed, row_offset=row_offset, samples=samples or None)
    z, posterior = reference.sample("reparameterize_kl", given, _posterior(inputs, scale_kind))
    return z, reference.divergence("reparameterize_kl", posterior, "none")


def _kl_divergence(inputs: Tensors, codes: Sequence[int], numbers: Sequence[float]) -> Outputs:
    scale_kind, reduction = codes
    posterior = _posterior(inputs, scale_kind)
    return (reference.divergence("kl_divergence", posterior, KL_REDUCTIONS[reduction]),)


def _mixture_log_prob(inputs: Tensors, codes: Sequence[int], numbers: Sequence[float]) -> Outputs:
    z, mean, scale, logits, low, high, _ = inputs
    scale_kind, elements = codes
    components = Components(Posterior(mean, scale, SCALES[scale_kind], (low, high)), logits)
    return (reference.under_mixture("mixture_log_prob", z, components, "elements" if elements else "none"),)


def _posterior(inputs: Tensors, scale_kind: int) -> Posterior:
    """The posterior with its range, whose bounds are scalars here, and its prior."""
    mu, scale, _, prior_mean, prior_scale, _, low, high = inputs
    prior = None if prior_mean is None else Prior(prior_mean, prior_scale)
    return Posterior(mu, scale, SCALES[scale_kind], (low, high), prior)


def _elbo(inputs: Tensors, codes: Sequence[int], numbers: Sequence[float]) -> Outputs:
    (beta,) = numbers
    recon, target, mu, scale, kl, *parameters, log_library, beta_tensor, weight, pos_weight = inputs
    scale_kind, likelihood, reduction = codes
    return reference.elbo_terms(
        recon,
        _samples.spread(target, recon),
        mu,
        **{SCALES[scale_kind]: scale},
        kl=kl,
        likelihood=_restored(likelihood, parameters, log_library),
        beta=beta if beta_tensor is None else beta * beta_tensor,
        weight=weight,
        pos_weight=pos_weight,
        reduction=REDUCTIONS[reduction],
    )


def _elements(inputs: Tensors, codes: Sequence[int], numbers: Sequence[float]) -> Outputs:
    recon, target, *parameters, log_library, weight, pos_weight = inputs
    like = _restored(codes[0], parameters, log_library)
    options = {"likelihood": like, "weight": weight, "pos_weight": pos_weight, "reduction": "elements"}
    return (reference.reconstruction_loss(recon, _samples.spread(target, recon), **options),)


def _restored(code: int, parameters: Tensors, log_library: Tensor | None) -> Any:
    """The likelihood of a code; of its parameters there are as many places as any likelihood has."""
    name = tuple(LIKELIHOODS)[code]
    return restore(Resolved(name, tuple(parameters[: len(LIKELIHOODS[name].parameters)]), log_library))


_OPERATORS: dict[str, Callable[[Tensors, Sequence[int], Sequence[float]], Outputs]] = {
    "reparameterize": _reparameterize,
    "kl_divergence": _kl_divergence,
    "elbo": _elbo,
    "elements": _elements,
    "mixture_log_prob": _mixture_log_prob,
}


def _alias(x: Tensor | None, needs_grad: bool, create_graph: bool) -> Tensor | None:
    """Bounds the differentiation here. With create_graph it ties the result to the graph before it, but for what no
    gradient reads, which was saved without one."""
    if x is None:
        return None
    return x.view_as(x) if create_graph and x.requires_grad else x.detach().requires_grad_(needs_grad)


def reference_gradient(
    name: str,
    inputs: Tensors,
    codes: Sequence[int],
    numbers: Sequence[float],
    upstream: Tensors,
    needs_grad: Sequence[bool],
) -> list[Tensor | None]:
    """The vector-Jacobian product of operator `name` for what needs a gradient, differentiable if grad mode is on."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        aliases = [_alias(x, need, create_graph) for x, need in zip(inputs, needs_grad, strict=True)]
        outputs = _OPERATORS[name](aliases, codes, numbers)
        pairs = [
            (y, g.to(y.dtype)) for y, g in zip(outputs, upstream, strict=False) if g is not None and y.requires_grad
        ]
        sought = [x for x, need in zip(aliases, needs_grad, strict=True) if need and x is not None]
        found = iter(
            torch.autograd.grad(
                [y for y, _ in pairs], sought, [g for _, g in pairs], create_graph=create_graph, allow_unused=True
            )
            if pairs
            else [None] * len(sought)
        )
    return [next(found) if need else None for need in needs_grad]


if _C is not None:
    _C.set_reference_gradient(reference_gradient)
