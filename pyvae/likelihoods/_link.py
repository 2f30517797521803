"""What recon is of counts, the log of the mean or the mean; and theta, which may come as its log or as itself."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from .._expect import is_number
from ._member import Likelihood, Resolved

Link = Literal["log", "identity"]


def by_link(like: Any, log_mean: Likelihood, mean: Likelihood, parameters: tuple[Any, ...]) -> Resolved:
    """The member that an object stands for, with what it holds. What the checks below refuse is none."""
    if find_link_error(like) or find_theta_error(like):
        return Resolved(None)
    if like.link == "identity":
        return Resolved(mean.name, (*parameters, like.eps), like.log_library)
    return Resolved(log_mean.name, parameters, like.log_library)


def log_of(log_theta: Any, theta: Any) -> Any:
    """log theta, whichever of the two is there."""
    if theta is None:
        return log_theta
    if not isinstance(theta, Tensor):
        return math.log(theta) if is_number(theta) and theta > 0 else None
    if not theta.is_floating_point():
        return theta
    exact = theta.float() if theta.dtype in (torch.float16, torch.bfloat16) else theta  # whose log has more digits
    return torch.log(exact)


def find_link_error(like: Any) -> str | None:
    """What is wrong with an object's settings, or None. That eps is a number or a tensor is asked of all parameters."""
    name, eps = type(like).__name__, like.eps
    if like.link not in ("log", "identity"):
        return f'`link` of {name} must be "log" or "identity", but is {like.link!r}'
    if is_number(eps) and eps < 0:
        return f"`eps` of {name} must be >= 0, but is {eps!r}"
    if like.link == "log" and not (is_number(eps) and eps == 0):
        return f'`eps` of {name} must come with link="identity": it is added to a mean'
    if like.link == "identity" and like.log_library is not None:
        return (
            f'`log_library` of {name} must come with link="log", where recon holds scores, but came with '
            'link="identity", where it holds means'
        )
    return None


def find_theta_error(like: Any) -> str | None:
    """What is wrong with an object's theta, if it has one, or None."""
    theta = getattr(like, "theta", None)
    if theta is None:
        return None
    name = type(like).__name__
    if like.log_theta is not None:
        return f"`theta` of {name} must come without `log_theta`, but both came"
    if not isinstance(theta, Tensor) and not (is_number(theta) and theta > 0):
        return f"`theta` of {name} must be a Tensor or a number > 0, but is {theta!r}"
    return None


def check(function: str, like: Any) -> None:
    """Refuse what an object's fields make together."""
    if error := find_theta_error(like) or find_link_error(like):
        raise ValueError(f"{function}: {error}")
