"""What soft labels from distances are compared with.

The baselines of DB3KD (section 4), and decisions for augmented images at equal queries. A
`Strategy` trains one student from a seed. `compare` runs recipes over the same seeds and measures
them alike. Every recipe takes settings with an explicit number of steps, so that no row of a table
trains longer than another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.data.image_source import Images, image_reader
from db3kd.distillation.augmentation import AugmentedImages
from db3kd.distillation.student import (
    KDLoss,
    predict,
    predict_logits,
    share_equal,
    train_classifier,
    train_student,
)
from db3kd.distillation.training import Model, TrainSettings
from db3kd.querying.search import fitting_batch_size
from db3kd.teachers.cpu_batch import batch_for_images


@dataclass(frozen=True)
class Strategy:
    """A way to a student.

    Attributes:
        name: its row in the table.
        queries_per_sample: what its labels cost; None for a white box, which asks no queries.
        run: trains a student from a seed.
    """

    name: str
    queries_per_sample: float | None
    run: Callable[[int], nn.Module]


@dataclass(frozen=True)
class StrategyResult:
    """How a recipe's students did, one entry per seed: a row of the comparison table.

    Attributes:
        method: the recipe's name.
        accuracies: share of test images put in the class of their label, in [0, 1].
        agreements: share of test images on which student and teacher decide alike, in [0, 1].
        queries_per_sample: as the recipe's.
    """

    method: str
    accuracies: Sequence[float]
    agreements: Sequence[float]
    queries_per_sample: float | None


def compare(
    strategies: Sequence[Strategy],
    seeds: Sequence[int],
    test_images: Images,
    test_labels: Tensor,
    test_decisions: Tensor,
    progress: Callable[[str, int], None] | None = None,
) -> list[StrategyResult]:
    """Run every recipe with every seed; measure each student on the test images once, at its end.

    Args:
        strategies: the rows, in order.
        seeds: of the students; the same for every row.
        test_images: M images, none of them in any training set.
        test_labels: [M] int64, true classes.
        test_decisions: [M] int64, the teacher's classes (-1: unanswered, left out of the
            agreement).
        progress: called before each training with the recipe's name and the seed.
    """
    if not strategies or not seeds:
        raise ValueError(
            "strategies, seeds: expected at least one of each, got "
            f"{len(strategies)} and {len(seeds)}"
        )
    answered = test_decisions >= 0
    results = []
    for strategy in strategies:
        accuracies, agreements = [], []
        for seed in seeds:
            if progress is not None:
                progress(strategy.name, seed)
            classes = predict(strategy.run(seed), test_images)
            accuracies.append(share_equal(classes, test_labels, "test_labels"))
            agreements.append(
                share_equal(classes[answered], test_decisions[answered], "test_decisions")
            )
        results.append(
            StrategyResult(
                strategy.name, tuple(accuracies), tuple(agreements), strategy.queries_per_sample
            )
        )
    return results


def on_decisions(
    student: Model,
    images: Images,
    decisions: Tensor,
    settings: TrainSettings,
    *,
    rows: Tensor | None = None,
) -> Strategy:
    """Cross-entropy on the teacher's decisions: one query a sample, and no soft labels.

    rows: as for `train`.
    """
    _check_steps(settings)

    def run(seed: int) -> nn.Module:
        seeded = replace(settings, seed=seed)
        return train_classifier(student, images, decisions, seeded, rows=rows)

    return Strategy("cross-entropy on decisions", 1.0, run)


def on_soft_labels(
    name: str,
    queries_per_sample: float | None,
    student: Model,
    images: Images,
    decisions: Tensor,
    soft_labels: Tensor,
    loss: KDLoss,
    settings: TrainSettings,
    *,
    rows: Tensor | None = None,
) -> Strategy:
    """Distillation of given soft labels, from distances or anything else. rows: as for `train`."""
    _check_steps(settings)

    def run(seed: int) -> nn.Module:
        seeded = replace(settings, seed=seed)
        return train_student(student, images, decisions, soft_labels, loss, seeded, rows=rows)

    return Strategy(name, queries_per_sample, run)


@dataclass(frozen=True)
class AugmentedDecisions:
    """Augmented images, and the teacher's decision for each: [len(images)] int64, -1 unanswered."""

    images: AugmentedImages
    decisions: Tensor


