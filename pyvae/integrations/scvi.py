"""scvi-tools' log-probabilities of counts by pyvae's kernels: `pyvae.integrations.scvi.patch()`, before training.

Every model of scvi-tools takes them from three functions of elementwise tensors, `log_nb_positive`, `log_zinb_positive`
and `log_mixture_nb` (scvi/distributions/_negative_binomial.py). They are replaced by functions with the same arguments
and values, eps included, whose gradients are made in the forward pass. What they are given and the kernels have not
(negative data, another eps, other functions for log and lgamma, devices without kernels, arrays of jax) goes to
scvi-tools' own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _extension
from ..distributions._parameters import common_dtype
from ..likelihoods import NegativeBinomial, ZeroInflatedNegativeBinomial
from ..objective import reconstruction_loss

MODULE = "scvi.distributions._negative_binomial"
EPS = 1e-8  # theirs
NAMES = ("log_nb_positive", "log_zinb_positive", "log_mixture_nb")

_active: Patch | None = None


class Patch:
    """What `patch` replaced, until `undo`; as a context manager, until the end of the block."""

    def __init__(self, originals: dict[str, Callable[..., Any]]) -> None:
        self._originals = originals
        self._places: list[tuple[Any, str]] = []  # modules, and names in them

    def _apply(self) -> None:
        ours: tuple[Callable[..., Any], ...] = (_log_nb, _log_zinb, _log_mixture)
        for (name, original), function in zip(self._originals.items(), ours, strict=True):
            replacement = _Replacement(original, function)
            for module in [m for key, m in sys.modules.items() if key.split(".")[0] == "scvi"]:
                if vars(module).get(name) is original:
                    setattr(module, name, replacement)
                    self._places.append((module, name))

    def undo(self) -> None:
        """Put scvi-tools' own functions back. A second time, nothing."""
        global _active
        for module, name in self._places:
            setattr(module, name, self._originals[name])
        self._places.clear()
        if _active is self:
            _active = None

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"<pyvae in place of scvi-tools' {', '.join(self._originals)}{'' if self._places else ', undone'}>"


def patch() -> Patch:
    """Replace scvi-tools' elementwise log-probabilities of counts by pyvae's, for all of its models.

    Values are theirs, with eps = 1e-8 added to the mean, and right where theirs in float32 are not: for theta above a
    thousand. A call takes effect at once, also for models that exist already. A second call changes nothing.

    Returns:
        A handle with `undo()`, which is a context manager too.

    Raises:
        ImportError: without scvi-tools, or with one whose functions have other names.

    Example:
        >>> import pyvae.integrations.scvi
        >>> pyvae.integrations.scvi.patch()  # doctest: +SKIP
        <pyvae in place of scvi-tools' log_nb_positive, log_zinb_positive, log_mixture_nb>
    """
    global _active
    if _active is not None:
        return _active
    try:
        module = importlib.import_module(MODULE)
    except ImportError as error:
        raise ImportError(
            f"pyvae.integrations.scvi.patch: {MODULE} cannot be imported ({error}); install scvi-tools, or for a newer "
            "one a newer pyvae"
        ) from error
    missing = [name for name in NAMES if not callable(getattr(module, name, None))]
    if missing:
        raise ImportError(
            f"pyvae.integrations.scvi.patch: {MODULE} has no {', '.join(missing)}, which this pyvae would replace; it "
            "was tested with scvi-tools 1.4"
        )
    found = Patch({name: getattr(module, name) for name in NAMES})
    found._apply()
    _active = found
    return found


class _Replacement:
    """In a function's place: ours where it takes the call, or else the function."""

    def __init__(self, original: Callable[..., Any], ours: Callable[..., Any]) -> None:
        self.original, self.ours = original, ours
        self.__doc__, self.__name__ = original.__doc__, original.__name__

    def __call__(self, *given: Any, **named: Any) -> Any:
        out = self.ours(*given, **named)
        return self.original(*given, **named) if out is None else out


