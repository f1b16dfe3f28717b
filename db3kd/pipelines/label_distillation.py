"""Students of a label run, as `db3kd distill --labels` trains them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Self, get_args

from torch import nn

from db3kd.arguments.plain import check_choice, check_positive, check_share
from db3kd.data.image_set import ImageSet
from db3kd.errors import ArgumentError
from db3kd.labelling.runs.label_run import LabelRun
from db3kd.labels.soft_labels import (
    DEFAULT_TEMPERATURE,
    check_soft_labels,
    with_soft_labels,
)
from db3kd.models import save_model
from db3kd.models.networks import build_model, check_model
from db3kd.models.random_state import kept_random_state
from db3kd.ops import Normalisation
from db3kd.pipelines.inputs import usable_test_split
from db3kd.pipelines.student_warnings import TRIED_INPUTS, probabilities_warning
from db3kd.progress import Progress
from db3kd.querying.search import UNANSWERED
from db3kd.scale.choice import ScaleChoice
from db3kd.scale.search import choose_scale
from db3kd.storage.manifest import make_manifest, write_manifest
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.constant_answer import constant_answer_warning
from db3kd.training.evaluation import evaluate
from db3kd.training.loss import KDLoss
from db3kd.training.process import check_can_train
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_on_soft_labels


@dataclass(frozen=True)
class LabelTraining:
    """How the students of a label run are trained; made by `of` or `paper`.

    Attributes:
        normalisation: The formula of the soft labels.
        scale: The scale of margin soft labels; None if it has yet to be chosen, and without one.
        loss: The loss, with the temperature of the soft labels.
        settings: How each student is trained.
    """

    normalisation: Normalisation
    scale: float | None
    loss: KDLoss
    settings: TrainSettings

    def __post_init__(self) -> None:
        # Before images are read.
        check_can_train(self.settings.device, self.settings.precision)

    @classmethod
    def of(
        cls,
        run: LabelRun,
        settings: TrainSettings,
        *,
        normalisation: Normalisation | None = None,
        scale: float | Literal["auto"] | None = None,
        temperature: float | None = None,
        alpha: float = 0.5,
    ) -> Self:
        """Returns how the students of a run are trained; its soft labels supply the defaults.

        Example:
            >>> run = open_run("runs/labels")
            >>> training = LabelTraining.of(run, db3kd.TrainSettings(steps=1500), alpha=0.2)

        Args:
            run: The label run.
            settings: How each student is trained.
            normalisation: The formula of the soft labels; by default that of the run's soft
                labels, or "margin".
            scale: The scale of margin soft labels, or "auto" to choose it by short training runs;
                by default that of the run's soft labels of this normalisation, or "auto".
            temperature: The temperature of the soft labels and of the loss; by default that of the
                run's soft labels of this normalisation, or 4 for "margin" and 20 for "inverse".
            alpha: The weight of the decisions in the loss, in [0, 1]; soft labels get the rest.

        Raises:
            ValueError: If an argument is out of range, or if "inverse" is given a scale.
        """
        stored = run.soft_label_settings
        if stored is not None and normalisation not in (None, stored.normalisation):
            stored = None
        if normalisation is None:
            normalisation = "margin" if stored is None else stored.normalisation
        check_choice(normalisation, "normalisation", get_args(Normalisation))
        if normalisation == "inverse" and scale is not None:
            raise ArgumentError("scale", "needs the normalisation margin; inverse has no scale")
        if temperature is None:
            usual = DEFAULT_TEMPERATURE[normalisation]
            temperature = usual if stored is None else stored.temperature
        loss = KDLoss(temperature, check_share(alpha, "alpha"))
        if scale is None and stored is not None:
            scale = stored.scale
        if scale == "auto":
            scale = None
        if scale is not None:
            scale = check_positive(scale, "scale", "a finite number above 0 or auto")
        return cls(normalisation, scale, loss, settings)

    @classmethod
    def paper(cls, settings: TrainSettings) -> Self:
        """Returns the training of DB3KD (ICML 2021), with soft labels of 1/distance and T = 20.

        Args:
            settings: How each student is trained; the paper has 200 epochs in batches of 512.
        """
        return cls("inverse", None, KDLoss.paper(), settings)


@dataclass(frozen=True)
class LabelStudent:
    """A student of a label run.

    Attributes:
        file: Its weights.
        accuracy: Its accuracy on the test images, or None.
        warnings: What makes it useless.
    """

    file: Path
    accuracy: float | None
    warnings: tuple[str, ...]


def labelled_test_split(run: LabelRun) -> ImageSet | None:
    """Returns the test split of the run's data set; None without one, or without true classes."""
    if run.source.split == "test":
        return None

    def prepare(test: ImageSet) -> ImageSet:
        test.check()  # rather now than after the training
        return run.match(test)

    return usable_test_split(replace(run.source, split="test").load, prepare)


