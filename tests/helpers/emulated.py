"""The CUDA kernels on an emulated GPU; `ops` has the functions of db3kd.ops.

`make emulate` builds the library and names it in DB3KD_EMULATION. A faulty kernel raises
RuntimeError: out of bounds, race, uninitialised, overflow, misaligned, device assertion.
"""

import ctypes
import os
from pathlib import Path
from types import FunctionType, SimpleNamespace

import torch

from db3kd import ops as native_ops

LIBRARY = os.environ.get("DB3KD_EMULATION")

NAMES = (
    "ray_lengths",
    "bracket_queries",
    "bracket_step",
    "probe_queries",
    "probe_gradient",
    "soft_labels",
)


def _load(path: str) -> tuple[SimpleNamespace, ctypes.CDLL]:
    torch.ops.load_library(path)
    library = ctypes.CDLL(path)
    library.emulation_seed.argtypes = [ctypes.c_uint64]
    library.emulation_begin()
    # The functions of db3kd.ops, where `torch.ops.db3kd` means the emulated ops.
    words = {"torch": SimpleNamespace(ops=SimpleNamespace(db3kd=torch.ops.db3kd_emulated))}
    functions = {}
    for name in NAMES:
        function = getattr(native_ops, name)
        copy = FunctionType(
            function.__code__, {**function.__globals__, **words}, name, function.__defaults__
        )
        copy.__kwdefaults__ = function.__kwdefaults__
        functions[name] = copy
    return SimpleNamespace(**functions), library


if LIBRARY is None or not Path(LIBRARY).exists():
    ops, library = None, None
else:
    ops, library = _load(LIBRARY)


def seed(number: int) -> None:
    """Sets the seed of the order of threads and blocks."""
    library.emulation_seed(number)


def plant(fault: int) -> None:
    """Activates one of the faults of emulation/build.py, counted from 1; 0 for none."""
    library.emulation_plant(fault)


def run_faulty(kernel: str, values: torch.Tensor) -> str:
    """Runs a kernel of emulation/faulty_kernels.cu, and returns the finding."""
    library.emulation_run_faulty.restype = ctypes.c_char_p
    data = ctypes.c_void_p(values.data_ptr())
    return library.emulation_run_faulty(kernel.encode(), data, values.numel()).decode()


def divide(numbers: torch.Tensor, divisor: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The quotients and remainders that a kernel finds, `[n] int64` for at most 1,024 numbers."""
    found = torch.empty_like(numbers), torch.empty_like(numbers)
    data = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (numbers, *found)]
    library.emulation_divide(ctypes.c_int64(divisor), *data, len(numbers))
    return found