def augmented_decisions(
    images: AugmentedImages, decide: Callable[[Tensor], Tensor], batch: int = 1024
) -> AugmentedDecisions:
    """Ask the teacher about every image: exactly `images.queries_per_sample` queries a sample.

    `decide` takes [n, *shape] float32 images and returns n classes. Images are made a batch at a
    time and not kept.
    """
    answers = []
    for rows in torch.arange(len(images)).split(fitting_batch_size(batch, images.image_shape)):
        classes = torch.as_tensor(decide(images.read(rows)))
        if classes.shape != rows.shape:
            raise ValueError(
                f"decide: expected {len(rows)} classes for {len(rows)} images, "
                f"got {list(classes.shape)}"
            )
        answers.append(classes.cpu().long())
    return AugmentedDecisions(images, torch.cat(answers))


def on_augmented_decisions(
    student: Model, asked: AugmentedDecisions, settings: TrainSettings, clean_share: float = 0.5
) -> Strategy:
    """Cross-entropy on decisions for augmented images, and for the clean ones among them.

    Clean images are repeated a whole number of times, at least once, to be about `clean_share` (0
    to below 1) of the training rows: with many queries a sample they would otherwise be lost among
    the augmented ones.
    """
    _check_steps(settings)
    rows = rows_with_clean_share(asked.images, clean_share)

    def run(seed: int) -> nn.Module:
        seeded = replace(settings, seed=seed)
        return train_classifier(student, asked.images, asked.decisions, seeded, rows=rows)

    per_sample = float(asked.images.queries_per_sample)
    return Strategy("cross-entropy on augmented decisions", per_sample, run)


def on_soft_labels_and_augmented_decisions(
    name: str,
    label_queries: float,
    student: Model,
    asked: AugmentedDecisions,
    soft_labels: Tensor,
    loss: KDLoss,
    settings: TrainSettings,
    clean_share: float = 0.5,
) -> Strategy:
    """Both in one student: `loss` on the clean images, its cross-entropy on the augmented ones.

    Augmented images have no soft label, which would cost a search each.

    Args:
        name: the recipe's row in the table.
        label_queries: what a soft label cost, its sample's decision included; the recipe's queries
            count that decision once.
        student: as for `train_student`.
        asked: the augmented images of N samples and the decisions for them.
        soft_labels: [N, C] float32, of the samples themselves; rows sum to 1.
        loss: of the clean images.
        settings: with a number of steps.
        clean_share: as for `on_augmented_decisions`.
    """
    _check_steps(settings)
    images, per_sample = asked.images, asked.images.queries_per_sample
    if soft_labels.ndim != 2 or len(soft_labels) != images.samples:
        raise ValueError(
            f"soft_labels: expected [{images.samples}, C], one row for each sample, "
            f"got {list(soft_labels.shape)}"
        )
    rows = rows_with_clean_share(images, clean_share)
    soft = torch.zeros(len(images), soft_labels.shape[1])
    soft[::per_sample] = soft_labels

    def run(seed: int) -> nn.Module:
        seeded = replace(settings, seed=seed)
        return train_student(student, images, asked.decisions, soft, loss, seeded, rows=rows)

    return Strategy(name, label_queries + per_sample - 1, run)


def rows_with_clean_share(images: AugmentedImages, clean_share: float) -> Tensor:
    """All rows, those of clean images as often as makes them `clean_share` of what is returned.

    Clean images are repeated a whole number of times, at least once. -> [R] int64
    """
    if not 0 <= clean_share < 1:
        raise ValueError(f"clean_share: expected at least 0 and below 1, got {clean_share}")
    per_sample = images.queries_per_sample
    repeats = max(1, round((per_sample - 1) * clean_share / (1 - clean_share)))
    clean = torch.arange(0, len(images), per_sample)
    return torch.cat([torch.arange(len(images)), clean.repeat(repeats - 1)])


