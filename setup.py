"""Builds the extension `pyvae._C`. What pyproject.toml cannot say is here, and nothing else.

The files that include torch (csrc/bindings.cpp, csrc/ops) are an ordinary torch extension. The kernels do not:
csrc/cpu/kernels.cpp is compiled once per instruction set, and csrc/cpu/dispatch.cpp chooses among them at load;
csrc/cuda/*.cu are compiled by nvcc where there is one for this torch (tools/cuda_toolkit.py), and otherwise left out.

Environment: CXX (compiler), MAX_JOBS (parallel compilations; default: the cores this process may use), PYVAE_WERROR
(1: a CUDA kernel that keeps registers in local memory does not compile), those of tools/cuda_toolkit.py, and nvcc's own
NVCC_APPEND_FLAGS.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import setuptools
from setuptools.command.build_ext import build_ext

sys.dont_write_bytecode = True  # what is imported here lies in the sources, and a build leaves nothing there
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "tools"))
import cuda_toolkit  # noqa: E402

try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension
except ImportError:  # metadata and the sdist need no torch; building does, and says so
    torch, BuildExtension, CppExtension = None, build_ext, setuptools.Extension

MINIMUM_TORCH = (2, 11)
MINIMUM_SETUPTOOLS = (70, 1)  # the first that makes wheels without the package `wheel`

CUDA_SOURCES = sorted([*glob("csrc/ops/cuda/*.cpp"), *glob("csrc/ops/*/cuda*.cpp")])
OPERATORS = sorted({*glob("csrc/ops/**/*.cpp", recursive=True)} - {*CUDA_SOURCES})
SOURCES = ["csrc/bindings.cpp", *OPERATORS, "csrc/cpu/dispatch.cpp"]
KERNELS = "csrc/cpu/kernels.cpp"
CUDA_KERNELS = sorted(glob("csrc/cuda/*.cu"))
CUDA_HEADERS = [*glob("csrc/*.h"), *glob("csrc/math/*.h"), *glob("csrc/cuda/*.h"), *glob("csrc/cuda/*.cuh")]
INCLUDE = os.path.abspath("csrc")  # absolute, because ninja runs in the folder of the objects

# Only the variants get -march flags, which crash on older CPUs. No file gets -ffast-math: it changes the floating point
# mode of the whole process. The noise has the same bits in every variant, so a * b + c must not be contracted.
VARIANT_FLAGS = {
    "avx512": [
        *("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"),
        *("-mavx2", "-mfma", "-mf16c"),
    ],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "baseline": [],  # on aarch64 this is NEON
}
X86 = platform.machine().lower() in ("x86_64", "amd64")
VARIANTS = list(VARIANT_FLAGS) if X86 else ["baseline"]
HAVE = [f"-DPYVAE_HAVE_{variant.upper()}" for variant in VARIANTS if variant != "baseline"]

COMMON_FLAGS = ["-g0", "-fPIC", "-fvisibility=hidden", *HAVE]
TORCH_FLAGS = ["-O2", "-Wno-missing-braces", *COMMON_FLAGS]  # torch adds the -std that its headers need
KERNEL_FLAGS = [
    *("-O3", "-std=c++17", *COMMON_FLAGS),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    "-fno-wrapv",  # Python's own flags have -fwrapv: with it loops over r * features + i do not become vectors
    "-Wno-psabi",  # vectors are passed to inlined functions only: there is no ABI to warn about
]
CUDA_FLAGS = [
    *("-O3", "-std=c++17", "--expt-relaxed-constexpr"),
    "-fmad=false",  # as -ffp-contract=off
    "-Xcompiler=-fPIC,-fvisibility=hidden",
]
# Not for everyone: another nvcc, or registers of another GPU, may spill where those that were looked at do not.
if os.environ.get("PYVAE_WERROR") == "1":
    CUDA_FLAGS.append("-Xptxas=--warn-on-spills,--warn-on-local-memory-usage,--warning-as-error")


def version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def compiler_command() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))


def compiler_name() -> str:
    try:
        shown = subprocess.run([*compiler_command(), "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"pyvae: no C++ compiler ({error}): install g++ >= 11 or clang >= 14, or name one in CXX")
    return shown.stdout.splitlines()[0]


def openmp_missing(compiler: str) -> str | None:
    """Why there is no OpenMP, without which at::parallel_for uses one thread, and what to do; None where there is."""
    if not torch.backends.openmp.is_available():
        return "this torch was built without it"
    command = [*compiler_command(), "-fopenmp", "-fsyntax-only", "-x", "c++", "-"]
    probe = subprocess.run(command, input="#include <omp.h>\n", capture_output=True, text=True, check=False)
    if probe.returncode == 0:
        return None
    first = next((line for line in probe.stderr.splitlines() if "error" in line), "it does not compile with -fopenmp")
    remedy = "install libomp-dev, or build with g++ (CXX=g++)" if "clang" in compiler else "build with g++ (CXX=g++)"
    return f"{shlex.join(compiler_command())} says {first!r}: {remedy}"


def jobs() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("MAX_JOBS", "")
    return max(1, int(limit)) if limit.isdigit() else cores


class BuildKernels(BuildExtension):
    """BuildExtension, plus the kernels' variants and a record of what was built (pyvae/_build.py)."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if torch is not None:
            # Kept between builds (pip's own folder is not), so that ninja compiles only what changed; and one for each
            # torch and Python, so that their objects never meet.
            self.build_temp = os.path.join("build", f"torch-{torch.__version__}-{sys.implementation.cache_tag}")

    def run(self) -> None:
        if torch is None:
            sys.exit(
                "pyvae: building needs the torch that it will run with, and there is none in this environment. "
                "Install torch >= 2.11 and build without isolation: pip install --no-build-isolation ."
            )
        if version(torch.__version__) < MINIMUM_TORCH:
            sys.exit(f"pyvae: needs torch >= 2.11, but this environment has torch {torch.__version__}")
        super().run()

    def build_extension(self, ext: setuptools.Extension) -> None:
        self.toolkit = cuda_toolkit.choose(torch.version.cuda)
        self.architectures: tuple[str, ...] = ()
        name = compiler_name()
        missing = openmp_missing(name)
        if missing is None:
            ext.extra_compile_args.append("-fopenmp")
            # Not linked with g++: torch has loaded a libgomp already; a second one would be a second pool of threads
            # that torch.set_num_threads does not reach. clang's runtime is another one, so it is needed.
            if "clang" in name:
                ext.extra_link_args.append("-fopenmp")
        if version(torch.__version__) < (2, 13):  # whose headers are content with C++17: csrc/ops is not
            ext.extra_compile_args.append("-std=c++20")
        if isinstance(self.toolkit, cuda_toolkit.Toolkit):
            self.architectures = cuda_toolkit.architectures(self.toolkit)
            self.add_cuda(ext, self.toolkit)
        self.report(name, missing)
        self.write_record(name, missing is None)
        ext.depends.append(str(self.record))  # another torch or compiler: link again

        # Without ninja, torch swaps the compiler's settings for each file: one at a time then.
        with ThreadPoolExecutor(jobs() if self.use_ninja else 1) as pool:
            cuda = pool.map(self.compile_cuda, CUDA_KERNELS if self.architectures else [])
            for objects in pool.map(self.compile_variant, VARIANTS):
                ext.extra_objects += objects
            ext.extra_objects += cuda
        super().build_extension(ext)
        if missing:  # last, where it is read; pip shows it with -v
            print(f"\npyvae: WARNING: built without OpenMP, so the CPU kernels use ONE THREAD: {missing}\n", flush=True)

    def compile_variant(self, variant: str) -> list[str]:
        # They include nothing of torch: one folder for all torches.
        folder = os.path.join("build", f"kernels-{sys.implementation.cache_tag}", variant)
        return self.compiler.compile(
            [KERNELS],
            output_dir=folder,
            include_dirs=[INCLUDE],
            extra_postargs=[*KERNEL_FLAGS, f"-DPYVAE_ISA={variant}", *VARIANT_FLAGS[variant]],
        )

    def add_cuda(self, ext: setuptools.Extension, toolkit: cuda_toolkit.Toolkit) -> None:
        """What torch's CUDAExtension adds, for any layout of the toolkit: PyPI's has no libcudart.so to link with."""
        runtime = cuda_toolkit.runtime(toolkit)
        link = Path(self.build_temp, "cuda", "libcudart.so").absolute()
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(runtime)
        ext.sources += CUDA_SOURCES
        ext.include_dirs.append(toolkit.include)
        ext.library_dirs.append(str(link.parent))
        ext.libraries += ["cudart", "c10_cuda", "torch_cuda"]

    def compile_cuda(self, source: str) -> str:
        """Compiles a .cu file, unless its object is newer than all that it is made of and was made in the same way."""
        target = Path(self.build_temp, "cuda", Path(source).stem + ".o")
        flags = [*CUDA_FLAGS, *map(cuda_toolkit.gencode, self.architectures)]
        if self.distribution.verbose > 1:
            flags.append("-Xptxas=-v")
        if len(compiler_command()) == 1:  # -ccbin takes no arguments
            flags += ["-ccbin", *compiler_command()]
        command = shlex.join([self.toolkit.nvcc, *flags, f"-I{INCLUDE}", "-c", source, "-o", str(target)])
        way = f"{self.toolkit.release} {command} {os.environ.get('NVCC_APPEND_FLAGS', '')}"
        note = target.with_suffix(".command")
        there = target.exists() and note.exists() and note.read_text(encoding="utf-8") == way
        if there and target.stat().st_mtime > max(map(os.path.getmtime, [source, *CUDA_HEADERS])):
            return str(target)
        note.unlink(missing_ok=True)
        print(command, flush=True)
        threads = max(1, jobs() // len(CUDA_KERNELS))  # over the architectures
        if subprocess.run([*shlex.split(command), f"--threads={threads}"], check=False).returncode:
            sys.exit(f"pyvae: nvcc does not compile {source}")
        note.write_text(way, encoding="utf-8")
        return str(target)

    def report(self, compiler: str, without_openmp: str | None) -> None:
        if isinstance(self.toolkit, str):
            cuda = f"no: {self.toolkit}"
        else:
            cuda = f"{self.toolkit.release} ({self.toolkit.nvcc}) for {', '.join(self.architectures)}"
        switches = {
            "torch": torch.__version__,
            "compiler": f"{compiler} ({shlex.join(compiler_command())})",
            "instruction sets": ", ".join(VARIANTS),
            "OpenMP": f"no: {without_openmp}" if without_openmp else "yes",
            "CUDA": cuda,
            "ninja": "yes" if self.use_ninja else "no: slower; pip install ninja",
            "jobs": jobs(),
        }
        print(f"building pyvae {self.distribution.get_version()}")
        for switch, value in switches.items():
            print(f"  {switch:<16} {value}", flush=True)

    @property
    def record(self) -> Path:
        return Path(self.build_lib, "pyvae", "_build.py")

    def write_record(self, compiler: str, openmp: bool) -> None:
        """Writes what `pyvae._extension` must know before it loads the extension; not touched when nothing changed."""
        values = {
            "TORCH": torch.__version__,
            "COMPILER": compiler,
            "INSTRUCTION_SETS": tuple(VARIANTS),
            "OPENMP": openmp,
            "CUDA": None if isinstance(self.toolkit, str) else self.toolkit.release,
            "CUDA_ARCHITECTURES": self.architectures,
        }
        text = '"""Written by setup.py: what the extension was built with."""\n\n'
        text += "".join(f"{key} = {value!r}\n" for key, value in values.items())
        if not self.record.exists() or self.record.read_text(encoding="utf-8") != text:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            self.record.write_text(text, encoding="utf-8")

    def copy_extensions_to_source(self) -> None:  # in-place and editable builds
        super().copy_extensions_to_source()
        self.copy_file(str(self.record), "pyvae/_build.py")


if os.name == "nt":
    sys.exit("pyvae: Windows is not supported; WSL is")
if version(setuptools.__version__) < MINIMUM_SETUPTOOLS:
    sys.exit(f"pyvae: needs setuptools >= 70.1, this is {setuptools.__version__}: pip install -U setuptools ninja")

setuptools.setup(
    ext_modules=[
        CppExtension(
            "pyvae._C",
            SOURCES,
            include_dirs=[INCLUDE],
            extra_compile_args=TORCH_FLAGS,
            extra_link_args=[],
            extra_objects=[],
            depends=[KERNELS, *CUDA_KERNELS, *sorted(glob("csrc/**/*.*h", recursive=True))],
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)
