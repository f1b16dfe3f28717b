"""Checks of arguments: what a valid batch of images is, and errors that say how to fix it.

Each error names the argument, what was expected, what came, and what is likely to help.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.plain import brief, check_number
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.wording import input_noun

UNIT_BOUNDS = (0.0, 1.0)
"""The bounds of every image set: the lowest and the highest value of an image."""

CONVENTIONS = (UNIT_BOUNDS, (0.0, 255.0), (0.0, 65535.0), (-1.0, 1.0), (-0.5, 0.5))
"""Bounds that say without a doubt which values are black and white."""

INTEGER_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
"""The dtypes that class numbers may have."""


def check_image_shape(image_shape: Sequence[int], name: str = "image_shape") -> tuple[int, ...]:
    """Checks the shape of an image and returns it as a tuple.

    Args:
        image_shape: Positive integers, for example `(1, 28, 28)`.
        name: The name of the argument in errors.

    Raises:
        TypeError: If it is not a sequence of integers.
        ValueError: If it is empty, or an integer is not positive.
    """
    expected = "expected positive integers such as (1, 28, 28)"
    if isinstance(image_shape, str) or not isinstance(image_shape, Sequence):
        raise ArgumentTypeError(name, f"{expected}, got {brief(image_shape)}")
    shape = tuple(image_shape)
    if not all(type(size) is int for size in shape):
        raise ArgumentTypeError(name, f"{expected}, got {image_shape!r:.80}")
    if not shape or min(shape) < 1:
        raise ArgumentError(name, f"{expected}, got {image_shape!r:.80}")
    return shape


def check_has_channels(image_shape: Sequence[int]) -> tuple[int, ...]:
    """Checks the shape of a teacher's images, and returns it as a tuple.

    Raises:
        ValueError: If it is no shape, or lacks the channels.
    """
    shape = check_image_shape(image_shape)
    if len(shape) == 2:
        height, width = shape
        raise ArgumentError(
            "image_shape",
            f"expected (channels, height, width), got {shape} without channels; use "
            f"(1, {height}, {width}) for grey images or (3, {height}, {width}) for colour images",
        )
    return shape


def check_bounds(bounds: Sequence[float], name: str = "bounds") -> tuple[float, float]:
    """Checks the bounds of images and returns them as floats.

    Args:
        bounds: `(lower, upper)`.
        name: The name of the argument in errors.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If there are not two, or they are not finite as float32 or not in order.
    """
    if isinstance(bounds, str) or not isinstance(bounds, Iterable):
        raise ArgumentTypeError(name, f"expected (lower, upper), got {brief(bounds)}")
    values = tuple(bounds)
    if len(values) != 2:
        raise ArgumentError(name, f"expected (lower, upper), got {len(values)} values")
    for bound in values:
        if isinstance(bound, bool) or not isinstance(bound, Real):
            raise ArgumentTypeError(name, f"expected numbers (lower, upper), got {brief(bound)}")
    lower, upper = map(float, values)
    if not (
        math.isfinite(_as_float32(lower))
        and math.isfinite(_as_float32(upper))
        and _as_float32(lower) < _as_float32(upper)
    ):
        raise ArgumentError(name, f"expected finite lower < upper as float32, got {bounds!r}")
    return lower, upper


def number_text(value: float) -> str:
    """Writes a number in the fewest digits that distinguish it from all other float32 numbers.

    Example:
        >>> number_text(1.0), number_text(1.0000001)
        ('1', '1.0000001')
    """
    return str(np.float32(value)).removesuffix(".0")


def interval_text(bounds: tuple[float, float]) -> str:
    """Writes bounds as `[lower, upper]`, with the digits of `number_text`."""
    return f"[{number_text(bounds[0])}, {number_text(bounds[1])}]"


def check_threshold(threshold: float, classes: int) -> float:
    """Checks the threshold of a model with one score per image, and returns it as a float.

    Args:
        threshold: Images with at least this score are in class 1, the others in class 0.
        classes: The number of the model's classes.

    Raises:
        TypeError: If the threshold is not a number.
        ValueError: If it is not finite, or there are not two classes.
    """
    threshold = check_number(threshold, "threshold")
    if classes != 2:
        raise ArgumentError("threshold", f"belongs to a model of 2 classes, got classes={classes}")
    return threshold


def check_images(
    images: Tensor,
    image_shape: Sequence[int],
    bounds: tuple[float, float],
    name: str = "images",
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Checks a batch of images and returns it.

    Args:
        images: [N, *image_shape] float32, finite and inside `bounds`; N may be 0.
        image_shape: The shape of an image.
        bounds: The lowest and the highest value of an image.
        name: The name of the argument in errors.
        rows: The row of each image in the data set, for errors, if the batch is a part of one;
            0 to N - 1 by default.

    Raises:
        TypeError: If `images` is not a float32 tensor.
        ValueError: If the shape or a value is wrong.
    """
    shape = tuple(image_shape)
    expected = f"expected [N, {_sizes(shape)}] float32 in {interval_text(bounds)}"
    if not isinstance(images, Tensor):
        found = type(images).__name__
        raise ArgumentTypeError(name, f"{expected}, got {found}; use torch.as_tensor({name})")
    dtype = str(images.dtype).removeprefix("torch.")
    problem = f"{expected}, got [{_sizes(images.shape)}] {dtype}"
    fixes = [_shape_fix(tuple(images.shape), shape), _dtype_fix(images.dtype, bounds)]
    if images.dtype != torch.float32:
        raise ArgumentTypeError(name, "; ".join([problem, " and ".join(filter(None, fixes))]))
    if tuple(images.shape[1:]) != shape or images.ndim != len(shape) + 1:
        raise ArgumentError(name, "; ".join([problem, *filter(None, fixes)]))
    _check_values(images, bounds, name, rows)
    return images


