"""`db3kd report` and `db3kd demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.options import DATA_HELP, Seed, refuse_existing

if TYPE_CHECKING:
    from db3kd.labelling.label_run import LabelRun
    from db3kd.labelling.labels import Labels

SHOWN = 12
UNCHOSEN_MARGIN = 4.0
"""Margin, in logits, to which the median sample is drawn where no scale has been chosen."""


def report(
    labels: Annotated[Path, typer.Option("--labels", help="Folder that db3kd label wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder to write to.", show_default="_report in the run's folder"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help=f"Where the labelled images are, if elsewhere now. {DATA_HELP}"
        ),
    ] = None,
) -> None:
    """Write a label run as a page: totals, samples with soft labels, distances as pictures.

    Example:

        db3kd report --labels runs/bd
    """
    import torch

    from db3kd.labelling.label_run import open_run
    from db3kd.labelling.sample_choice import spread_over_classes
    from db3kd.report.tables import ClassDistances, Samples, write_report

    out = labels / "_report" if out is None else out
    refuse_existing(out)
    run = open_run(labels, data)
    shown, note = _with_shown_soft_labels(run)
    rows = spread_over_classes(shown.decision, SHOWN)
    page = write_report(
        out,
        [],
        title=f"Labels of {run.images.name}",
        notes=[*_notes(run), note],
        samples=Samples(run.images.read(rows), shown.soft_labels[rows], shown.decision[rows]),
        curves=_curves(run),
        class_distances=ClassDistances(
            shown.distances.masked_fill(~shown.targets, torch.inf), shown.decision
        ),
        class_names=run.class_names,
    )
    print(page)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to; must be new.")] = Path(
        "runs/demo"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny sizes, to see that everything works.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """From real images and a teacher's decisions to trained students, a table and pictures.

    Trains a teacher on mnist5k, labels a few of its images by each measure, trains students by each
    and by what soft labels are compared with. A few minutes on two cores, without a GPU.

    Example:

        db3kd demo --out runs/demo
    """
    from db3kd.pipelines.demo import DemoSettings, run_demo

    refuse_existing(out)
    run_demo(DemoSettings.quick(seed) if quick else DemoSettings(seed=seed), out)


def _notes(run: "LabelRun") -> list[str]:
    from db3kd.labelling.consistency import describe_checks
    from db3kd.labelling.totals import Totals

    totals = Totals()
    totals.add(run.labels)
    labelling = run.manifest["settings"]["labelling"]
    statuses = ", ".join(f"{count:,} {status}" for status, count in totals.statuses.most_common())
    notes = [
        f"{totals.samples:,} samples labelled by {labelling['measure'].upper()} "
        f"(teacher {run.manifest['settings']['teacher']}): {statuses}.",
        f"{totals.queries:,} queries, {totals.queries_per_sample:,.1f} a sample; "
        f"{totals.reached:,} of {totals.pairs:,} pairs of a sample and another class were reached.",
    ]
    if totals.estimated:
        notes.append(
            f"{totals.estimated:,} pairs were not searched: their classes have no image near the "
            "sample, and their distances are estimated. Means and the picture of distances between "
            "classes leave them out."
        )
    if totals.mean_distance is not None:
        notes.append(f"Mean distance {totals.mean_distance:.3f} (L2, input units).")
    if totals.statuses["contradictory"]:
        notes.append(
            f"{totals.statuses['contradictory']:,} samples are contradictory: the teacher put "
            "equal images in different classes, so it is noisy or was replaced. Their distance is "
            "0, and their soft labels count as each of these classes equally."
        )
    if checked := describe_checks(run.manifest):
        notes.append(f"Consistency: {checked}.")
    if totals.disagreements:
        notes.append(
            f"{totals.disagreements:,} of {totals.samples:,} samples are in another class for the "
            "teacher than in the data; labels follow the teacher's decision."
        )
    return notes


def _with_shown_soft_labels(run: "LabelRun") -> "tuple[Labels, str]":
    """Labels with soft labels to draw, and where those come from."""
    import torch

    from db3kd.distillation.scale import median_nearest_distance
    from db3kd.labelling.soft_labels import DEFAULT_TEMPERATURE, with_soft_labels
    from db3kd.querying.search import UNANSWERED

    stored = run.soft_label_settings
    if stored is not None:
        said = f", scale {stored.scale:.3g}" if stored.normalisation == "margin" else ""
        return run.labels, (
            f"The soft labels are the run's: {stored.normalisation}{said}, temperature "
            f"{stored.temperature:g}."
        )
    labels = run.labels
    nearest = torch.inf
    if len(labels.measured_distances):
        answered = labels.decision != UNANSWERED
        nearest = median_nearest_distance(labels.distances[answered], labels.decision[answered])
    drawn = with_soft_labels(
        labels,
        normalisation="margin",
        scale=UNCHOSEN_MARGIN / nearest if nearest < torch.inf else 1.0,
        temperature=DEFAULT_TEMPERATURE["margin"],
    )
    return drawn, (
        "The run holds no soft labels. Those drawn give the median sample a margin of "
        f"{UNCHOSEN_MARGIN:g} logits, at temperature {DEFAULT_TEMPERATURE['margin']:g}; distill "
        "chooses its own scale."
    )


def _curves(run: "LabelRun") -> dict[str, tuple[list[float], list[float]]]:
    from db3kd.labelling.totals import distance_against_queries

    queries, distances = distance_against_queries(run.labels)
    name = run.manifest["settings"]["labelling"]["measure"].upper()
    return {name: (queries, distances)} if max(queries) > 0 else {}
