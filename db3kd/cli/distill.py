"""`db3kd distill`."""

import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from db3kd.cli.option_sets import COMMON, OptionSet, expand_option_sets
from db3kd.cli.options import DATA_HELP, Model, Seed, Seeds, refuse_existing

if TYPE_CHECKING:
    from torch import nn

    from db3kd.data.image_set import ImageSet
    from db3kd.distillation import training
    from db3kd.distillation.student import KDLoss
    from db3kd.distillation.training import TrainSettings
    from db3kd.labelling.label_run import LabelRun
    from db3kd.ops import Normalisation

DEFAULT_STEPS = 1500
PAPER_EPOCHS = 200


@dataclass(frozen=True)
class _Plan:
    """How students are to be trained. A scale of None is to be chosen."""

    normalisation: "Normalisation"
    scale: float | None
    loss: "KDLoss"
    settings: "TrainSettings"


@dataclass(frozen=True, kw_only=True)
class LossOptions(OptionSet):
    """Which soft labels are distilled, and how."""

    panel = "Loss"

    preset: Annotated[
        Literal["paper"] | None,
        typer.Option(
            "--preset",
            help="The paper's training: 1/distance, T = 20, cross-entropy + KL summed over batches "
            "of 512, 200 epochs.",
        ),
    ] = None
    normalisation: Annotated[
        Literal["margin", "inverse"] | None,
        typer.Option(
            "--normalisation",
            help="Formula of the soft labels.",
            show_default="as labelled, or margin",
        ),
    ] = None
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            help="Scale of margin soft labels: a number, or auto to choose the one whose short "
            "trainings best predict the teacher's decisions on held-out images.",
            show_default="as labelled, or auto",
        ),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            help="Temperature of the soft labels and of the loss.",
            show_default="as labelled, or margin: 4, inverse: 20",
        ),
    ] = None
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha",
            help="Weight of the decisions; the soft labels have the rest.",
            show_default="0.5",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class StudentTrainingOptions(OptionSet):
    """How students are trained."""

    panel = "Training"

    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            help="Training steps.",
            show_default=f"{DEFAULT_STEPS}",
            rich_help_panel=COMMON,
        ),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", min=1, help="Passes over the images, instead of --steps."),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Maximum number of images per step.", show_default="128"
        ),
    ] = None
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Learning rate of Adam.")
    ] = 1e-3
    precision: Annotated[
        str, typer.Option("--precision", help="no (float32), bf16, or fp16 (CUDA only).")
    ] = "no"
    device: Annotated[
        str, typer.Option("--device", help="auto (CUDA if there is a GPU), cpu, cuda or cuda:N.")
    ] = "auto"
    seed: Seed = 0

    def settings(self, preset: str | None) -> "TrainSettings":
        """Returns the training of a student; the paper's epochs and batches for its preset."""
        from db3kd.distillation.training import TrainSettings

        if self.epochs is not None and self.steps is not None:
            raise ValueError("steps: expected --epochs or --steps, got both")
        chosen = self.epochs or self.steps or preset
        return TrainSettings(
            epochs=self.epochs or PAPER_EPOCHS,
            steps=self.steps if chosen else DEFAULT_STEPS,
            batch_size=self.batch_size or (512 if preset else 128),
            learning_rate=self.learning_rate,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
        )


@expand_option_sets
def distill(
    labels: Annotated[
        Path, typer.Option("--labels", help="Folder of a run that db3kd label wrote.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The .safetensors file to write. It must be new. With several --seeds, the seed "
            "of each student is added to the name.",
        ),
    ],
    losses: LossOptions,
    training: StudentTrainingOptions,
    model: Model = "lenet5-half",
    seeds: Seeds = 1,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help=f"The labelled images, if they are elsewhere now. {DATA_HELP}",
            rich_help_panel=COMMON,
        ),
    ] = None,
) -> None:
    """Train students on the decisions and distances of a label run.

    Steps are fixed and no test image is looked at before the end. Where the data have a test split,
    the students' accuracy on it is printed. Beside the weights a .json file of the same name says
    how they came about.

    Examples:

        db3kd distill --labels runs/bd --out student.safetensors

        db3kd distill --labels runs/bd --preset paper --seeds 3 --out student.safetensors
    """
    from db3kd.distillation.student import KDLoss
    from db3kd.labelling.label_run import open_run

    files = _student_files(out, training.seed, seeds)
    settings = training.settings(losses.preset)
    run = open_run(labels, data)
    if losses.preset:
        _refuse_beside_preset(losses)
        plan = _Plan("inverse", None, KDLoss.paper(), settings)
    else:
        plan = _plan(run, losses, settings)
    if run.manifest["state"] != "finished":
        print(f"note: {labels} is not finished; it holds {len(run.labels):,} samples")
    test = _test_set(run, data)
    _train_students(run, model, plan, files, test)


def _student_files(out: Path, seed: int, seeds: int) -> dict[int, Path]:
    if out.suffix != ".safetensors":
        raise ValueError(f"out: expected a name ending in .safetensors, got {out.name!r}")
    numbers = range(seed, seed + seeds)
    files = {number: out.with_stem(f"{out.stem}-seed{number}") for number in numbers}
    if seeds == 1:
        files = {seed: out}
    for file in files.values():
        refuse_existing(file)
        refuse_existing(file.with_suffix(".json"))
    return files


