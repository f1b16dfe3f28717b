"""`db3kd distill --labels`: students of a label run."""

import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from db3kd.cli.options.sets import OptionSet
from db3kd.cli.options.shared import given
from db3kd.cli.options.training import StudentTrainingOptions
from db3kd.cli.outputs import check_weights_file
from db3kd.cli.plan_output import print_usage, print_warnings
from db3kd.errors import ArgumentError
from db3kd.wording import counted, input_noun


@dataclass(frozen=True, kw_only=True)
class LossOptions(OptionSet):
    """Which soft labels are distilled, and how."""

    panel = "Loss"

    preset: Annotated[
        Literal["paper"] | None,
        typer.Option(
            help="With --labels: train as in the paper (1/distance, T = 20, 200 epochs in batches "
            "of 512)."
        ),
    ] = None
    normalisation: Annotated[
        Literal["margin", "inverse"] | None,
        typer.Option(
            help="With --labels: formula of the soft labels.", show_default="as labelled, or margin"
        ),
    ] = None
    scale: Annotated[
        str | None,
        typer.Option(
            help="With --labels: scale of margin soft labels, a number, or auto to choose it by "
            "short training runs.",
            show_default="as labelled, or auto",
        ),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(
            help="With --labels: temperature of the soft labels and of the loss.",
            show_default="as labelled, or margin: 4, inverse: 20",
        ),
    ] = None
    alpha: Annotated[
        float | None,
        typer.Option(
            help="With --labels: weight of the decisions in the loss; soft labels get the rest.",
            show_default="0.5",
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """Returns the arguments of `LabelTraining.of` that were given."""
        return given(
            normalisation=self.normalisation,
            scale=None if self.scale is None else _parse_scale(self.scale),
            temperature=self.temperature,
            alpha=self.alpha,
        )


def distill_labels(
    labels: Path,
    out: Path | None,
    losses: LossOptions,
    training: StudentTrainingOptions,
    model: str | None,
    seeds: int,
    data: str | None,
    device: str,
) -> None:
    """Trains students on the decisions and distances of a label run.

    The weights file `out` is beside the run by default. If there are several students, their seeds
    are added to its name. `data` names the labelled images if they have moved.
    """
    from db3kd.labelling.runs.label_run import open_run
    from db3kd.models.weights import STUDENT_FILE
    from db3kd.pipelines.distill_settings import default_student
    from db3kd.pipelines.label_distillation import (
        LabelTraining,
        choose_label_scale,
        labelled_test_split,
        network_warnings,
        train_from_labels,
    )

    out = labels.with_name(f"{labels.name}-{STUDENT_FILE}") if out is None else out
    files = _student_files(out, training.seed, seeds)
    settings = training.settings(losses.preset, device)
    callbacks = {
        seed: training.callbacks(file, replace(settings, seed=seed)) for seed, file in files.items()
    }
    run = open_run(labels, data)
    if losses.preset:
        _check_preset_alone(losses)
        plan = LabelTraining.paper(settings)
    else:
        plan = LabelTraining.of(run, settings, **losses.given())
    if not run.finished:
        print(f"note: {labels} is not finished; it holds {counted(len(run.labels), 'sample')}")
    test = labelled_test_split(run)
    model = model or default_student(run.images.image_shape)
    print_warnings(network_warnings(run, model))
    noun, scale = input_noun(run.images.image_shape), plan.scale
    choice = choose_label_scale(run, model, plan)
    if choice is not None:
        print("\n".join(choice.describe(noun)))
        scale = choice.scale
    accuracies = []
    for student in train_from_labels(
        run, model, plan, scale, files, test=test, callbacks=callbacks
    ):
        if test is not None and student.accuracy is not None:
            accuracies.append(student.accuracy)
            tested = counted(len(test), f"test {noun}")
            print(f"{student.file}: accuracy {student.accuracy:.2%} of {tested}")
        else:
            print(student.file)
        print_warnings(student.warnings)
    print_usage(next(iter(files.values())), model, run.images)
    if len(accuracies) > 1:
        mean, deviation = statistics.fmean(accuracies), statistics.stdev(accuracies)
        over = counted(len(accuracies), "seed")
        print(f"mean accuracy {mean:.2%}, deviation {deviation:.2%} over {over}")


def _student_files(out: Path, seed: int, seeds: int) -> dict[int, Path]:
    files = {seed: out}
    if seeds > 1:
        numbers = range(seed, seed + seeds)
        files = {number: out.with_stem(f"{out.stem}-seed{number}") for number in numbers}
    for file in files.values():
        check_weights_file(file)
    return files


def _check_preset_alone(losses: LossOptions) -> None:
    if losses.given():
        raise ArgumentError(
            "preset",
            "paper sets --normalisation, --scale, --temperature and --alpha; leave these out",
        )


def _parse_scale(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise ArgumentError("scale", f"expected a number or auto, got {text!r}") from None
