"""What a member of the family is: its formula, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor


class Likelihood(NamedTuple):
    """-log p(target | recon) of one element in nats: value(recon, target, pos_weight, *parameters), all of one floating
    dtype; differentiable to every order by autograd. It is the specification of what csrc/math computes on the devices.
    """

    name: str
    value: Callable[..., Tensor]
    parameters: tuple[str, ...] = ()  # of its own, each of which broadcasts to recon
    takes_pos_weight: bool = False
    is_probability: bool = False  # recon outside [0, 1] is an error
    has_unit_target: bool = False  # a target outside [0, 1] is an error
    is_count: bool = False  # a negative target is an error
    softmax: str = "never"  # or "optional", with a log_library, or "always": recon holds scores

    @property
    def traits(self) -> dict[str, Any]:
        """What C++ says of it as well (`Trait` in csrc/ops/codes.h), by the same names."""
        own = self._asdict()
        del own["name"], own["value"]
        return own | {"parameters": len(self.parameters)}


class Resolved(NamedTuple):
    """A likelihood as the kernels take it: its name in `LIKELIHOODS`, its parameters, and log_library."""

    name: Any
    parameters: tuple[Any, ...] = ()
    log_library: Any = None
