"""Builds the native extension: for CUDA if torch and a toolkit allow it, for the CPU otherwise.

FORCE_CUDA=1 and FORCE_CPU=1 override the choice, which never depends on a visible GPU.
SANITIZE=1 builds with the address and undefined-behaviour sanitizers (`make sanitize`).
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import setuptools
from setuptools import Extension, setup

SOURCES = Path("csrc")
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"
# Contraction would round differently on machines with and without fused multiply-add. The other two
# flags let loops vectorise and change no result.
CPU_FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
# Without OpenMP, torch's parallel loops compile to plain ones. The library is the one that torch
# has loaded. Apple's compiler does not support the flag.
OPENMP = ["-fopenmp"] if sys.platform.startswith("linux") else []
# Memory safety on CUDA depends on the assertions of the kernels: no environment flag disables them.
CUDA_FLAGS = ["-O3", "-fmad=false", "-UNDEBUG"]
# Python's own flags define signed overflow, which would hide it from the sanitizer.
SANITIZERS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-fno-wrapv",
]


def choose_cuda(
    environment: Mapping[str, str], torch_cuda: str | None, toolkit: str | None
) -> tuple[bool, str]:
    """Returns whether to build for CUDA, and the reason.

    Args:
        environment: Environment variables.
        torch_cuda: CUDA version that torch was built with; None for a CPU build.
        toolkit: Folder of the CUDA toolkit; None if there is none.

    Raises:
        ValueError: FORCE_CUDA or FORCE_CPU cannot be obeyed.
    """
    force_cuda = environment.get("FORCE_CUDA", "0") == "1"
    force_cpu = environment.get("FORCE_CPU", "0") == "1"
    if force_cuda and force_cpu:
        raise ValueError("FORCE_CUDA, FORCE_CPU: expected at most one of them, got both")
    if force_cpu:
        return False, "FORCE_CPU=1"
    if torch_cuda is None:
        if force_cuda:
            raise ValueError("FORCE_CUDA=1: expected a CUDA build of torch, got a CPU build")
        return False, "torch is a CPU build"
    if toolkit is None:
        if force_cuda:
            raise ValueError("FORCE_CUDA=1: expected a CUDA toolkit, found none; set CUDA_HOME")
        return False, "no CUDA toolkit found; set CUDA_HOME to build for CUDA"
    reason = f"torch is built for CUDA {torch_cuda}, toolkit in {toolkit}"
    return True, f"FORCE_CUDA=1, {reason}" if force_cuda else reason


def native_extension() -> Extension:
    """Returns the extension module db3kd._C for the chosen back end."""
    import pybind11
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, CppExtension, CUDAExtension

    try:
        use_cuda, reason = choose_cuda(os.environ, torch.version.cuda, CUDA_HOME)
    except ValueError as error:
        sys.exit(f"db3kd: {error}")
    print(f"db3kd: building for {'CUDA' if use_cuda else 'the CPU'} ({reason})")

    sources = [*SOURCES.glob("*.cpp"), *SOURCES.glob("cpu/*.cpp")]
    macros = []
    if use_cuda:
        sources += [*SOURCES.glob("cuda/*.cpp"), *SOURCES.glob("cuda/*.cu")]
        architectures = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHITECTURES)
        macros = [("DB3KD_CUDA", None), ("DB3KD_ARCHITECTURES", f'"{architectures}"')]
    cpu_flags, link_flags = CPU_FLAGS + OPENMP, list(OPENMP)
    if os.environ.get("SANITIZE", "0") == "1":
        cpu_flags += [*SANITIZERS, "-O1", "-g"]  # the last optimisation level counts
        link_flags += SANITIZERS
    extension = CUDAExtension if use_cuda else CppExtension
    return extension(
        "db3kd._C",
        sorted(str(source) for source in sources),
        include_dirs=[pybind11.get_include()],
        define_macros=macros,
        extra_compile_args={"cxx": cpu_flags, "nvcc": CUDA_FLAGS},
        extra_link_args=link_flags,
    )


def main() -> None:
    """Builds the extension."""
    # Without build isolation pip checks none of pyproject.toml's build requirements.
    if int(setuptools.__version__.split(".")[0]) < 77:
        sys.exit(f"db3kd: building needs setuptools 77 or newer, got {setuptools.__version__}")
    try:
        import pybind11  # noqa: F401
        from torch.utils.cpp_extension import BuildExtension
    except ImportError as error:
        sys.exit(
            f"db3kd: building needs {error.name}; install it, then "
            "pip install --no-build-isolation ."
        )
    setup(ext_modules=[native_extension()], cmdclass={"build_ext": BuildExtension})


if __name__ == "__main__":
    main()
