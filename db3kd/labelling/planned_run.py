"""A label run before its first query: its images, its settings and what identifies it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from db3kd.data.class_names import matched
from db3kd.data.image_set import ImageSet
from db3kd.labelling.budgets import divide_budget
from db3kd.labelling.check_results import queries_of_checks
from db3kd.labelling.chunk_search import surrogate_for
from db3kd.labelling.consistency import allowed_checks
from db3kd.labelling.image_decisions import DecisionOrder
from db3kd.labelling.labels import LABELS
from db3kd.labelling.run_identity import (
    decision_order_of,
    label_manifest,
    run_images,
    samples_per_shard,
)
from db3kd.labelling.run_surrogate import RunSurrogate, SurrogatePlanner, plan_surrogate
from db3kd.labelling.sample_choice import draw_samples
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.soft_labels import SoftLabelSettings
from db3kd.labelling.source import Source
from db3kd.labelling.totals import answered_in_label_folder, totals_of_shards
from db3kd.storage.manifest import is_finished
from db3kd.storage.run_comparison import compare_with_run
from db3kd.storage.run_images import RunImages
from db3kd.teachers import Teacher
from db3kd.teachers.rescaled import takes_unit_images


@dataclass(frozen=True)
class PlannedRun:
    """What `write_run` carries out; made by `plan_run`.

    Attributes:
        teacher: The teacher, which takes images in [0, 1].
        images: The images to label, in the teacher's numbering of the classes.
        source_index: `[N] int64`, the index of each of them in the source.
        known: Digests of the images, to detect later changes.
        settings: How they are labelled, with the budget that remains after surrogate and checks.
        surrogate: The surrogate of the run.
        checks_budget: Maximum number of queries of consistency checks.
        samples_per_shard: The number of samples in a shard.
        decision_order: The order of the decisions, and whether a single class stops the run.
        manifest: What identifies the run.
    """

    teacher: Teacher
    images: ImageSet
    source_index: Tensor
    known: RunImages
    settings: LabelSettings
    surrogate: RunSurrogate
    checks_budget: int
    samples_per_shard: int
    decision_order: DecisionOrder
    manifest: dict[str, Any]

    def count_queries(self, folder: Path) -> "RunQueries":
        """Counts the queries of the run in a folder, which it continues.

        The teacher is not asked.

        Args:
            folder: The run folder.

        Raises:
            FileNotFoundError: If the folder holds no run.
            ValueError: If the folder holds another run.
        """
        stored = compare_with_run(folder, LABELS, self.manifest, self.known).stored
        totals = totals_of_shards(folder)
        limits = divide_budget(self.settings, len(self.images), self.teacher.classes)
        size = self.samples_per_shard
        allowed = sum(int(limits[start : start + size].sum()) for start in LABELS.shards(folder))
        return RunQueries(
            answered=answered_in_label_folder(folder, totals) + queries_of_checks(stored),
            unused=allowed - totals.queries,
            # Shards may have been removed after the end of the run.
            finished=is_finished(folder) and totals.samples == len(self.images),
        )


@dataclass(frozen=True)
class RunQueries:
    """The queries of a run that is continued.

    Attributes:
        answered: How many are answered. A call of `write_run` with `resume=True` does not ask them
            again.
        unused: The unused part of the limits of finished samples. It is not spent on other samples,
            so it lowers the maximum of the run.
        finished: Whether nothing is left to do.
    """

    answered: int = 0
    unused: int = 0
    finished: bool = False


def plan_run(
    folder: str | Path,
    teacher: Teacher,
    source: Source,
    settings: LabelSettings,
    *,
    images: ImageSet | None = None,
    limit: int | None = None,
    soft_labels: SoftLabelSettings | None = None,
    surrogate: nn.Module | SurrogatePlanner | None = None,
    resume: bool = False,
    consistency_checks: int = 0,
    rare_classes: bool = False,
) -> PlannedRun:
    """Checks the arguments of `write_run`, and writes nothing.

    Args:
        folder: See `write_run`.
        teacher: See `write_run`.
        source: See `write_run`.
        settings: See `write_run`.
        images: See `write_run`.
        limit: See `write_run`.
        soft_labels: See `write_run`.
        surrogate: See `write_run`.
        resume: See `write_run`.
        consistency_checks: See `RunExecution`.
        rare_classes: See `RunExecution`.

    Raises:
        ValueError: If the images do not fit the teacher, or a setting or the surrogate does not.
    """
    images = source.load() if images is None else images
    teacher = takes_unit_images(teacher)
    budget = settings.queries
    checks_budget = allowed_checks(consistency_checks, budget)
    if budget is not None:
        settings = replace(settings, queries=budget - checks_budget)
    rows = draw_samples(len(images), limit, settings.seed)
    chosen = images.subset(rows)
    renumbered = matched(chosen, teacher)
    check = not (resume and is_finished(folder))
    order = decision_order_of(folder, resume=resume, rare_classes=rare_classes)
    known = run_images(chosen, settings, teacher.classes, order, check=check)
    run_surrogate = plan_surrogate(surrogate, teacher, len(chosen), settings)
    settings = run_surrogate.settings
    surrogate_for(teacher, settings, run_surrogate.network)  # raises before the folder is made
    per_shard = samples_per_shard(folder, resume, teacher, settings)
    manifest = label_manifest(
        teacher,
        renumbered,
        settings,
        source=source,
        limit=limit,
        soft_labels=soft_labels,
        samples_per_shard=per_shard,
        order=order,
        data_fingerprint=known.digests.fingerprint,
        budget=budget,
        consistency_checks=checks_budget,
        surrogate=run_surrogate.manifest_entry,
    )
    return PlannedRun(
        teacher=teacher,
        images=renumbered,
        source_index=rows,
        known=known,
        settings=settings,
        surrogate=run_surrogate,
        checks_budget=checks_budget,
        samples_per_shard=per_shard,
        decision_order=order,
        manifest=manifest,
    )
