"""The scale of margin soft labels, chosen without the teacher's logits.

A margin soft label takes -s · d_m as the logit of class m and 0 as the sample's own. Distances have
the images' unit, so the right s depends on the data. Without logits one can measure how well a
student predicts the teacher's decisions on images of the transfer set that it did not train on.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from db3kd.data.image_source import Images
from db3kd.distillation.student import KDLoss, predict_logits, share_equal, train_student
from db3kd.distillation.training import Model, TrainSettings

RELATIVE_SCALES = (0.5, 1.0, 2.0)
"""s · (median distance to the nearest other class): the margin, in logits, of a typical sample to
its nearest class. On MNIST and Fashion-MNIST, with 600 to 20,000 images, the best lies among them
or next to them."""

_MOST_EXTENSIONS = 6
"""Scales tried beyond the given ones."""

_TRAINING_SHARE = 6
_BATCH_SHARE = 4
"""Students that choose the scale take this many times fewer steps, of this many times fewer images,
than the final one."""

_LEAST_STEPS = 40
"""Steps that such a student takes at least, unless the final one takes fewer."""

_RATE_FACTOR = 3.0
"""Of the learning rate where the final training keeps it constant; here it falls to 0."""

SHORT_TRAINING_FACTOR = 2.0
"""The scale that suits the final training, as a multiple of the best of `scale_training`.

The less a student is trained, the smaller a scale suits it. The factor was fitted to four runs of
600 images of MNIST and Fashion-MNIST, whose final students of 1,500 steps were 0.07 to 0.76 points
better with twice the scale that students of 250 steps choose. In four other runs its students were
0.1 points better in the mean than those of the grid before, from 0.5 worse to 0.5 better
(benchmarks.students.scale)."""

SHORT_TRAINING_STUDENTS = 2
"""Students of `scale_training` for each scale."""

MakeSoftLabels = Callable[[Tensor, Tensor, float, float], Tensor]


@dataclass(frozen=True)
class ScaleTrial:
    """What students did at one scale on images that they did not train on.

    Attributes:
        relative: the scale times the median nearest distance (no unit).
        scale: s, per input unit.
        agreement: mean share of held-out images on which student and teacher agree.
        deviation: sample standard deviation of that share over the students (0 for a single one).
        losses: of each student, the cross-entropy of its prediction with the teacher's decisions
            (see `held_out_loss`), in nats.
    """

    relative: float
    scale: float
    agreement: float
    deviation: float
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The mean loss of the students."""
        return statistics.fmean(self.losses)


@dataclass(frozen=True)
class ScaleChoice:
    """The scale chosen, and the trials it was chosen from.

    Attributes:
        scale: s, per input unit.
        trials: smallest scale first.
        factor: how many times larger the scale is than what suits the students of the trials.
    """

    scale: float
    trials: tuple[ScaleTrial, ...]
    factor: float = 1.0

    @classmethod
    def among(cls, trials: Sequence[ScaleTrial], factor: float = 1.0) -> "ScaleChoice":
        """`factor` times the middle of the scales that cannot be told from the best."""
        trials = tuple(sorted(trials, key=lambda trial: trial.scale))
        alike = cls(math.nan, trials).alike
        middle = math.sqrt(alike[0].scale * alike[-1].scale) if len(alike) > 1 else alike[0].scale
        return cls(factor * middle, trials, factor)

    @property
    def best(self) -> ScaleTrial:
        """The trial with the smallest loss."""
        return _best(self.trials)

    @property
    def at_edge(self) -> bool:
        """Whether the best scale is the smallest or the largest that was tried."""
        return self.best in (self.trials[0], self.trials[-1])

    @property
    def alike(self) -> tuple[ScaleTrial, ...]:
        """The trials that cannot be told from the best.

        Their students' losses exceed those of the best scale's students, pair by pair, by no more
        than the standard error of the mean difference. With one student, the best trial alone.
        """
        return tuple(trial for trial in self.trials if _cannot_be_told(trial, self.best))

    def describe(self) -> list[str]:
        """The choice in lines to print: what was tried, and how much the choice is worth."""
        tried = ", ".join(f"{trial.scale:.3g}: {trial.agreement:.1%}" for trial in self.trials)
        chosen = "the best"
        if self.factor != 1:
            chosen = f"{self.factor:.3g} times the best of short trainings"
        lines = [
            f"scale {self.scale:.3g}, {chosen} on held-out images (agreement with the teacher by "
            f"scale: {tried})"
        ]
        if self.at_edge and len(self.trials) > 1:
            side = "smaller" if self.best == self.trials[0] else "larger"
            lines.append(
                f"warning: the best scale is the last that was tried; a {side} one may be better, "
                "give --scale to try it"
            )
        if len(self.alike) == len(self.trials) > 1:
            lines.append(
                "warning: no scale tried is clearly better than another; more labelled images "
                "would tell them apart"
            )
        elif len(self.alike) > 1:
            low, high = self.alike[0].scale, self.alike[-1].scale
            lines.append(f"scales from {low:.3g} to {high:.3g} do about as well")
        return lines


