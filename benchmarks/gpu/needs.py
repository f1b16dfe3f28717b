"""Reports in one line what `make gpu` needs and this machine lacks, before anything is built.

python benchmarks/gpu/needs.py
"""

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("torch", "numpy", "safetensors", "setuptools", "pybind11", "ninja")
FOR_TESTS = ("pytest", "hypothesis", "pyarrow")


def missing() -> list[str]:
    """What is missing: packages by name, and parts of torch and of the machine."""
    absent = [name for name in (*PACKAGES, *FOR_TESTS) if find_spec(name) is None]
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        absent.append(f"Python's headers ({headers}/Python.h)")
    if "torch" in absent:
        return absent
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if torch.version.cuda is None:
        absent.append("a CUDA build of torch")
    elif not torch.cuda.is_available():
        absent.append("a GPU that torch sees")
    if CUDA_HOME is None or not (Path(CUDA_HOME) / "bin" / "nvcc").exists():
        absent.append("a CUDA toolkit with nvcc (CUDA_HOME)")
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        absent.append(f"a C++ compiler ({compiler})")
    return absent


def main() -> None:
    """Exits with a message if something is missing."""
    absent = missing()
    if absent:
        sys.exit(f"make gpu: {sys.executable} lacks {', '.join(absent)}")
    print(f"make gpu: {sys.executable} has everything that is needed")


if __name__ == "__main__":
    main()
