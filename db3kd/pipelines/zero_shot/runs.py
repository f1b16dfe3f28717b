"""The runs that a zero-shot run finds in its subfolders when it is resumed."""

from collections.abc import Iterator
from pathlib import Path

from db3kd.data.image_set import ImageSet
from db3kd.data.pseudo_samples import PSEUDO_SAMPLES
from db3kd.labelling.planned_run import plan_source_run
from db3kd.pipelines.run_layout import LABELS_FOLDER, SAMPLES_FOLDER
from db3kd.pipelines.stored_decisions import expected_decisions
from db3kd.pipelines.zero_shot.settings import ZeroShotSettings
from db3kd.pipelines.zero_shot.students import DECISION_FOLDERS, baseline_images
from db3kd.pipelines.zero_shot.transfer_set import samples_source
from db3kd.storage.existing_runs import holds_run
from db3kd.storage.manifest import is_finished, read_manifest
from db3kd.storage.run_comparison import ExpectedRun
from db3kd.storage.shards import read_shards
from db3kd.synthesis.sample_run import expected_samples
from db3kd.teachers import Teacher


def expected_runs(
    teacher: Teacher,
    out: Path,
    settings: ZeroShotSettings,
    test: ImageSet | None = None,
    real: ImageSet | None = None,
) -> Iterator[ExpectedRun]:
    """Yields the runs that a resumed zero-shot run may find in the subfolders of `out`.

    All other runs follow from the pseudo samples, so they are yielded only if these are complete.

    Args:
        teacher: Takes images in [0, 1].
        out: The folder of the zero-shot run.
        settings: See `run_zero_shot`.
        test: See `train_students`.
        real: See `train_students`.
    """
    folder = out / SAMPLES_FOLDER
    yield expected_samples(folder, teacher, settings.synthesis)
    count = _complete_samples(folder)
    if count is None:
        return
    labels = out / LABELS_FOLDER
    if settings.labelling is not None and holds_run(labels):
        source = samples_source(out)
        yield plan_source_run(labels, teacher, source, settings.labelling, resume=True).expected
    folders = {title: out / name for title, name in DECISION_FOLDERS.items()}
    if not any(map(holds_run, folders.values())):
        return
    decided = baseline_images(teacher, count, settings.synthesis.seed, real)
    if test is not None:
        decided["test images"] = test
    for title, images in decided.items():
        if holds_run(folders[title]):
            yield expected_decisions(folders[title], teacher, images)


def _complete_samples(folder: Path) -> int | None:
    """Returns the number of pseudo samples in a folder; None if it lacks some."""
    if not is_finished(folder):
        return None
    count = sum(len(table) for _, table in read_shards(folder, PSEUDO_SAMPLES, missing_ok=True))
    return count if count == read_manifest(folder)["totals"]["samples"] else None
