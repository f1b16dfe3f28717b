"""Runs of pseudo samples in a run folder."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from db3kd.data.pseudo_samples import PSEUDO_SAMPLES, checked_shard, to_table
from db3kd.progress import Progress, ProgressListener, listening
from db3kd.querying.kept_answers import noting_kept_answers
from db3kd.querying.single_process import check_single_process
from db3kd.storage.changed_teachers import check_accepts_teacher, compare_or_accept_teacher
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.existing_runs import check_output
from db3kd.storage.manifest import CLASS_NAMES, is_finished, make_manifest, read_manifest
from db3kd.storage.run_comparison import ExpectedRun
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.run_journals import journaled_answers
from db3kd.storage.run_queries import RunQueries
from db3kd.storage.shards import read_shards
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.synthesis.synthesis import Synthesis, sample_display
from db3kd.teachers import Teacher, describe
from db3kd.teachers.base import class_names_of
from db3kd.wording import counted


@dataclass
class SynthesisTotals:
    """Counts and means over a run of pseudo samples.

    Attributes:
        samples: Number of pseudo samples.
        queries: All queries.
        start_queries: Queries that were spent on finding images of every class.
        found: Images found per class, kept or not.
        kept: Samples per class.
        statuses: Samples per status.
        mean_moves: Mean number of moves of a sample.
        mean_distance: Mean distance to the boundary (L2, input units) over the samples for which it
            is known; None if there are none.
    """

    samples: int = 0
    queries: int = 0
    start_queries: int = 0
    found: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    mean_moves: float = 0.0
    mean_distance: float | None = None

    def __repr__(self) -> str:
        statuses = ", ".join(f"{count:,} {status}" for status, count in self.statuses.items())
        classes = f"{len(self.found) - len(self.unreached)} of {len(self.found)} classes reached"
        return (
            f"SynthesisTotals({counted(self.samples, 'sample')} ({statuses or 'none'}), {classes}, "
            f"{counted(self.queries, 'query')})"
        )

    @property
    def unreached(self) -> list[int]:
        """Classes for which no image was found."""
        return [c for c, count in enumerate(self.found) if not count]


def write_samples(
    teacher: Teacher,
    settings: SynthesisSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: ProgressListener | bool = True,
    accept_changed_teacher: bool = False,
) -> SynthesisTotals:
    """Makes pseudo samples in a run folder, one shard at a time.

    Paid answers are kept after an error; a run folder without any is removed.

    Args:
        teacher: The teacher.
        settings: How samples are made.
        folder: The run folder.
        resume: See `synthesize`.
        progress: See `synthesize`.
        accept_changed_teacher: See `synthesize`.

    Raises:
        FileExistsError, FileNotFoundError, ValueError, TeacherError, OSError: See `synthesize`.
    """
    check_single_process()
    check_accepts_teacher(accept_changed_teacher, resume)
    check_output(folder, resume, PSEUDO_SAMPLES.format)
    expected = expected_samples(folder, teacher, settings)
    if accept_changed_teacher:
        compare_or_accept_teacher([expected], accept_changed_teacher=True)
    opened = RunFolder.open(folder, PSEUDO_SAMPLES, expected.manifest, resume=resume)
    with noting_kept_answers(folder), opened as run:
        if not run.verify_finished():
            run.finish(vars(_write_shards(run, teacher, settings, progress)))
        ChoiceLog(run.path).empty()
        return SynthesisTotals(**run.manifest["totals"])


def expected_samples(
    folder: str | Path, teacher: Teacher, settings: SynthesisSettings
) -> ExpectedRun:
    """Returns the run that `write_samples` makes or continues with these arguments."""
    names = class_names_of(teacher)
    manifest = make_manifest(
        {
            "teacher": describe(teacher),
            "image_shape": tuple(teacher.image_shape),
            "bounds": tuple(teacher.bounds),
            "synthesis": settings,
            "samples_per_shard": settings.samples_per_shard,
            **({} if names is None else {CLASS_NAMES: names}),
        },
        seed=settings.seed,
        teacher_fingerprint=teacher.fingerprint(),
        classes=teacher.classes,
        data_fingerprint=None,
    )
    return ExpectedRun(Path(folder), PSEUDO_SAMPLES, manifest)


def queries_of_sample_run(folder: Path) -> RunQueries:
    """Counts the queries of a run of pseudo samples; none without a run."""
    shards = read_shards(folder, PSEUDO_SAMPLES, missing_ok=True)
    moves = sum(sum(table.column("queries").to_pylist()) for _, table in shards)
    answered = moves + journaled_answers(folder)  # the journal of the starts is kept
    # Shards may have been removed after the end of the run.
    ended = is_finished(folder) and answered >= int(read_manifest(folder)["totals"]["queries"])
    return RunQueries(answered, finished=ended)


def _write_shards(
    run: RunFolder,
    teacher: Teacher,
    settings: SynthesisSettings,
    progress: ProgressListener | bool,
) -> SynthesisTotals:
    before = _add_up(run, [], 0, teacher.classes) if run.has_shards else SynthesisTotals()

    def display() -> Progress:
        return sample_display(
            settings,
            samples_before=before.samples if settings.moves.count else 0,  # else: those for starts
            queries_before=before.queries,  # queries for starts are counted when they are replayed
        )

    with listening(progress, display) as listener:
        synthesis = Synthesis(teacher, settings, progress=listener, folder=run)
        for position, chunk in synthesis.chunks():
            run.write_shard(position, to_table(chunk))
    collected = synthesis.collected
    if collected is None:
        raise RuntimeError("the samples were not collected; please report this")
    return _add_up(run, collected.found.tolist(), collected.queries, teacher.classes)


def _add_up(run: RunFolder, found: list[int], start_queries: int, classes: int) -> SynthesisTotals:
    """Returns the totals of the committed shards, which do not depend on stops."""
    totals = SynthesisTotals(
        start_queries=start_queries, queries=start_queries, found=found, kept=[0] * classes
    )
    settings = run.manifest["settings"]
    shape, bounds = tuple(settings["image_shape"]), tuple(settings["bounds"])
    moves, distance, known = 0, 0.0, 0
    for position, table in read_shards(run.path, PSEUDO_SAMPLES):
        part = checked_shard(run.path, position, table, shape, bounds, classes)
        totals.samples += len(part)
        totals.queries += int(part.queries.sum())
        kept = torch.bincount(part.decision, minlength=classes).tolist()
        totals.kept = [a + b for a, b in zip(totals.kept, kept, strict=True)]
        for status in part.status:
            totals.statuses[status] = totals.statuses.get(status, 0) + 1
        moves += int(part.moves.sum())
        finite = part.distance[part.distance.isfinite()].double()
        distance, known = distance + finite.sum().item(), known + len(finite)
    totals.mean_moves = moves / max(1, totals.samples)
    totals.mean_distance = distance / known if known else None
    return totals