def on_teacher_logits(
    student: Model,
    images: Images,
    decisions: Tensor,
    logits: Callable[[Tensor], Tensor],
    loss: KDLoss,
    settings: TrainSettings,
    batch: int | None = None,
) -> Strategy:
    """White-box distillation (Hinton et al. 2015): soft labels from the teacher's own logits.

    Not a black-box method: what could be reached if the teacher said everything. `logits` takes
    [n, *shape] float32 images and returns [n, C]; it is asked once, for all seeds, in batches that
    suit a network on a CPU unless `batch` says otherwise.
    """
    _check_steps(settings)
    read = image_reader(images, "cpu")
    with torch.no_grad():
        shape = read(torch.zeros(1, dtype=torch.int64)).shape[1:]
        rows = torch.arange(len(images)).split(batch or batch_for_images(shape))
        answers = torch.cat([torch.as_tensor(logits(read(part))).cpu() for part in rows])
    soft = F.softmax(answers.float() / loss.temperature, 1)
    return on_soft_labels("white-box KD", None, student, images, decisions, soft, loss, settings)


def on_surrogate_logits(
    student: Model,
    surrogate: Callable[[], nn.Module],
    images: Images,
    decisions: Tensor,
    loss: KDLoss,
    settings: TrainSettings,
) -> Strategy:
    """Distillation of a stand-in for the teacher that learnt its decisions.

    `surrogate` makes a network of the teacher's architecture; it is trained on the decisions, then
    its logits are distilled. Both trainings take `settings.steps` and the seed; a new surrogate is
    trained for every seed.
    """
    _check_steps(settings)

    def run(seed: int) -> nn.Module:
        seeded = replace(settings, seed=seed)
        stand_in = train_classifier(surrogate, images, decisions, seeded)
        soft = F.softmax(predict_logits(stand_in, images) / loss.temperature, 1)
        return train_student(student, images, decisions, soft, loss, seeded)

    return Strategy("surrogate KD", 1.0, run)


def on_noise_logits(
    student: Model,
    images: Images,
    decisions: Tensor,
    classes: int,
    loss: KDLoss,
    settings: TrainSettings,
    spread: float = 20.0,
) -> Strategy:
    """Distillation of `noise_soft_labels`, new for every seed: softness without knowledge."""
    _check_steps(settings)

    def run(seed: int) -> nn.Module:
        soft = noise_soft_labels(decisions, classes, loss.temperature, seed, spread)
        return train_student(student, images, decisions, soft, loss, replace(settings, seed=seed))

    return Strategy("noise logits", 1.0, run)


def noise_soft_labels(
    decisions: Tensor, classes: int, temperature: float, seed: int, spread: float = 20.0
) -> Tensor:
    """Random soft labels in which the decision is the largest.

    The decision's logit is 0; every other class draws its own independently and uniformly from
    [-spread, 0); then softmax at the temperature. (The control is the paper's, this distribution is
    our choice.) Rows with decision -1 are uniform. decisions [N] int64 -> [N, classes] float32.
    """
    if not spread > 0:
        raise ValueError(f"spread: expected a number above 0, got {spread}")
    generator = torch.Generator().manual_seed(seed)
    # 1 - [0, 1) is above 0, so that no other class can tie with the decision
    logits = -spread * (1 - torch.rand(len(decisions), classes, generator=generator))
    answered = decisions >= 0
    logits[answered, decisions[answered]] = 0.0
    logits[~answered] = 0.0
    return F.softmax(logits / temperature, 1)


def _check_steps(settings: TrainSettings) -> None:
    if settings.steps is None:
        raise ValueError(
            "settings.steps: expected a number, so that every recipe trains equally long, got None"
        )
