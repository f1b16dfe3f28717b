"""Numbers as text for people."""

import statistics
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

MISSING = "\N{EN DASH}"


def number(value: object) -> str:
    """Formats a table cell: thousands separators, four digits, yes or no, a dash for nothing."""
    if value is None or value != value:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", r"\|").replace("\n", " ")


def percent(share: float) -> str:
    """Formats a share in [0, 1] as a percentage."""
    return f"{mean_percent([share])} %"


def mean_percent(shares: Sequence[float]) -> str:
    """Formats the mean of shares in [0, 1] in percent, without the sign.

    Halves are rounded up: 8,625 of 10,000 images are "86.3". Binary floats would round them either
    way, so the decimals of the shares are added.
    """
    total = sum((Decimal(repr(float(share))) for share in shares), Decimal(0))
    return str((100 * total / len(shares)).quantize(Decimal("0.1"), ROUND_HALF_UP))


def times(ratio: float) -> str:
    """Formats how many times as fast something is."""
    return f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.0f}x"


def duration(seconds: float) -> str:
    """Formats seconds with a unit from ns to s."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def mean_and_deviation(shares: Sequence[float]) -> str:
    """Formats shares in [0, 1] as their mean in percent and their sample standard deviation."""
    mean = mean_percent(shares)
    if len(shares) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(100 * share for share in shares):.1f}"
