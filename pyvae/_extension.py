"""Whether the compiled kernels are there, and why not. The only module that imports `pyvae._C`.

Importing it always succeeds. An extension built for another torch is refused before it is loaded: loading it ends in an
undefined symbol at best.
"""

from __future__ import annotations

import os
import re
import warnings
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from pyvae import _codes
from pyvae import integrations as _integrations
from pyvae._version import __version__

_BUILD = "`pip install --no-build-isolation --force-reinstall --no-deps .`"
_FORCED = f"`FORCE_CUDA=1 {_BUILD[1:]}"
_warned: set[str] = set()


def _minor(version: str) -> str:
    """'2.13.0+cpu' -> '2.13': what torch's C++ interface may change with."""
    return ".".join(re.findall(r"\d+", version)[:2])


def _major(release: str | None) -> str:
    """'13.0' -> '13': CUDA's runtimes of one major version are compatible."""
    return release.split(".")[0] if release else ""


def local_version() -> str:
    """'pt213cpu', 'pt214cu130': what a wheel's version says of the torch that it was built for; here of this one."""
    cuda = torch.version.cuda
    return f"pt{_minor(torch.__version__).replace('.', '')}" + (f"cu{cuda.replace('.', '')}" if cuda else "cpu")


def _rebuild() -> str:
    """What to do about an extension for another torch; one that came as a wheel is one of several."""
    from importlib import metadata  # milliseconds, which import does not take where all is well

    try:
        installed = metadata.version("pyvae")
    except metadata.PackageNotFoundError:
        installed = ""
    if "+pt" not in installed:
        return f"rebuild with {_BUILD}"
    return f"install the wheel pyvae-{__version__}+{local_version()}, or build with {_BUILD} in pyvae's sources"


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
        return None, f"built for torch {built}, running {running}: {_rebuild()}"
    built, running = _major(record.CUDA), _major(torch.version.cuda)
    if built and built != running:
        has = f"CUDA {running}" if running else "no CUDA"
        return None, f"built with CUDA {built}, but this torch has {has}: {_rebuild()}"
    try:
        extension = import_module("pyvae._C")
    except Exception as error:  # whatever is wrong with a binary, the reference still works
        return None, f"the extension does not load ({type(error).__name__}: {error}): {_rebuild()}"
    other = _codes.difference(extension)
    if other is not None:
        return None, f"the extension was built from sources with {other}: rebuild with {_BUILD}"
    return extension, None


_built = _record()
_loaded, why_missing = _load(_built)
if TYPE_CHECKING:
    from . import _C as _C  # its calls are checked against the stub
else:
    _C = _loaded
_isa: str | None = _C.isa() if _loaded else None  # a constant, which torch.compile can read

# What the first call says of this build, and then no other: None.
unsaid: str | None = None
if _loaded is not None and _built is not None and not _built.OPENMP:
    unsaid = (
        f"pyvae was built without OpenMP ({_built.COMPILER}), so its CPU kernels use one thread: install OpenMP for "
        f"this compiler (of clang: libomp-dev in Debian) and rebuild with {_BUILD}, or with g++: `CXX=g++ {_BUILD[1:]}"
    )


def say() -> None:
    """Warns of what is `unsaid`, unless one thread is all that torch uses, too."""
    global unsaid
    words, unsaid = unsaid, None
    if words and torch.get_num_threads() > 1:
        warnings.warn(words, RuntimeWarning, stacklevel=4)


def _runs_on(architecture: str, capability: tuple[int, int]) -> bool:
    """Whether what was compiled for 'sm_80' or 'compute_90' runs on a GPU of this compute capability."""
    kind, number = architecture.split("_")
    compiled = divmod(int(number.rstrip("a")), 10)
    if number.endswith("a"):  # specific to this one
        return capability == compiled
    # Machine code runs within its major version; PTX on any later GPU, whose driver compiles it.
    return capability >= compiled and (kind == "compute" or capability[0] == compiled[0])


@cache
def _gpu_unsupported(index: int, architectures: tuple[str, ...]) -> str | None:
    """Why the kernels for these architectures cannot run on this GPU, or None."""
    if not torch.cuda.is_available():
        return "torch finds no usable GPU (`torch.cuda.is_available()`): check the driver with nvidia-smi"
    capability = torch.cuda.get_device_capability(index)
    if any(_runs_on(architecture, capability) for architecture in architectures):
        return None
    major, minor = capability
    return (
        f"built for {', '.join(architectures)}, this GPU ({torch.cuda.get_device_name(index)}) is sm_{major}{minor}: "
        f"rebuild with `TORCH_CUDA_ARCH_LIST={major}.{minor} {_BUILD[1:]}"
    )


def _unsupported(device: torch.device) -> str | None:
    """Why no kernel can run on `device`, or None."""
    # Meta tensors have no data: the operators only infer shapes, and need the extension but no instruction set.
    if device.type not in ("cpu", "cuda", "meta"):
        return f"there are no kernels for device type '{device.type}': keep the tensors on the CPU or a GPU to use them"
    if _loaded is None or _built is None:
        return why_missing
    if device.type == "cpu" and _isa == "none":
        return "this CPU lacks the FMA instructions that the kernels are built on: use a CPU that has them"
    if device.type == "cuda":
        if _built.CUDA is None:
            return f"built without CUDA kernels: install the CUDA toolkit's nvcc and rebuild with {_FORCED}"
        index = torch.cuda.current_device() if device.index is None else device.index
        return _gpu_unsupported(index, _built.CUDA_ARCHITECTURES)
    return None


def kernels_for(device: torch.device) -> bool:
    """Whether compiled kernels can run on `device`; if not, warns once per reason what to do about it."""
    reason = _unsupported(device)
    if reason is None:
        if unsaid is not None:
            say()
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
        (compiled), ``instruction_set`` (in use on this CPU), ``openmp``, ``cuda`` (the toolkit's version, None for a
        build without), ``cuda_architectures`` (compiled; "compute_90" is PTX, which later GPUs run as well),
        ``why_missing``, None when the extension is loaded, and ``patched``, the functions of other libraries that are
        pyvae's in this process. What is not known without an extension is None or empty.

    Example:
        >>> import pyvae
        >>> sorted(pyvae.build_info())[:3]
        ['built_for_torch', 'compiler', 'cuda']
    """
    return {
        "pyvae": __version__,
        "torch": str(torch.__version__),
        "built_for_torch": _built.TORCH if _built else None,
        "compiler": _built.COMPILER if _built else None,
        "instruction_sets": list(_built.INSTRUCTION_SETS) if _built else [],
        "instruction_set": _isa,
        "openmp": _built.OPENMP if _built else None,
        "cuda": _built.CUDA if _built else None,
        "cuda_architectures": list(_built.CUDA_ARCHITECTURES) if _built else [],
        "why_missing": why_missing,
        "patched": _integrations.patched(),
    }
