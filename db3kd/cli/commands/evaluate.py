"""The `db3kd evaluate` command."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.errors import naming_options
from db3kd.cli.options.sets import common_option, expand_option_sets
from db3kd.cli.options.shared import (
    DryRun,
    ImageOptions,
    PricePer1000,
    Seed,
    Split,
    load_split_or_all,
)
from db3kd.cli.options.teacher import TEACHER_HELP, Device, ModelFileOptions
from db3kd.cli.outputs import printing_notes, refuse_existing
from db3kd.cli.plan_output import price_text, print_paid_twice
from db3kd.cli.rows import print_row
from db3kd.errors import ArgumentError
from db3kd.wording import input_noun, plural

if TYPE_CHECKING:
    from torch import Tensor

    from db3kd.data.image_set import ImageSet
    from db3kd.querying.sent_queries import SentQueries
    from db3kd.teachers import Teacher


@expand_option_sets
def evaluate(
    student: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="The model to measure, as for --model.", show_default=False
        ),
    ] = None,
    *,
    # A list, so that --model and --teacher together are not one of them: see _one_model.
    model: Annotated[
        list[str] | None,
        common_option(
            "--model", "--teacher", metavar="<str>", help=f"The model to measure: {TEACHER_HELP}"
        ),
    ] = None,
    model_file: ModelFileOptions,
    images: ImageOptions,
    agree_with: Annotated[
        str | None,
        common_option(help="Teacher to compare decisions with; costs one query per image or row."),
    ] = None,
    limit: Annotated[
        int | None, common_option(min=1, help="Use only this many images or rows, drawn at random.")
    ] = None,
    dry_run: DryRun = False,
    price_per_1000: PricePer1000 = None,
    out: Annotated[
        Path | None,
        common_option(
            help="New .json file of the result, with that of each class and the images on which "
            "the model is wrong or disagrees."
        ),
    ] = None,
    device: Device = "auto",
    split: Split = "test",
    seed: Seed = 0,
) -> None:
    """Measure the accuracy of a student or teacher, and its agreement with another model.

    Each model is asked one query per image or row. The number of queries is printed before the
    first one. Shares are printed with their 95 % interval.

    For example:

        db3kd evaluate runs/mine --data mnist5k --agree-with teacher.safetensors
        --out agreement.json

        db3kd evaluate --teacher teacher.toml --data photos --limit 500 --price-per-1000 0.25
        --dry-run
    """
    from db3kd.data.class_names import match_classes, renumbered
    from db3kd.data.sample_choice import draw_samples
    from db3kd.pipelines.distillation.reproduction import described_data
    from db3kd.querying.sent_queries import SentQueries
    from db3kd.report.measurement import Measurement, write_measurements
    from db3kd.teachers.base import class_names_of

    name = _one_model(student, model)
    if out is not None:
        if out.suffix != ".json":
            raise ArgumentError("out", f"expected a name ending in .json, got {out.name!r}")
        refuse_existing(out)
    loaded, part = load_split_or_all(images.source(split, name, agree_with))
    if loaded.labels is None and agree_with is None:
        raise ArgumentError(
            "data",
            f"accuracy needs {input_noun(loaded.image_shape)}s with true classes, got none "
            f"in {loaded.name}; use a folder with a folder for each class, a .npz file with "
            "labels, or a table with --label-column. The agreement of a student with its teacher "
            "needs none: pass --agree-with",
        )
    whole = len(loaded)
    loaded = loaded.subset(draw_samples(whole, limit, seed))
    loaded.check()
    evaluated, teacher = _open_models(model_file, name, agree_with, loaded, device)
    labels = None
    names = class_names_of(evaluated)
    # If only one side names its classes, their numbers may mean different things.
    assumed = loaded.labels is not None and (loaded.class_names is None) != (names is None)
    if loaded.labels is not None and not (assumed and agree_with is not None):
        labels = match_classes(loaded, names, evaluated.classes, f"model {name}").labels
    drawn = "" if len(loaded) == whole else f" of {whole:,}"
    noun = input_noun(loaded.image_shape)
    print_row(plural(noun), f"{len(loaded):,}{drawn}: {part} of {images.data}")
    asked = _asked(name, evaluated, agree_with)
    queries = len(loaded) * len(asked)
    price = price_text(queries, price_per_1000)
    print_row("queries", f"{len(loaded):,}, answered by {' and by '.join(asked)}{price}")
    if dry_run:
        print_row("dry run", "no query was sent")
        return
    sent = SentQueries()
    decisions = _decide_all(evaluated, loaded, sent)
    measured = {}
    if labels is not None:
        measured["accuracy"] = Measurement(decisions, labels, names or loaded.class_names)
    elif assumed:
        print_row(
            "accuracy",
            "not measured, because only one of data and model names its classes; "
            "without --agree-with, their numbers are taken to mean the same",
        )
    if agree_with is not None and teacher is not None:
        known = class_names_of(teacher)
        decisions = renumbered(decisions, names, known, name, agree_with)
        answers = _decide_all(teacher, loaded, sent)
        measured["agreement"] = Measurement(decisions, answers, known or names)
    for what, each in measured.items():
        print_row(what, each.text(noun))
    if out is not None:
        about = {"model": name, "agree_with": agree_with, "data": described_data(loaded)}
        write_measurements(out, about, measured, loaded)
        print_row("written to", out)
    print_paid_twice(sent.lost, others=queries, price_per_1000=price_per_1000)


def _one_model(student: str | None, models: Sequence[str] | None) -> str:
    """Returns the model to measure, which is an argument or an option."""
    found = [*([] if student is None else [student]), *(models or [])]
    if len(found) > 1:
        raise ArgumentError(
            "model",
            f"expected one model to measure, got {' and '.join(map(repr, found))}; compare two "
            "models with --agree-with",
        )
    if not found:
        raise ArgumentError(
            "model", "expected the model to measure, such as db3kd evaluate runs/mine, got none"
        )
    return found[0]


def _open_models(
    model_file: ModelFileOptions,
    name: str,
    agree_with: str | None,
    images: "ImageSet",
    device: str,
) -> "tuple[Teacher, Teacher | None]":
    """Loads the model to measure, and the one to compare it with, if there is one.

    Both have the same classes, so a model that does not declare their number takes it from the
    other one.
    """
    from db3kd.teachers.signature import UndeclaredError

    try:
        evaluated = _open(model_file, name, images, device, "--model")
    except UndeclaredError:
        if agree_with is None:
            raise
        teacher = _open(model_file, agree_with, images, device, "--agree-with")
        return _open(model_file, name, images, device, "--model", teacher), teacher
    if agree_with is None:
        return evaluated, None
    return evaluated, _open(model_file, agree_with, images, device, "--agree-with", evaluated)


def _open(
    model_file: ModelFileOptions,
    source: str,
    images: "ImageSet",
    device: str,
    option: str,
    like: "Teacher | None" = None,
) -> "Teacher":
    """Loads a model for images in [0, 1], and checks the shape of the images.

    `option` names the model in errors. If nothing else declares the number of classes and their
    names, they are those of `like`, or else those of the images.
    """
    from db3kd.arguments.images import check_shape_of_images
    from db3kd.teachers.base import class_names_of
    from db3kd.teachers.rescaled import takes_unit_images

    with naming_options(teacher=option):
        opened = takes_unit_images(
            model_file.load(
                source,
                images,
                device,
                assumed_classes=None if like is None else like.classes,
                assumed_class_names=None if like is None else class_names_of(like),
            )
        )
    check_shape_of_images(
        images.image_shape, opened.image_shape, images.name, reading=images.reading
    )
    return opened


def _asked(name: str, evaluated: "Teacher", agree_with: str | None) -> list[str]:
    """Returns the names of the models that may cost a query for each image."""
    from db3kd.teachers import ModuleTeacher, OnnxTeacher

    model = getattr(evaluated, "teacher", evaluated)  # behind a RescaledTeacher
    in_memory = isinstance(model, ModuleTeacher | OnnxTeacher)
    if agree_with is None:
        return [f"{name} on this machine" if in_memory else name]
    # A network in memory beside its teacher is the student, which costs nothing.
    return [agree_with] if in_memory else [name, agree_with]


def _decide_all(teacher: "Teacher", images: "ImageSet", sent: "SentQueries") -> "Tensor":
    import torch

    from db3kd.querying import decide_all
    from db3kd.querying.single_process import check_single_process

    check_single_process()
    with printing_notes(), sent.noted():
        return decide_all(teacher, images.read, torch.arange(len(images)), sent=sent)
