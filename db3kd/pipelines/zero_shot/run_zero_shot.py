"""The zero-shot pipeline: from a teacher to pseudo samples, labels, students and a report."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from db3kd.argument_types import check_type
from db3kd.data.arguments import TeacherLike
from db3kd.data.loading import load_data
from db3kd.labelling.budgets import divide_budget
from db3kd.models.networks import check_model
from db3kd.pipelines.inputs import check_test
from db3kd.pipelines.stored_decisions import DECISIONS
from db3kd.pipelines.zero_shot.runs import expected_runs
from db3kd.pipelines.zero_shot.settings import ZeroShotSettings
from db3kd.pipelines.zero_shot.students import DECISION_FOLDERS, SAMPLES_CURVE, train_students
from db3kd.pipelines.zero_shot.transfer_set import (
    TransferSet,
    check_zero_shot,
    check_zero_shot_folder,
    make_transfer_set,
)
from db3kd.report import ZeroShotRow, write_zero_shot_report
from db3kd.report.extras import check_report_packages
from db3kd.storage.changed_teachers import check_accepts_teacher, compare_or_accept_teacher
from db3kd.storage.existing_runs import holds_run
from db3kd.storage.manifest import read_manifest
from db3kd.synthesis.sample_run import SynthesisTotals
from db3kd.teachers import Teacher
from db3kd.wording import counted


@dataclass(frozen=True, repr=False)
class ZeroShotResult:
    """What a zero-shot run returns.

    Attributes:
        totals: The totals of the run that made the pseudo samples.
        rows: The students, one row per transfer set; none without test images.
        report: The path of report.md.
        queries: All queries of the run, including those about labels, baselines and test images.
    """

    totals: SynthesisTotals
    rows: list[ZeroShotRow]
    report: Path
    queries: int

    def __repr__(self) -> str:
        return (
            f"ZeroShotResult({counted(self.totals.samples, 'pseudo sample')}, "
            f"{counted(self.queries, 'query')}, {counted(len(self.rows), 'row')}; {self.report})"
        )


def run_zero_shot(
    teacher: TeacherLike,
    out: str | Path,
    settings: ZeroShotSettings,
    *,
    test: str | None = None,
    resume: bool = False,
    accept_changed_teacher: bool = False,
) -> ZeroShotResult:
    """Trains students with a teacher alone, and writes samples, labels, students and a report.

    Example:
        >>> settings = ZeroShotSettings(db3kd.SynthesisSettings.guided())
        >>> run_zero_shot(teacher, Path("runs/zero"), settings, test="mnist5k")

    Args:
        teacher: The teacher to ask.
        out: The folder to write to.
        settings: How samples, labels and students are made.
        test: Real images, as for `load_data`. Students are measured on the test split, and a
            baseline is trained on the train split. By default, students are not measured.
        resume: Whether to continue the run in `out`. No answer that it holds is asked for again;
            students are trained again.
        accept_changed_teacher: Whether the run keeps its answers and continues even if the teacher
            has another fingerprint. True needs `resume`.

    Returns:
        The totals, the students, the path of the report and the number of queries.

    Raises:
        ValueError: If the student or the test images do not fit the teacher, which is checked
            before the first query; if the run in `out` was measured on other images; or as for
            `make_transfer_set`.
        FileExistsError: If `out` holds anything else, or a zero-shot run and `resume` is false.
        TeacherError: As for `make_transfer_set`.
    """
    check_report_packages()
    teacher, out = check_zero_shot(teacher, out, settings, resume)
    check_zero_shot_folder(out, resume)
    check_accepts_teacher(accept_changed_teacher, resume)
    measured = [folder for folder in DECISION_FOLDERS.values() if holds_run(out / folder)]
    if test is None and measured:
        raise ValueError(
            f"test: expected the images that the run in {out} measures its students on, got None"
        )
    if test is not None:
        check_type(test, (str, os.PathLike), "test", "the name or path of images")
    check_model(settings.student, tuple(teacher.image_shape), teacher.classes, "student")
    real = (
        []
        if test is None
        else [check_test(load_data(test, split), teacher) for split in ("test", "train")]
    )
    if resume:
        compare_or_accept_teacher(
            expected_runs(teacher, out, settings, *real),
            accept_changed_teacher=accept_changed_teacher,
        )
    transfer = make_transfer_set(teacher, out, settings, resume=resume)
    rows = train_students(teacher, transfer, out, settings, *real)
    queries = _count_queries(transfer, out)
    report = write_zero_shot_report(
        out,
        rows,
        transfer.samples,
        curves=_curves(rows),
        notes=_notes(transfer, settings, queries),
    )
    return ZeroShotResult(transfer.totals, rows, report, sum(queries.values()))


def max_queries_of_parts(
    teacher: Teacher, settings: ZeroShotSettings, test: str | None = None
) -> dict[str, int | None]:
    """Returns the maximum number of queries of each part of a zero-shot run, without a query.

    Args:
        teacher: The teacher to ask.
        settings: How samples, labels and students are made.
        test: As for `run_zero_shot`.

    Returns:
        The numbers by the names that the report gives the parts; None for no maximum.
    """
    samples = settings.synthesis.samples
    found = {"pseudo samples": settings.synthesis.max_queries}
    if settings.labelling is not None:
        # A query for the class of each sample is part of its budget.
        limits = divide_budget(settings.labelling, samples, teacher.classes)
        found["their labels"] = int(limits.sum())
    if test is not None:
        found["plain noise"] = samples
        found["real images"] = min(samples, len(load_data(test, "train")))
        found["test images"] = len(load_data(test, "test"))
    return found


def _curves(rows: list[ZeroShotRow]) -> dict[str, list[ZeroShotRow]]:
    """Returns one curve over the number of pseudo samples, and one for each other row."""
    curves: dict[str, list[ZeroShotRow]] = {SAMPLES_CURVE: []} if rows else {}
    for row in rows:
        curves.setdefault(row.curve or row.name, []).append(row)
    return curves


def _count_queries(transfer: TransferSet, out: Path) -> dict[str, int]:
    """Returns the queries of each part of the run, including those of interrupted processes.

    Args:
        transfer: The transfer set.
        out: The folder of the run.
    """
    counts = {"pseudo samples": transfer.totals.queries}
    if transfer.label_run is not None:
        counts["their labels"] = transfer.label_run.manifest["totals"]["queries"]
    for title, folder in DECISION_FOLDERS.items():
        if holds_run(out / folder):
            counts[title] = read_manifest(out / folder, DECISIONS.format)["totals"]["queries"]
    return counts


def _notes(
    transfer: TransferSet, settings: ZeroShotSettings, queries: Mapping[str, int]
) -> list[str]:
    synthesis, totals, training = settings.synthesis, transfer.totals, settings.training
    count = synthesis.moves.count
    moves = f"up to {counted(count, 'move')} each" if count else "without moves"
    notes = [
        f"Made {counted(totals.samples, 'pseudo sample')} from {synthesis.starts} starts, {moves}, "
        f"with {counted(totals.queries, 'query')}. Samples by class: "
        f"{', '.join(map(str, totals.kept))}.",
        f"Students: {settings.student}, {counted(training.steps or 0, 'step')} of at most "
        f"{counted(training.batch_size, 'image')}, {training.optimizer} with a learning rate of "
        f"{training.rate:g} ({training.schedule}), {counted(settings.seeds, 'seed')}. "
        f"Samples of rare classes are trained on more often (balance {settings.balance:g}).",
        "Plain noise is the paper's distribution of starts, with one decision for each image. "
        "The table does not count queries about test images.",
        f"The whole run asked {counted(sum(queries.values()), 'query')}: "
        + ", ".join(f"{count:,} for {title}" for title, count in queries.items())
        + ".",
    ]
    if totals.unreached:
        names = transfer.samples.class_names
        missing = [str(number) if names is None else names[number] for number in totals.unreached]
        notes.append(f"No image was found for the classes {', '.join(missing)}.")
    return notes
