"""The `db3kd info` command."""

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from textwrap import fill
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.errors import naming_options, one_line
from db3kd.cli.options.sets import common_option, expand_option_sets, refuse_options
from db3kd.cli.options.shared import ImageOptions
from db3kd.cli.options.teacher import TEACHER_HELP, ModelFileOptions
from db3kd.cli.outputs import printing_notes, refuse_existing
from db3kd.cli.rows import WIDE, print_row
from db3kd.errors import ArgumentError
from db3kd.wording import also_paid, counted

if TYPE_CHECKING:
    from db3kd.data.image_set import ImageSet
    from db3kd.tables import Feature, Features
    from db3kd.teachers import Teacher

_PACKAGES = (
    "db3kd",
    "torch",
    "numpy",
    "accelerate",
    "datasets",
    "safetensors",
    "pyarrow",
    "onnxruntime",
    "tritonclient",
)


@expand_option_sets
def info(
    model_file: ModelFileOptions,
    teacher: Annotated[
        str | None, common_option(help=f"Describe this teacher: {TEACHER_HELP}")
    ] = None,
    data: Annotated[
        str | None,
        common_option(
            help="Table to show the features of: a .csv or .parquet file, wine, …; with --teacher, "
            "data as for db3kd distill."
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        common_option(
            help="With --data: column that holds the class labels.",
            show_default="label, labels or target, if there is one",
        ),
    ] = None,
    features_out: Annotated[
        Path | None,
        common_option(
            help="With --data: new .json file of the features, to edit and pass as --features."
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="File of the features of the table, or of the teacher's table: .json, .toml, or a "
            "student's .safetensors.",
            rich_help_panel="Teacher",
        ),
    ] = None,
    time: Annotated[
        int | None,
        common_option(
            min=2,
            help="Send this many random images or rows to the teacher, at one paid query each, and "
            "show the time per query.",
        ),
    ] = None,
    teacher_keys: Annotated[
        bool,
        common_option("--teacher-keys", help="Show all keys of a .toml description of a teacher."),
    ] = False,
) -> None:
    """Show how db3kd was built and where it runs, or describe a teacher or a table.

    With --teacher, the images or rows of --data supply what the teacher does not declare, as they
    do for db3kd distill.

    For example:

        db3kd info

        db3kd info --teacher teacher.safetensors --time 20

        db3kd info --teacher my_package.model:forest --data customers.csv --label-column churned
        --time 20

        db3kd info --teacher-keys

        db3kd info --data customers.csv --label-column churned --features-out features.json
    """
    if teacher is None:
        refuse_options(model_file, "needs --teacher")
        if time is not None:
            raise ArgumentError("time", "needs --teacher")
    if data is None:
        for name, value in (("label_column", label_column), ("features_out", features_out)):
            if value is not None:
                raise ArgumentError(name, "needs --data")
    if features is not None and teacher is None and data is None:
        raise ArgumentError("features", "needs --teacher or --data")
    if teacher_keys:
        for name, value in (("teacher", teacher), ("data", data)):
            if value is not None:
                raise ArgumentError("teacher_keys", f"cannot be combined with --{name}")
    if features_out is not None:
        refuse_existing(features_out, "pass another --features-out")
    images = to_write = None
    if data is not None:
        given = ImageOptions(data=data, features=features, label_column=label_column)
        images = given.source("train", teacher).load()
        to_write = None if features_out is None else _table_features(images)
    if teacher_keys:
        _print_teacher_keys()
    elif teacher is not None:
        _print_teacher(teacher, model_file, images, features, time)
    elif images is not None:
        _print_rows(_feature_rows(images))
    else:
        _print_rows([*_build_rows(), *_device_rows(), *_version_rows()])
    if to_write is not None and features_out is not None:
        with naming_options(features="--features-out"):
            _print_rows([("written to", str(to_write.save(features_out)))])


def _print_teacher(
    source: str,
    model_file: ModelFileOptions,
    images: "ImageSet | None",
    features: Path | None,
    time: int | None,
) -> None:
    """Prints what a teacher declares, even if that is not enough to query it.

    Images supply what it does not declare, as they do for a run.
    """
    from db3kd.tables import Features
    from db3kd.teachers.named import named_details
    from db3kd.teachers.signature import UndeclaredError

    known = None if features is None or images is not None else Features.load(features)
    try:
        loaded = model_file.load(source, images, "cpu", known)
    except UndeclaredError as error:
        found = error.found
        if images is None:
            error = UndeclaredError(f"{error}; or pass the data of your run as --data")
        if time is not None or found is None:
            raise error from None
        _print_rows(named_details(found))
        names = ("features", *(field.name for field in fields(model_file)))
        options = {name: f"--{name.replace('_', '-')}" for name in names}
        _print_rows([("missing", one_line(error, options))])
        return
    _print_rows(_teacher_rows(loaded))
    if time is not None:
        _print_rows([_query_time(loaded, time)])


def _feature_rows(rows: "ImageSet") -> Iterable[tuple[str, str]]:
    features = _table_features(rows)
    yield "rows", f"{len(rows):,}"
    yield "dimensions", str(len(features.unit_names))
    for feature in features:
        yield feature.name, _allowed(feature)


def _table_features(rows: "ImageSet") -> "Features":
    """Returns the features of a table.

    Raises:
        ValueError: If the rows are images.
    """
    if rows.features is None:
        raise ArgumentError("data", f"expected a table, got the images of {rows.name}")
    return rows.features


def _allowed(feature: "Feature") -> str:
    """Returns the kind of a feature and which values it allows, as text."""
    from db3kd.wording import shortened

    if feature.values is not None:
        return f"{feature.kind}: {shortened(feature.values)}"
    return f"{feature.kind}, {feature.lower:,.10g} to {feature.upper:,.10g}"


def _query_time(teacher: "Teacher", count: int) -> tuple[str, str]:
    """Queries random images; the first query is not timed, because it may include set-up."""
    import torch

    from db3kd.querying.driver import decide_all
    from db3kd.querying.sent_queries import SentQueries
    from db3kd.querying.single_process import check_single_process
    from db3kd.tables import Features

    check_single_process()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, *teacher.image_shape, generator=generator)
    features = Features.of(teacher)
    if features is not None:
        images = features.project(images)
    lower, upper = teacher.bounds
    images = (lower + (upper - lower) * images).clamp(lower, upper)
    rows, sent = torch.arange(count), SentQueries()
    with printing_notes(), sent.noted():
        decide_all(teacher, images.__getitem__, rows[:1], sent=sent)
        started = perf_counter()
        decide_all(teacher, images.__getitem__, rows[1:], count, sent=sent)
    milliseconds = 1000 * (perf_counter() - started) / (count - 1)
    batch = min(count - 1, teacher.max_batch)
    return "query time", (
        f"{milliseconds:.3g} ms per query in calls of {batch:,}; {count:,} queries were sent"
        f"{also_paid(sent.lost)}"
    )


