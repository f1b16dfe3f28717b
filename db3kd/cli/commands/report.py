"""The `db3kd report` command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.options.shared import MOVED_DATA_HELP
from db3kd.cli.outputs import refuse_existing
from db3kd.cli.plan_output import surrogate_text
from db3kd.errors import ArgumentError
from db3kd.wording import counted, input_noun

if TYPE_CHECKING:
    from db3kd.labelling.runs.label_run import LabelRun

SHOWN_SAMPLES = 12


def report(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="Run folder of db3kd label, as for --labels.", show_default=False
        ),
    ] = None,
    *,
    labels: Annotated[Path | None, typer.Option(help="Run folder of db3kd label.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder of the report.", show_default="_report in the run's folder"),
    ] = None,
    data: Annotated[str | None, typer.Option(help=MOVED_DATA_HELP)] = None,
) -> None:
    """Write a report of a label run: totals, samples with their nearest classes, and distances.

    For example:

        db3kd report runs/bd
    """
    import torch

    from db3kd.data.sample_choice import spread_over_classes
    from db3kd.labelling.runs.label_run import open_run
    from db3kd.report import ClassDistances, Samples, write_report

    folder = _one_folder(run, labels)
    out = folder / "_report" if out is None else out
    refuse_existing(out)
    labelled = open_run(folder, data)
    labels_of_run, curves = labelled.labels, _curves(labelled)
    measured = labels_of_run.distances.masked_fill(~labels_of_run.targets, torch.inf)
    rows = spread_over_classes(labels_of_run.decision, SHOWN_SAMPLES)
    page = write_report(
        out,
        f"Labels of {labelled.images.name}",
        notes=_notes(labelled, folder, with_curve=bool(curves)),
        samples=Samples(
            labelled.images.read(rows),
            measured[rows],
            labels_of_run.decision[rows],
            [labelled.images.name_of(row) for row in rows.tolist()],
        ),
        curves=curves,
        class_distances=ClassDistances(measured, labels_of_run.decision, labels_of_run.targets),
        class_names=labelled.class_names,
    )
    print(page)


def _one_folder(run: Path | None, labels: Path | None) -> Path:
    """Returns the run folder, which is an argument or an option.

    Raises:
        ValueError: If there is not exactly one, or if it is a run of a command that has written its
            report itself.
    """
    from db3kd.data.pseudo_samples import PSEUDO_SAMPLES
    from db3kd.pipelines.run_layout import REPORT_FILE

    if run is not None and labels is not None:
        raise ArgumentError("labels", f"expected one run folder, got {run} and {labels}")
    folder = labels if run is None else run
    if folder is None:
        raise ArgumentError(
            "labels", "expected a run folder, such as db3kd report runs/bd, got none"
        )
    if (page := folder / REPORT_FILE).is_file():
        raise ArgumentError(
            "labels",
            f"expected a run of db3kd label, got {folder}, whose command has written a "
            f"report: {page}",
        )
    if PSEUDO_SAMPLES.shards(folder):
        raise ArgumentError(
            "labels",
            f"expected a run of db3kd label, got the pseudo samples in {folder}; read them in "
            f"Python: db3kd.load_pseudo_samples({str(folder)!r})",
        )
    return folder


def _notes(run: "LabelRun", folder: Path, *, with_curve: bool) -> list[str]:
    from db3kd.labelling.runs.totals import add_up
    from db3kd.querying.consistency import describe_checks
    from db3kd.storage.manifest import dates_of_run

    noun = input_noun(run.images.image_shape)
    totals = add_up(folder, run.manifest)
    notes = [
        f"{counted(totals.samples, 'sample')} labelled by {run.measure.upper()} "
        f"(teacher {run.teacher}): {totals.statuses_text}.",
        f"{counted(totals.queries, 'query')}, {totals.queries_per_sample:,.1f} per sample.",
        f"Run: {dates_of_run(run.manifest)}.",
    ]
    if more := totals.unlabelled_queries:
        notes.append(
            f"{counted(more, 'more query')}: decisions for {noun}s that are starting points and "
            "were not labelled."
        )
    explained = {
        "not searched": f" No {noun} of the class is near the sample. Neither the mean nor the "
        "plot of distances between classes includes estimates.",
        "contradictory": " The distance of such a sample is 0, and its soft label divides the "
        "probability equally between these classes.",
    }
    for title, text in totals.describe(run.class_names, noun).items():
        notes.append(f"{title.capitalize()}: {text}.{explained.get(title, '')}")
    if totals.mean_distance is not None:
        notes.append(
            "A measured distance (L2, input units) is an upper bound of the true one, and falls "
            "with further queries."
        )
        if not with_curve and run.measure != "sd":
            notes.append(
                "How the distances fall with the queries is not shown, because the run measured "
                "them only at its end; db3kd label --snapshots 10,100 measures them earlier too."
            )
    if described := surrogate_text(run.manifest, noun):
        notes.append(f"Surrogate of the run: {described}.")
    if checked := describe_checks(run.manifest):
        queries = counted(totals.check_queries, "more query")
        notes.append(f"Consistency checks: {queries}; {checked}.")
    return notes


def _curves(run: "LabelRun") -> dict[str, tuple[list[float], list[float]]]:
    """Returns distances against queries; empty if they are known for one number of queries only."""
    from db3kd.labelling.runs.totals import distance_against_queries

    queries, distances = distance_against_queries(run.labels)
    return {run.measure.upper(): (queries, distances)} if len(queries) > 1 else {}
