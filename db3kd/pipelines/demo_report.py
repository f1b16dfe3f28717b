"""The report of the demo: what was trained, what it cost, and the pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from db3kd.data.image_set import ImageSet
from db3kd.distillation.loss import KDLoss
from db3kd.distillation.methods import MethodResult
from db3kd.distillation.scale import ScaleChoice
from db3kd.labelling.label_run import LabelRun
from db3kd.labelling.labels import Labels
from db3kd.labelling.sample_choice import spread_over_classes
from db3kd.labelling.soft_labels import with_soft_labels
from db3kd.labelling.totals import count_disagreements, distance_against_queries
from db3kd.pipelines.demo_settings import DemoSettings
from db3kd.report import ClassDistances, Samples, write_report
from db3kd.teachers import Teacher

_SHOWN_SAMPLES = 12


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher, as a network and as the black box that students learn from.

    Attributes:
        network: The network.
        teacher: The black box.
        accuracy: Share of test images that it classifies correctly.
        make: Makes another network of the same architecture.
    """

    network: nn.Module
    teacher: Teacher
    accuracy: float
    make: Callable[[], nn.Module]


@dataclass(frozen=True)
class DemoTransferSet:
    """The images that students learn from, with one label run per measure.

    Attributes:
        images: The images.
        decisions: [N] int64, the teacher's classes.
        runs: A label run of the images by measure.
    """

    images: ImageSet
    decisions: Tensor
    runs: dict[str, LabelRun]

    def queries_per_sample(self, measure: str) -> int:
        """Returns the mean number of queries per image, rounded."""
        return round(self.runs[measure].labels.queries.sum().item() / len(self.images))

    def margin_labels(self, measure: str, scale: float) -> Labels:
        """Returns the labels of a measure with margin soft labels."""
        return with_soft_labels(
            self.runs[measure].labels,
            normalisation="margin",
            scale=scale,
            temperature=KDLoss().temperature,
        )


def describe_demo(
    settings: DemoSettings,
    teacher: TrainedTeacher,
    transfer: DemoTransferSet,
    choices: Mapping[str, ScaleChoice],
    train: ImageSet,
    test: ImageSet,
) -> list[str]:
    """Returns sentences on what was trained, how it was chosen and how many queries it cost."""
    scales = ", ".join(f"{name.upper()} {choice.scale:.2g}" for name, choice in choices.items())
    distances = ", ".join(
        f"{name.upper()} {run.labels.measured_distances.mean():.2f}"
        for name, run in transfer.runs.items()
    )
    samples = len(transfer.images)
    label_queries = sum(int(run.labels.queries.sum()) for run in transfer.runs.values())
    augmented = sum(samples * transfer.queries_per_sample(measure) for measure in ("bd", "mbd"))
    total = label_queries + augmented + len(test)
    last_seed = settings.seed + settings.seeds - 1
    return [
        f"Teacher: {settings.teacher}, trained for {settings.teacher_epochs} epochs on "
        f"{len(train):,} images of {settings.data}. Its accuracy on the {len(test):,} test images "
        f"is {teacher.accuracy:.1%}.",
        f"Students: {settings.student}, {settings.steps} steps of at most {settings.batch_size} "
        f"images, Adam with a learning rate of {settings.training.learning_rate:g}, seeds "
        f"{settings.seed} to {last_seed}, trained on {samples:,} of the training images. Sizes and "
        "steps were chosen on training images.",
        "The augmented rows use cross-entropy on the teacher's decisions for augmented images, as "
        "many as the labels of that measure cost queries. Half of their training images are clean.",
        f"The teacher puts {count_disagreements(transfer.runs['mbd'].labels)} of the {samples:,} "
        "images in another class than the data set does; labels follow the teacher's decision.",
        f"Mean distance (L2, input units): {distances}.",
        f"Scales of the margin soft labels: {scales}, at temperature {KDLoss().temperature:g}. "
        "They are chosen by how well students predict the teacher's decisions on held-out transfer "
        "images, which costs no query.",
        f"Queries: {total:,} in total, {label_queries:,} for the labels, {augmented:,} for "
        f"augmented images and {len(test):,} to compare students with the teacher on test images.",
    ]


def write_demo_report(
    folder: Path,
    rows: Sequence[MethodResult],
    notes: Sequence[str],
    transfer: DemoTransferSet,
    choices: Mapping[str, ScaleChoice],
) -> Path:
    """Writes report.md and its pictures into `folder`, and returns the path of report.md."""
    labels = transfer.margin_labels("mbd", choices["mbd"].scale)
    assert labels.soft_labels is not None  # margin_labels adds them
    shown = spread_over_classes(labels.decision, _SHOWN_SAMPLES)
    return write_report(
        folder,
        rows,
        notes=notes,
        samples=Samples(
            transfer.images.read(shown), labels.soft_labels[shown], labels.decision[shown]
        ),
        curves={
            measure.upper(): distance_against_queries(transfer.runs[measure].labels)
            for measure in ("bd", "mbd")
        },
        class_distances=ClassDistances(labels.distances, labels.decision),
    )
