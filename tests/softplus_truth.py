"""softplus(s) = log(1 + e^s) in float64, and what it makes of the scale form `rho`: for the registry in families.py.

In the forms that are right where others cancel: where softplus is near 1 or near another softplus, and in both tails.
"""

from __future__ import annotations

import torch
from torch import Tensor


def softplus(x: Tensor) -> Tensor:
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))


def inverse(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-x))


def log_softplus(s: Tensor) -> Tensor:
    """Far below 0 it is s, also where softplus is 0."""
    far = s < -40
    return torch.where(far, s, torch.log(softplus(torch.where(far, 0.0, s))))


def relative_slope(s: Tensor) -> Tensor:
    """sigmoid(s) / softplus(s), the slope of log(softplus(s))."""
    return torch.where(s < -40, 1.0, torch.sigmoid(s) / softplus(s))


def log_ratio(s: Tensor, t: Tensor, difference: Tensor) -> Tensor:
    """log(softplus(s) / softplus(t)), near 0 by difference = s - t."""
    excess = torch.log1p(torch.sigmoid(t) * torch.expm1(difference)) / softplus(t)
    return torch.where(difference.abs() < 1, torch.log1p(excess), log_softplus(s) - log_softplus(t))


def log_std(s: Tensor) -> Tensor:
    """log(softplus(s)) by its ratio to 1, which softplus is at log(e - 1): that is known to 32 digits."""
    one = torch.tensor(0.5413248546129181, dtype=torch.float64)
    return log_ratio(s, one, (s - one) + 1.8138570925507326e-17)
