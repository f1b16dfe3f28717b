"""Trains classifiers whose answers are paid for, so that none is lost to an unsuitable rate."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from db3kd.arguments.images import are_equal
from db3kd.data.image_source import ImageSource
from db3kd.errors import DivergedError
from db3kd.progress import ProgressListener
from db3kd.training.evaluation import predict
from db3kd.training.settings import ADAM_DEFAULTS, TrainSettings
from db3kd.training.student import train_classifier

_LOG = logging.getLogger(__name__)

_TRIED_ROWS = 1000
"""Training rows on which a network must give more than one answer."""

_LEAST_STEPS = 100
"""After fewer steps, a network may answer one class because it has hardly been trained."""


def train_classifier_stably(
    make: Callable[[], nn.Module],
    images: ImageSource,
    decisions: Tensor,
    settings: TrainSettings,
    *,
    rows: Tensor,
    progress: ProgressListener | bool = False,
) -> nn.Module:
    """Trains a network, and trains it again by Adam if it has learned nothing.

    SGD at the rate of `SGD_DEFAULTS` is too fast for some networks: their loss is infinite, or all
    their units die and they answer every image with one class.

    Args:
        make: Makes the network.
        images: N images.
        decisions: [N] int64, the classes.
        settings: `steps` must be set.
        rows: [R] int64, the images to train on.
        progress: See `train_batches`.

    Returns:
        The trained network, in eval mode.

    Raises:
        DivergedError: If the loss became infinite or NaN by Adam too.
    """
    train = partial(train_classifier, make, images, decisions, rows=rows, progress=progress)
    try:
        network = train(settings=settings)
    except DivergedError as error:
        reason = str(error)
    else:
        if not has_died(network, images, decisions, settings, rows=rows):
            return network
        reason = "training: the network answers all images with one class"
    if settings.optimizer == "adam":
        raise DivergedError(reason)
    _LOG.warning("%s; it is trained again by Adam", reason)
    usual = {name: ADAM_DEFAULTS[name] for name in ("optimizer", "learning_rate", "weight_decay")}
    return train(settings=replace(settings, **usual))


def has_died(
    network: nn.Module,
    images: ImageSource,
    decisions: Tensor,
    settings: TrainSettings,
    *,
    rows: Tensor,
) -> bool:
    """Returns whether SGD has made a network that answers images of several classes with one.

    Args:
        network: The network, in eval mode.
        images: N images.
        decisions: [N] int64, the classes.
        settings: How it was trained; `steps` must be set. Few steps are no reason to expect more.
        rows: [R] int64, its training images, of which up to 1,000 are tried.
    """
    assert settings.steps is not None  # the callers' settings have it
    if settings.optimizer == "adam" or settings.steps < _LEAST_STEPS:
        return False
    count = min(len(rows), _TRIED_ROWS)
    tried = rows[torch.arange(count) * len(rows) // max(1, count)]
    one_class = are_equal(predict(network, images, rows=tried))
    return one_class and not are_equal(decisions[tried])
