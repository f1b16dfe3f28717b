"""Soft labels from distances, also for samples that lie on a boundary themselves."""

import dataclasses
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from db3kd import ops
from db3kd.arguments.plain import (
    check_choice,
    check_fields,
    check_positive,
    check_type,
    suggests_arguments,
)
from db3kd.errors import ArgumentError
from db3kd.labels.labels import Labels
from db3kd.ops import Normalisation
from db3kd.querying.search import UNANSWERED

DEFAULT_TEMPERATURE: dict[Normalisation, float] = {"margin": 4.0, "inverse": 20.0}
"""Default temperature of soft labels per normalisation; that of "inverse" is the paper's."""

_ZERO = 1e-30
"""A smaller distance counts as 0, because its inverse may overflow float32."""


@suggests_arguments
@dataclass(frozen=True)
class SoftLabelSettings:
    """How distances become soft labels: the arguments of `with_soft_labels`.

    Attributes:
        normalisation: "margin" or "inverse" (DB3KD), as for `db3kd.soft_labels`.
        scale: Logits per unit of distance, for "margin"; above 0.
        temperature: The temperature of the softmax, above 0. The loss of a student has to use the
            same one.

    Raises:
        ValueError: If a value is not as above.
    """

    normalisation: Normalisation
    scale: float
    temperature: float

    def __post_init__(self) -> None:
        check_choice(self.normalisation, "normalisation", get_args(Normalisation))
        check_fields(self, check_positive, "scale", "temperature")


def with_soft_labels(
    labels: Labels,
    *,
    normalisation: Normalisation = "margin",
    scale: float = 1.0,
    temperature: float | None = None,
) -> Labels:
    """Adds soft labels, made from the distances, to `labels`.

    A sample without a decision gets the uniform distribution. A sample that equals an image in
    another class (distance 0) counts as each of these classes equally.

    Example:
        >>> labels = db3kd.with_soft_labels(labels, scale=4.0)

    Args:
        labels: The labels, whose distances are used.
        normalisation: "margin" or "inverse", as for `db3kd.soft_labels`.
        scale: Logits per unit of distance, for "margin".
        temperature: The temperature of the softmax. None for 4 with "margin", and 20 with "inverse"
            (DB3KD, section 4.1). The result carries it as `soft_label_temperature`.

    Returns:
        A copy of `labels` with `soft_labels` and `soft_label_temperature`.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If a value is not as in `SoftLabelSettings`.
    """
    check_type(labels, Labels, "labels", "db3kd.Labels")
    if temperature is None:
        temperature = DEFAULT_TEMPERATURE.get(normalisation, 1.0)  # another one is refused below
    settings = SoftLabelSettings(normalisation, scale, temperature)
    decided = labels.decision != UNANSWERED
    soft = torch.full_like(labels.distances, 1 / labels.classes)
    soft[decided] = make_soft_labels(
        labels.distances[decided],
        labels.decision[decided],
        normalisation=settings.normalisation,
        scale=settings.scale,
        temperature=settings.temperature,
    )
    return dataclasses.replace(
        labels, soft_labels=soft, soft_label_temperature=settings.temperature
    )


def check_soft_labels(labels: Labels) -> Tensor:
    """Returns the soft labels, [N, C] float32, of labels that must have some.

    Raises:
        TypeError: If the argument is something else.
        ValueError: If it has no soft labels.
    """
    advice = "for plain classes, use db3kd.train_classifier"
    check_type(labels, Labels, "labels", "db3kd.Labels", advice)
    if labels.soft_labels is None:
        raise ArgumentError(
            "labels", "expected soft labels, got none; add them with db3kd.with_soft_labels(labels)"
        )
    return labels.soft_labels


def make_soft_labels(
    distances: Tensor,
    predicted: Tensor,
    *,
    normalisation: Normalisation,
    scale: float,
    temperature: float,
) -> Tensor:
    """Soft labels as by `db3kd.soft_labels`, which also accepts distances of 0.

    A distance of 0 means that the teacher has put the same image in both classes. The predicted
    class and all classes at distance 0 then share the weight equally.

    Args:
        distances: [N, C] float32, at least 0; +inf if a class was not reached.
        predicted: [N] int64, the teacher's class for each sample, whose column is not read.
        normalisation: "margin" or "inverse".
        scale: Logits per unit of distance, for "margin".
        temperature: The temperature of the softmax.

    Returns:
        [N, C] float32, rows sum to 1.
    """
    same = distances.abs() < _ZERO
    same.scatter_(1, predicted[:, None], False)
    soft = ops.soft_labels(
        distances.masked_fill(same, torch.inf),
        predicted,
        normalisation=normalisation,
        scale=scale,
        temperature=temperature,
    )
    rows = same.any(1)
    if bool(rows.any()):
        shared = same[rows].scatter(1, predicted[rows, None], True).float()
        soft[rows] = shared / shared.sum(1, keepdim=True)
    return soft


def margin_soft_labels(
    distances: Tensor, predicted: Tensor, scale: float, temperature: float
) -> Tensor:
    """Soft labels of normalisation "margin", with the signature that `search_scale` expects."""
    return make_soft_labels(
        distances, predicted, normalisation="margin", scale=scale, temperature=temperature
    )
