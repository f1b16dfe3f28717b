"""Methods of training a student from a teacher's answers, and their comparison.

A `TrainingMethod` trains one student from a seed on answers that the teacher has already given,
whereas a strategy of `db3kd.planning` also spends a budget. `compare_methods` runs several methods
with the same seeds and measures all students in the same way. The settings need a number of steps,
so that no student trains longer than another. `baselines.py` has further methods.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from db3kd.data.arguments import ImagesLike
from db3kd.report.tables import NO_VALUE, markdown_table, mean_and_deviation
from db3kd.training.evaluation import predict, share_equal
from db3kd.training.loop import Model
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier, train_on_soft_labels


@dataclass(frozen=True)
class TrainingMethod:
    """A way to train a student.

    Attributes:
        name: The name of its row in the table.
        queries_per_sample: The queries for its labels; None if it reads the teacher's logits.
        run: Trains a student from a seed.
    """

    name: str
    queries_per_sample: float | None
    run: Callable[[int], nn.Module]


@dataclass(frozen=True)
class MethodResult:
    """The students of a method, one entry per seed: a row of the comparison table.

    Attributes:
        method: The name of the method.
        accuracies: Accuracy of each student on the test images, in [0, 1].
        agreements: Share of test images on which student and teacher agree, in [0, 1].
        queries_per_sample: The method's `queries_per_sample`.
    """

    method: str
    accuracies: Sequence[float]
    agreements: Sequence[float]
    queries_per_sample: float | None


def compare_methods(
    methods: Sequence[TrainingMethod],
    seeds: Sequence[int],
    test_images: ImagesLike,
    test_labels: Tensor,
    test_decisions: Tensor,
    progress: Callable[[str, int], None] | None = None,
) -> list[MethodResult]:
    """Runs every method with every seed, and measures each student once on the test images.

    Args:
        methods: The methods to compare, in the order of the results.
        seeds: One student is trained for each seed; all methods share the seeds.
        test_images: M images, none of them in any training set.
        test_labels: [M] int64, the true classes.
        test_decisions: [M] int64, the teacher's classes; -1 (unanswered) is left out of the
            agreement.
        progress: Called with the name of the method and the seed before each training.

    Returns:
        One result per method.
    """
    answered = test_decisions >= 0
    results = []
    for method in methods:
        accuracies, agreements = [], []
        for seed in seeds:
            if progress is not None:
                progress(method.name, seed)
            classes = predict(method.run(seed), test_images)
            accuracies.append(share_equal(classes, test_labels))
            agreements.append(share_equal(classes[answered], test_decisions[answered]))
        results.append(
            MethodResult(
                method.name, tuple(accuracies), tuple(agreements), method.queries_per_sample
            )
        )
    return results


def method_table(rows: Sequence[MethodResult]) -> str:
    """Returns the table of methods as Markdown: mean ± sample standard deviation over seeds."""
    cells = [
        (
            row.method,
            mean_and_deviation(row.accuracies),
            mean_and_deviation(row.agreements),
            NO_VALUE if row.queries_per_sample is None else f"{row.queries_per_sample:,.0f}",
        )
        for row in rows
    ]
    return markdown_table(("method", "accuracy %", "agreement %", "queries per sample"), cells)


def decision_method(
    student: Model,
    images: ImagesLike,
    decisions: Tensor,
    settings: TrainSettings,
    *,
    rows: Tensor | None = None,
) -> TrainingMethod:
    """Trains on the teacher's decisions by cross-entropy, for one query per sample.

    Args:
        student: The network, as for `train_student`.
        images: N images, as for `train_student`.
        decisions: [N] int64, the teacher's classes; -1 (unanswered) is left out.
        settings: Training settings; `steps` must be set. The seed comes from the comparison.
        rows: See `train_student`.
    """
    check_steps(settings)

    def run(seed: int) -> nn.Module:
        seeded = replace(settings, seed=seed)
        return train_classifier(
            student, images, decisions, settings=seeded, rows=rows, progress=False
        )

    return TrainingMethod("cross-entropy on decisions", 1.0, run)


def soft_label_method(
    name: str,
    queries_per_sample: float | None,
    student: Model,
    images: ImagesLike,
    decisions: Tensor,
    soft_labels: Tensor,
    loss: KDLoss,
    settings: TrainSettings,
    *,
    rows: Tensor | None = None,
) -> TrainingMethod:
    """Distils given soft labels, from distances or any other source.

    Their cost is `queries_per_sample`, or None if they come from a white box. They are [N, C]
    float32, and rows sum to 1. The loss has their temperature. The other arguments are those of
    `decision_method`.
    """
    check_steps(settings)

    def run(seed: int) -> nn.Module:
        seeded = replace(settings, seed=seed)
        return train_on_soft_labels(
            student, images, decisions, soft_labels, loss, seeded, rows=rows
        )

    return TrainingMethod(name, queries_per_sample, run)


def check_steps(settings: TrainSettings) -> None:
    """Raises ValueError unless the settings have a number of steps."""
    if settings.steps is None:
        raise ValueError(
            "settings.steps: expected a number, so that all methods train equally long, got None"
        )
