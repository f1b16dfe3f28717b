"""Arguments as tensors: classes and row numbers, after checks, and arrays of floats; as bytes."""

import operator
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.plain import brief
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.wording import counted

IntegersLike: TypeAlias = Tensor | np.ndarray | Sequence[int]
"""Integers as `as_classes` takes them: a tensor, an array or a sequence."""

IndexLike: TypeAlias = IntegersLike | Sequence[bool]
"""Row numbers, or a mask, as `as_index` takes them: a tensor, an array or a sequence."""


_MOST = 2**63 - 1
"""The largest number that int64 holds."""


def as_classes(
    labels: IntegersLike,
    count: int,
    name: str = "labels",
    classes: int | None = None,
    least: int = 0,
) -> Tensor:
    """Returns class numbers as int64, after checks.

    Example:
        >>> as_classes([0, 2], 2)
        tensor([0, 2])

    Args:
        labels: [count] integers of any dtype, each in [least, classes).
        count: The number of entries.
        name: The name of the argument in errors.
        classes: The number of classes; None if it is unknown.
        least: The lowest number: 0, or -1 (unanswered).

    Raises:
        TypeError: If `labels` does not hold integers.
        ValueError: If the shape or an entry is wrong.
    """
    limit = f"of at least {least}" if classes is None else f"in [{least}, {classes})"
    expected = f"expected {counted(count, 'class')} {limit}"
    numbers = _integers(labels, name, expected, f"use {name}.long() if they are class numbers")
    if numbers.ndim != 1 or len(numbers) != count:
        hint = "; take argmax(1) of one-hot rows" if numbers.ndim == 2 else ""
        raise ArgumentError(name, f"{expected}, got {list(numbers.shape)}{hint}")
    outside = numbers < least
    if classes is not None:
        outside |= numbers >= classes
    if outside.any():
        row = int(outside.nonzero()[0])
        hint = "; number the classes from 0" if int(numbers[row]) == classes else ""
        raise ArgumentError(name, f"{expected}, got {int(numbers[row])} at row {row}{hint}")
    return numbers


def as_index(index: IndexLike, count: int, name: str = "index") -> Tensor:
    """Returns row numbers as int64 on the CPU, after checks.

    Example:
        >>> as_index(range(2), 5), as_index(np.array([False, True]), 2)
        (tensor([0, 1]), tensor([1]))

    Args:
        index: [n] row numbers as integers of any dtype, or [count] booleans, which are True for
            the rows to take.
        count: The number of rows.
        name: The name of the argument in errors.

    Raises:
        TypeError: If `index` holds neither integers nor booleans.
        ValueError: If the shape is wrong.
        IndexError: If there is no row of a number.
    """
    expected = f"expected row numbers in [0, {count:,}), or {counted(count, 'boolean')}"
    numbers = _integers(index, name, expected, "pass row numbers", booleans=True).cpu()
    if numbers.ndim != 1 or (numbers.dtype == torch.bool and len(numbers) != count):
        kind = " booleans" if numbers.dtype == torch.bool else ""
        raise ArgumentError(name, f"{expected}, got {list(numbers.shape)}{kind}")
    if numbers.dtype == torch.bool:
        return numbers.nonzero()[:, 0]
    outside = (numbers < 0) | (numbers >= count)
    if outside.any():
        raise IndexError(f"{name}: {expected}, got {int(numbers[outside][0])}")
    return numbers


def as_number(index: Any, count: int, name: str = "index", advice: str = "") -> int:
    """Returns the number of one row, in [0, count); a negative index counts from the end.

    Args:
        index: An integer of Python, NumPy or torch.
        count: The number of rows.
        name: The name of the argument in errors.
        advice: What to do instead of an index of another type.

    Raises:
        TypeError: If `index` is no integer.
        IndexError: If there is no row of this number.
    """
    try:
        number = operator.index(index)
    except TypeError:
        number = None
    if number is None or isinstance(index, bool | np.bool_):
        raise ArgumentTypeError(
            name, f"expected an integer, got {brief(index)}{advice and f'; {advice}'}"
        ) from None
    if not -count <= number < count:
        raise IndexError(f"{name}: expected a number below {count}, got {number}")
    return number % count


def seeded_permutation(count: int, seed: int) -> Tensor:
    """Returns the numbers from 0 to `count` - 1 in the random order of a seed, [count] int64.

    Example:
        >>> seeded_permutation(3, seed=0)
        tensor([2, 0, 1])
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def float_tensor(array: np.ndarray) -> Tensor:
    """Returns an array as a float32 tensor, which shares its memory if it can.

    The tensor must not be written to: the array may be read-only, such as a memory map, for which
    torch would print a warning.

    Args:
        array: An array of numbers, of any shape.
    """
    numbers = np.ascontiguousarray(array, np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(numbers)


def _integers(value: Any, name: str, expected: str, advice: str, booleans: bool = False) -> Tensor:
    """Returns integers as int64, and booleans as they are."""
    if isinstance(value, str) or not isinstance(value, Tensor | np.ndarray | Sequence):
        raise ArgumentTypeError(name, f"{expected}, got {brief(value)}")
    if isinstance(value, Tensor) and value.dtype == torch.uint64:
        value = value.cpu().numpy()  # torch cannot compare it
    if not isinstance(value, Tensor):
        try:
            array = np.asarray(value)
        except ValueError:  # rows of different lengths
            raise ArgumentTypeError(name, f"{expected}, got nested sequences") from None
        if array.dtype.kind not in "biu" and not (isinstance(value, Sequence) and not len(value)):
            found = f"{type(value).__name__} of {array.dtype}"
            raise ArgumentTypeError(name, f"{expected}, got {found}; {advice}")
        if array.dtype.kind != "b" and _holds_booleans(value):
            raise ArgumentTypeError(name, f"{expected}, got booleans among numbers; {advice}")
        if array.dtype.kind == "u" and array.size and int(array.max()) > _MOST:
            raise ArgumentError(name, f"{expected} and below 2^63, got {array.max()}")
        value = torch.from_numpy(array.astype(bool if array.dtype.kind == "b" else np.int64))
    if value.dtype.is_floating_point or value.dtype.is_complex:
        dtype = str(value.dtype).removeprefix("torch.")
        raise ArgumentTypeError(name, f"{expected}, got {dtype}; {advice}")
    if value.dtype == torch.bool and not booleans:
        raise ArgumentTypeError(name, f"{expected}, got bool; {advice}")
    return value if value.dtype == torch.bool else value.long()


def _holds_booleans(value: Any) -> bool:
    """Returns whether a sequence, but not an array, holds booleans, which NumPy would convert."""
    is_plain = isinstance(value, list | tuple)
    return is_plain and any(isinstance(each, bool | np.bool_) for each in value)


def tensor_bytes(tensor: Tensor) -> bytes:
    """Returns the values of a tensor of any dtype and device as bytes, for digests."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
