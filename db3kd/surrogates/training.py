"""Surrogates: networks that are trained on a teacher's decisions to predict its boundaries.

A surrogate is trained on augmented images, because clean samples rarely lie near a boundary.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from db3kd.arguments.plain import check_flag, check_out, check_type
from db3kd.data.arguments import ImagesLike, TeacherLike, as_images, as_teacher
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import (
    ImageSource,
    ImagesWithPoints,
    SelectedImages,
    TensorImages,
    fingerprint_in_run,
)
from db3kd.data.table_rows import projection_of
from db3kd.errors import ArgumentTypeError
from db3kd.models.ensemble import Ensemble
from db3kd.models.networks import build_model
from db3kd.progress import Progress, ProgressListener, check_progress, listening
from db3kd.querying.kept_answers import noting_kept_answers
from db3kd.querying.sent_queries import counting
from db3kd.querying.single_process import check_single_process
from db3kd.storage.changed_teachers import check_accepts_teacher
from db3kd.storage.existing_runs import check_resumable, data_of_run
from db3kd.storage.manifest import make_manifest
from db3kd.surrogates.augmented_decisions import (
    AUGMENTED_DECISIONS,
    AugmentedDecisions,
    rows_with_clean_share,
)
from db3kd.surrogates.boundary_points import BoundaryPoints
from db3kd.surrogates.queries import (
    augment_samples,
    decide_augmented,
    decide_augmented_in_folder,
    query_settings,
)
from db3kd.surrogates.settings import SurrogateSettings, TrainedSurrogate
from db3kd.tables import Features
from db3kd.teachers import describe
from db3kd.teachers.rescaled import check_scaled, takes_unit_images
from db3kd.training.evaluation import agreement
from db3kd.training.student import train_classifier


def make_surrogate(
    teacher: TeacherLike,
    images: ImagesLike,
    settings: SurrogateSettings | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: ProgressListener | bool = True,
    rare_classes: bool = False,
    accept_changed_teacher: bool = False,
) -> TrainedSurrogate:
    """Asks a teacher about augmented images, and trains a network on its decisions.

    Equal arguments give equal weights.

    Example:
        >>> surrogate = db3kd.make_surrogate(teacher, images, out="runs/answers")
        >>> labels = db3kd.label(teacher, images, surrogate=surrogate.network)

    Args:
        teacher: A teacher, or a torch module.
        images: N ≥ 2 images of the teacher's shape [C, H, W], or encoded rows of a table [D], in
            [0, 1]. The cost is exactly `N · settings.queries_per_sample` queries. If the teacher or
            the image set has features, only valid rows are queried.
        settings: `SurrogateSettings()` by default.
        out: A run folder that keeps each answer, so that none is paid for again after an error, an
            interrupt or a change of network.
        resume: Whether to continue the run in `out`; an empty folder begins it. The teacher, the
            images and the settings must be the same.
        progress: True shows the queries and then the training steps on standard error; False shows
            nothing; a listener receives their counts (docs/guide.md, "Progress").
        rare_classes: Whether to query all images even if the first 1,000 answers are all in one
            class.
        accept_changed_teacher: Whether the run in `out` keeps its answers and continues even if
            the teacher has another fingerprint. True needs `resume`.

    Returns:
        The network and its agreement with the teacher.

    Raises:
        ValueError: If images, bounds or model do not fit the teacher, if `out` holds another run,
            or if a launcher started several processes.
        FileExistsError: If `out` is not empty and `resume` is False.
        FileNotFoundError: If `out` does not exist and `resume` is True.
        TeacherError: If the teacher fails, or puts all images in one class.
    """
    check_single_process()
    check_flag(resume, "resume")
    check_flag(rare_classes, "rare_classes")
    check_progress(progress)
    check_accepts_teacher(accept_changed_teacher, resume)
    check_out(out, resume)
    if out is not None:
        check_resumable(out, resume, AUGMENTED_DECISIONS.format)
    settings = SurrogateSettings() if settings is None else settings
    check_type(settings, SurrogateSettings, "settings", "SurrogateSettings")
    checked = as_images(images, teacher=teacher)
    if not isinstance(checked, ImageSet | TensorImages):
        raise ArgumentTypeError(
            "images", f"expected an ImageSet or tensor, got {type(checked).__name__}"
        )
    teacher = as_teacher(teacher, checked)
    if isinstance(checked, TensorImages):
        check_scaled(checked.tensor, teacher)
    else:
        teacher = takes_unit_images(teacher)
    image_shape = tuple(teacher.image_shape)
    settings.check_trainable(image_shape, teacher.classes)
    augmented = augment_samples(checked, settings, projection_of(teacher, checked))
    if out is None:
        with counting() as sent:  # an error in the training loses the answers too
            decided = decide_augmented(
                teacher, augmented, progress=progress, rare_classes=rare_classes, sent=sent
            )
            return train_surrogate(decided, teacher.classes, settings, progress)
    with noting_kept_answers(out):
        fingerprint = checked.fingerprint()
        if resume:
            fingerprint = fingerprint_in_run(checked, fingerprint, data_of_run(out))
        features = Features.of(checked)
        encoded_by = {} if features is None else {"features": features.fingerprint()}
        described = make_manifest(
            {
                "source": {"data": checked.name, **encoded_by},
                "limit": None,
                "teacher": describe(teacher),
                **query_settings(settings),
            },
            seed=settings.training.seed,
            teacher_fingerprint=teacher.fingerprint(),
            classes=teacher.classes,
            data_fingerprint=fingerprint,
        )
        decided = decide_augmented_in_folder(
            Path(out),
            described,
            teacher,
            augmented,
            resume,
            rare_classes,
            accept_changed_teacher,
            progress=progress,
        )
        return train_surrogate(decided, teacher.classes, settings, progress)


def train_surrogate(
    augmented: AugmentedDecisions,
    classes: int,
    settings: SurrogateSettings,
    progress: ProgressListener | bool = False,
    points: BoundaryPoints | None = None,
) -> TrainedSurrogate:
    """Trains networks on decisions, and measures the surrogate on the held-out samples.

    Args:
        augmented: Images and their decisions. Samples that are not partners are held out.
        classes: The teacher's number of classes.
        settings: The networks and their training. Network k has the training's seed + k.
        progress: See `train_batches`; a listener receives the steps of all networks.
        points: Points near boundaries to train on too. They are then at least about half of the
            training rows.
    """
    images, decisions = augmented.images, augmented.decisions
    source: ImageSource = images
    model = settings.model_for(images.image_shape)
    make = partial(build_model, model, images.image_shape, classes)
    rows = rows_with_clean_share(images, settings.clean_share)
    first_held_out = images.partners * images.queries_per_sample
    rows = rows[rows < first_held_out]
    if points is not None and len(points):
        more = torch.arange(len(images), len(images) + len(points))
        rows = torch.cat([rows, more.repeat(max(1, round(len(rows) / len(points))))])
        source = ImagesWithPoints(images, points.images)
        decisions = torch.cat([decisions, points.decisions])
    title = "training the surrogate"
    with listening(
        progress, lambda: Progress(settings.steps, title=title, unit="steps")
    ) as listener:
        networks = [
            train_classifier(
                make,
                source,
                decisions,
                settings=replace(settings.training, seed=settings.training.seed + number),
                rows=rows,
                progress=_LaterSteps(listener, number * (settings.steps // settings.networks)),
            )
            for number in range(settings.networks)
        ]
    network = networks[0] if len(networks) == 1 else Ensemble(networks).eval()
    share = None
    if first_held_out < len(images):
        held_out = SelectedImages(images, torch.arange(first_held_out, len(images)))
        share = agreement(network, held_out, augmented.decisions[first_held_out:])
    spent = len(images) + (0 if points is None else len(points))
    return TrainedSurrogate(network, share, spent, len(images) - first_held_out)


class _LaterSteps:
    """Receives the steps of one network, and reports them with those of the networks before it."""

    def __init__(self, listener: ProgressListener, before: int) -> None:
        self._listener, self._before = listener, before

    def update(self, *, samples: int | None = None, **_: object) -> None:
        self._listener.update(samples=self._before + (samples or 0))
