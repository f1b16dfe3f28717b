"""Which strategy of a comparison is the best, by which measurement, and whether by chance."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from db3kd.report import ComparisonRow, percent, wilson_interval
from db3kd.report.intervals import interval_of
from db3kd.report.paired_difference import PairedDifference, paired_difference
from db3kd.wording import InputNoun, counted

Measurement = Literal["test agreement", "test accuracy", "held-out agreement"]
"""What strategies are compared by."""

_SHARE_OF: dict[Measurement, str] = {
    "test agreement": "get the teacher's class",
    "test accuracy": "get their true class",
    "held-out agreement": "get the teacher's class",
}


@dataclass(frozen=True)
class BestStrategy:
    """The strategy whose students are right most often, and how certain that is.

    Test images decide if there are any, because they are the same for all students.

    Attributes:
        rows: The rows of the strategies that can be compared, each with students.
        seeds: Number of students of each strategy.
        noun: What texts call an image.
        short: How long the students were trained, such as "300 steps, 5 % of the default of 6,000",
            if that is less than by default; empty otherwise.
    """

    rows: Sequence[ComparisonRow]
    seeds: int
    noun: InputNoun = "image"
    short: str = ""

    @cached_property
    def measurement(self) -> Measurement:
        """What the strategies are compared by."""
        if any(row.test_matches is None for row in self.rows):
            return "held-out agreement"
        agreed = all(row.test_agreements for row in self.rows)
        return "test agreement" if agreed else "test accuracy"

    @cached_property
    def ranking(self) -> list[ComparisonRow]:
        """The rows, the best first."""
        return sorted(self.rows, key=self.share, reverse=True)

    @property
    def row(self) -> ComparisonRow:
        """The row of the highest share."""
        return self.ranking[0]

    def share(self, row: ComparisonRow) -> float:
        """Returns how often the students of a row are right, in [0, 1]."""
        if self.measurement == "test agreement":
            return statistics.fmean(row.test_agreements)
        if self.measurement == "test accuracy":
            return statistics.fmean(row.accuracies)
        return row.held_out_agreement or 0.0

    def counts(self, row: ComparisonRow) -> tuple[int, int]:
        """Returns how many images the students of a row are right about, of how many.

        All students are measured on the same test images, so these are counted once.
        """
        counts = row.held_out if self.measurement == "held-out agreement" else row.test_counts
        assert counts is not None  # every student has held-out images
        return counts

    @cached_property
    def differences(self) -> dict[str, PairedDifference]:
        """By how much the best is better than each other strategy on the same test images.

        It is empty without test images.
        """
        first = self.row.test_matches
        if self.measurement == "held-out agreement" or first is None:
            return {}
        others = {row.strategy: row.test_matches for row in self.ranking[1:]}
        return {
            name: paired_difference(first, matches)
            for name, matches in others.items()
            if matches is not None
        }

    @cached_property
    def as_good(self) -> list[str]:
        """The other strategies whose difference to the best may be chance."""
        if self.measurement != "held-out agreement":
            return [name for name, each in self.differences.items() if each.may_be_chance]
        lowest, _ = wilson_interval(*self.counts(self.row))
        return [
            row.strategy
            for row in self.ranking[1:]
            if wilson_interval(*self.counts(row))[1] >= lowest
        ]

    @property
    def statement(self) -> str:
        """Which of several strategies is the best by what, its interval, and whether by chance."""
        measured = self.measurement.removeprefix("test ").removeprefix("held-out ")
        measured += f" on {counted(self.counts(self.row)[1], self._what)}"
        best = f" is the best of {len(self.rows)} strategies by" if len(self.rows) > 1 else ","
        return (
            f"{self.row.strategy}{best} {measured}: {percent(self.share(self.row))} (95 % interval "
            f"{interval_of(*self.counts(self.row))})." + self.certainty
        )

    @property
    def headline(self) -> str:
        """The statement as it continues the share of the best strategy."""
        total = self.counts(self.row)[1]
        others = f", the highest of {len(self.rows)}" if len(self.rows) > 1 else ""
        return (
            f"({interval_of(*self.counts(self.row))}) of {counted(total, self._what)} "
            f"{_SHARE_OF[self.measurement]} from students of the strategy "
            f"{self.row.strategy}{others}.{self.certainty}"
        )

    @property
    def certainty(self) -> str:
        """Sentences on the difference to the other strategies, each after a space."""
        if len(self.rows) < 2:
            return ""
        text = self._overlap() if self.measurement == "held-out agreement" else self._difference()
        favourite = max(self.rows, key=lambda row: row.held_out_agreement or 0.0)
        if self.measurement != "held-out agreement" and favourite is not self.row:
            assert favourite.held_out is not None  # every student has held-out images
            text += (
                f" The held-out {self.noun}s favour {favourite.strategy}, but the test "
                f"{self.noun}s count, because they are the same for all students."
            )
        if self.short:
            text += (
                f" The students trained for only {self.short}; after longer training, another "
                "strategy may be the best."
            )
        return text

    def as_entry(self) -> dict[str, Any]:
        """Returns the statement as plain values, for programs."""
        return {
            "strategy": self.row.strategy,
            "measurement": self.measurement,
            "share": self.share(self.row),
            "interval": wilson_interval(*self.counts(self.row)),
            "may_be_chance": self.as_good,
            "differences": {
                name: {"difference": each.difference, "interval": each.interval}
                for name, each in self.differences.items()
            },
        }

    @property
    def _what(self) -> str:
        kind = "held-out" if self.measurement == "held-out agreement" else "test"
        return f"{kind} {self.noun}"

    def _difference(self) -> str:
        following = self.ranking[1].strategy
        found = self.differences[following]
        low, high = found.interval
        text = (
            f" The next, {following}, is {100 * found.difference:.1f} percentage points lower on "
            f"the same {self.noun}s (95 % interval {_points(low)} to {_points(high)}), "
        )
        others = [name for name in self.as_good if name != following]
        if not found.may_be_chance:
            text += "which is more than chance"
            if self.seeds == 1:
                text += f" in the choice of the {self.noun}s; with one seed, that of seeds is open"
            return f"{text}."
        more = f"; nor can it be told from {' and '.join(others)}" if others else ""
        return (
            f"{text}which may be chance{more}. More test {self.noun}s, or more seeds, measure the "
            "difference better."
        )

    def _overlap(self) -> str:
        if not self.as_good:
            return " Its 95 % interval overlaps with that of no other strategy."
        names = " and ".join([self.row.strategy, *self.as_good])
        return (
            f" The 95 % intervals of {names} overlap, so their order may be chance; test "
            f"{self.noun}s (--test, or test= in Python), which cost a query each, measure the "
            "difference better."
        )


def _points(share: float) -> str:
    """Writes a difference of shares in percentage points, with a minus sign."""
    return f"{100 * share:.1f}".replace("-", "\N{MINUS SIGN}")
