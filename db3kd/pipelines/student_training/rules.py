"""Rules by which a run decides how its student is taught; most follow from measurements.

They depend on numbers and on the kind of network only, so that the time of training can be
estimated before anything is trained.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from db3kd.answers.answers import Answers
from db3kd.answers.batches import ANSWERED_SHARE
from db3kd.models.random_state import kept_random_state
from db3kd.models.state import to_weight_dtype
from db3kd.pipelines.distill_settings import LEAST_DEFAULT_STEPS
from db3kd.planning.held_out import LEAST_VALIDATION
from db3kd.wording import InputNoun

CHOICE_DIVISOR = 6
"""Networks that are trained to make a choice get 1 / CHOICE_DIVISOR of the steps."""

_FEW_ANSWERS = 5
"""Answers per image below which there are few."""

_LEAST_SHARE_OF_PROXY = 0.1
"""The smallest student, as a share of a proxy's number of weights, that proxies teach by default
if there are many answers per image. It is 0.25 for LeNet-5-half and 0.04 for LeNet-5-fifth,
beside LeNet-5."""

IMAGES_PER_SAMPLE = 25
"""Images in all batches of a training, per pseudo sample, from which proxies help. With 38 and 25,
students agree more often with the teacher, with 15 and 10 less (docs/zero-shot.md)."""

LEAST_STEPS_OF_A_CHOICE = 100 * CHOICE_DIVISOR
"""With fewer steps of full training, a difference in agreement would be chance."""


def can_choose(steps: int, validation: int) -> bool:
    """Returns whether training runs can be compared, and their difference is not just chance.

    If they cannot, the first option is taken.

    Args:
        steps: Steps of full training.
        validation: Number of validation images.
    """
    return steps >= LEAST_STEPS_OF_A_CHOICE and validation >= LEAST_VALIDATION


def why_taught_by(
    proxies: int,
    taught: int,
    steps: int,
    validation: int,
    noun: InputNoun = "image",
) -> str:
    """Returns a sentence on why a student learned from proxies, or from decisions alone.

    Args:
        proxies: Number of proxies that the run may train.
        taught: Number of proxies that labelled images for the student.
        steps: Steps of full training.
        validation: Number of validation images.
        noun: What the sentence calls an image.
    """
    who = "Decisions and proxies" if taught else "Decisions alone"
    if not proxies:
        return f"{who} taught the student, because the run had no proxies."
    if can_choose(steps, validation):
        return f"{who} taught the student by validation agreement; the plan below compares both."
    if taught:
        reason = f"proxies usually help if there are few answers per {noun}, or if training is long"
    elif steps < LEAST_DEFAULT_STEPS:
        reason = f"with many answers per {noun}, proxies help in long training only"
    else:
        reason = f"with many answers per {noun}, this kind of student gains nothing from proxies"
    return (
        f"{who} taught the student, because {reason}. Comparing students with and without proxies "
        f"takes at least {LEAST_STEPS_OF_A_CHOICE:,} training steps and {LEAST_VALIDATION} "
        f"validation {noun}s (held-out {noun}s and augmented versions of them); this run has "
        f"{steps:,} and {validation:,}."
    )


def trains_proxies(*, preferred: bool, compared: bool) -> bool:
    """Returns whether a run trains proxies on all answers, which takes much of its time.

    It does only if they may label images for the student.

    Args:
        preferred: Whether they label images by default; see `proxies_usually_help`.
        compared: Whether students with and without them are compared; see `can_choose`.
    """
    return preferred or compared


def proxies_usually_help(answers: int, images: int, steps: int, new_mixtures: bool) -> bool:
    """Returns whether students of proxies usually agree more often with the teacher than others.

    They do if there are few answers for each image. With more answers, they do after long training,
    because they see new mixtures until its end (docs/measurements.md). Short training runs, by
    which options are compared, hardly show this gain.

    Args:
        answers: Number of answers to train on.
        images: Number of images to train on.
        steps: Steps of full training.
        new_mixtures: From `learns_from_new_mixtures`.
    """
    return answers < _FEW_ANSWERS * images or (new_mixtures and steps >= LEAST_DEFAULT_STEPS)


def reason_against_proxies(
    samples: int, steps: int, batch_size: int, *, batch_normalisation: bool
) -> str | None:
    """Returns why proxies do not help a student of pseudo samples; None if they do.

    Short training runs would not show it, so students with and without proxies are not compared.

    Args:
        samples: Number of pseudo samples to train on.
        steps: Steps of full training.
        batch_size: Number of images in a training step.
        batch_normalisation: From `has_batch_normalisation`, for the student.
    """
    if batch_normalisation:
        return "without images, students with batch normalisation gain nothing from proxies"
    least = least_steps_for_proxies(samples, batch_size)
    if steps < least:
        return (
            f"with {samples:,} pseudo samples, proxies help from {least:,} training steps "
            f"({IMAGES_PER_SAMPLE} images per sample), and this training has {steps:,}"
        )
    return None


def least_steps_for_proxies(samples: int, batch_size: int) -> int:
    """Returns the steps of full training from which proxies help students of pseudo samples.

    New images take half of each batch, so with fewer steps the student sees too little of the
    teacher's own answers (docs/zero-shot.md).

    Args:
        samples: Number of pseudo samples to train on.
        batch_size: Number of images in a training step.
    """
    return math.ceil(IMAGES_PER_SAMPLE * samples / batch_size)


def learns_from_new_mixtures(
    make: Callable[[], nn.Module], make_proxy: Callable[[], nn.Module], image_shape: Sequence[int]
) -> bool:
    """Returns whether a student is known to learn from mixtures of images that proxies label.

    For rows of tables, this was not measured. Batch normalisation would learn the mean and variance
    of mixtures, which differ from those of clean images. A far smaller network than the proxies
    learns more from the teacher's own answers if there are many (docs/measurements.md).

    Args:
        make: Makes the student.
        make_proxy: Makes a proxy.
        image_shape: Shape of an image, or of a row.
    """
    if len(image_shape) == 1 or has_batch_normalisation(make):
        return False
    return _weights(make, image_shape) >= _LEAST_SHARE_OF_PROXY * _weights(make_proxy, image_shape)


def answered_share(make: Callable[[], nn.Module], answers: Answers) -> float:
    """Returns the share of answered images in the batches of a student that proxies teach.

    New mixtures show a student more than the answered images do. But a student with batch
    normalisation gets none if the teacher has classified every image (docs/measurements.md).

    Args:
        make: Makes the student.
        answers: The answers to train on.
    """
    if int(answers.is_clean.sum()) < answers.images.partners:
        return ANSWERED_SHARE
    return 1.0 if has_batch_normalisation(make) else ANSWERED_SHARE


def has_batch_normalisation(make: Callable[[], nn.Module]) -> bool:
    """Returns whether a network has layers of batch normalisation."""
    with kept_random_state():
        return any(isinstance(layer, _BatchNorm) for layer in make().modules())


def _weights(make: Callable[[], nn.Module], image_shape: Sequence[int]) -> int:
    """Returns the number of weights of a network."""
    with kept_random_state(), torch.no_grad():
        network = make().eval()
        if any(is_lazy(each) for each in network.parameters()):
            network(to_weight_dtype(torch.zeros(1, *image_shape), network))
        return sum(each.numel() for each in network.parameters())
