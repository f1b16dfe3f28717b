"""The queries of a surrogate: augmented images, and the teacher's decisions for them.

The decisions can be kept in a run folder, because only they cost queries.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from db3kd.arguments.arrays import seeded_permutation
from db3kd.arguments.images import (
    UNIT_BOUNDS,
    check_images,
    check_shape_of_images,
    interval_text,
)
from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.data.augmented_images import AugmentedImages
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import ImageSource, SelectedImages, TensorImages
from db3kd.errors import ArgumentError
from db3kd.progress import Progress, ProgressListener, listening
from db3kd.progress.answers import count_answers_in
from db3kd.querying import sharded_decisions
from db3kd.querying.driver import decide_all
from db3kd.querying.sent_queries import SentQueries, counting
from db3kd.querying.session import AnswerJournal
from db3kd.storage.changed_teachers import check_accepts_teacher, compare_or_accept_teacher
from db3kd.storage.run_comparison import ExpectedRun
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.shards import read_shards
from db3kd.surrogates.augmented_decisions import (
    AUGMENTED_DECISIONS,
    AugmentedDecisions,
    read_decisions,
    to_table,
)
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.teachers import Teacher, describe
from db3kd.teachers.single_class import IF_RARE, check_classes_differ
from db3kd.wording import input_noun

HELD_OUT_SHARE = 0.05
"""Share of samples on which a surrogate is measured; at least one sample."""


def query_settings(settings: SurrogateSettings) -> dict[str, Any]:
    """Returns the manifest entries that determine the queries and the format of the answers."""
    return {
        "queries_per_sample": settings.queries_per_sample,
        "held_out_share": HELD_OUT_SHARE,
        "rows_per_shard": sharded_decisions.SHARD_ROWS,
    }


def augment_samples(
    images: ImagesLike,
    settings: SurrogateSettings,
    project: Callable[[Tensor], Tensor] | None = None,
) -> AugmentedImages:
    """Returns the augmented images that a surrogate is trained and measured on.

    The samples are shuffled, because a data set may be sorted by class. The last samples are held
    out: they are never partners, so no training image contains any part of them.

    Args:
        images: N ≥ 2 images [C, H, W] or rows [D], in [0, 1].
        settings: The surrogate settings. The training seed determines the order and the images.
        project: See `AugmentedImages`.

    Raises:
        ValueError: If there are fewer than 2 images.
    """
    source = as_image_source(images)
    count, seed = len(source), settings.training.seed
    if count < 2:
        raise ArgumentError(
            "images", f"expected at least 2, one to train on and one to hold out, got {count}"
        )
    order = seeded_permutation(count, seed)
    drawn: ImageSource = SelectedImages(source, order)
    # Checked in the order of the caller, so that an error names the caller's row.
    if isinstance(source, ImageSet):
        source.check()
        drawn = source.subset(order)  # keeps its features
    elif isinstance(source, TensorImages):
        check_images(source.tensor, source.image_shape, UNIT_BOUNDS)
    return augment_shuffled(drawn, settings, project)


def augment_shuffled(
    images: ImageSource,
    settings: SurrogateSettings,
    project: Callable[[Tensor], Tensor] | None,
) -> AugmentedImages:
    """Returns augmented images as `augment_samples`, of images that are in random order already."""
    held_out = max(1, round(len(images) * HELD_OUT_SHARE))
    return AugmentedImages(
        images,
        settings.queries_per_sample,
        settings.training.seed,
        partners=len(images) - held_out,
        project=project,
    )


def decide_augmented(
    teacher: Teacher,
    images: AugmentedImages,
    *,
    folder: RunFolder | None = None,
    progress: ProgressListener | bool = False,
    rare_classes: bool = False,
    sent: SentQueries | None = None,
) -> AugmentedDecisions:
    """Asks the teacher for the class of each image, at one query per image.

    Args:
        teacher: The teacher to query.
        images: Augmented images of the teacher's shape.
        folder: A run folder of kind `AUGMENTED_DECISIONS`. Each answer is written before the next
            call of the teacher, and images that already have an answer are not queried again.
        progress: See `db3kd.make_surrogate`.
        rare_classes: Whether to query all images even if the first 1,000 answers are all in one
            class.
        sent: See `decide_all`.

    Raises:
        ValueError: If the images do not fit the teacher.
        TeacherError: If the teacher fails, or puts all images in one class.
    """
    _check_fit(teacher, images)
    known: dict[int, Tensor] = {}
    if folder is not None and folder.has_shards:
        for position, table in read_shards(folder.path, AUGMENTED_DECISIONS):
            known[position] = read_decisions(folder.path, position, table, images, teacher.classes)
    advice = "" if folder is None else f". {IF_RARE}"  # without a folder, there is no run to resume
    before = sum(map(len, known.values()))

    def check_first(decisions: Tensor) -> None:
        if not rare_classes:
            _check_classes_differ(teacher, decisions, advice)

    def display() -> Progress:
        return Progress(
            len(images),
            len(images),
            title="querying the teacher",
            unit=f"augmented {input_noun(images.image_shape)}s",
            samples_before=before,
            queries_before=before,
        )

    with counting(sent) as counter, listening(progress, display) as listener:
        decisions = sharded_decisions.decide_in_shards(
            teacher,
            images.read,
            torch.arange(len(images)),
            folder,
            stored=lambda position, _: known.get(position),
            to_table=partial(to_table, images),
            on_answers=count_answers_in(listener),
            check=check_first,
            check_all_shards=False,
            sent=counter,
        )
        _check_classes_differ(teacher, decisions)
    return AugmentedDecisions(images, decisions)


def decide_versions(
    teacher: Teacher,
    images: AugmentedImages,
    clean: Tensor,
    journal: AnswerJournal,
    on_answers: Callable[[int], None] | None = None,
) -> AugmentedDecisions:
    """Asks the teacher about augmented images of samples whose classes are known.

    Args:
        teacher: The teacher to query.
        images: Augmented images of the teacher's shape.
        clean: [images.samples] int64, the classes of the samples themselves.
        journal: Keeps the answers, and supplies those that it has.
        on_answers: Called with the number of new answers after each batch.

    Raises:
        ValueError: If the images do not fit the teacher.
        TeacherError: If the teacher fails.
    """
    _check_fit(teacher, images)
    decisions = clean.repeat_interleave(images.queries_per_sample)
    rows = torch.arange(len(images))
    rows = rows[rows % images.queries_per_sample > 0]
    decisions[rows] = decide_all(teacher, images.read, rows, on_answers=on_answers, journal=journal)
    return AugmentedDecisions(images, decisions)


def decide_augmented_in_folder(
    path: Path,
    described: Mapping[str, Any],
    teacher: Teacher,
    images: AugmentedImages,
    resume: bool,
    rare_classes: bool = False,
    accept_changed_teacher: bool = False,
    *,
    progress: ProgressListener | bool,
) -> AugmentedDecisions:
    """Does what `decide_augmented` does, in the run folder `path`.

    `described` is the manifest of the run. `resume` continues a run with an equal one, or, with
    `accept_changed_teacher`, of a teacher with another fingerprint. The other arguments are those
    of `decide_augmented`.

    Raises:
        FileExistsError: If the folder is not empty and `resume` is False.
        ValueError: If the folder holds another run, or if the images do not fit the teacher.
        TeacherError: See `decide_augmented`.
    """
    check_accepts_teacher(accept_changed_teacher, resume)
    if accept_changed_teacher:
        expected = ExpectedRun(path, AUGMENTED_DECISIONS, described)
        compare_or_accept_teacher([expected], accept_changed_teacher=True)
    with RunFolder.open(path, AUGMENTED_DECISIONS, dict(described), resume=resume) as folder:
        if folder.verify_finished():
            return decide_augmented(teacher, images, folder=folder)
        decided = decide_augmented(
            teacher, images, folder=folder, progress=progress, rare_classes=rare_classes
        )
        folder.finish({"samples": len(images), "queries": len(images)})
    return decided


def _check_classes_differ(teacher: Teacher, decisions: Tensor, advice: str = "") -> None:
    check_classes_differ(
        teacher,
        decisions,
        f"augmented {input_noun(teacher.image_shape)}s",
        f"without a boundary, a surrogate has nothing to learn{advice}",
    )


def _check_fit(teacher: Teacher, images: AugmentedImages) -> None:
    noun = input_noun(images.image_shape)
    check_shape_of_images(
        images.image_shape,
        teacher.image_shape,
        f"the augmented {noun}s",
        reading=images.reading,
    )
    lower, upper = teacher.bounds
    if lower > 0 or upper < 1:
        raise ArgumentError(
            "teacher",
            f"expected bounds that contain [0, 1], the range of augmented {noun}s, got "
            f"{interval_text(teacher.bounds)} of {describe(teacher)}",
        )
