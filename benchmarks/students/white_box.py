"""The ceiling of black-box distillation: a student that sees the teacher's logits."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from db3kd.answers.answers import NUMBERS, augmentable_images, no_answers
from db3kd.answers.batches import ProxyTaughtBatches, TaughtLoss
from db3kd.data.image_set import ImageSet
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.loop import train_batches
from db3kd.training.settings import TrainSettings


def train_white_box(
    make: Callable[[], nn.Module],
    teacher: nn.Module,
    images: ImageSet,
    settings: TrainSettings,
    callbacks: Sequence[TrainingCallback] = (),
) -> nn.Module:
    """Trains a student on the teacher's probabilities for images and for freshly mixed ones.

    This is not a black-box method. It shows what a student of this size and training length could
    reach if the teacher returned its logits, as often as needed (Hinton et al. 2015; Beyer et al.
    2022 mix images and train as long). Half of each batch consists of the images themselves. For
    mixed images, temperature 1 works better than 4 (docs/measurements.md).

    Args:
        make: Makes the student.
        teacher: The teacher's network, from images in [0, 1] to logits [n, C].
        images: The images, without labels.
        settings: How the student is trained; `steps` must be set.
        callbacks: Called during the training.
    """
    order = torch.arange(len(images))
    samples = no_answers(augmentable_images(images, order, 0, settings.seed))
    unused = torch.zeros_like(order)  # no decision enters the loss
    batches = ProxyTaughtBatches(
        samples.add(order * NUMBERS, unused),
        [teacher.eval()],
        settings.batch_size,
        0,
    )
    return train_batches(
        make, batches, TaughtLoss(alpha=0.0), settings, progress=False, callbacks=callbacks
    )