def _takes(*tensors: Any, eps: Any, log_fn: Any, lgamma_fn: Any) -> bool:
    """Whether the kernels can compute the call: eps, which theirs adds to theta as well, has to be theirs, too small to
    be seen there."""
    if eps != EPS or log_fn is not torch.log or lgamma_fn is not torch.lgamma:
        return False
    if not all(isinstance(x, Tensor) and x.device == tensors[0].device for x in tensors):
        return False
    return all(x.is_floating_point() for x in tensors[1:]) and _extension.kernels_for(tensors[0].device)


def _unexpanded(x: Tensor) -> Tensor:
    """Of an expanded tensor, as scvi-tools makes theta (B, D) of (D,), what was expanded: its log and gradient are
    small."""
    base = x._base if type(x) is Tensor and not torch.compiler.is_compiling() else None
    if base is not None and (x.requires_grad != base.requires_grad or x.retains_grad or x._backward_hooks):
        return x  # somebody asks for the gradient of the expanded one
    if base is None or base.ndim > x.ndim or base.numel() == x.numel() or x.storage_offset() != base.storage_offset():
        return x
    sizes = zip(base.shape, x.shape[x.ndim - base.ndim :], strict=True)
    if any(size not in (1, wide) for size, wide in sizes) or base.expand(x.shape).stride() != x.stride():
        return x
    return base


def _elements(x: Tensor, mu: Tensor, likelihood: Any, *own: Tensor) -> Tensor | None:
    """log p of each element; None where it is refused."""
    shape = torch.broadcast_shapes(x.shape, mu.shape, *(each.shape for each in own))
    if len(shape) == 0:
        return None
    dtype = common_dtype(x, mu, *own)
    mu = mu if dtype != torch.float64 else mu.to(dtype)
    recon, target = (each if each.shape == shape else each.expand(shape) for each in (mu, x))
    try:
        return reconstruction_loss(recon, target, likelihood=likelihood, weight=-1.0, reduction="elements")
    except ValueError:  # negative data, of which theirs makes numbers
        return None


def _as_theirs(out: Tensor, x: Tensor, *own: Tensor) -> Tensor:
    """In 16 bits where all of the call is, and log has it so, which under CUDA's autocast gives float32. Of integers
    their lgamma is of torch's default type; their `log_zinb_positive` has a factor in float32."""
    dtype = common_dtype(x, *own) if x.is_floating_point() else out.dtype
    if dtype not in (torch.float16, torch.bfloat16):
        return out
    return out.to(torch.log(out.new_empty(0, dtype=dtype)).dtype)


def _log_nb(
    x: Any, mu: Any, theta: Any, eps: float = 1e-8, log_fn: Any = torch.log, lgamma_fn: Any = torch.lgamma
) -> Tensor | None:
    if not _takes(x, mu, theta, eps=eps, log_fn=log_fn, lgamma_fn=lgamma_fn):
        return None
    out = _elements(x, mu, NegativeBinomial(theta=_unexpanded(theta), link="identity", eps=eps), theta)
    return None if out is None else _as_theirs(out, x, mu, theta)


def _log_zinb(
    x: Any, mu: Any, theta: Any, pi: Any, eps: float = 1e-8, log_fn: Any = torch.log, lgamma_fn: Any = torch.lgamma
) -> Tensor | None:
    if not _takes(x, mu, theta, pi, eps=eps, log_fn=log_fn, lgamma_fn=lgamma_fn):
        return None
    likelihood = ZeroInflatedNegativeBinomial(theta=_unexpanded(theta), zi_logits=pi, link="identity", eps=eps)
    return _elements(x, mu, likelihood, theta, pi)


def _log_mixture(
    x: Any,
    mu_1: Any,
    mu_2: Any,
    theta_1: Any,
    theta_2: Any,
    pi_logits: Any,
    eps: float = 1e-8,
    log_fn: Any = torch.log,
    lgamma_fn: Any = torch.lgamma,
) -> Tensor | None:
    """log(sigmoid(pi) p_1 + sigmoid(-pi) p_2). With a theta_2 theirs calls `log_nb_positive` by itself."""
    if theta_2 is not None:
        return None
    first = _log_nb(x, mu_1, theta_1, eps, log_fn, lgamma_fn)
    second = _log_nb(x, mu_2, theta_1, eps, log_fn, lgamma_fn)
    if first is None or second is None:
        return None
    return torch.logsumexp(torch.stack((first, second - pi_logits)), 0) - F.softplus(-pi_logits)
