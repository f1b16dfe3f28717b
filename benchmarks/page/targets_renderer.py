"""What a result of benchmarks.students.targets looks like on the page."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from benchmarks.common.formatting import number, percent, table
from benchmarks.page.plots import Plot
from benchmarks.page.renderers import Block, Result
from db3kd.distillation.baselines import StrategyResult
from db3kd.report.tables import comparison_table

_LABELS = "labels"
_X = "queries a sample"


def targets(result: Result, name: str) -> list[Block]:
    """What labels with so many targets are worth, and the students that they teach."""
    said = (
        f"{result['images']:,} images of {result['classes']} classes; {result['measure'].upper()}, "
        f"{number(result['queries_per_pair'])} queries a pair; {result['student']}, "
        f"{result['steps']:,} steps."
    )
    students = [StrategyResult(**row) for row in result["rows"]]
    head = ("targets", _X, "rank correlation with the logits", "runner-up found",
            "nearest class searched", "scale")  # fmt: skip
    labels = [
        (
            number(quality["targets"]) if quality["targets"] else "none, sample distances",
            quality["queries_per_sample"],
            round(quality["rank_correlation"], 3),
            percent(quality["runner_up_share"]),
            percent(quality["covered"]) if quality["targets"] else None,
            quality["scale"],
        )
        for quality in result["labels"]
    ]
    return [
        said,
        table(head, labels),
        comparison_table(students)[0].strip(),
        *_plots(result["labels"], students, name),
    ]


def _plots(
    qualities: Sequence[dict[str, Any]], students: Sequence[StrategyResult], name: str
) -> list[Plot]:
    """The students are those of decisions, of each of the labels, and of the teacher's logits."""
    queries = [quality["queries_per_sample"] for quality in qualities]
    decisions, *of_labels, logits = [100 * mean(student.accuracies) for student in students]
    ranks = [quality["rank_correlation"] for quality in qualities]
    taught = {
        _LABELS: list(zip(queries, of_labels, strict=True)),
        "decisions alone": [(students[0].queries_per_sample, decisions)],
    }
    rank_title, taught_title = "Rank correlation with the logits", "Students (line: of the logits)"
    return [
        Plot(f"{name}-rank", rank_title, _X, "rank correlation",
             {_LABELS: list(zip(queries, ranks, strict=True))}),
        Plot(f"{name}-students", taught_title, _X, "mean accuracy %", taught, level=logits),
    ]  # fmt: skip
