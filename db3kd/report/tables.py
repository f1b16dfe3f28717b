"""Tables of results as Markdown."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # The module also imports the training, which a report does not need.
    from db3kd.distillation.methods import MethodResult

NO_VALUE = "\N{EN DASH}"
"""Stands in a cell without a value."""

_METHOD_HEAD = ("method", "accuracy %", "agreement %", "queries per sample")


def method_table(rows: Sequence["MethodResult"]) -> str:
    """Returns the table of methods as Markdown: mean ± sample standard deviation over seeds."""
    return markdown_table(_METHOD_HEAD, [_method_cells(row) for row in rows])


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


def _method_cells(row: "MethodResult") -> tuple[str, ...]:
    return (
        row.method,
        mean_and_deviation(row.accuracies),
        mean_and_deviation(row.agreements),
        NO_VALUE if row.queries_per_sample is None else f"{row.queries_per_sample:,.0f}",
    )