def check_device(device: str | torch.device) -> torch.device:
    """Checks the name of a device and returns the device.

    Raises:
        TypeError: If it is neither text nor a device.
        ValueError: If torch knows no such device.
    """
    if not isinstance(device, str | torch.device):
        raise ArgumentTypeError("device", f'expected text such as "cuda:0", got {brief(device)}')
    try:
        return torch.device(device)
    except RuntimeError:
        problem = f'expected "cpu", "cuda" or "cuda:<n>", got {device!r}'
        raise ArgumentError("device", problem) from None


def check_dense(images: Tensor, name: str = "images") -> None:
    """Raises TypeError if a tensor does not hold a real number for each pixel."""
    if images.is_nested:
        found, advice = "a nested tensor", "stack images of one size with torch.stack"
    elif images.is_meta:
        found, advice = "a meta tensor, which has no values", "load the images on a device"
    elif images.layout is not torch.strided:
        found, advice = f"layout {images.layout}", "use its method to_dense()"
    elif images.is_quantized:
        found, advice = "a quantized tensor", "use its method dequantize()"
    elif images.is_complex():
        found, advice = str(images.dtype).removeprefix("torch."), "use its real part or abs()"
    else:
        return
    raise ArgumentTypeError(name, f"expected a dense tensor of real numbers, got {found}; {advice}")


def check_shape_of_images(
    found: Sequence[int],
    expected: Sequence[int],
    images: str,
    name: str = "images",
    reading: Mapping[str, Any] | None = None,
) -> None:
    """Checks that images have the shape that a teacher takes.

    Args:
        found: The shape of an image.
        expected: The teacher's `image_shape`.
        images: What messages call the images.
        name: The name of the argument in errors.
        reading: By which arguments the images were read; see `ImageSet.reading`.

    Raises:
        ValueError: If the shapes differ. The message has a hint if only the channels are missing or
            elsewhere, or if image files can be read in the expected shape.
    """
    found, expected = tuple(found), tuple(expected)
    if found != expected:
        hint = _channels_hint(found, expected)
        if not hint and "size" in (reading or {}):
            hint = _reading_hint(found, expected)
        raise ArgumentError(
            name,
            f"expected shape {expected}, which the teacher takes, got {found} in {images}"
            + (f"; {hint}" if hint else ""),
        )


def check_class_names(names: Sequence[str], classes: int | None, name: str) -> tuple[str, ...]:
    """Checks the names of classes and returns them without surrounding spaces.

    Args:
        names: Different, non-empty strings.
        classes: How many there must be; None for any number.
        name: The name of their owner in errors.

    Raises:
        TypeError: If `names` is not a sequence of strings.
        ValueError: If a name is empty or repeated or no valid text, or their number is wrong.
    """
    name = f"{name} class_names"
    expected = f"expected {'different' if classes is None else classes} names"
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ArgumentTypeError(name, f"{expected}, got {type(names).__name__}")
    stripped = tuple(each.strip() if isinstance(each, str) else each for each in names)
    before = set[str]()
    for number, each in enumerate(stripped):
        if not isinstance(each, str) or not each:
            kind = ArgumentTypeError if not isinstance(each, str) else ArgumentError
            raise kind(name, f"{expected}, got {each!r} for class {number}")
        if any("\ud800" <= character <= "\udfff" for character in each):
            raise ArgumentError(
                name,
                f"{expected} in Unicode, got {each!r} for class {number}, which has a lone "
                "surrogate and cannot be written to a file; decode it with its own encoding",
            )
        if each in before:
            raise ArgumentError(name, f"{expected}, got {each!r} twice")
        before.add(each)
    if classes is not None and len(stripped) != classes:
        raise ArgumentError(name, f"{expected}, got {len(stripped)}")
    return stripped


