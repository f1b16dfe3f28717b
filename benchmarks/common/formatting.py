"""Numbers as text for people."""

import statistics
from collections.abc import Sequence

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
    return f"{100 * share:.1f} %"


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
    shown = [100 * share for share in shares]
    mean = f"{statistics.fmean(shown):.1f}"
    return mean if len(shown) == 1 else f"{mean} ± {statistics.stdev(shown):.1f}"
