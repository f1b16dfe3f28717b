"""`db3kd distill --labels`: students of a label run."""

import statistics
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from db3kd.arguments.plain import check_positive, check_share
from db3kd.cli.options.sets import OptionSet
from db3kd.cli.options.training import StudentTrainingOptions
from db3kd.cli.outputs import check_weights_file
from db3kd.cli.plan_output import print_usage, print_warnings
from db3kd.errors import ArgumentError
from db3kd.wording import counted, input_noun

if TYPE_CHECKING:
    from db3kd.data.image_set import ImageSet
    from db3kd.labelling.runs.label_run import LabelRun
    from db3kd.ops import Normalisation
    from db3kd.training.callbacks import TrainingCallback
    from db3kd.training.loss import KDLoss
    from db3kd.training.train import Model as TrainedModel
    from db3kd.training.train import TrainSettings


@dataclass(frozen=True)
class _Plan:
    """How students are trained; a scale of None has yet to be chosen."""

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
            help="With --labels: train as in the paper (1/distance, T = 20, 200 epochs in batches "
            "of 512).",
        ),
    ] = None
    normalisation: Annotated[
        Literal["margin", "inverse"] | None,
        typer.Option(
            "--normalisation",
            help="With --labels: formula of the soft labels.",
            show_default="as labelled, or margin",
        ),
    ] = None
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            help="With --labels: scale of margin soft labels, a number, or auto to choose it by "
            "short training runs.",
            show_default="as labelled, or auto",
        ),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            help="With --labels: temperature of the soft labels and of the loss.",
            show_default="as labelled, or margin: 4, inverse: 20",
        ),
    ] = None
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha",
            help="With --labels: weight of the decisions in the loss; soft labels get the rest.",
            show_default="0.5",
        ),
    ] = None


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
    from db3kd.training.loss import KDLoss

    out = labels.with_name(f"{labels.name}-{STUDENT_FILE}") if out is None else out
    files = _student_files(out, training.seed, seeds)
    settings = training.settings(losses.preset, device)
    callbacks = {
        seed: training.callbacks(file, replace(settings, seed=seed)) for seed, file in files.items()
    }
    run = open_run(labels, data)
    if losses.preset:
        _check_preset_alone(losses)
        plan = _Plan("inverse", None, KDLoss.paper(), settings)
    else:
        plan = _plan(run, losses, settings)
    if not run.finished:
        print(f"note: {labels} is not finished; it holds {counted(len(run.labels), 'sample')}")
    test = _test_set(run)
    model = model or default_student(run.images.image_shape)
    _train_students(run, model, plan, files, test, callbacks)


def _student_files(out: Path, seed: int, seeds: int) -> dict[int, Path]:
    files = {seed: out}
    if seeds > 1:
        numbers = range(seed, seed + seeds)
        files = {number: out.with_stem(f"{out.stem}-seed{number}") for number in numbers}
    for file in files.values():
        check_weights_file(file)
    return files


def _check_preset_alone(losses: LossOptions) -> None:
    given = (losses.normalisation, losses.scale, losses.temperature, losses.alpha)
    if any(value is not None for value in given):
        raise ArgumentError(
            "preset",
            "paper sets --normalisation, --scale, --temperature and --alpha; leave these out",
        )


def _plan(run: "LabelRun", losses: LossOptions, settings: "TrainSettings") -> _Plan:
    """Combines the options with the soft labels of the run, which supply the defaults."""
    from db3kd.labelling.soft_labels import DEFAULT_TEMPERATURE
    from db3kd.training.loss import KDLoss

    stored = run.soft_label_settings
    normalisation = losses.normalisation
    if stored is not None and normalisation not in (None, stored.normalisation):
        stored = None
    if normalisation is None:
        normalisation = "margin" if stored is None else stored.normalisation
    if normalisation == "inverse" and losses.scale is not None:
        raise ArgumentError("scale", "needs --normalisation margin; inverse has no scale")
    temperature = losses.temperature
    if temperature is None:
        temperature = DEFAULT_TEMPERATURE[normalisation] if stored is None else stored.temperature
    alpha = 0.5 if losses.alpha is None else losses.alpha
    loss = KDLoss(temperature, check_share(alpha, "alpha"))
    scale = None if stored is None else stored.scale
    if losses.scale is not None:
        scale = _parse_scale(losses.scale)
    return _Plan(normalisation, scale, loss, settings)


