"""Chooses the scale of margin soft labels without the teacher's logits.

A margin soft label has the logit -s · d_m for class m and 0 for the predicted class. Distances are
in input units, so the best scale s depends on the data. It is chosen by how well students predict
the teacher's decisions for held-out images of the transfer set; this costs no query.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from db3kd.arguments.arrays import seeded_permutation
from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.errors import ArgumentError
from db3kd.labels.image_numbers import check_labelled
from db3kd.labels.labels import Labels
from db3kd.labels.soft_labels import margin_soft_labels
from db3kd.progress import Progress, ProgressListener, check_progress, listening, report_units
from db3kd.scale.choice import ScaleChoice, ScaleTrial, best_trial
from db3kd.training.evaluation import predict_logits, share_equal
from db3kd.training.loop import Model
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_on_soft_labels
from db3kd.wording import counted

RELATIVE_SCALES = (0.5, 1.0, 2.0)
"""Scales to try first, times the median distance to the nearest other class.

This product is the margin of a typical sample, in logits. On 600 to 20,000 images of MNIST and
Fashion-MNIST the best one is among these or next to them.
"""

_FOLDS = 5
"""Number of parts of the samples, one of which each student holds out."""

_MAX_EXTENSIONS = 6
"""Maximum number of scales to try beyond the given ones."""

_TRAINING_DIVISOR = 6
_BATCH_DIVISOR = 4
"""Divides the steps and the batch size of the students that choose the scale."""

_MIN_STEPS = 40
"""Minimum number of steps of such a student, unless the final training has fewer."""

_MIN_BATCH = 4
"""Minimum batch size of such a student, unless that of the final training is smaller."""

_RATE_FACTOR = 3.0
"""Factor for a constant learning rate, because these students' learning rate decays to 0."""

SHORT_TRAINING_FACTOR = 2.0
"""The best scale of the final training, as a multiple of the best one with `scale_training`.

A shorter training favours a smaller scale. The factor was fitted to four runs of 600 images of
MNIST and Fashion-MNIST: their final students of 1,500 steps were 0.07 to 0.76 points better with
twice the scale that students of 250 steps choose (docs/design-notes.md).
"""

SHORT_TRAINING_STUDENTS = 2
"""Number of students per scale that `scale_training` is meant for."""

MakeSoftLabels = Callable[[Tensor, Tensor, float, float], Tensor]
"""Makes soft labels from distances, predicted classes, a scale and a temperature."""


