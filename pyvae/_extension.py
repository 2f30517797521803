"""Whether the compiled kernels are there, and why not. The only module that imports `pyvae._C`.

Importing it always succeeds. An extension built for another torch is refused before it is loaded: loading it ends in an
undefined symbol at best.
"""

from __future__ import annotations

import os
import re
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from pyvae._version import __version__

_BUILD = "`pip install --no-build-isolation --force-reinstall --no-deps .`"
_warned: set[str] = set()


def _minor(version: str) -> str:
    """'2.13.0+cpu' -> '2.13': what torch's C++ interface may change with."""
    return ".".join(re.findall(r"\d+", version)[:2])


def _record() -> ModuleType | None:
    """What setup.py wrote down when it built the extension."""
    try:
        return import_module("pyvae._build")
    except ImportError:
        return None


def _load(record: ModuleType | None) -> tuple[ModuleType | None, str | None]:
    """The extension, or the reason why it is missing."""
    if record is None:
        folder = os.path.dirname(__file__)  # a checkout on the path hides an installed pyvae: say which one this is
        return None, f"the extension is not built in {folder}: build with {_BUILD} in pyvae's sources"
    built, running = _minor(record.TORCH), _minor(torch.__version__)
    if built != running:
        return None, f"built for torch {built}, running {running}: rebuild with {_BUILD}"
    try:
        return import_module("pyvae._C"), None
    except Exception as error:  # whatever is wrong with a binary, the reference still works
        return None, f"the extension does not load ({type(error).__name__}: {error}): rebuild with {_BUILD}"


_built = _record()
_C: Any  # the module, or None
why_missing: str | None
_C, why_missing = _load(_built)
_isa: str | None = _C.isa() if _C else None  # a constant, which torch.compile can read


def _unsupported(device: torch.device) -> str | None:
    """Why no kernel can run on `device`, or None."""
    # Meta tensors have no data: the operators only infer shapes, and need the extension but no instruction set.
    if device.type not in ("cpu", "meta"):
        return f"there are no kernels for device type '{device.type}': keep the tensors on the CPU to use them"
    if _C is None:
        return why_missing
    if device.type == "cpu" and _isa == "none":
        return "this CPU lacks the FMA instructions that the kernels are built on: use a CPU that has them"
    return None


def kernels_for(device: torch.device) -> bool:
    """Whether compiled kernels can run on `device`; if not, warns once per reason what to do about it."""
    reason = _unsupported(device)
    if reason is None:
        return True
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(
            f"pyvae uses its PyTorch reference, which is correct but slower: {reason} "
            "(or accept it with `with pyvae.backend('reference')`)",
            RuntimeWarning,
            stacklevel=3,
        )
    return False


# torch.compile asks once, while it traces, and keeps the answer; tracing into the warning would break the graph. (The
# public torch.compiler.assume_constant_result sets the same mark, but imports the whole compiler.)
kernels_for._dynamo_marked_constant = True  # type: ignore[attr-defined]


def build_info() -> dict[str, Any]:
    """What this pyvae is made of.

    Returns:
        dict: ``pyvae`` and ``torch`` (versions running), ``built_for_torch``, ``compiler``, ``instruction_sets``
        (compiled), ``instruction_set`` (in use on this CPU), ``openmp``, ``cuda_architectures``, and ``why_missing``,
        None when the extension is loaded. What is not known without an extension is None or empty.

    Example:
        >>> import pyvae
        >>> sorted(pyvae.build_info())[:3]
        ['built_for_torch', 'compiler', 'cuda_architectures']
    """
    return {
        "pyvae": __version__,
        "torch": str(torch.__version__),
        "built_for_torch": _built.TORCH if _built else None,
        "compiler": _built.COMPILER if _built else None,
        "instruction_sets": list(_built.INSTRUCTION_SETS) if _built else [],
        "instruction_set": _isa,
        "openmp": _built.OPENMP if _built else None,
        "cuda_architectures": [],
        "why_missing": why_missing,
    }
