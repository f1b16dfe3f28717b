"""Trains students on labels, and classifiers on classes."""

import logging
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.arguments.arrays import IntegersLike
from db3kd.arguments.plain import check_choice, check_type
from db3kd.data.arguments import ImagesLike, as_image_source, with_labels
from db3kd.labels.image_numbers import check_labelled
from db3kd.labels.labels import Labels
from db3kd.labels.soft_labels import check_soft_labels
from db3kd.progress import ProgressListener
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.checkpoint import CheckpointLike
from db3kd.training.constant_answer import constant_answer_warning
from db3kd.training.loop import Model
from db3kd.training.loss import KDLoss
from db3kd.training.process import TrainingProcess
from db3kd.training.settings import TrainSettings
from db3kd.training.train import train

_LOG = logging.getLogger(__name__)


def train_student(
    model: Model | str,
    images: ImagesLike,
    labels: Labels,
    *,
    loss: KDLoss | None = None,
    settings: TrainSettings | None = None,
    rows: IntegersLike | None = None,
    progress: ProgressListener | bool = True,
    checkpoint: CheckpointLike | None = None,
    callbacks: Sequence[TrainingCallback] = (),
) -> nn.Module:
    """Trains a student on the decisions and soft labels of a labelled data set.

    A student that agrees with the teacher on its training images no more often than a constant
    answer would is logged as a warning.

    Example:
        >>> labels = db3kd.with_soft_labels(labels, scale=4.0, temperature=4.0)
        >>> network = db3kd.build_model("lenet5-half", images.image_shape, labels.classes)
        >>> student = db3kd.train_student(network, images, labels)

    Args:
        model: A network, a function that makes one, or a name that `build_model` takes.
        images: The N labelled images in [0, 1], as for `db3kd.label`.
        labels: N labels with soft labels.
        loss: `KDLoss(temperature=None)` by default, which takes the temperature of the labels.
        settings: `TrainSettings()` by default.
        rows: [R] int64, the images to train on; all by default.
        progress: See `train_batches`.
        checkpoint: See `train_batches`.
        callbacks: See `train_batches`.

    Returns:
        The trained network, in eval mode.

    Raises:
        ValueError: If `labels` has no soft labels or belongs to other images, if the temperature
            of the soft labels differs from the loss's, or if another argument is invalid.
    """
    soft_labels = check_soft_labels(labels)
    images = as_image_source(images)
    check_labelled(images, labels)
    loss = KDLoss(temperature=None) if loss is None else loss
    check_type(loss, KDLoss, "loss", "db3kd.KDLoss")
    loss = loss.with_temperature(labels.soft_label_temperature, "labels.soft_label_temperature")
    settings = TrainSettings() if settings is None else settings
    student = train_on_soft_labels(
        model,
        images,
        labels.decision,
        soft_labels,
        loss,
        settings,
        rows=rows,
        progress=progress,
        checkpoint=checkpoint,
        callbacks=callbacks,
    )
    if TrainingProcess.current(settings.device, settings.precision).index == 0:
        warning = constant_answer_warning(student, images, labels.decision, rows=rows)
        if warning is not None:
            _LOG.warning("%s", warning)
    return student


def train_on_soft_labels(
    model: Model | str,
    images: ImagesLike,
    decisions: IntegersLike,
    soft_labels: Tensor,
    loss: KDLoss,
    settings: TrainSettings,
    *,
    rows: IntegersLike | None = None,
    progress: ProgressListener | bool = False,
    checkpoint: CheckpointLike | None = None,
    callbacks: Sequence[TrainingCallback] = (),
) -> nn.Module:
    """Trains a student on decisions and soft labels that need not come from distances.

    Decisions are [N] int64, the teacher's classes; -1 (unanswered) is left out. The soft labels are
    [N, C] float32, whose rows sum to 1, or are all 0 for images without one. The loss has their
    temperature. The other arguments are those of `train_student`.

    Returns:
        The trained network, in eval mode.

    Raises:
        ValueError: If the loss is not reduced to a scalar, or if another argument is invalid.
    """
    check_type(loss, KDLoss, "loss", "db3kd.KDLoss")
    check_choice(loss.reduction, "loss.reduction", ("batchmean", "sum"))
    return train(
        model,
        images,
        decisions,
        soft_labels,
        loss,
        settings,
        rows=rows,
        progress=progress,
        checkpoint=checkpoint,
        callbacks=callbacks,
    )


def train_classifier(
    model: Model | str,
    images: ImagesLike,
    labels: IntegersLike | None = None,
    *,
    settings: TrainSettings | None = None,
    rows: IntegersLike | None = None,
    progress: ProgressListener | bool = True,
    checkpoint: CheckpointLike | None = None,
    callbacks: Sequence[TrainingCallback] = (),
) -> nn.Module:
    """Trains a network, for example a teacher, on classes by cross-entropy.

    Example:
        >>> train = db3kd.load_data("mnist5k")
        >>> make = lambda: db3kd.build_model("lenet5", train.image_shape, 10)
        >>> teacher = db3kd.train_classifier(make, train)

    Args:
        model: See `train_student`.
        images: N images, as for `train_student`.
        labels: [N] integers, the classes, by default the labels of `images`. Images with -1 are
            left out.
        settings: `TrainSettings()` by default.
        rows: See `train_student`.
        progress: See `train_batches`.
        checkpoint: See `train_student`.
        callbacks: See `train_student`.

    Returns:
        The trained network, in eval mode.

    Raises:
        ValueError: See `train_batches`.
    """
    source, classes = with_labels(images, labels)
    return train(
        model,
        source,
        classes,
        None,
        F.cross_entropy,
        TrainSettings() if settings is None else settings,
        rows=rows,
        progress=progress,
        checkpoint=checkpoint,
        callbacks=callbacks,
        name="labels",
    )
