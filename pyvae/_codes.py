"""The lists of names whose places are codes in the compiled kernels, as csrc/ops/codes.h has them."""

from __future__ import annotations

from typing import Any, get_args

from ._arguments import SCALES as SCALES
from ._arguments import ElementReduction, Reduction
from .likelihoods import LIKELIHOODS as LIKELIHOODS

NAMES = tuple(name for name, member in LIKELIHOODS.items() if not member.parameters)  # which need no object
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
KL_REDUCTIONS: tuple[ElementReduction, ...] = get_args(ElementReduction)


def likelihood_code(name: str) -> int:
    """The likelihood's code in the compiled kernels."""
    return tuple(LIKELIHOODS).index(name)


def difference(extension: Any) -> str | None:
    """What an extension says otherwise of these lists and of the likelihoods' traits, or None: with another list a call
    would reach another formula, and with other traits it would be checked for another one."""
    entries = getattr(extension, "LIKELIHOODS", ())
    compiled: dict[str, dict[str, Any]] = dict(
        entry for entry in entries if isinstance(entry, tuple)
    )  # names alone are of an older one
    lists = {
        "likelihoods": (tuple(compiled), tuple(LIKELIHOODS)),
        "scales": (getattr(extension, "SCALES", None), SCALES),
        "reductions": (getattr(extension, "REDUCTIONS", None), KL_REDUCTIONS),
    }
    for name, (there, here) in lists.items():
        if there != here:
            return f"other {name}"
    for name, member in LIKELIHOODS.items():
        for trait in sorted({*member.traits, *compiled[name]}):
            ours, theirs = member.traits.get(trait), compiled[name].get(trait)
            if ours != theirs:
                return f"another `{trait}` of the likelihood {name!r} ({theirs!r} there, {ours!r} here)"
    return None
