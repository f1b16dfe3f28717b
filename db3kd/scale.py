"""The scale of margin soft labels, chosen without the teacher's logits.

A margin soft label takes -s · d_m as the logit of class m and 0 as the sample's own. Distances have
the images' unit, so the right s depends on the data. What can be measured without logits is how
well a student agrees with the teacher on images of the transfer set that it did not train on.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from db3kd.distill import KDLoss, predict, share_equal, train_student
from db3kd.reader import Images
from db3kd.training import Model, TrainSettings

# s · (median distance to the nearest other class): the margin, in logits, of a typical sample to
# its nearest class.
RELATIVE_SCALES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

MakeSoftLabels = Callable[[Tensor, Tensor, float, float], Tensor]


@dataclass(frozen=True)
class ScaleTrial:
    """What students did at one scale.

    Attributes:
        relative: the scale times the median nearest distance (no unit).
        scale: s, per input unit.
        agreement: mean share of held-out images on which student and teacher agree.
        deviation: sample standard deviation of that share over the students (0 for a single one).
    """

    relative: float
    scale: float
    agreement: float
    deviation: float


@dataclass(frozen=True)
class ScaleChoice:
    """The scale chosen, and the trials it was chosen from, smallest scale first."""

    scale: float
    trials: tuple[ScaleTrial, ...]


def choose_scale(
    model: Model,
    images: Images,
    distances: Tensor,
    own: Tensor,
    make_soft_labels: MakeSoftLabels,
    loss: KDLoss,
    settings: TrainSettings,
    *,
    relative_scales: Sequence[float] = RELATIVE_SCALES,
    folds: int = 5,
    students: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> ScaleChoice:
    """The scale whose students agree best with the teacher's decisions on held-out images.

    The answered samples are cut at random into `folds` equal parts. Student i holds out part i
    (modulo `folds`) and trains with seed `settings.seed + i`, on the same split and from the same
    weights at every scale, so that scales differ by the labels alone. Agreement changes slowly with
    the scale and is noisy, so each mean is averaged with its neighbours in the grid (weights 1, 2,
    1) before the largest is taken; the smallest scale wins a tie. No query is spent.

    Args:
        model: the student, as for `train_student`.
        images: N images, as for `train_student`.
        distances: [N, C] float32, L2 in input units; +inf where a class was not reached. The own
            column is not read.
        own: [N] int64, the teacher's decisions; -1 (unanswered) is left out.
        make_soft_labels: called with distances [n, C], own [n], scale and temperature; returns soft
            labels [n, C].
        loss: the students' loss; its temperature is the soft labels'.
        settings: the students' training. Shorter than the final one will do.
        relative_scales: the grid, as scale times median nearest distance.
        folds: parts the samples are cut into, at least 2.
        students: students per scale.
        progress: called after each student with (students trained, students in all).
    """
    relative_scales = _checked_grid(relative_scales)
    answered = (own >= 0).nonzero().flatten()
    if folds < 2 or students < 1 or len(answered) < folds:
        raise ValueError(
            f"folds, students: expected at least 2 and 1, and an answered sample for each fold, "
            f"got {folds} and {students} with {len(answered)} answered samples"
        )
    unit = 1 / median_nearest_distance(distances[answered], own[answered])
    order = torch.randperm(len(answered), generator=torch.Generator().manual_seed(settings.seed))
    parts = answered[order].tensor_split(folds)

    def shares(scale: float, already: int) -> list[float]:
        """Held-out agreement of each student at this scale."""
        soft = torch.zeros_like(distances)
        soft[answered] = make_soft_labels(
            distances[answered], own[answered], scale, loss.temperature
        )
        found = []
        for i in range(students):
            held_out = parts[i % folds]
            rows = torch.cat([part for k, part in enumerate(parts) if k != i % folds])
            seeded = replace(settings, seed=settings.seed + i)
            student = train_student(model, images, own, soft, loss, seeded, rows=rows)
            found.append(share_equal(predict(student, images, rows=held_out), own[held_out]))
            if progress is not None:
                progress(already + i + 1, students * len(relative_scales))
        return found

    trials = []
    for number, relative in enumerate(relative_scales):
        found = shares(relative * unit, number * students)
        deviation = statistics.stdev(found) if students > 1 else 0.0
        trials.append(ScaleTrial(relative, relative * unit, statistics.fmean(found), deviation))
    smoothed = smooth([trial.agreement for trial in trials])
    return ScaleChoice(trials[smoothed.index(max(smoothed))].scale, tuple(trials))


def median_nearest_distance(distances: Tensor, own: Tensor) -> float:
    """The median, over samples that reached any other class, of the distance to the nearest one.

    distances [N, C] (+inf: not reached; the own column is not read), own [N] int64 -> input units.
    """
    others = distances.scatter(1, own[:, None], math.inf)
    nearest = others.min(1).values
    nearest = nearest[nearest.isfinite()]
    if len(nearest) == 0:
        raise ValueError(
            "distances: expected a finite distance to another class in some row, got none"
        )
    median = nearest.median().item()
    if not median > 0:
        raise ValueError(f"distances: expected a median nearest distance above 0, got {median}")
    return median


def smooth(values: Sequence[float]) -> list[float]:
    """Each value averaged with its neighbours, weights 1, 2, 1; at the ends with the one there
    is.
    """
    result = []
    for i in range(len(values)):
        near = [
            (weight, values[k])
            for weight, k in ((1, i - 1), (2, i), (1, i + 1))
            if 0 <= k < len(values)
        ]
        result.append(sum(w * v for w, v in near) / sum(w for w, _ in near))
    return result


def _checked_grid(relative_scales: Sequence[float]) -> list[float]:
    if not relative_scales or not all(math.isfinite(s) and s > 0 for s in relative_scales):
        raise ValueError(
            f"relative_scales: expected finite numbers above 0, got {list(relative_scales)}"
        )
    return sorted(set(relative_scales))
