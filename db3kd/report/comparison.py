"""The table of strategies that were compared at one budget."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from db3kd.report.intervals import interval_of
from db3kd.report.student_blocks import Table
from db3kd.report.tables import NO_VALUE, markdown_table, mean_and_deviation
from db3kd.wording import money

UNSPENT_MARK = "\N{DAGGER}"
"""Marks numbers of queries below the budget, for which a note has the reason."""


@dataclass(frozen=True)
class ComparedStudent:
    """What one student cost, and how good it is.

    Attributes:
        seed: The seed of its questions and of its training.
        queries: Its queries.
        held_out: Held-out images that it puts in the teacher's class, and all held-out images.
        accuracy: Share of test images that it puts in their class, in [0, 1]; None without labels.
        test_agreement: Share of test images that it puts in the teacher's class, in [0, 1]; None
            without test images.
        seconds: How long querying and training took.
        test_matches: [n] bool, whether it puts each test image in the teacher's class or, if the
            teacher was not queried, in its true class; None without test images.
    """

    seed: int
    queries: int
    held_out: tuple[int, int]
    accuracy: float | None
    test_agreement: float | None
    seconds: float
    test_matches: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class ComparisonRow:
    """The students of a strategy: a row of the table.

    Attributes:
        strategy: The name of the strategy.
        students: A student for each seed; none if the strategy was not used.
        refused: Why the strategy was not used; None if it was.
        unspent: Why its students did not spend their budget; None if they did.
    """

    strategy: str
    students: tuple[ComparedStudent, ...] = ()
    refused: str | None = None
    unspent: str | None = None

    @property
    def queries(self) -> float | None:
        """Mean number of queries of a student; None if there is none."""
        return statistics.fmean(each.queries for each in self.students) if self.students else None

    @property
    def held_out(self) -> tuple[int, int] | None:
        """Held-out images in the teacher's class and all of them; None without students."""
        if not self.students:
            return None
        matches, totals = zip(*(each.held_out for each in self.students), strict=True)
        return sum(matches), sum(totals)

    @property
    def held_out_agreement(self) -> float | None:
        """Share of the held-out images in the teacher's class, in [0, 1]; None without any."""
        return None if self.held_out is None else self.held_out[0] / self.held_out[1]

    @property
    def accuracies(self) -> list[float]:
        """The accuracy of each student that it is known of."""
        return [each.accuracy for each in self.students if each.accuracy is not None]

    @property
    def test_agreements(self) -> list[float]:
        """The agreement of each student on test images, if it is known."""
        return [each.test_agreement for each in self.students if each.test_agreement is not None]

    @property
    def test_matches(self) -> NDArray[np.bool_] | None:
        """[students, images], which test images each student is right about; None if unknown."""
        known = [each.test_matches for each in self.students if each.test_matches is not None]
        return np.stack(known) if known and len(known) == len(self.students) else None

    @property
    def test_counts(self) -> tuple[int, int] | None:
        """Test images that a student is right about on average, and all of them; None if unknown.

        All students are measured on the same images, so these are counted once.
        """
        matches = self.test_matches
        return None if matches is None else (round(matches.mean(0).sum()), matches.shape[1])


def comparison_table(rows: Sequence[ComparisonRow], price_per_1000: float | None = None) -> str:
    """Returns the table as Markdown, with columns for what is known.

    Shares on test images are mean ± sample standard deviation over seeds. Held-out agreement is
    that of all students of a row together, and the interval of a test share that of its mean on
    the test images, which are counted once. Queries of students that did not spend their budget
    have the mark `UNSPENT_MARK`. The reasons of rows without students are long, so the
    table leaves them out.

    Args:
        rows: The rows.
        price_per_1000: The price of 1,000 queries; None for no column of prices.
    """
    table = comparison_block(rows, price_per_1000)
    return markdown_table(table.head, table.rows)


def comparison_block(rows: Sequence[ComparisonRow], price_per_1000: float | None = None) -> Table:
    """Returns the table as a block of a page; see `comparison_table`."""
    cells = [_cells(row, price_per_1000) for row in rows]
    known = [
        name for name in (cells[0] if cells else ()) if any(row[name] != NO_VALUE for row in cells)
    ]
    return Table(known, [[row[name] for name in known] for row in cells])


def _cells(row: ComparisonRow, price_per_1000: float | None) -> dict[str, str]:
    """Returns the cells of a row by the names of their columns."""
    queries = seconds = price = NO_VALUE
    if row.queries is not None:
        queries = f"{row.queries:,.0f}"
        seconds = f"{statistics.fmean(each.seconds for each in row.students):,.0f}"
        if price_per_1000 is not None:
            price = money(row.queries * price_per_1000 / 1000)
    share = row.held_out_agreement
    return {
        "strategy": row.strategy if row.refused is None else f"{row.strategy}: not used",
        "queries": queries + ("" if row.unspent is None else UNSPENT_MARK),
        "price": price,
        "held-out agreement %": NO_VALUE if share is None else f"{100 * share:.1f}",
        "95 % interval": _interval(row.held_out),
        "accuracy %": mean_and_deviation(row.accuracies),
        "test agreement %": mean_and_deviation(row.test_agreements),
        "95 % interval (test)": _interval(row.test_counts),
        "seconds": seconds,
    }


def _interval(counts: tuple[int, int] | None) -> str:
    return NO_VALUE if counts is None else interval_of(*counts).removesuffix(" %")
