"""A limit on the memory that a compressed file may take."""

import os
from pathlib import Path

from db3kd.errors import InputError

_VARIABLE = "DB3KD_MAX_DECOMPRESSED_GIB"


def max_decompressed_bytes() -> int:
    """Returns how many bytes a compressed array may take in memory.

    The default is 4 GiB; the environment variable DB3KD_MAX_DECOMPRESSED_GIB overrides it.

    Raises:
        ValueError: If the variable is not a number.
    """
    text = os.environ.get(_VARIABLE, "4")
    try:
        return int(float(text) * 2**30)
    except (ValueError, OverflowError):
        raise InputError(f"{_VARIABLE}: expected a number of GiB, got {text!r}") from None


def check_decompressed_size(path: Path, content: str, size: int) -> None:
    """Checks the memory that a part of a file takes, before it is decompressed.

    Raises:
        ValueError: If `size` is more than `max_decompressed_bytes()`.
    """
    if size > max_decompressed_bytes():
        raise InputError(
            f"{path}: expected at most {max_decompressed_bytes() / 2**30:.3g} GiB once "
            f"decompressed, got {size / 2**30:.3g} GiB for {content}; store it uncompressed (.npy "
            f"or raw IDX), or set {_VARIABLE} to a higher number of GiB if you trust the file"
        )
