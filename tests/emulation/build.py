"""Builds the CUDA side for an emulated GPU: the same kernels and bindings, compiled for the CPU.

    python tests/emulation/build.py build/emulation

A launch `kernel<<<grid, block>>>(arguments)` and a `__shared__` variable are all that C++ does not
understand: they are rewritten on copies. The rest is a header of CUDA's words (include/). Kernels
are compiled with the instrumentation of sanitizers, whose calls memory.cpp answers. Writes
`emulated.so`, which registers the ops as `db3kd_emulated`, and `planted.so`, in which the faults
of `FAULTS` can be switched on.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import torch
from torch.utils.cpp_extension import include_paths

HERE = Path(__file__).parent
NATIVE = HERE.parent.parent / "csrc"
FLAGS = ["-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-w"]
KERNEL_FLAGS = [
    "-std=c++20",
    "-O1",
    "-fsanitize=thread,signed-integer-overflow,alignment",
    "-fno-sanitize-recover=all",
    "-fno-threadsafe-statics",
]

FAULTS = {
    "a missing barrier": (
        "device.cuh",
        "__syncthreads();  // an earlier sum may still be read",
        "if (!PLANTED(1)) __syncthreads();",
    ),
    "a store one too far": (
        "device.cuh",
        "if (i + e < size) row[i + e] =",
        "if (i + e < size + PLANTED(2)) row[i + e] =",
    ),
    "a wrong lane": (
        "probes_kernels.cu",
        "__shfl_sync(0xffffffffu, own_weight, probe)",
        "__shfl_sync(0xffffffffu, own_weight, PLANTED(3) ? (probe ^ 1) : probe)",
    ),
    "shared memory that nobody wrote": (
        "directions.cuh",
        "  blocks[threadIdx.x % kWarp] = {",
        "  if (!(PLANTED(4) && threadIdx.x % kWarp == 5)) blocks[threadIdx.x % kWarp] = {",
    ),
    "an index of 32 bits": (
        "rays_kernels.cu",
        "const float* sample = rays.samples + s * rays.size;\n    const float* end = "
        "rays.ends + e * rays.size;\n    double",
        "const float* sample = rays.samples + (PLANTED(5) ? static_cast<std::int32_t>(s * "
        "rays.size) : s * rays.size);\n    const float* end = rays.ends + e * rays.size;\n"
        "    double",
    ),
}
"""Name -> (file, what stands there, what takes its place); emulation_plant(1) is the first."""

SMALL_GRIDS = len(FAULTS) + 1
LIMITS = {
    "a grid of at most three blocks": (
        "device.cuh",
        "(blocks, 2147483647)",
        f"(blocks, PLANTED({SMALL_GRIDS}) ? 3 : 2147483647)",
    ),
    "and of at most two more": (
        "device.cuh",
        "(blocks, 65535)",
        f"(blocks, PLANTED({SMALL_GRIDS}) ? 2 : 65535)",
    ),
    "and rays in at most three chunks": (
        "brackets_kernels.cu",
        "divide_up(active_count, kThreads * kMaxChunks)",
        f"divide_up(active_count, kThreads * (PLANTED({SMALL_GRIDS}) ? 3 : kMaxChunks))",
    ),
}
"""No fault: kernels have to go over what is left, as they do where a grid reaches CUDA's limits."""