def _print_teacher_keys() -> None:
    from db3kd.teachers.descriptions.keys import DescriptionKey, description_tables

    def about(key: DescriptionKey) -> str:
        kind = " or ".join(f'"{choice}"' for choice in key.choices) or key.type
        default = "" if key.default is None else f", default {key.default}"
        return f"{kind}{', required' if key.required else default}"

    print("A description of a teacher is a .toml or .json file for --teacher. Its keys:")
    for table in description_tables():
        if table.name:
            print(f"\n[{table.name}]  {table.text}")
        for key in table.keys:
            print(f"\n{f'[{key.name}]' if key.is_table else key.name}  ({about(key)})")
            print(fill(key.text, 100, initial_indent="    ", subsequent_indent="    "))


def _build_rows() -> Iterable[tuple[str, str]]:
    from db3kd.ops import build_config

    build = build_config()
    cuda = f"CUDA {build['cuda_version']}" if build["cuda"] else "CPU only"
    yield "build", f"{cuda}, torch {build['torch_version']}, {build['compiler']}"
    if build["cuda"]:
        yield "architectures", str(build["architectures"])


def _device_rows() -> Iterable[tuple[str, str]]:
    import torch

    yield "cpu", f"{os.cpu_count()} cores, {counted(torch.get_num_threads(), 'thread')} in torch"
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        yield f"cuda:{number}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def _version_rows() -> Iterable[tuple[str, str]]:
    yield "python", platform.python_version()
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, "not installed"


def _teacher_rows(teacher: "Teacher") -> Iterable[tuple[str, str]]:
    from db3kd.arguments.images import number_text
    from db3kd.tables import Features
    from db3kd.teachers.base import class_names_of
    from db3kd.wording import input_noun, shortened

    yield "kind", type(teacher).__name__
    shape = tuple(teacher.image_shape)
    if input_noun(shape) == "row":
        yield "row", counted(shape[0], "value")
    else:
        yield "image shape", " x ".join(map(str, shape))
    features = Features.of(teacher)
    if features is not None:
        yield "columns", f"{len(features)}: {shortened(features.names)}"
    yield "classes", str(teacher.classes)
    if (names := class_names_of(teacher)) is not None:
        yield "class names", shortened(names)
    yield "bounds", " to ".join(map(number_text, teacher.bounds))
    yield "largest batch", str(teacher.max_batch)
    yield from getattr(teacher, "details", tuple)()
    yield "fingerprint", teacher.fingerprint()


def _print_rows(rows: Iterable[tuple[str, str]]) -> None:
    for name, value in rows:
        print_row(name, value, WIDE)