def network_warnings(run: LabelRun, model: str) -> tuple[str, ...]:
    """Returns what makes a network learn worse than it could, found on a few images.

    Raises:
        TypeError: See `check_model`.
        ValueError: See `check_model`.
    """
    check_model(model, run.images.image_shape, run.labels.classes)
    tried = run.images.read(range(min(TRIED_INPUTS, len(run.images))))
    with kept_random_state():
        found = probabilities_warning(_make_student(run, model)(), tried)
    return () if found is None else (found,)


def choose_label_scale(run: LabelRun, model: str, training: LabelTraining) -> ScaleChoice | None:
    """Chooses the scale of margin soft labels by short training runs; None if none is to choose."""
    if training.normalisation == "inverse" or training.scale is not None:
        return None
    make = _make_student(run, model)
    return choose_scale(
        make, run.images, run.labels, training.loss, training.settings, progress=True
    )


def train_from_labels(
    run: LabelRun,
    model: str,
    training: LabelTraining,
    scale: float | None,
    files: Mapping[int, Path],
    *,
    test: ImageSet | None,
    callbacks: Mapping[int, Sequence[TrainingCallback]],
) -> Iterator[LabelStudent]:
    """Trains students and writes each to its file, with a .json file that says how it was made.

    Args:
        run: The label run.
        model: The name of the network.
        training: How students are trained.
        scale: The scale of margin soft labels; None without one.
        files: The seed of each student, and its new weights file.
        test: Images with true classes to measure students on, or None.
        callbacks: The callbacks of the training with each seed.

    Yields:
        Each student when it is finished.
    """
    labels = with_soft_labels(
        run.labels,
        normalisation=training.normalisation,
        scale=1.0 if scale is None else scale,
        temperature=training.loss.temperature,
    )
    make, decisions = _make_student(run, model), labels.decision
    steps = training.settings.total_steps(int((decisions != UNANSWERED).sum()))
    for seed, file in files.items():
        seeded = replace(training, settings=replace(training.settings, seed=seed))
        with Progress(steps, title=f"training, seed {seed}", unit="steps") as progress:
            network = train_on_soft_labels(
                make,
                run.images,
                decisions,
                check_soft_labels(labels),
                training.loss,
                seeded.settings,
                progress=progress,
                callbacks=callbacks[seed],
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        save_model(
            file,
            network,
            model=model,
            image_shape=run.images.image_shape,
            classes=labels.classes,
            class_names=run.class_names,
            features=run.images.features,
        )
        accuracy = None
        if test is not None and test.labels is not None:
            accuracy = evaluate(network, test, test.labels)
        warning = constant_answer_warning(
            network, run.images, decisions, class_names=run.class_names
        )
        made = {"model": model, "scale": scale, "plan": seeded}
        _describe_student(file, run, made, seed, accuracy)
        yield LabelStudent(file, accuracy, () if warning is None else (warning,))


def _make_student(run: LabelRun, model: str) -> "partial[nn.Module]":
    return partial(build_model, model, run.images.image_shape, run.labels.classes)


def _describe_student(
    file: Path, run: LabelRun, settings: Mapping[str, object], seed: int, accuracy: float | None
) -> None:
    """Writes the .json file of a student, which records how it was made."""
    described = make_manifest(
        settings,
        seed=seed,
        teacher_fingerprint=run.manifest["teacher"],
        classes=run.labels.classes,
        data_fingerprint=run.manifest["data"],
    )
    described["queries"] = int(run.labels.queries.sum())
    if accuracy is not None:
        described["test_accuracy"] = accuracy
    write_manifest(file.with_suffix(".json"), described)