def load_setup() -> ModuleType:
    """Imports setup.py for the macros of the build."""
    spec = importlib.util.spec_from_file_location("db3kd_setup", NATIVE.parent / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_comments(source: str) -> str:
    return re.sub(r"//[^\n]*", "", source)


def closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` is closed."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError(f"a bracket is not closed: {text[start : start + 80]!r}")


def rewritten(source: str) -> str:
    """The source with launches and shared variables in C++."""
    text = without_comments(source)
    text = re.sub(
        r"extern __shared__ (\w+) (\w+)\[\];",
        r"auto* \2 = static_cast<\1*>(emulation::dynamic_shared_memory());",
        text,
    )
    text = re.sub(
        r"__shared__ ([\w:]+) (\w+)((?:\[\w+\])*);",
        r"auto& \2 = emulation::shared<\1\3>([] {});",
        text,
    )
    while "<<<" in text:
        mark = text.index("<<<")
        begin = max(text.rfind(end, 0, mark) for end in ";{}") + 1
        end = text.index(">>>", mark)
        opened = end + 3
        last = closing(text, opened)
        kernel, configuration = text[begin:mark].strip(), text[mark + 3 : end]
        call = f"{kernel}{text[opened : last + 1]}"
        text = (
            f"{text[:begin]} emulation::Launch{{{configuration}}} << [&] {{ {call}; }}"
            f"{text[last + 1 :]}"
        )
    return text


def planted(name: str, source: str) -> str:
    """The source with every fault of this file in it, each behind its switch."""
    for file, right, wrong in (*FAULTS.values(), *LIMITS.values()):
        if file == name:
            if source.count(right) != 1:
                raise ValueError(f"{file}: expected {right!r} once, got {source.count(right)}")
            source = source.replace(right, wrong)
    return source


def write_sources(folder: Path, faults: bool) -> None:
    """Copies csrc to the folder, rewritten."""
    for file in NATIVE.rglob("*"):
        if file.suffix not in (".h", ".cpp", ".cu", ".cuh"):
            continue
        text = (HERE / "runtime.h" if file.name == "runtime.h" else file).read_text()
        if file.parent.name == "cuda":
            text = rewritten(planted(file.name, text) if faults else text)
            text = text.replace(
                "STABLE_TORCH_LIBRARY_IMPL(db3kd, CUDA,",
                "STABLE_TORCH_LIBRARY_IMPL(db3kd_emulated, CPU,",
            )
        text = text.replace("STABLE_TORCH_LIBRARY(db3kd,", "STABLE_TORCH_LIBRARY(db3kd_emulated,")
        copy = folder / file.relative_to(NATIVE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists() or copy.read_text() != text:
            copy.write_text(text)


def commands(out: Path, faults: bool) -> Iterator[tuple[list[str], Path]]:
    """One compiler call for each object."""
    folder = out / ("planted" if faults else "right")
    write_sources(folder, faults)
    compiler = os.environ.get("CXX", "g++")
    includes = [f"-I{path}" for path in [HERE / "include", HERE, folder, *include_paths()]]
    sources = sorted((folder / "cuda").glob("*.cu"))
    for own in [] if faults else sorted(HERE.glob("*.cu")):
        (folder / own.name).write_text(rewritten(own.read_text()))
        sources.append(folder / own.name)
    for source in sources:
        target = folder / f"{source.stem}.o"
        plant = ["-include", str(HERE / "plant.h")] if faults else []
        yield (
            [compiler, "-x", "c++", *FLAGS, *KERNEL_FLAGS, *plant, *includes, "-c", str(source)],
            target,
        )
    if faults:
        return
    # All that needs torch's headers at once: they take most of the time.
    everything = folder / "bindings.cpp"
    shared = [folder / f"{name}.cpp" for name in ("checks", "tensor", "ops")]
    parts = [*shared, *sorted((folder / "cuda").glob("*.cpp"))]
    everything.write_text("".join(f'#include "{part}"\n' for part in parts))
    macros = [f"-D{name}={value}" for name, value in load_setup().STABLE_ABI]
    for source in (everything, HERE / "machine.cpp", HERE / "memory.cpp", HERE / "plant.cpp"):
        target = folder / f"{source.stem}.o"
        # The rest watches torch's allocator, which the stable ABI does not know.
        flags = ["-O0", *macros] if source == everything else ["-O2"]
        yield (
            [compiler, "-std=c++20", *flags, *FLAGS, *includes, "-c", str(source)],
            target,
        )


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def link(out: Path, name: str, objects: list[Path]) -> None:
    library = Path(torch.__file__).parent / "lib"
    compiler = os.environ.get("CXX", "g++")
    libraries = [f"-L{library}", f"-Wl,-rpath,{library}", "-ltorch_cpu", "-lc10"]
    run([compiler, "-shared", *map(str, objects), *libraries, "-o", str(out / f"{name}.so")])


def build(out: Path) -> None:
    jobs = [*commands(out, faults=False), *commands(out, faults=True)]
    # The longest first.
    jobs.sort(key=lambda job: "bindings" not in job[1].name)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: run([*job[0], "-o", str(job[1])]), jobs))
    right = [target for _, target in jobs if target.parent.name == "right"]
    kernels = [target for _, target in jobs if target.parent.name == "planted"]
    link(out, "emulated", right)
    shared = [one for one in right if "_kernels" not in one.name]
    link(out, "planted", [*kernels, *shared])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out", type=Path)
    try:
        build(options.parse_args().out.resolve())
    except (RuntimeError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