def scale_training(settings: TrainSettings, rows: int) -> TrainSettings:
    """The training of students that choose the scale, for a final one of these settings.

    Steps are fewer and batches smaller, so that six students take about a third of the time of the
    final one. The learning rate begins higher and falls to 0, so that they come further in it.

    Args:
        settings: the final training.
        rows: images that it trains on.
    """
    total = settings.total_steps(rows)
    factor = _RATE_FACTOR if settings.schedule == "constant" else 1.0
    return replace(
        settings,
        steps=max(total // _TRAINING_SHARE, min(total, _LEAST_STEPS)),
        batch_size=max(1, settings.batch_size // _BATCH_SHARE),
        learning_rate=settings.learning_rate * factor,
        schedule="cosine",
    )


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
    factor: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> ScaleChoice:
    """The scale whose students predict the teacher's decisions on held-out images best.

    The answered samples are cut at random into `folds` equal parts. Student i holds out part i
    (modulo `folds`) and trains with seed `settings.seed + i`, on the same split and from the same
    weights at every scale, so that scales differ by the labels alone. The best scale has the
    smallest mean `held_out_loss`, which tells scales apart with far fewer students than the share
    of images that they agree on: that moves in steps of one image. While the best scale is the
    smallest or the largest tried, the next beyond it is tried too, up to six of them. The scale
    chosen is the geometric middle of those that cannot be told from the best (`ScaleChoice.alike`),
    times `factor`. No query is spent.

    Args:
        model: the student, as for `train_student`.
        images: N images, as for `train_student`.
        distances: [N, C] float32, L2 in input units; +inf where a class was not reached. The own
            column is not read.
        own: [N] int64, the teacher's decisions; -1 (unanswered) is left out.
        make_soft_labels: called with distances [n, C], own [n], scale and temperature; returns soft
            labels [n, C].
        loss: the students' loss; its temperature is the soft labels'.
        settings: the students' training. A much shorter one than the final will do, as
            `scale_training` makes it.
        relative_scales: the scales to begin with, as scale times median nearest distance. One alone
            is taken as it is.
        folds: parts the samples are cut into, at least 2.
        students: students per scale.
        factor: how many times larger a scale the final training wants than these students;
            `SHORT_TRAINING_FACTOR` for `settings` of `scale_training`.
        progress: called after each student with (students trained, students in all as far as is
            known).
    """
    grid = _checked_grid(relative_scales)
    answered = (own >= 0).nonzero().flatten()
    if folds < 2 or students < 1 or len(answered) < folds:
        raise ValueError(
            f"folds, students: expected at least 2 and 1, and an answered sample for each fold, "
            f"got {folds} and {students} with {len(answered)} answered samples"
        )
    unit = 1 / median_nearest_distance(distances[answered], own[answered])
    order = torch.randperm(len(answered), generator=torch.Generator().manual_seed(settings.seed))
    parts = answered[order].tensor_split(folds)
    trials: dict[float, ScaleTrial] = {}

    def try_scale(relative: float) -> None:
        scale = relative * unit
        soft = torch.zeros_like(distances)
        soft[answered] = make_soft_labels(
            distances[answered], own[answered], scale, loss.temperature
        )
        shares, losses = [], []
        for i in range(students):
            held_out = parts[i % folds]
            rows = torch.cat([part for k, part in enumerate(parts) if k != i % folds])
            seeded = replace(settings, seed=settings.seed + i)
            student = train_student(model, images, own, soft, loss, seeded, rows=rows)
            logits = predict_logits(student, images, rows=held_out)
            shares.append(share_equal(logits.argmax(1), own[held_out]))
            losses.append(held_out_loss(logits, own[held_out]))
            if progress is not None:
                done = students * len(trials) + i + 1
                progress(done, students * max(len(grid), len(trials) + 1))
        deviation = statistics.stdev(shares) if students > 1 else 0.0
        trials[relative] = ScaleTrial(
            relative, scale, statistics.fmean(shares), deviation, tuple(losses)
        )

    for relative in grid:
        try_scale(relative)
    for _ in range(_MOST_EXTENSIONS):
        following = _beyond_the_edge(trials)
        if following is None:
            break
        try_scale(following)
    return ScaleChoice.among(list(trials.values()), factor)


def held_out_loss(logits: Tensor, decisions: Tensor) -> float:
    """The cross-entropy of decisions [n] with logits [n, C], at the logits' best temperature.

    The temperature is fitted to the same images. So students are compared by how they order and
    space the classes, not by how sure they are, which the scale itself sets.
    """
    logits = logits.double()
    low, high = -8.0, 8.0  # of the logarithm of the inverse temperature
    for _ in range(30):  # ternary search: the loss has one minimum, being convex in the inverse
        third = (high - low) / 3
        near, far = (_cross_entropy(logits, decisions, at) for at in (low + third, high - third))
        low, high = (low, high - third) if near <= far else (low + third, high)
    return _cross_entropy(logits, decisions, (low + high) / 2)


def _cross_entropy(logits: Tensor, decisions: Tensor, log_inverse: float) -> float:
    return F.cross_entropy(logits * math.exp(log_inverse), decisions).item()


def _best(trials: Sequence[ScaleTrial]) -> ScaleTrial:
    return min(trials, key=lambda trial: (trial.loss, trial.relative))


def _beyond_the_edge(trials: dict[float, ScaleTrial]) -> float | None:
    """The next relative scale beyond the edge that the best lies on; None for one inside."""
    grid = sorted(trials)
    best = _best(list(trials.values())).relative
    if len(grid) == 1 or best not in (grid[0], grid[-1]):
        return None
    if best == grid[0]:
        return grid[0] * grid[0] / grid[1]
    return grid[-1] * grid[-1] / grid[-2]


def _cannot_be_told(trial: ScaleTrial, best: ScaleTrial) -> bool:
    gaps = [mine - its for mine, its in zip(trial.losses, best.losses, strict=True)]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
    return statistics.fmean(gaps) <= error


def median_nearest_distance(distances: Tensor, own: Tensor) -> float:
    """The median, over samples that reached any other class, of the distance to the nearest one.

    distances [N, C] (+inf: not reached; the own column is not read), own [N] int64 -> input units.
    """
    others = distances.scatter(1, own[:, None], math.inf)
    others = others.masked_fill(others == 0, math.inf)  # of samples that contradict themselves
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


def _checked_grid(relative_scales: Sequence[float]) -> list[float]:
    if not relative_scales or not all(math.isfinite(s) and s > 0 for s in relative_scales):
        raise ValueError(
            f"relative_scales: expected finite numbers above 0, got {list(relative_scales)}"
        )
    return sorted(set(relative_scales))