def are_equal(values: Tensor) -> bool:
    """Returns whether all values, [n], are equal; they are if there are none."""
    return bool((values == values[:1]).all())


def _as_float32(value: float) -> float:
    return torch.tensor(value, dtype=torch.float32).item()


def _check_values(
    images: Tensor, bounds: tuple[float, float], name: str, rows: Sequence[int] | None
) -> None:
    """Checks that all values are finite and inside the bounds.

    Valid images cost two reductions. The first invalid row is searched only if there is one.
    """
    if images.numel() == 0:
        return
    smallest, largest = (float(value) for value in torch.aminmax(images))
    lower, upper = (_as_float32(bound) for bound in bounds)  # images are float32 too
    if smallest >= lower and largest <= upper:
        return
    expected = f"expected finite values in {interval_text(bounds)}"
    noun = input_noun(images.shape[1:])
    values = images.flatten(1)
    broken = ~values.isfinite().all(1)
    if broken.any():
        row = int(broken.nonzero()[0])
        kind = "NaN" if values[row].isnan().any() else "an infinite value"
        row = row if rows is None else int(rows[row])
        raise ArgumentError(
            name, f"{expected}, got {kind} at row {row}; remove or repair that {noun}"
        )
    outside = (values < lower) | (values > upper)
    row = int(outside.any(1).nonzero()[0])
    value = float(values[row][outside[row]][0])
    hint = f"scale or clamp the {noun}s"
    if noun == "row" and bounds == UNIT_BOUNDS:
        hint = "encode rows of a table by features.encode, and scale others"
    elif bounds == UNIT_BOUNDS and smallest >= 0 and 1.5 < largest <= 255:
        hint = "divide by 255, or by the largest value that a pixel can have"
    row = row if rows is None else int(rows[row])
    raise ArgumentError(name, f"{expected}, got {number_text(value)} at row {row}; {hint}")


def _shape_fix(found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if found[1:] == shape and len(found) == len(shape) + 1:
        return ""
    if found == shape:
        return "add a batch dimension"
    if len(shape) == 3 and shape[0] == 1 and found[1:] == shape[1:]:
        return "add a channel dimension"
    if len(found) == 4 and len(shape) == 3 and (found[3], found[1], found[2]) == shape:
        return "move the channels first: images.permute(0, 3, 1, 2)"
    if hint := _channels_hint(found[1:], shape):
        return hint
    if len(found) == 2 and found[1] == math.prod(shape):
        return f"reshape to [N, {_sizes(shape)}]"
    return f"pass {input_noun(shape)}s of shape [{_sizes(shape)}]"


def _channels_hint(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Returns advice if a teacher was declared without channels, or with the channels last."""
    if len(expected) == 2 and len(found) == 3 and found[1:] == expected:
        return (
            f"the teacher's shape lacks the channels; did you mean {found}? Shapes in db3kd are "
            "(channels, height, width): correct image_shape="
        )
    if len(expected) == 3 and found == (expected[2], *expected[:2]):
        return (
            f"the teacher's shape has the channels last; did you mean {found}? Shapes in db3kd "
            "have the channels first: correct image_shape="
        )
    return ""


def _reading_hint(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Returns the arguments that read image files in the expected shape, if there are any."""
    if len(expected) != 3 or expected[0] not in (1, 3):
        return ""
    channels, height, width = expected
    arguments, cropped = [], ""
    if found[1:] != (height, width):
        arguments.append(f"size={height}" if height == width else f"size=({height}, {width})")
        cropped = "; size= crops images of another aspect ratio to their centre"
    if found[0] != channels:
        arguments.append(f"channels={channels}")
    return f"read the image files with {' and '.join(arguments)}{cropped}"


def _dtype_fix(dtype: torch.dtype, bounds: tuple[float, float]) -> str:
    if dtype == torch.float32:
        return ""
    if dtype == torch.uint8 and bounds == (0.0, 1.0):
        return "divide by 255"
    return "convert with .float()"


def _sizes(shape: Sequence[int]) -> str:
    return ", ".join(str(size) for size in shape)
