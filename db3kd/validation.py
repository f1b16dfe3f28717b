"""What a valid batch of images is, and errors that name the argument, what was expected and what
came.
"""

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

UNIT_BOUNDS = (0.0, 1.0)
"""The bounds of every image set."""

CONVENTIONS = (UNIT_BOUNDS, (0.0, 255.0), (0.0, 65535.0), (-1.0, 1.0), (-0.5, 0.5))
"""Bounds for which it is clear what black and white are: the lower and the upper one."""

INTEGER_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_image_shape(image_shape: Sequence[int], name: str = "image_shape") -> tuple[int, ...]:
    """`image_shape` as a tuple of positive integers, for example `(1, 28, 28)`."""
    shape = tuple(image_shape) if isinstance(image_shape, Sequence) else ()
    if not shape or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(
            f"{name}: expected positive integers such as (1, 28, 28), got {image_shape!r}"
        )
    return shape


def check_bounds(bounds: Sequence[float], name: str = "bounds") -> tuple[float, float]:
    """`bounds` as `(lower, upper)`, finite and in order."""
    try:
        lower, upper = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected (lower, upper), got {bounds!r}") from None
    if not (
        math.isfinite(_as_float32(lower))
        and math.isfinite(_as_float32(upper))
        and _as_float32(lower) < _as_float32(upper)
    ):
        raise ValueError(f"{name}: expected finite lower < upper as float32, got {bounds!r}")
    return lower, upper


def number_text(value: float) -> str:
    """`value` in the fewest digits that tell it from all other float32 numbers.

    Example:
        >>> number_text(1.0), number_text(1.0000001)
        ('1', '1.0000001')
    """
    return str(np.float32(value)).removesuffix(".0")


def interval_text(bounds: tuple[float, float]) -> str:
    """`bounds` as `[lower, upper]`, with as many digits as `number_text` has."""
    return f"[{number_text(bounds[0])}, {number_text(bounds[1])}]"


