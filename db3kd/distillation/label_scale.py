"""Chooses the scale of margin soft labels for the final training of a student."""

from db3kd.data.arguments import ImagesLike
from db3kd.distillation.scale import (
    SHORT_TRAINING_FACTOR,
    SHORT_TRAINING_STUDENTS,
    choose_scale,
    scale_training,
)
from db3kd.distillation.scale_choice import ScaleChoice
from db3kd.labelling.labels import Labels
from db3kd.labelling.soft_labels import margin_soft_labels
from db3kd.progress import ProgressListener
from db3kd.training.loop import Model
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings


def choose_label_scale(
    model: Model,
    images: ImagesLike,
    labels: Labels,
    loss: KDLoss,
    settings: TrainSettings,
    progress: ProgressListener | bool | None = None,
) -> ScaleChoice:
    """Chooses the scale by training a few students briefly; see `choose_scale`.

    Args:
        model: The student, as for `train_student`.
        images: The labelled images.
        labels: Their labels.
        loss: The loss of the final training.
        settings: The settings of the final training.
        progress: See `choose_scale`.
    """
    return choose_scale(
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
