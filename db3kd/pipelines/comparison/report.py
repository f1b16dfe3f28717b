"""The files of a comparison: report.html and report.md to read, and compare.json for programs."""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from db3kd.pipelines.comparison.best_strategy import BestStrategy
from db3kd.pipelines.run_layout import REPORT_FILE
from db3kd.pipelines.student_warnings import paid_twice_note
from db3kd.planning import ComparisonPlan
from db3kd.report import ComparisonRow, Summary, percent, wilson_interval, write_summary
from db3kd.report.comparison import UNSPENT_MARK, comparison_block
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
        warnings: What makes the students worse, or their measurements less useful, than could be.
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
    warnings: Sequence[str] = ()

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
        found = [
            row for row in trained if row.test_matches is not None or row.strategy not in without
        ]
        return found or trained

    @cached_property
    def best(self) -> BestStrategy:
        """Which strategy is the best, by which measurement."""
        return BestStrategy(self.comparable, len(self.seeds), self.noun)

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
            *self.warnings,
            *(f"Not used: {row.strategy}. {row.refused}." for row in self.rows if row.refused),
            *(
                f"{UNSPENT_MARK} {row.strategy} did not spend its {counted(self.budget, 'query')}: "
                f"{row.unspent}."
                for row in self.rows
                if row.unspent
            ),
            f"Students: {self.student}, {counted(self.steps, 'training step')} each, {seeds}, "
            f"trained on decisions of the teacher {self.teacher}, at most "
            f"{counted(self.budget, 'query')} each.",
            f"Data: {'pseudo samples' if self.drawn is None else self.drawn}.",
            "Queries, price and seconds are means per student. Held-out agreement counts the "
            f"held-out {noun}s of all seeds together; its interval is Wilson's."
            + (
                f" {measured} on the test {noun}s ({self.test}) are mean ± sample standard "
                f"deviation over seeds; their interval counts each test {noun} once."
                if self.test is not None
                else ""
            ),
        ]
        if self.teacher_accuracy is not None:
            notes.append(
                f"The teacher's own accuracy on the test {noun}s is "
                f"{percent(self.teacher_accuracy)}."
            )
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
        "best": summary.best.as_entry(),
        "rows": [_row(row) for row in summary.rows],
    }
    write_atomically(folder / DATA_FILE, json_bytes(content))


def _page(summary: ComparisonSummary) -> Summary:
    best = summary.best
    with_test = f" and of the test {summary.noun}s" if summary.plan.test_images else ""
    return Summary(
        title="Strategies at the same budget",
        share=percent(best.share(best.row)),
        statement=best.headline,
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


def _row(row: ComparisonRow) -> dict[str, Any]:
    """Returns a row with the sums and means that the table shows."""
    held_out = row.held_out
    entries = dataclasses.asdict(row)
    for student in entries["students"]:
        del student["test_matches"]
    return entries | {
        "queries": row.queries,
        "held_out_agreement": row.held_out_agreement,
        "interval": None if held_out is None else wilson_interval(*held_out),
        "accuracy": statistics.fmean(row.accuracies) if row.accuracies else None,
        "test_agreement": statistics.fmean(row.test_agreements) if row.test_agreements else None,
        "test_interval": None if row.test_counts is None else wilson_interval(*row.test_counts),
    }