def _parse_scale(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        scale = float(text)
    except ValueError:
        raise ArgumentError("scale", f"expected a number or auto, got {text!r}") from None
    return check_positive(scale, "scale", "a finite number above 0 or auto")


def _test_set(run: "LabelRun") -> "ImageSet | None":
    """Returns the test split of the run's data set; None without one, or without true classes."""
    try:
        test = replace(run.source, split="test").load()
    except (ValueError, FileNotFoundError):
        return None
    if test.labels is None or run.source.split == "test":
        return None
    return run.match(test)


def _train_students(
    run: "LabelRun",
    model: str,
    plan: _Plan,
    files: dict[int, Path],
    test: "ImageSet | None",
    callbacks: "dict[int, list[TrainingCallback]]",
) -> None:
    import torch

    from db3kd.labelling.soft_labels import with_soft_labels
    from db3kd.models import save_model
    from db3kd.models.networks import build_model
    from db3kd.pipelines.student_warnings import TRIED_INPUTS, probabilities_warning
    from db3kd.progress import Progress
    from db3kd.querying.search import UNANSWERED
    from db3kd.training.constant_answer import constant_answer_warning
    from db3kd.training.evaluation import evaluate
    from db3kd.training.student import train_on_soft_labels

    image_shape, classes = run.images.image_shape, run.labels.classes
    make_student = partial(build_model, model, image_shape, classes)
    tried = run.images.read(range(min(TRIED_INPUTS, len(run.images))))
    with torch.random.fork_rng(devices=[]):
        warning = probabilities_warning(make_student(), tried)
    print_warnings([] if warning is None else [warning])
    scale = _scale(run, make_student, plan)
    labels = with_soft_labels(
        run.labels,
        normalisation=plan.normalisation,
        scale=1.0 if scale is None else scale,
        temperature=plan.loss.temperature,
    )
    assert labels.soft_labels is not None  # with_soft_labels adds them
    steps = plan.settings.total_steps(int((labels.decision != UNANSWERED).sum()))
    test_noun = f"test {input_noun(image_shape)}"
    accuracies = []
    for seed, file in files.items():
        seeded = replace(plan, settings=replace(plan.settings, seed=seed))
        with Progress(steps, title=f"training, seed {seed}", unit="steps") as progress:
            network = train_on_soft_labels(
                make_student,
                run.images,
                labels.decision,
                labels.soft_labels,
                plan.loss,
                seeded.settings,
                progress=progress,
                callbacks=callbacks[seed],
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        save_model(
            file,
            network,
            model=model,
            image_shape=image_shape,
            classes=classes,
            class_names=run.class_names,
            features=run.images.features,
        )
        accuracy = None
        if test is not None and test.labels is not None:
            accuracy = evaluate(network, test, test.labels)
            accuracies.append(accuracy)
            print(f"{file}: accuracy {accuracy:.2%} of {counted(len(test), test_noun)}")
        else:
            print(file)
        warning = constant_answer_warning(
            network, run.images, labels.decision, class_names=run.class_names
        )
        print_warnings([] if warning is None else [warning])
        _write_description(
            file, run, {"model": model, "scale": scale, "plan": seeded}, seed, accuracy
        )
    print_usage(next(iter(files.values())), model)
    if len(accuracies) > 1:
        mean, deviation = statistics.fmean(accuracies), statistics.stdev(accuracies)
        over = counted(len(accuracies), "seed")
        print(f"mean accuracy {mean:.2%}, deviation {deviation:.2%} over {over}")


def _write_description(
    file: Path, run: "LabelRun", settings: dict[str, object], seed: int, accuracy: float | None
) -> None:
    """Writes the .json file of a student, which records how it was made."""
    from db3kd.storage.manifest import make_manifest, write_manifest

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


def _scale(run: "LabelRun", make_student: "TrainedModel", plan: _Plan) -> float | None:
    """Returns the scale of margin soft labels, choosing it if none is given; None for inverse."""
    from db3kd.scale.search import choose_scale

    if plan.normalisation == "inverse" or plan.scale is not None:
        return plan.scale
    choice = choose_scale(
        make_student, run.images, run.labels, plan.loss, plan.settings, progress=True
    )
    print("\n".join(choice.describe(input_noun(run.images.image_shape))))
    return choice.scale
