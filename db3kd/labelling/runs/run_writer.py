"""Writes a label run: labels a data set into a folder, one shard at a time."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace

import torch

from db3kd.labelling.label_job import LabelJob
from db3kd.labelling.runs.planned_run import PlannedRun
from db3kd.labelling.runs.totals import Totals, add_up
from db3kd.labelling.workers.ray_cluster import Workers
from db3kd.labelling.workers.worker_pool import RayWorkerPool, start_workers
from db3kd.labels.labels import LABELS, to_table
from db3kd.labels.soft_labels import with_soft_labels
from db3kd.progress import ProgressListener
from db3kd.querying.consistency import ConsistencyCheck
from db3kd.querying.kept_answers import noting_kept_answers
from db3kd.storage.changed_teachers import compare_or_accept_teacher
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.source_numbers import keep_numbers, stored_numbers


def carry_out(planned: PlannedRun, progress: ProgressListener | bool = True) -> Totals:
    """Opens the folder of a planned run, and labels what is missing in it, a shard at a time.

    Each answer is on disk before the teacher is called again. If the process is killed, at most one
    call of the teacher (for a served teacher, its requests in flight) per concurrent chunk is paid
    for twice; after a power cut, also the answers of the last second and batch.
    `db3kd.storage.manifest.queries_in_flight` counts them. A finished run sends no query.

    Example:
        >>> source, settings = Source("digits"), LabelSettings(queries=100_000)
        >>> totals = carry_out(plan_source_run("runs/mine", teacher, source, settings))

    Args:
        planned: The run, from `plan_source_run`.
        progress: A listener that receives the counts; True for a display; False for nothing.

    Returns:
        The totals of the run, as its manifest has them. Labels and totals of a resumed run are
        those of a run without a stop.

    Raises:
        FileExistsError: If the folder is in use.
        ValueError: If the folder holds another run.
        TeacherError: If the teacher fails, or puts all images, or the first 1,000, in one class;
            as a `TeacherChangedError`, if answers have changed. Paid answers are kept; a folder
            without any is removed.
        ChildProcessError: If a shard keeps killing workers.
        OSError: If the disk fails.
    """
    with noting_kept_answers(planned.folder):
        return _carry_out(planned, progress)


def _carry_out(planned: PlannedRun, progress: ProgressListener | bool) -> Totals:
    job, execution = planned.job, planned.execution
    if execution.accept_changed_teacher:
        compare_or_accept_teacher([planned.expected], accept_changed_teacher=True)
    with RunFolder.open(planned.folder, LABELS, planned.manifest, resume=planned.resume) as run:
        if run.verify_finished():
            return add_up(run.path, run.manifest)
        before = add_up(run.path, run.manifest)
        _check_teacher(run, planned, before)
        if planned.surrogate is not None:
            network = planned.surrogate.train_or_load(run, job, progress=progress)
            job = job.with_surrogate(network)
        with _pool(execution.workers, run, job) as pool:
            _write_shards(run, replace(job, pool=pool), planned, progress, before)
        totals = add_up(run.path, run.manifest)
        run.finish(vars(totals))
    return totals


def _check_teacher(run: RunFolder, planned: PlannedRun, before: Totals) -> None:
    """Repeats known queries of a run before it continues, if that was asked for."""
    job, execution, checks = planned.job, planned.execution, planned.execution.consistency_checks
    if checks and not planned.queries_in(before).left(planned.max_queries):
        checks = 0
    check = ConsistencyCheck(checks, execution.accept_changed_teacher)
    check.repeat(run, job.teacher, job.images.read, *planned.known_decisions())


def _pool(
    workers: Workers | None, run: RunFolder, job: LabelJob
) -> AbstractContextManager[RayWorkerPool | None]:
    if workers is None:
        return nullcontext()
    return start_workers(workers, run, job.teacher, job.images, job.settings, job.network)


def _write_shards(
    run: RunFolder,
    job: LabelJob,
    planned: PlannedRun,
    progress: ProgressListener | bool,
    before: Totals,
) -> None:
    """Labels the chunks that the run has no shard of, and commits their shards."""
    soft_labels, numbers = planned.soft_labels, planned.origin.index
    if numbers is None:
        numbers = torch.arange(len(job.images))
    if planned.origin.keeps_index or stored_numbers(run.path) is not None:
        numbers = torch.from_numpy(keep_numbers(run, numbers.numpy()))
    with job.shown(progress, before) as listener:
        for position, chunk in job.run(run, listener):
            chunk = replace(chunk, index=numbers[chunk.index])
            if soft_labels is not None:
                chunk = with_soft_labels(chunk, **asdict(soft_labels))
            run.write_shard(position, to_table(chunk))
