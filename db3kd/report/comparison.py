"""The table of strategies that were compared at one budget."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from db3kd.report.intervals import wilson_interval
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
    agreed = any(row.test_agreements for row in rows)
    tested = [_interval(row.test_counts) for row in rows]
    columns: list[tuple[str, list[str]]] = [
        ("strategy", [_name(row) for row in rows]),
        ("queries", [_queries(row) for row in rows]),
        ("price", [_price(row.queries, price_per_1000) for row in rows]),
        ("held-out agreement %", [_share(row.held_out) for row in rows]),
        ("95 % interval", [_interval(row.held_out) for row in rows]),
        ("accuracy %", [mean_and_deviation(row.accuracies) for row in rows]),
        *([] if agreed else [("95 % interval (test)", tested)]),
        ("test agreement %", [mean_and_deviation(row.test_agreements) for row in rows]),
        *([("95 % interval (test)", tested)] if agreed else []),
        ("seconds", [_count(_seconds(row)) for row in rows]),
    ]
    known = [column for column in columns if any(cell != NO_VALUE for cell in column[1])]
    return Table(
        [name for name, _ in known],
        [[cells[number] for _, cells in known] for number in range(len(rows))],
    )


def _name(row: ComparisonRow) -> str:
    return row.strategy if row.refused is None else f"{row.strategy}: not used"


def _count(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:,.0f}"


def _queries(row: ComparisonRow) -> str:
    return _count(row.queries) + ("" if row.unspent is None else UNSPENT_MARK)


def _price(queries: float | None, price_per_1000: float | None) -> str:
    if queries is None or price_per_1000 is None:
        return NO_VALUE
    return money(queries * price_per_1000 / 1000)


def _share(counts: tuple[int, int] | None) -> str:
    return NO_VALUE if counts is None else f"{100 * counts[0] / counts[1]:.1f}"


def _interval(counts: tuple[int, int] | None) -> str:
    if counts is None:
        return NO_VALUE
    low, high = wilson_interval(*counts)
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _seconds(row: ComparisonRow) -> float | None:
    return statistics.fmean(each.seconds for each in row.students) if row.students else None
