"""What results of benchmarks.students look like on the page."""

from collections.abc import Sequence

from benchmarks.common.formatting import table
from benchmarks.page.renderers import Block, Result
from db3kd.distillation.baselines import StrategyResult
from db3kd.report.tables import comparison_table, mean_and_deviation


def overview(results: Sequence[Result]) -> list[Block]:
    """A table for each student, with a column for each result, where there are several."""
    if len(results) < 2:
        return []
    trained = {student for result in results for student in result["students"]}
    return [
        block
        for student in sorted(trained, reverse=True)
        for block in _beside_each_other(student, results)
    ]


def _beside_each_other(student: str, results: Sequence[Result]) -> list[Block]:
    found = [result for result in results if student in result["students"]]
    columns = [f"{result['data'].removesuffix('-train')} {result['images']:,}" for result in found]
    cells = [{row["method"]: _cell(row) for row in result["students"][student]} for result in found]
    methods = dict.fromkeys(method for column in cells for method in column)
    rows = [(method, *(column.get(method) for column in cells)) for method in methods]
    said = f"**{student}**: test accuracy in percent, in brackets the queries a sample."
    return [said, table(("images", *columns), rows)]


def _cell(row: Result) -> str:
    accuracy, queries = mean_and_deviation(row["accuracies"]), row["queries_per_sample"]
    return accuracy if queries is None else f"{accuracy} ({queries:,.0f})"


def students(result: Result, name: str) -> list[Block]:
    """A table for each student, then what the labels cost and are worth."""
    training, measures = result["training"], result["labels"]
    said = (
        f"{result['images']:,} images, {training['steps']:,} steps of {training['batch_size']} for "
        f"each student; {result['targets']} classes searched for each image."
    )
    blocks: list[Block] = [said]
    for student, rows in result["students"].items():
        results = [StrategyResult(**row) for row in rows]
        blocks += [f"**{student}**", comparison_table(results)[0].strip()]
    columns = ("queries_per_sample", "mean_distance", "rank_correlation_with_logits")
    head = ("labels", "queries a sample", "mean distance", "rank correlation with the logits",
            "scale")  # fmt: skip
    notes = [
        (
            measure,
            *(note[column] for column in columns),
            result["scales"][measure]["scale"],
        )
        for measure, note in measures.items()
    ]
    return [*blocks, table(head, notes)]