def _refuse_beside_preset(losses: LossOptions) -> None:
    given = (losses.normalisation, losses.scale, losses.temperature, losses.alpha)
    if any(value is not None for value in given):
        raise ValueError(
            "preset: --preset paper sets --normalisation, --scale, --temperature and --alpha; "
            "leave these out"
        )


def _plan(run: "LabelRun", losses: LossOptions, settings: "TrainSettings") -> _Plan:
    """Combines the options with the soft labels of the run, which are the defaults."""
    from db3kd.distillation.student import KDLoss
    from db3kd.labelling.soft_labels import DEFAULT_TEMPERATURE

    stored = run.soft_label_settings
    normalisation = losses.normalisation
    if stored is not None and normalisation not in (None, stored.normalisation):
        stored = None
    if normalisation is None:
        normalisation = "margin" if stored is None else stored.normalisation
    if normalisation == "inverse" and losses.scale is not None:
        raise ValueError("scale: needs --normalisation margin; inverse has no scale")
    temperature = losses.temperature
    if temperature is None:
        temperature = DEFAULT_TEMPERATURE[normalisation] if stored is None else stored.temperature
    loss = KDLoss(temperature, 0.5 if losses.alpha is None else losses.alpha)
    scale = None if stored is None else stored.scale
    if losses.scale is not None:
        scale = _parse_scale(losses.scale)
    return _Plan(normalisation, scale, loss, settings)


def _parse_scale(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"scale: expected a number or auto, got {text!r}") from None


def _test_set(run: "LabelRun", data: str | None) -> "ImageSet | None":
    """The test split of the run's data; None where there is none, or no labels to compare with."""
    from db3kd.labelling.source import Source

    source = Source(**run.manifest["settings"]["source"])
    try:
        test = replace(source, data=data or source.data, split="test").load()
    except (ValueError, FileNotFoundError):
        return None
    if test.labels is None or source.split == "test":
        return None
    return run.match(test)


def _train_students(
    run: "LabelRun", model: str, plan: _Plan, files: dict[int, Path], test: "ImageSet | None"
) -> None:
    from db3kd.distillation.student import evaluate, train_student
    from db3kd.labelling.soft_labels import with_soft_labels
    from db3kd.models import save_model
    from db3kd.models.networks import build_model
    from db3kd.progress import counted
    from db3kd.querying.search import UNANSWERED
    from db3kd.storage.manifest import manifest, write_manifest
    from db3kd.storage.run_images import current_data

    classes = run.labels.classes

    def student() -> "nn.Module":
        return build_model(model, run.images.image_shape, classes)

    scale = _scale(run, student, plan)
    labels = with_soft_labels(
        run.labels,
        normalisation=plan.normalisation,
        scale=1.0 if scale is None else scale,
        temperature=plan.loss.temperature,
    )
    steps = plan.settings.total_steps(int((labels.decision != UNANSWERED).sum()))
    accuracies = []
    for seed, file in files.items():
        settings = replace(plan.settings, seed=seed)
        with counted(f"training, seed {seed}", steps, "steps") as show:
            network = train_student(
                student,
                run.images,
                labels.decision,
                labels.soft_labels,
                plan.loss,
                settings,
                progress=show,
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        shape = run.images.image_shape
        save_model(
            file,
            network,
            model=model,
            image_shape=shape,
            classes=classes,
            class_names=run.class_names,
        )
        said, found = "", {"queries": int(labels.queries.sum())}
        if test is not None:
            accuracies.append(evaluate(network, test, test.labels))
            said = f": {accuracies[-1]:.2%} of {len(test):,} test images"
            found["test_accuracy"] = accuracies[-1]
        described = manifest(
            {"model": model, "scale": scale, "plan": replace(plan, settings=settings)},
            seed=seed,
            teacher_fingerprint=run.manifest["teacher"],
            data_fingerprint=current_data(run.manifest),
        )
        write_manifest(file.with_suffix(".json"), described | found)
        print(f"{file}{said}")
    if len(accuracies) > 1:
        mean, deviation = statistics.fmean(accuracies), statistics.stdev(accuracies)
        print(f"mean {mean:.2%}, deviation {deviation:.2%} over {len(accuracies)} seeds")


def _scale(run: "LabelRun", student: "training.Model", plan: _Plan) -> float | None:
    """That of margin soft labels, chosen where none is given; None for inverse ones."""
    from db3kd.distillation.scale import (
        RELATIVE_SCALES,
        SHORT_TRAINING_FACTOR,
        SHORT_TRAINING_STUDENTS,
        choose_scale,
        scale_training,
    )
    from db3kd.labelling.soft_labels import margin_soft_labels
    from db3kd.progress import counted

    if plan.normalisation == "inverse" or plan.scale is not None:
        return plan.scale
    trainings = SHORT_TRAINING_STUDENTS * len(RELATIVE_SCALES)
    with counted("choosing the scale", trainings, "students") as show:
        choice = choose_scale(
            student,
            run.images,
            run.labels.distances,
            run.labels.decision,
            margin_soft_labels,
            plan.loss,
            scale_training(plan.settings, len(run.labels)),
            students=SHORT_TRAINING_STUDENTS,
            factor=SHORT_TRAINING_FACTOR,
            progress=show,
        )
    print("\n".join(choice.describe()))
    return choice.scale
