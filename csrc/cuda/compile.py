"""Compiles all CUDA code, without a GPU or a CUDA build of torch.

Every kernel file goes through nvcc for sm_80 and sm_90, every binding through the C++ compiler
against the headers of the torch at hand, all to objects that are thrown away. Prints what each
kernel takes: registers, spilled bytes, shared memory. Fails when a file does not compile or a
kernel spills registers.

    CUDA_HOME=/usr/local/cuda python csrc/cuda/compile.py
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch.utils.cpp_extension import include_paths

HERE = Path(__file__).parent
ARCHITECTURES = ["sm_80", "sm_90"]


@dataclass(frozen=True)
class Usage:
    """Resources of one kernel as reported by ptxas; sizes in bytes."""

    kernel: str
    architecture: str
    registers: int
    spilled: int
    shared: int


def load_setup() -> ModuleType:
    """Imports setup.py for its compiler flags."""
    spec = importlib.util.spec_from_file_location("db3kd_setup", HERE.parent.parent / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_toolkit() -> Path:
    """Returns the folder of the CUDA toolkit, which a CPU build of torch does not search."""
    nvcc = shutil.which("nvcc")
    guesses = [os.environ.get("CUDA_HOME"), "/usr/local/cuda", nvcc and Path(nvcc).parent.parent]
    for guess in filter(None, guesses):
        if (Path(guess) / "include" / "cuda_runtime.h").exists():
            return Path(guess)
    sys.exit("no CUDA toolkit found: set CUDA_HOME")


def run(command: list[str]) -> str:
    """Runs a command and returns its output; raises RuntimeError if it fails."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr


def kernel_commands(toolkit: Path, flags: list[str], objects: Path) -> Iterator[list[str]]:
    """Yields the command that compiles each kernel file for each architecture."""
    # The older of the standards with which supported versions of torch build extensions.
    nvcc = [str(toolkit / "bin" / "nvcc"), "-std=c++17", "-Xptxas", "-v", *flags]
    for source in sorted(HERE.glob("*.cu")):
        for architecture in ARCHITECTURES:
            target = objects / f"{source.stem}.{architecture}.o"
            yield [*nvcc, f"-arch={architecture}", "-c", str(source), "-o", str(target)]


def binding_commands(toolkit: Path, setup: ModuleType, objects: Path) -> Iterator[list[str]]:
    """Yields the command that compiles each file of bindings."""
    includes = [f"-I{path}" for path in [*include_paths(), toolkit / "include"]]
    macros = ["-DUSE_CUDA", *(f"-D{name}={value}" for name, value in setup.STABLE_ABI)]
    compiler = [os.environ.get("CXX", "g++"), "-std=c++20", "-fPIC", "-Wall", "-Werror"]
    compiler += setup.CPU_FLAGS
    for source in sorted(HERE.glob("*.cpp")):
        target = objects / f"{source.stem}.o"
        yield [*compiler, *macros, *includes, "-c", str(source), "-o", str(target)]


def usages(ptxas: str) -> Iterator[Usage]:
    """Yields the resources of each kernel in the output of ptxas, without those of libraries."""
    for report in ptxas.split("Compiling entry function")[1:]:
        name, architecture = re.search(r"'(\w+)' for '(\w+)'", report).groups()
        if "db3kd" not in name or "cub" in name:
            continue
        registers = re.search(r"Used (\d+) registers", report)
        spilled = re.search(r"(\d+) bytes spill stores", report)
        shared = re.search(r"(\d+) bytes smem", report)
        yield Usage(
            kernel=name,
            architecture=architecture,
            registers=int(registers[1]),
            spilled=int(spilled[1]),
            shared=int(shared[1]) if shared else 0,
        )


def readable(kernel: str) -> str:
    """Returns the name and template arguments of a kernel, without namespaces and parameters."""
    name = run(["c++filt", kernel]).strip()
    name = re.sub(r"\(anonymous namespace\)::|db3kd::(cuda::)?|^void ", "", name)
    return re.sub(r"\(Noise\)(\d)", lambda m: ["rademacher", "gaussian"][int(m[1])], name).split(
        "("
    )[0]


def main() -> None:
    """Compiles everything and prints the resources of each kernel."""
    setup, toolkit = load_setup(), find_toolkit()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        kernels = list(kernel_commands(toolkit, setup.CUDA_FLAGS, Path(folder)))
        bindings = list(binding_commands(toolkit, setup, Path(folder)))
        try:
            outputs = list(pool.map(run, [*kernels, *bindings]))
        except RuntimeError as error:
            sys.exit(str(error))
    rows = [usage for output in outputs[: len(kernels)] for usage in usages(output)]

    print("registers spilled shared  arch   kernel")
    for row in rows:
        numbers = f"{row.registers:9} {row.spilled:7} {row.shared:6}"
        print(f"{numbers}  {row.architecture}  {readable(row.kernel)}")
    print(f"compiled: {len(kernels)} kernel objects, {len(bindings)} bindings")
    if any(row.spilled for row in rows):
        sys.exit("some kernels spill registers")


if __name__ == "__main__":
    main()
