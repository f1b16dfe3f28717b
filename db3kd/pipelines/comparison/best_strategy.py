"""Which strategy of a comparison is the best, by which measurement, and whether by chance."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from db3kd.report import ComparisonRow, percent, wilson_interval
from db3kd.report.intervals import interval_of
from db3kd.report.paired_difference import PairedDifference, paired_difference
from db3kd.wording import InputNoun, counted, listed

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
        without_images: The strategies whose held-out images are pseudo samples, so that agreement
            on them cannot be compared with that of the others.
    """

    rows: Sequence[ComparisonRow]
    seeds: int
    noun: InputNoun = "image"
    short: str = ""
    without_images: Collection[str] = ()

    @cached_property
    def measurement(self) -> Measurement:
        """What the strategies are compared by."""
        if any(row.test_matches is None for row in self.rows):
            return "held-out agreement"
        agreed = all(row.test_agreements for row in self.rows)
        return "test agreement" if agreed else "test accuracy"

    @cached_property
    def ranking(self) -> list[ComparisonRow]:
        """The rows, the best first; of equally good ones, that with the fewest queries."""
        return sorted(self.rows, key=lambda row: (-self.share(row), row.queries or 0.0))

    @property
    def row(self) -> ComparisonRow:
        """The row of the highest share; of several, that with the fewest queries."""
        return self.ranking[0]

    @cached_property
    def equal(self) -> list[ComparisonRow]:
        """All rows of the highest share, in the order of `ranking`."""
        return [row for row in self.ranking if self.share(row) == self.share(self.row)]

    def share(self, row: ComparisonRow) -> float:
        """Returns how often the students of a row are right, in [0, 1]."""
        if self.measurement == "held-out agreement" or row.test_matches is None:
            return row.held_out_agreement or 0.0
        # A mean of shares could differ in the last bit between strategies that are equally good.
        return float(row.test_matches.mean())

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
        names, fewer = self._names, len(self.equal) < len(self.rows)
        best = f" the best of {len(self.rows)} strategies by" if fewer else " by"
        if len(self.equal) > 1:
            best = f" are equally good{', and' if fewer else ''}{best}"
        else:
            best = f" is{best}" if fewer else ","
        return (
            f"{names}{best} {measured}: {percent(self.share(self.row))} (95 % interval "
            f"{interval_of(*self.counts(self.row))}).{self._cheapest}{self.certainty}"
        )

    @property
    def headline(self) -> str:
        """The statement as it continues the share of the best strategy."""
        total = self.counts(self.row)[1]
        others = f", the highest of {len(self.rows)}" if len(self.equal) < len(self.rows) else ""
        of = "each of the strategies" if len(self.equal) > 1 else "the strategy"
        return (
            f"({interval_of(*self.counts(self.row))}) of {counted(total, self._what)} "
            f"{_SHARE_OF[self.measurement]} from students of {of} {self._names}{others}."
            f"{self._cheapest}{self.certainty}"
        )

    @property
    def certainty(self) -> str:
        """Sentences on the difference to the other strategies, each after a space."""
        if len(self.rows) < 2:
            return ""
        held_out = self.measurement == "held-out agreement"
        text = self._overlap() if held_out else self._difference() + self._favoured()
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

    @property
    def _names(self) -> str:
        return listed([row.strategy for row in self.equal])

    @property
    def _cheapest(self) -> str:
        """Which of several equally good strategies have the fewest queries, after a space."""
        fewest = [row.strategy for row in self.equal if row.queries == self.row.queries]
        if len(fewest) == len(self.equal):
            return ""
        queries = f"{self.row.queries or 0:,.0f}"
        verb = "sends" if len(fewest) == 1 else "send"
        return f" Of these, {listed(fewest)} {verb} the fewest queries, {queries} per student."

    def _difference(self) -> str:
        more = f" More test {self.noun}s, or more seeds, measure the difference better."
        following = next((row.strategy for row in self.ranking[len(self.equal) :]), None)
        if following is None:
            return more
        found = self.differences[following]
        low, high = found.interval
        text = (
            f" The next, {following}, is {100 * found.difference:.1f} percentage points lower on "
            f"the same {self.noun}s (95 % interval {_points(low)} to {_points(high)}), "
        )
        known = [following, *(row.strategy for row in self.equal)]
        others = [name for name in self.as_good if name not in known]
        if not found.may_be_chance:
            text += "which is more than chance"
            if self.seeds == 1:
                text += f" in the choice of the {self.noun}s; with one seed, that of seeds is open"
            return f"{text}."
        too = f"; so may be its lead over {listed(others)}" if others else ""
        return f"{text}which may be chance{too}.{more}"

    def _favoured(self) -> str:
        """Says which strategies have a higher held-out agreement than the best ones."""
        shares = {
            row.strategy: row.held_out_agreement or 0.0
            for row in self.rows
            if row.strategy not in self.without_images
        }
        known = [shares[row.strategy] for row in self.equal if row.strategy in shares]
        highest = max(shares.values(), default=0.0)
        if not known or max(known) == highest:
            return ""
        favoured = [name for name, share in shares.items() if share == highest]
        return (
            f" The held-out {self.noun}s favour {listed(favoured)}, but the test {self.noun}s "
            "count, because they are the same for all students."
        )

    def _overlap(self) -> str:
        if not self.as_good:
            return " Its 95 % interval overlaps with that of no other strategy."
        more = (
            f" Test {self.noun}s (--test, or test= in Python), which cost a query each, measure "
            "the difference better."
        )
        if len(self.as_good) < len(self.equal):
            return more
        names = listed([self.row.strategy, *self.as_good])
        return f" The 95 % intervals of {names} overlap, so their order may be chance.{more}"


def _points(share: float) -> str:
    """Writes a difference of shares in percentage points, with a minus sign."""
    return f"{100 * share:.1f}".replace("-", "\N{MINUS SIGN}")
