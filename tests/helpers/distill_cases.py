"""A teacher, images and settings that the tests of distillations share."""

from typing import Any

import pytest
import torch
from teachers_analytic import NearestCentroidTeacher
from torch import Tensor

from db3kd.data.image_set import ImageSet
from db3kd.pipelines import DistillSettings
from db3kd.pipelines.student_training import rules
from db3kd.planning import held_out
from db3kd.training.settings import TrainSettings

SHAPE, CLASSES, SAMPLES = (1, 6, 6), 4, 120

TRAINING = TrainSettings(steps=12, batch_size=16, schedule="cosine", device="cpu")
QUICK = DistillSettings(training=TRAINING, proxy="linear")
"""Little training, for what does not depend on it."""

CHOOSING = DistillSettings(
    training=TrainSettings(steps=600, batch_size=16, schedule="cosine", device="cpu"),
    proxy="linear",
)
"""Enough steps for choices by held-out agreement."""


def teacher(**options: Any) -> NearestCentroidTeacher:
    """Classes that each have about as many of the images."""
    generator = torch.Generator().manual_seed(1)
    centers = torch.rand(CLASSES, *SHAPE, generator=generator)
    return NearestCentroidTeacher(centers, SHAPE, **options)


def images(samples: int = SAMPLES) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (samples, *SHAPE), generator=generator, dtype=torch.uint8)
    return ImageSet.from_arrays(pixels.numpy(), name="noise")


def let_choose(patch: pytest.MonkeyPatch) -> None:
    """Lets runs choose by held-out agreement, however few steps and answers they have."""
    patch.setattr(rules, "LEAST_STEPS_OF_A_CHOICE", rules.CHOICE_DIVISOR)
    for module in (rules, held_out):
        patch.setattr(module, "LEAST_VALIDATION", 1)


def weights(network: torch.nn.Module) -> Tensor:
    return torch.cat([value.cpu().flatten() for value in network.state_dict().values()])
