"""Chooses the scale of margin soft labels for the final training of a student."""

from db3kd.data.arguments import ImagesLike
from db3kd.labelling.labels import Labels
from db3kd.labelling.soft_labels import margin_soft_labels
from db3kd.progress import ProgressListener
from db3kd.scale.choice import ScaleChoice
from db3kd.scale.search import (
    SHORT_TRAINING_FACTOR,
    SHORT_TRAINING_STUDENTS,
    scale_training,
    search_scale,
)
from db3kd.training.loop import Model
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings


def choose_scale(
    model: Model,
    images: ImagesLike,
    labels: Labels,
    loss: KDLoss,
    settings: TrainSettings,
    progress: ProgressListener | bool | None = None,
) -> ScaleChoice:
    """Chooses the scale of margin soft labels by training a few students briefly.

    Students are trained for a few steps at several scales; the scale is chosen whose students best
    predict held-out decisions. This costs no query.

    Example:
        >>> loss = db3kd.KDLoss(temperature=4.0)
        >>> settings = db3kd.TrainSettings(steps=2000)
        >>> choice = db3kd.choose_scale("lenet5-half", images, labels, loss, settings)
        >>> labels = db3kd.with_soft_labels(labels, scale=choice.scale, temperature=4.0)

    Args:
        model: The student, as for `train_student`.
        images: The labelled images.
        labels: Their labels.
        loss: The loss of the final training.
        settings: The settings of the final training.
        progress: A listener that receives the number of students trained after each one; True for a
            display; None or False for nothing.

    Returns:
        The scale and its trials.

    Raises:
        ArgumentError: If an argument is invalid, or if no sample reached another class.
    """
    return search_scale(
        model,
        images,
        labels.distances,
        labels.decision,
        margin_soft_labels,
        loss,
        scale_training(settings, len(labels)),
        students=SHORT_TRAINING_STUDENTS,
        factor=SHORT_TRAINING_FACTOR,
        progress=progress,
    )
