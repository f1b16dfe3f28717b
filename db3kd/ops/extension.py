"""The native extension: loads it, and gives its errors the classes that Python has for them.

The extension is built for torch's stable ABI: one binary runs with every torch from 2.11 on. Errors
that cross this ABI are always RuntimeError; their message carries the class that is meant.
"""

import importlib.util
import re
import shlex
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from db3kd.errors import ArgumentError, ArgumentTypeError

_CLASSES: dict[str, type[Exception]] = {
    "ValueError": ValueError,
    "TypeError": TypeError,
    "IndexError": IndexError,
    "OutOfMemoryError": torch.OutOfMemoryError,
}
_MESSAGE = re.compile(rf", [^\n]+:\d+, ({'|'.join(_CLASSES)}): (.*)", re.DOTALL)
_WRONG_TYPE = re.compile(
    r"Expected a value of type '(.+?)' for argument '(\w+)' but instead found type '(.+?)'"
)
"""What torch says of an argument that does not fit the schema of an op."""
_DAMAGED = (
    "cut short",
    "file too short",
    "invalid ELF header",
    "cannot read file data",
    "ELF load",
)
"""Substrings of the errors of `dlopen` for truncated files."""
_CUDART = re.compile(r"libcudart\.so\.(\d+)")


def why_it_does_not_load(error: ImportError, torch_version: str, torch_cuda: str | None) -> str:
    """Returns one line that says why the extension cannot be loaded and what to do.

    Example:
        >>> why_it_does_not_load(ImportError("cannot import name '_C'"), "2.13.0", None)
        'db3kd has no native extension for this Python (3.11): pip install ...'

    Args:
        error: What importing the extension raised.
        torch_version: The version of the torch that is installed.
        torch_cuda: The CUDA version of that torch; None for a CPU build.
    """
    reason = " ".join(str(error).split())
    sources = _source_folder()
    install = "pip install --force-reinstall --no-deps db3kd, or `pip install .` in its sources"
    if sources is not None:
        install = f"pip install -e {shlex.quote(str(sources))}"
    if "cannot import name" in reason or isinstance(error, ModuleNotFoundError):
        python = ".".join(map(str, sys.version_info[:2]))
        found = ", ".join(sorted(each.name for each in Path(__file__).parents[1].glob("_C.*so")))
        others = f", only {found}" if found else ""
        if sources is not None:
            return (
                f"db3kd was imported from its sources in {sources}, which hold no native extension "
                f"for this Python ({python}){others}: run Python in another folder to use the "
                f"installed db3kd, or build the extension in the sources: {install}"
            )
        return f"db3kd has no native extension for this Python ({python}){others}: {install}"
    if any(word in reason for word in _DAMAGED):
        return f"db3kd._C, the native extension, is damaged ({reason}): {install}"
    if torch_cuda is None and ("libtorch_cuda" in reason or "libcudart" in reason):
        return (
            "db3kd is built for CUDA, and this torch is a CPU build "
            f"({torch_version}): install a CUDA build of torch, or the CPU wheel of db3kd"
        )
    if (library := _CUDART.search(reason)) is not None:
        return (
            f"db3kd is built for CUDA {library[1]}, and this torch for CUDA {torch_cuda}: install "
            f"a torch for CUDA {library[1]}, or the wheel of db3kd for this torch or for the CPU"
        )
    return (
        "db3kd._C, the native extension, needs torch 2.11 or newer and does not load with torch "
        f"{torch_version} ({reason}): install such a torch, or rebuild: {install}"
    )


def _source_folder() -> Path | None:
    """Returns the folder of the sources that this module belongs to; None if it is installed."""
    folder = Path(__file__).resolve().parents[2]
    is_source = (folder / "setup.py").is_file() and (folder / "csrc").is_dir()
    return folder if is_source else None


def check_size(binary: Path) -> None:
    """Checks that no segment of an ELF library lies beyond the end of the file.

    Python would not raise an error for such a library: the process would end with SIGBUS.

    Raises:
        ImportError: If the file is cut short.
    """
    size = binary.stat().st_size
    with binary.open("rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":  # not 64-bit ELF: the loader says what is wrong
            return
        try:
            (first,) = struct.unpack_from("<Q", head, 32)
            stride, count = struct.unpack_from("<HH", head, 54)
            file.seek(first)
            headers = file.read(count * stride)
            for header in range(0, count * stride, stride):
                offset, _, _, length = struct.unpack_from("<4Q", headers, header + 8)
                if offset + length > size:
                    raise ImportError(f"{binary}: file cut short")
        except struct.error:
            raise ImportError(f"{binary}: file cut short") from None


try:
    spec = importlib.util.find_spec("db3kd._C")
    if spec is not None and spec.origin is not None:
        check_size(Path(spec.origin))
    from db3kd import _C
except ImportError as error:
    raise ImportError(
        why_it_does_not_load(error, torch.__version__, torch.version.cuda), name="db3kd._C"
    ) from None


def build_config() -> dict[str, bool | str | None]:
    """Returns how the native extension was built.

    Example:
        >>> build_config()["cuda"]
        False

    Returns:
        `cuda` (bool), `cuda_version` and `architectures` (None without CUDA), `torch_version` (that
        it was built against), `torch_minimum` (that it needs), `compiler` and `sanitizers` (bool).
    """
    return _C.build_config()


def keep_result_memory(size: int) -> int:
    """Sets how much memory of large CPU results is kept for the next results.

    Building queries in memory that was used before is several times as fast as in new memory.

    Example:
        >>> keep_result_memory(2**28)  # a small machine
        1073741824

    Args:
        size: Bytes of memory that no tensor uses; a gibibyte by default. With 0, torch allocates
            every result.

    Returns:
        The bytes that were kept until now.

    Raises:
        ValueError: If the size is negative.
    """
    if size < 0:
        raise ArgumentError("size", f"expected 0 bytes or more, got {size}")
    return _C.keep_result_memory(size)


def call(op: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a native op.

    Raises:
        TypeError: If an argument has the wrong type, or a tensor the wrong dtype or device.
        ValueError: If a shape, a setting or a value is wrong.
        IndexError: If an index is out of range.
        torch.OutOfMemoryError: If there is no memory for the result.
        RuntimeError: If the op or torch reports anything else.
    """
    try:
        return op(*arguments)
    except RuntimeError as error:
        wrong = _WRONG_TYPE.search(str(error))
        if wrong is not None:
            expected, argument, found = wrong.groups()
            raise ArgumentTypeError(argument, f"expected {expected}, got {found}") from None
        known = _MESSAGE.search(str(error))
        if known is None:
            raise
        kind, message = known.groups()
    raise _CLASSES[kind](message)