def check_count(value: int, name: str, least: int = 1) -> int:
    """`value` as an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    return value


def check_threshold(threshold: float, classes: int) -> float:
    """Returns the threshold of a model with one score per image: finite, for two classes only."""
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not math.isfinite(threshold):
        raise ValueError(f"threshold: expected a finite number, got {threshold!r}")
    if classes != 2:
        raise ValueError(f"threshold: belongs to a model of 2 classes, got classes={classes}")
    return float(threshold)


def check_images(
    images: Tensor,
    image_shape: Sequence[int],
    bounds: tuple[float, float],
    name: str = "images",
    rows: Sequence[int] | None = None,
) -> Tensor:
    """`images` itself, if it is [N, *image_shape] float32, finite and inside `bounds`; N may be 0.

    rows: what errors call the N images, where they are a part of a set; 0 to N - 1 by default.

    Raises TypeError for a wrong type or dtype and ValueError otherwise; the message says what is
    likely to help.
    """
    shape = tuple(image_shape)
    wanted = f"{name}: expected [N, {_sizes(shape)}] float32 in {interval_text(bounds)}"
    if not isinstance(images, Tensor):
        came = type(images).__name__
        raise TypeError(f"{wanted}, got {came}; use torch.as_tensor(images)")
    dtype = str(images.dtype).removeprefix("torch.")
    problem = f"{wanted}, got [{_sizes(images.shape)}] {dtype}"
    fixes = [_shape_fix(tuple(images.shape), shape), _dtype_fix(images.dtype, bounds)]
    if images.dtype != torch.float32:
        raise TypeError("; ".join([problem, " and ".join(fix for fix in fixes if fix)]))
    if tuple(images.shape[1:]) != shape or images.ndim != len(shape) + 1:
        raise ValueError("; ".join([problem, *(fix for fix in fixes if fix)]))
    _check_values(images, bounds, name, rows)
    return images


def check_classes(labels: Tensor, count: int, classes: int, name: str = "labels") -> Tensor:
    """`labels` as int64 [count] with every entry in [0, classes)."""
    wanted = f"{name}: expected {count} classes in [0, {classes})"
    if not isinstance(labels, Tensor):
        raise TypeError(f"{wanted}, got {type(labels).__name__}; use torch.as_tensor({name})")
    if labels.dtype not in INTEGER_DTYPES:
        dtype = str(labels.dtype).removeprefix("torch.")
        raise TypeError(
            f"{wanted} as int64, got {dtype}; use {name}.long() if they are class numbers"
        )
    if labels.ndim != 1 or len(labels) != count:
        hint = "; take argmax(1) of one-hot rows" if labels.ndim == 2 else ""
        raise ValueError(f"{wanted}, got [{_sizes(labels.shape)}]{hint}")
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        row = int(outside.nonzero()[0])
        hint = "; number the classes from 0" if int(labels[row]) == classes else ""
        raise ValueError(f"{wanted}, got {int(labels[row])} at row {row}{hint}")
    return labels.long()


def check_class_names(names: Sequence[str], classes: int | None, name: str) -> tuple[str, ...]:
    """`names` as a tuple of different, non-empty strings, as many as `classes` if that is given."""
    wanted = f"{name} class_names: expected {'different' if classes is None else classes} names"
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"{wanted}, got {type(names).__name__}")
    stripped = tuple(each.strip() if isinstance(each, str) else each for each in names)
    for number, each in enumerate(stripped):
        if not isinstance(each, str) or not each:
            raise ValueError(f"{wanted}, got {each!r} for class {number}")
        if each in stripped[:number]:
            raise ValueError(f"{wanted}, got {each!r} twice")
    if classes is not None and len(stripped) != classes:
        raise ValueError(f"{wanted}, got {len(stripped)}")
    return stripped


def import_named(reference: str, name: str) -> Any:
    """The object `package.module:object` that `reference` names; errors call it `name`."""
    module_name, _, path = reference.partition(":")
    if not module_name or not path:
        raise ValueError(f"{name}: expected package.module:object, got {reference!r}")
    try:
        found = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise ValueError(
            f"{name}: there is no module {module_name!r} to import for {reference!r}; "
            "install it or put its folder on PYTHONPATH"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{name}: {module_name!r} has no {path!r}")
        found = getattr(found, part)
    return found


def _as_float32(value: float) -> float:
    return torch.tensor(value, dtype=torch.float32).item()


def _check_values(
    images: Tensor, bounds: tuple[float, float], name: str, numbers: Sequence[int] | None
) -> None:
    """Two reductions in the good case; the offending row is looked for only when there is one."""
    if images.numel() == 0:
        return
    smallest, largest = (float(value) for value in torch.aminmax(images))
    lower, upper = (_as_float32(bound) for bound in bounds)  # as images on the bounds are rounded
    if smallest >= lower and largest <= upper:
        return
    wanted = f"{name}: expected finite values in {interval_text(bounds)}"
    rows = images.flatten(1)
    broken = ~rows.isfinite().all(1)
    if broken.any():
        row = int(broken.nonzero()[0])
        kind = "NaN" if rows[row].isnan().any() else "an infinite value"
        row = row if numbers is None else int(numbers[row])
        raise ValueError(f"{wanted}, got {kind} at row {row}; remove or repair that image")
    outside = (rows < lower) | (rows > upper)
    row = int(outside.any(1).nonzero()[0])
    value = float(rows[row][outside[row]][0])
    hint = "scale or clamp the images"
    if bounds == (0.0, 1.0) and smallest >= 0 and 1.5 < largest <= 255:
        hint = "divide by 255"
    row = row if numbers is None else int(numbers[row])
    raise ValueError(f"{wanted}, got {number_text(value)} at row {row}; {hint}")


def _shape_fix(came: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if came[1:] == shape and len(came) == len(shape) + 1:
        return ""
    if came == shape:
        return "add a batch dimension"
    if len(shape) == 3 and shape[0] == 1 and came[1:] == shape[1:]:
        return "add a channel dimension"
    if len(came) == 4 and len(shape) == 3 and (came[3], came[1], came[2]) == shape:
        return "move the channels first: images.permute(0, 3, 1, 2)"
    if len(came) == 2 and came[1] == math.prod(shape):
        return f"reshape to [N, {_sizes(shape)}]"
    return f"give images of shape [{_sizes(shape)}]"


def _dtype_fix(dtype: torch.dtype, bounds: tuple[float, float]) -> str:
    if dtype == torch.float32:
        return ""
    if dtype == torch.uint8 and bounds == (0.0, 1.0):
        return "divide by 255"
    return "convert with .float()"


def _sizes(shape: Sequence[int]) -> str:
    return ", ".join(str(size) for size in shape)
