"""The files of a comparison: report.html and report.md to read, and compare.json for programs."""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from db3kd.pipelines.comparison.best_strategy import BestStrategy
from db3kd.pipelines.comparison.prepared import PreparedComparison
from db3kd.pipelines.distill_settings import of_default
from db3kd.pipelines.distillation.reproduction import described_data
from db3kd.pipelines.run_layout import REPORT_FILE
from db3kd.pipelines.student_training.rules import LEAST_STEPS_OF_A_CHOICE
from db3kd.pipelines.student_warnings import paid_twice_note
from db3kd.report import ComparisonRow, Summary, percent, wilson_interval, write_summary
from db3kd.report.comparison import UNSPENT_MARK, comparison_block
from db3kd.report.student_blocks import Section
from db3kd.storage.filesystem import json_bytes, write_atomically
from db3kd.teachers import describe
from db3kd.wording import also_paid, counted, money

DATA_FILE = "compare.json"


@dataclass(frozen=True)
class ComparisonSummary:
    """What the report of a comparison shows.

    Attributes:
        prepared: The arguments of the comparison.
        steps: Training steps of each student.
        rows: The results.
        teacher_accuracy: Share of the test images, in [0, 1], that the teacher puts in their class;
            None unless labelled ones were queried.
        paid_twice: At most how many queries were paid twice, because an answer was lost.
        check_queries: Queries that repeated known answers.
        checks: What that showed, from `describe_checks`.
    """

    prepared: PreparedComparison
    steps: int
    rows: Sequence[ComparisonRow]
    teacher_accuracy: float | None = None
    paid_twice: int = 0
    check_queries: int = 0
    checks: str = ""

    @property
    def queries(self) -> int:
        """Queries of all students, including those about the test images and those of checks."""
        students = sum(each.queries for row in self.rows for each in row.students)
        return students + self.prepared.plan.test_images + self.check_queries

    @cached_property
    def best(self) -> BestStrategy:
        """Which strategy is the best, by which measurement."""
        prepared = self.prepared
        trained = [row for row in self.rows if row.students]
        # Agreement on pseudo samples cannot be compared with agreement on images.
        without = {name for name, plan in prepared.plan.plans.items() if plan.pseudo_samples}
        comparable = [
            row for row in trained if row.test_matches is not None or row.strategy not in without
        ]
        default = prepared.default_steps
        short = f"{counted(self.steps, 'step')}, {of_default(self.steps, default)}"
        return BestStrategy(
            comparable or trained,
            prepared.plan.seeds,
            prepared.noun,
            short if self.steps < default else "",
            without,
        )

    def notes(self) -> list[str]:
        """Returns sentences on how the numbers were made and what they cost."""
        prepared, noun = self.prepared, self.prepared.noun
        plan, seeds, images, test = (
            prepared.plan,
            prepared.used_seeds,
            prepared.images,
            prepared.test,
        )
        measured = "Accuracy and agreement" if plan.test_images else "Accuracies"
        budget = counted(prepared.budget, "query")
        of_seeds = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
        notes = [
            *prepared.warnings,
            *(f"Not used: {row.strategy}. {row.refused}." for row in self.rows if row.refused),
            *(
                f"{UNSPENT_MARK} {row.strategy} did not spend its {budget}: {row.unspent}."
                for row in self.rows
                if row.unspent
            ),
            f"Students: {prepared.student.title}, {counted(self.steps, 'training step')} each "
            f"({of_default(self.steps, prepared.default_steps)}), "
            f"{of_seeds}, trained on decisions of the teacher {describe(prepared.teacher)}, "
            f"at most {budget} each.",
            f"Data: {'pseudo samples' if images is None else described_data(images)}.",
            "Queries, price and seconds are means per student. Held-out agreement counts the "
            f"held-out {noun}s of all seeds together; its interval is Wilson's."
            + (
                f" {measured} on the test {noun}s ({test.name}) are mean ± sample standard "
                f"deviation over seeds; their interval counts each test {noun} once."
                if test is not None
                else ""
            ),
        ]
        if self.steps < LEAST_STEPS_OF_A_CHOICE:
            notes.append(
                f"With fewer than {LEAST_STEPS_OF_A_CHOICE:,} training steps, options such as the "
                "learning rate, or whether proxies teach, are not compared."
            )
        if self.teacher_accuracy is not None:
            notes.append(
                f"The teacher's own accuracy on the test {noun}s is "
                f"{percent(self.teacher_accuracy)}."
            )
        if any(each.pseudo_samples for each in plan.plans.values()):
            notes.append(
                "The held-out images of students without images are pseudo samples, so their "
                "held-out agreement cannot be compared with that of the other students."
            )
        total = f"All students together used {counted(self.queries, 'query')}"
        if prepared.price_per_1000 is not None:
            total += f" (price {money(self.queries * prepared.price_per_1000 / 1000)})"
        if plan.test_images:
            total += f", {plan.test_images:,} of them about the test {noun}s, once for all students"
        notes.append(f"{total}.")
        if self.check_queries:
            notes.append(
                f"Consistency checks: {self.check_queries:,} of these queries; {self.checks}."
            )
        if self.paid_twice:
            notes.append(paid_twice_note(self.paid_twice, self.queries, prepared.price_per_1000))
        return notes


def write_comparison(folder: Path, summary: ComparisonSummary) -> None:
    """Writes report.html, report.md and compare.json into a folder."""
    prepared = summary.prepared
    write_summary(folder, _page(summary))
    content = {
        "teacher": describe(prepared.teacher),
        "data": None if prepared.images is None else prepared.images.name,
        "test": None if prepared.test is None else prepared.test.name,
        "student": prepared.student.title,
        "budget": prepared.budget,
        "seeds": list(prepared.used_seeds),
        "steps": summary.steps,
        "price_per_1000": prepared.price_per_1000,
        "queries": summary.queries,
        "test_queries": prepared.plan.test_images,
        "check_queries": summary.check_queries,
        "teacher_accuracy": summary.teacher_accuracy,
        "best": summary.best.as_entry(),
        "rows": [_row(row) for row in summary.rows],
    }
    write_atomically(folder / DATA_FILE, json_bytes(content))


def _page(summary: ComparisonSummary) -> Summary:
    best, prepared = summary.best, summary.prepared
    with_test = f" and of the test {prepared.noun}s" if prepared.plan.test_images else ""
    return Summary(
        title="Strategies at the same budget",
        share=percent(best.share(best.row)),
        statement=best.headline,
        key_figures=[
            (f"{prepared.budget:,}", "maximum number of queries of each student"),
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
                [comparison_block(summary.rows, prepared.price_per_1000)],
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
