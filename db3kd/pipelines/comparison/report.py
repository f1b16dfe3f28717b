"""The files of a comparison: report.html and report.md to read, and compare.json for programs."""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db3kd.pipelines.run_layout import REPORT_FILE
from db3kd.pipelines.student_warnings import paid_twice_note
from db3kd.planning import ComparisonPlan
from db3kd.report import ComparisonRow, Summary, percent, wilson_interval, write_summary
from db3kd.report.comparison import comparison_block
from db3kd.report.intervals import interval_of
from db3kd.report.student_blocks import Section
from db3kd.storage.filesystem import json_bytes, write_atomically
from db3kd.wording import InputNoun, also_paid, counted, money

DATA_FILE = "compare.json"


@dataclass(frozen=True)
class ComparisonSummary:
    """What the report of a comparison shows.

    Attributes:
        teacher: What the report calls the teacher.
        data: What it calls the images; None without images.
        drawn: Which of them these are, from `described_data`; None without images.
        student: What it calls the students.
        test: What it calls the test images; None without test images.
        teacher_accuracy: Share of the test images, in [0, 1], that the teacher puts in their class;
            None unless labelled ones were queried.
        budget: Maximum number of queries of each student.
        seeds: The seeds of the students.
        steps: Training steps of each student.
        price_per_1000: The price of 1,000 queries, or None.
        plan: What was planned.
        rows: The results.
        noun: What the report calls an image.
        paid_twice: At most how many queries were paid twice, because an answer was lost.
        check_queries: Queries that repeated known answers.
        checks: What that showed, from `describe_checks`.
    """

    teacher: str
    data: str | None
    drawn: str | None
    student: str
    test: str | None
    budget: int
    seeds: Sequence[int]
    steps: int
    price_per_1000: float | None
    plan: ComparisonPlan
    rows: Sequence[ComparisonRow]
    teacher_accuracy: float | None = None
    noun: InputNoun = "image"
    paid_twice: int = 0
    check_queries: int = 0
    checks: str = ""

    @property
    def queries(self) -> int:
        """Queries of all students, including those about the test images and those of checks."""
        students = [each for row in self.rows for each in row.students]
        return sum(each.queries for each in students) + self.plan.test_images + self.check_queries

    @property
    def comparable(self) -> list[ComparisonRow]:
        """The rows of strategies whose agreement is that on the same kind of images."""
        trained = [row for row in self.rows if row.students]
        # Agreement on pseudo samples cannot be compared with agreement on images.
        without = {name for name, plan in self.plan.plans.items() if plan.pseudo_samples}
        found = [row for row in trained if row.test_agreements or row.strategy not in without]
        return found or trained

    @property
    def best(self) -> ComparisonRow:
        """The row of the highest agreement."""
        return max(self.comparable, key=_agreement)

    @property
    def as_good(self) -> list[str]:
        """The other strategies whose interval overlaps with that of the best."""
        best = self.best
        lowest, _ = self.interval(best)
        return [
            row.strategy
            for row in self.comparable
            if row is not best and self.interval(row)[1] >= lowest
        ]

    def counts(self, row: ComparisonRow) -> tuple[int, int]:
        """Returns how many images the students of a row put in the teacher's class, of how many.

        All students are measured on the same test images, so these are counted once.
        """
        if row.test_agreements:
            return round(_agreement(row) * self.plan.test_images), self.plan.test_images
        assert row.held_out is not None  # every student has held-out images
        return row.held_out

    def interval(self, row: ComparisonRow) -> tuple[float, float]:
        """Returns the 95 % interval of the agreement of a row, in [0, 1]."""
        return wilson_interval(*self.counts(row))

    def notes(self) -> list[str]:
        """Returns sentences on how the numbers were made and what they cost."""
        measured = "Accuracy and agreement" if self.plan.test_images else "Accuracies"
        seeds = (
            f"seed {self.seeds[0]}"
            if len(self.seeds) == 1
            else f"seeds {self.seeds[0]} to {self.seeds[-1]}"
        )
        noun = self.noun
        notes = [
            *(f"Not used: {row.strategy}. {row.refused}." for row in self.rows if row.refused),
            f"Students: {self.student}, {counted(self.steps, 'training step')} each, {seeds}, "
            f"trained on decisions of the teacher {self.teacher}, at most "
            f"{counted(self.budget, 'query')} each.",
            f"Data: {'pseudo samples' if self.drawn is None else self.drawn}.",
            "Queries, price and seconds are means per student. Held-out agreement counts the "
            f"held-out {noun}s of all seeds together; its interval is Wilson's."
            + (
                f" {measured} on the test {noun}s ({self.test}) are mean ± sample standard "
                "deviation over seeds."
                if self.test is not None
                else ""
            ),
        ]
        if self.teacher_accuracy is not None:
            notes.append(
                f"The teacher's own accuracy on the test {noun}s is "
                f"{percent(self.teacher_accuracy)}."
            )
        if self.as_good:
            notes.append(self.tie())
        if any(plan.pseudo_samples for plan in self.plan.plans.values()):
            notes.append(
                "The held-out images of students without images are pseudo samples, so their "
                "held-out agreement cannot be compared with that of the other students."
            )
        total = f"All students together used {counted(self.queries, 'query')}{self._price()}"
        if self.plan.test_images:
            total += (
                f", {self.plan.test_images:,} of them about the test {noun}s, once for all students"
            )
        notes.append(f"{total}.")
        if self.check_queries:
            notes.append(
                f"Consistency checks: {self.check_queries:,} of these queries; {self.checks}."
            )
        if self.paid_twice:
            notes.append(paid_twice_note(self.paid_twice, self.queries, self.price_per_1000))
        return notes

    def tie(self) -> str:
        """Returns a sentence on strategies that are about as good as the best, if there are."""
        total = self.counts(self.best)[1]
        names = " and ".join([self.best.strategy, *self.as_good])
        if self.plan.test_images:
            more = f"more test {self.noun}s"
        else:
            more = f"test {self.noun}s (--test, or test= in Python), which cost a query each,"
        return (
            f"The 95 % intervals of {names} overlap, so their order on "
            f"{counted(total, self.noun)} may be chance; {more} measure the difference better."
        )

    def _price(self) -> str:
        if self.price_per_1000 is None:
            return ""
        return f" (price {money(self.queries * self.price_per_1000 / 1000)})"


