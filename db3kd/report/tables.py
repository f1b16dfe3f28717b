"""Tables of results as Markdown."""

import statistics
from collections.abc import Sequence

NO_VALUE = "\N{EN DASH}"
"""Stands in a cell without a value."""


def markdown_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1
) -> str:
    """Returns cells as a Markdown table. Columns after the first `text_columns` align right."""
    alignment = ["---"] * text_columns + ["---:"] * (len(head) - text_columns)
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    lines = [escaped[0], alignment, *escaped[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def mean_and_deviation(shares: Sequence[float]) -> str:
    """Returns shares in [0, 1] as a mean percentage, ± their sample standard deviation.

    A single share has no deviation. Without any share, it returns `NO_VALUE`.
    """
    if not shares:
        return NO_VALUE
    percent = [100 * share for share in shares]
    mean = f"{statistics.fmean(percent):.1f}"
    return mean if len(percent) == 1 else f"{mean} ± {statistics.stdev(percent):.1f}"
