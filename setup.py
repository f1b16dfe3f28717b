"""Builds the native extension: for CUDA if torch and a toolkit allow it, for the CPU otherwise.

FORCE_CUDA=1 and FORCE_CPU=1 override the choice, which never depends on a visible GPU.
DB3KD_TORCH=FOLDER takes the headers of the torch in this folder, of any Python, for a CPU build.
SANITIZE=1 builds with the address and undefined-behaviour sanitizers (`make sanitize`).
"""

import importlib.util
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = Path("csrc")
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"
# Contraction would round differently on machines with and without fused multiply-add. The other two
# flags let loops vectorise and change no result.
CPU_FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    # Errors name sources as the project does, not as the machine that built them.
    f"-ffile-prefix-map={Path.cwd()}/=",
]
# The oldest torch that the extension runs with (2.11). It is built for the stable ABI: whichever
# torch it is built against, it runs with this one and with later ones.
STABLE_ABI = [("TORCH_TARGET_VERSION", "0x020b000000000000")]
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


def find_torch(environment: Mapping[str, str]) -> Path:
    """Returns torch's folder, without importing it.

    Raises:
        ImportError: There is none.
    """
    if "DB3KD_TORCH" in environment:
        folder = Path(environment["DB3KD_TORCH"])
        if not (folder / "version.py").exists():
            sys.exit(f"db3kd: DB3KD_TORCH: expected the folder of a torch, got {folder}")
        return folder
    spec = importlib.util.find_spec("torch")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is None or not (folder / "version.py").exists():
        raise ImportError("no torch", name="torch")
    return folder


def find_toolkit(torch_cuda: str | None) -> str | None:
    """Returns the folder of the CUDA toolkit that this torch builds with, or None."""
    if torch_cuda is None or "DB3KD_TORCH" in os.environ:
        return None
    from torch.utils.cpp_extension import CUDA_HOME

    return CUDA_HOME


def native_build() -> tuple[Extension, type[build_ext], dict[str, dict[str, object]]]:
    """Returns the extension module db3kd._C, what builds it, and the options of commands.

    Each kind of build has a folder of its own: it would take the library of another for its own if
    it found one there. Ninja, which builds for CUDA, also notices other architectures or flags.
    """
    import pybind11
    from pybind11.setup_helpers import ParallelCompile

    torch = find_torch(os.environ)
    torch_cuda = runpy.run_path(str(torch / "version.py"))["cuda"]
    try:
        use_cuda, reason = choose_cuda(os.environ, torch_cuda, find_toolkit(torch_cuda))
    except ValueError as error:
        sys.exit(f"db3kd: {error}")
    print(f"db3kd: building for {'CUDA' if use_cuda else 'the CPU'} ({reason})")

    cpu_flags, link_flags = list(CPU_FLAGS), []
    kind = "cuda" if use_cuda else "cpu"
    if os.environ.get("SANITIZE", "0") == "1":
        kind += "-sanitizers"
        cpu_flags += [*SANITIZERS, "-O1", "-g"]  # the last optimisation level counts
        link_flags += SANITIZERS
    # Not torch's CppExtension, which links libraries outside the stable ABI.
    extension = Extension(
        "db3kd._C",
        sources(["*.cpp", "cpu/*.cpp"]),
        depends=sources(["*.h", "core/*.h", "cpu/*.h"]),
        language="c++",
        # Torch has a pybind11 of its own, and that of 2.11 refuses the stable ABI.
        include_dirs=[pybind11.get_include(), str(torch / "include")],
        library_dirs=[str(torch / "lib")],
        libraries=["torch_cpu"],
        define_macros=list(STABLE_ABI),
        extra_compile_args=cpu_flags,
        extra_link_args=link_flags,
    )
    options = {"build": {"build_base": f"build/for-{kind}"}, "build_ext": {"force": use_cuda}}
    if use_cuda:
        return extension, add_cuda(extension), options
    ParallelCompile("MAX_JOBS", default=os.cpu_count() or 1).install()
    return extension, build_ext, options


def sources(patterns: list[str]) -> list[str]:
    """Returns the files of csrc that match one of the patterns, in a fixed order."""
    return sorted(str(file) for pattern in patterns for file in SOURCES.glob(pattern))


def add_cuda(extension: Extension) -> type[build_ext]:
    """Adds the CUDA side to the extension, and returns what builds it."""
    from torch.utils.cpp_extension import BuildExtension, include_paths, library_paths

    put_ninja_on_path()
    architectures = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHITECTURES)
    extension.sources += sources(["cuda/*.cpp", "cuda/*.cu"])
    extension.include_dirs += include_paths("cuda")
    extension.library_dirs += library_paths("cuda")
    extension.libraries += ["torch_cuda", "cudart"]
    # The shims of CUDA streams and errors are only declared for USE_CUDA.
    extension.define_macros += [
        ("USE_CUDA", None),
        ("DB3KD_CUDA", None),
        ("DB3KD_ARCHITECTURES", f'"{architectures}"'),
    ]
    extension.extra_compile_args = {"cxx": extension.extra_compile_args, "nvcc": CUDA_FLAGS}
    return BuildExtension


def put_ninja_on_path() -> None:
    """Lets torch find the ninja of this Python, whose folder need not be on the path.

    Without ninja, torch compiles one file after another, and all of them again after a failure.
    """
    try:
        from ninja import BIN_DIR
    except ImportError:
        return  # the path may have one
    if BIN_DIR:
        os.environ["PATH"] = os.pathsep.join([BIN_DIR, os.environ["PATH"]])


def main() -> None:
    """Builds the extension."""
    if sys.platform != "linux":
        sys.exit(f"db3kd builds and runs only on Linux, got {sys.platform}")
    # Without build isolation pip checks none of pyproject.toml's build requirements.
    if int(setuptools.__version__.split(".")[0]) < 77:
        sys.exit(f"db3kd: building needs setuptools 77 or newer, got {setuptools.__version__}")
    try:
        extension, command, options = native_build()
    except ImportError as error:
        sys.exit(
            f"db3kd: building needs {error.name}; install it, or let pip do it: "
            "pip install . without --no-build-isolation"
        )
    setup(ext_modules=[extension], cmdclass={"build_ext": command}, options=options)


if __name__ == "__main__":
    main()
