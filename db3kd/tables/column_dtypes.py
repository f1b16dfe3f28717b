"""Which numbers the dtype of a column holds."""

import math

import numpy as np

_ARROW = "[pyarrow]"

_SYNONYMS = {"boolean": "bool", "halffloat": "float16", "float": "float32", "double": "float64"}
"""What pandas and Arrow call dtypes that NumPy has under another name."""


def number_dtype(name: str) -> np.dtype | None:
    """Returns the NumPy dtype of numbers or booleans with the values of a dtype.

    Args:
        name: The dtype as NumPy or pandas name it, such as "float32", "Int64" or "double[pyarrow]".

    Returns:
        The dtype; None if its values are neither numbers nor booleans.
    """
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError):
        plain = name.lower().removesuffix(_ARROW)
        try:
            dtype = np.dtype(_SYNONYMS.get(plain, plain))
        except (TypeError, ValueError):
            return None
    return dtype if dtype.kind in "biuf" else None


def holds_only_whole(dtype: np.dtype) -> bool:
    """Returns whether a dtype of numbers or booleans holds no fractions."""
    return dtype.kind in "biu"


def least_and_most(dtype: np.dtype) -> tuple[float, float]:
    """Returns the lowest and the highest number that a dtype holds: plain integers if whole."""
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind == "f":
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def held_bounds(dtype: np.dtype, lower: float, upper: float) -> tuple[float, float]:
    """Returns the lowest and the highest number within bounds that a dtype and float64 hold.

    If the bounds are equal, these are the number of a dtype of floats that is nearest to them.
    Otherwise, if there is no such number, the first one is above the second one.
    """
    least, most = least_and_most(dtype)
    lower, upper = (min(max(bound, least), most) for bound in (lower, upper))
    floats = dtype.type
    if holds_only_whole(dtype):
        lower, upper, floats = math.ceil(lower), math.floor(upper), np.float64
    low, high = floats(lower), floats(upper)
    if lower == upper and not holds_only_whole(dtype):
        return float(low), float(high)
    # Rounding may lead out of the bounds. Python compares a float with an integer exactly.
    if float(low) < lower:
        low = np.nextafter(low, floats(np.inf))
    if float(high) > upper:
        high = np.nextafter(high, floats(-np.inf))
    return float(low), float(high)
