"""Confidence intervals of measured shares, and how they are written."""

import math
from statistics import NormalDist

from db3kd.arguments.plain import brief
from db3kd.errors import ArgumentError, ArgumentTypeError


def wilson_interval(matches: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Computes the Wilson score interval of a share.

    It holds the share that images in general have, if the counted ones were drawn at random. It
    stays inside [0, 1] and is not empty at 0 or all matches (Wilson 1927).

    Example:
        >>> low, high = wilson_interval(652, 700)
        >>> f"{low:.3f} to {high:.3f}"
        '0.910 to 0.948'

    Args:
        matches: How many of the counted images match, 0 to `total`.
        total: How many were counted, at least 1.
        confidence: Probability that the interval holds the share, in (0, 1).

    Returns:
        The lower and the upper end, in [0, 1].

    Raises:
        ValueError: If an argument is out of its range.
    """
    check_matches((matches, total), "matches, total")
    if not 0 < confidence < 1:
        raise ArgumentError("confidence", f"expected a number in (0, 1), got {confidence!r}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = matches / total
    shrink = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    radius = z / shrink * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    # Rounding must not exclude the ends, which are exact if nothing or everything matches.
    low = 0.0 if matches == 0 else centre - radius
    high = 1.0 if matches == total else centre + radius
    return low, high


def check_matches(value: tuple[int, int], name: str) -> tuple[int, int]:
    """Checks a pair `(matches, total)` with 0 ≤ matches ≤ total and total ≥ 1, and returns it.

    Raises:
        TypeError: If it is no pair of integers.
        ValueError: If the integers are out of range.
    """
    expected = "expected integers 0 <= matches <= total and total >= 1"
    try:
        matches, total = value
    except (TypeError, ValueError):
        raise ArgumentTypeError(name, f"{expected}, got {brief(value)}") from None
    if any(isinstance(count, bool) or not isinstance(count, int) for count in (matches, total)):
        raise ArgumentTypeError(
            name, f"{expected}, got {brief(matches)} of {brief(total)}; use int()"
        )
    if not 0 <= matches <= total or total < 1:
        raise ArgumentError(name, f"{expected}, got {matches} of {total}")
    return matches, total


def percent(share: float) -> str:
    """Writes a share in [0, 1] as a percentage with one decimal: `93.1 %`."""
    return f"{100 * share:.1f} %"


def interval_of(matches: int, total: int) -> str:
    """Writes the 95 % interval of a share: `91.0 to 94.8 %`."""
    low, high = wilson_interval(matches, total)
    return f"{100 * low:.1f} to {100 * high:.1f} %"
