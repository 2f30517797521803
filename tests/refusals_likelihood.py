"""What is refused of a likelihood's own parameters and log_library, for test_refusals.py. Each case is the tensors of a
call and an object whose part is not what it should be."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from families import HOLDING, WITH_LIBRARY, family
from refusal import ANY, OBJECTIVES

SHAPE = (4, 6)  # of recon
MISSHAPEN: dict[str, tuple[tuple[int, ...], ...]] = {
    "parameter": ((4,), (2, 6), (4, 6, 1), (1, 4, 6), (6, 4)),
    "log_library": ((6,), (4, 6), (), (1,), (4, 1, 1), (1, 4)),
}


class OwnRefusal(NamedTuple):
    likelihood: str
    part: str  # a parameter's name, or log_library
    came: Any  # a tensor is of the CPU, and goes to the test's device
    error: type[Exception]
    words: str  # what follows "function: "


def of_part(name: str, part: str) -> list[OwnRefusal]:
    library = part == "log_library"
    found = []
    for came, kind in ((True, "a bool"), ("0", "a str"), (None, "None"), ([1.0], "a list"), (1j, "a complex")):
        optional = came is None and (library or not family(name).counts)  # then the object is another likelihood
        if not optional:
            words = f"`{part}` must be a Tensor or a number, but is {kind}"
            found.append(OwnRefusal(name, part, came, TypeError, words))
    shape = (4,) if library else (6,)
    words = f"`{part}` must have one of the dtypes {ANY}, but has torch.int64; convert it with `{part}.to(recon.dtype)`"
    found.append(OwnRefusal(name, part, torch.ones(shape, dtype=torch.int64), TypeError, words))
    expected = "have shape (4,) or (4, 1), one number a sample" if library else f"broadcast to recon's shape {SHAPE}"
    for bad in MISSHAPEN["log_library" if library else "parameter"]:
        words = f"`{part}` must {expected}, but has shape {bad}"
        found.append(OwnRefusal(name, part, torch.ones(bad), ValueError, words))
    words = f"`{part}` must be on recon's device cpu, but is on meta"
    for elsewhere in (shape,) if library else (shape, ()):
        found.append(OwnRefusal(name, part, torch.ones(elsewhere, device="meta"), ValueError, words))
    return found


OWN = [
    (function, refusal)
    for name in HOLDING
    for part in (*(part for part, _ in family(name).parameters), *(["log_library"] if name in WITH_LIBRARY else []))
    for refusal in of_part(name, part)
    for function in OBJECTIVES
]