def write_comparison(folder: Path, summary: ComparisonSummary) -> None:
    """Writes report.html, report.md and compare.json into a folder."""
    write_summary(folder, _page(summary))
    content = {
        "teacher": summary.teacher,
        "data": summary.data,
        "test": summary.test,
        "student": summary.student,
        "budget": summary.budget,
        "seeds": list(summary.seeds),
        "steps": summary.steps,
        "price_per_1000": summary.price_per_1000,
        "queries": summary.queries,
        "test_queries": summary.plan.test_images,
        "check_queries": summary.check_queries,
        "teacher_accuracy": summary.teacher_accuracy,
        "rows": [_row(row) for row in summary.rows],
    }
    write_atomically(folder / DATA_FILE, json_bytes(content))


def _page(summary: ComparisonSummary) -> Summary:
    counts = summary.counts(summary.best)
    best, compared = summary.best, len(summary.comparable)
    noun = summary.noun
    asked = f"test {noun}" if best.test_agreements else f"held-out {noun}"
    others = f", the highest of {compared}" if compared > 1 else ""
    if summary.as_good:
        others = ". " + summary.tie().removesuffix(".")
    with_test = f" and of the test {noun}s" if summary.plan.test_images else ""
    return Summary(
        title="Strategies at the same budget",
        share=percent(_agreement(best)),
        statement=f"({interval_of(*counts)}) of {counted(counts[1], asked)} get the teacher's "
        f"class from students of the strategy {best.strategy}{others}.",
        key_figures=[
            (f"{summary.budget:,}", "maximum number of queries of each student"),
            (f"{summary.steps:,}", "training steps of each student"),
            (
                f"{summary.queries:,}",
                f"queries of all students{with_test}{also_paid(summary.paid_twice)}",
            ),
        ],
        links=[
            (
                f"Report of {row.strategy}, seed {each.seed}",
                f"{row.strategy}-{each.seed}/{REPORT_FILE}",
            )
            for row in summary.rows
            for each in row.students
        ],
        sections=[
            Section(
                "All strategies",
                " ".join(summary.notes()),
                [comparison_block(summary.rows, summary.price_per_1000)],
            )
        ],
    )


def _agreement(row: ComparisonRow) -> float:
    """Returns the mean agreement on test images, or else on held-out images, in [0, 1]."""
    if row.test_agreements:
        return statistics.fmean(row.test_agreements)
    return row.held_out_agreement or 0.0


def _row(row: ComparisonRow) -> dict[str, Any]:
    """Returns a row with the sums and means that the table shows."""
    held_out = row.held_out
    return dataclasses.asdict(row) | {
        "queries": row.queries,
        "held_out_agreement": row.held_out_agreement,
        "interval": None if held_out is None else wilson_interval(*held_out),
        "accuracy": statistics.fmean(row.accuracies) if row.accuracies else None,
        "test_agreement": statistics.fmean(row.test_agreements) if row.test_agreements else None,
    }