def scale_training(settings: TrainSettings, rows: int) -> TrainSettings:
    """Returns the settings of the students that choose the scale, from those of the final training.

    They have fewer steps and smaller batches than the final training, so that six students take
    about a third of its time, and a higher learning rate that decays to 0. `rows` is the number of
    images in the final training.
    """
    total = settings.total_steps(rows)
    factor = 1.0 if settings.schedule == "cosine" else _RATE_FACTOR
    return replace(
        settings,
        epochs=None,
        steps=max(total // _TRAINING_DIVISOR, min(total, _MIN_STEPS)),
        batch_size=max(min(settings.batch_size, _MIN_BATCH), settings.batch_size // _BATCH_DIVISOR),
        learning_rate=settings.rate * factor,
        schedule="cosine",
    )


def scale_steps(settings: TrainSettings, rows: int) -> int:
    """Returns the steps of all students that choose the scale if the best one is not at an edge."""
    each = scale_training(settings, rows).total_steps(rows)
    return len(RELATIVE_SCALES) * SHORT_TRAINING_STUDENTS * each


def choose_scale(
    model: Model,
    images: ImagesLike,
    labels: Labels,
    loss: KDLoss,
    settings: TrainSettings,
    progress: ProgressListener | bool = True,
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
        progress: True shows the number of students trained on standard error; False shows nothing;
            a listener receives it (docs/guide.md, "Progress").

    Returns:
        The scale and its trials.

    Raises:
        ArgumentError: If an argument is invalid, if the labels belong to other images, or if no
            sample reached another class.
    """
    images = as_image_source(images)
    check_labelled(images, labels)
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


def search_scale(
    model: Model,
    images: ImagesLike,
    distances: Tensor,
    predicted: Tensor,
    make_soft_labels: MakeSoftLabels,
    loss: KDLoss,
    settings: TrainSettings,
    *,
    relative_scales: Sequence[float] = RELATIVE_SCALES,
    students: int,
    factor: float = 1.0,
    progress: ProgressListener | bool = False,
) -> ScaleChoice:
    """Chooses the scale whose students best predict the teacher's decisions for held-out images.

    The answered samples are split at random into five parts. Student i holds out part i (modulo 5)
    and has the seed `settings.seed + i`. Its split and initial weights are the same at every scale,
    so that only the soft labels differ. The best scale is the one with the smallest
    mean `held_out_loss`, a criterion that needs far fewer students than agreement does. While the
    best scale is at an edge, the next one beyond it is tried, up to six times. The chosen scale is
    the geometric middle of `ScaleChoice.as_good_as_best`, times `factor`. This costs no query.

    Example:
        >>> choice = search_scale(
        ...     student, images, labels.distances, labels.decision, margin_soft_labels,
        ...     db3kd.KDLoss(temperature=4.0), db3kd.TrainSettings(steps=250), students=2,
        ... )
        >>> labels = db3kd.with_soft_labels(labels, scale=choice.scale, temperature=4.0)

    Args:
        model: The student, as for `train_student`.
        images: N images, as for `train_student`.
        distances: [N, C] float32, L2 in input units; +inf if a class was not reached. The column of
            the predicted class is not read.
        predicted: [N] int64, the teacher's decisions; -1 (unanswered) is left out.
        make_soft_labels: Takes distances [n, C], predicted classes [n], scale and temperature, and
            returns soft labels [n, C]; for example `margin_soft_labels`.
        loss: The students' loss, with the temperature of the soft labels.
        settings: The students' training settings, usually from `scale_training`.
        relative_scales: The scales to try first, times the median nearest distance. If there is
            only one, it is chosen.
        students: Students per scale.
        factor: The best scale of the final training as a multiple of these students' best;
            `SHORT_TRAINING_FACTOR` for `scale_training`.
        progress: See `choose_scale`.

    Returns:
        The scale and its trials.

    Raises:
        ValueError: If an argument is invalid, or if no sample reached another class.
    """
    grid = sorted(set(relative_scales))
    check_progress(progress)
    temperature = loss.temperature
    answered = (predicted >= 0).nonzero().flatten()
    if len(answered) < _FOLDS:
        raise ArgumentError(
            "labels", f"expected at least {counted(_FOLDS, 'answered sample')}, got {len(answered)}"
        )
    unit = 1 / median_nearest_distance(distances[answered], predicted[answered])
    order = seeded_permutation(len(answered), settings.seed)
    parts = answered[order].tensor_split(_FOLDS)
    trials: dict[float, ScaleTrial] = {}

    def try_scale(relative: float, listener: ProgressListener) -> None:
        scale = relative * unit
        soft = torch.zeros_like(distances)
        soft[answered] = make_soft_labels(
            distances[answered], predicted[answered], scale, temperature
        )
        shares, losses = [], []
        for i in range(students):
            held_out = parts[i % _FOLDS]
            rows = torch.cat([part for k, part in enumerate(parts) if k != i % _FOLDS])
            seeded = replace(settings, seed=settings.seed + i)
            student = train_on_soft_labels(
                model, images, predicted, soft, loss, seeded, rows=rows, progress=False
            )
            logits = predict_logits(student, images, rows=held_out)
            shares.append(share_equal(logits.argmax(1), predicted[held_out]))
            losses.append(held_out_loss(logits, predicted[held_out]))
            done = students * len(trials) + i + 1
            report_units(listener, done, students * max(len(grid), len(trials) + 1))
        deviation = statistics.stdev(shares) if students > 1 else 0.0
        trials[relative] = ScaleTrial(
            relative, scale, statistics.fmean(shares), deviation, tuple(losses)
        )

    title = "choosing the scale of the soft labels"
    with listening(
        progress, lambda: Progress(students * len(grid), title=title, unit="students")
    ) as listener:
        for relative in grid:
            try_scale(relative, listener)
        for _ in range(_MAX_EXTENSIONS):
            following = _beyond_the_edge(trials)
            if following is None:
                break
            try_scale(following, listener)
    return ScaleChoice.among(list(trials.values()), factor)


def held_out_loss(logits: Tensor, decisions: Tensor) -> float:
    """Computes the cross-entropy of decisions at the best temperature of the logits.

    The temperature is fitted to these images, because the scale of the soft labels decides how
    confident a student is. Students are therefore compared by how they order and space the classes.

    Args:
        logits: [n, C] float.
        decisions: [n] int64.

    Returns:
        The mean cross-entropy, in nats.
    """
    logits = logits.double()
    # Ternary search over the logarithm of the inverse temperature: the loss is convex in the
    # inverse, so it has one minimum.
    low, high = -8.0, 8.0
    for _ in range(30):
        third = (high - low) / 3
        near, far = (_cross_entropy(logits, decisions, at) for at in (low + third, high - third))
        low, high = (low, high - third) if near <= far else (low + third, high)
    return _cross_entropy(logits, decisions, (low + high) / 2)


def _cross_entropy(logits: Tensor, decisions: Tensor, log_inverse: float) -> float:
    return F.cross_entropy(logits * math.exp(log_inverse), decisions).item()


def _beyond_the_edge(trials: dict[float, ScaleTrial]) -> float | None:
    """Returns the next relative scale beyond the best one; None if that is not at an edge."""
    grid = sorted(trials)
    best = best_trial(list(trials.values())).relative
    if len(grid) == 1 or best not in (grid[0], grid[-1]):
        return None
    if best == grid[0]:
        return grid[0] * grid[0] / grid[1]
    return grid[-1] * grid[-1] / grid[-2]


def median_nearest_distance(distances: Tensor, predicted: Tensor) -> float:
    """Computes the median distance to the nearest other class.

    Args:
        distances: [N, C] float32, L2 in input units; +inf if a class was not reached. The column of
            the predicted class is not read.
        predicted: [N] int64, the teacher's decisions.

    Returns:
        The median over the samples that reached another class, input units.

    Raises:
        ValueError: If no sample reached another class, or if the median is 0.
    """
    others = distances.scatter(1, predicted[:, None], math.inf)
    others = others.masked_fill(others == 0, math.inf)  # Contradictory samples.
    nearest = others.min(1).values
    nearest = nearest[nearest.isfinite()]
    if len(nearest) == 0:
        raise ArgumentError(
            "distances", "expected a finite distance to another class in some row, got none"
        )
    median = nearest.median().item()
    if not median > 0:
        raise ArgumentError(
            "distances", f"expected a median nearest distance above 0, got {median}"
        )
    return median
