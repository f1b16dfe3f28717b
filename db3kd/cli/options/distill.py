"""Options of commands that spend a budget on students: `distill` and `compare`."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.errors import naming_options
from db3kd.cli.options.sets import OptionSet, common_option, refuse_options
from db3kd.cli.options.shared import (
    READING,
    CheckedResumeOptions,
    ImageOptions,
    PricePer1000,
    RareClasses,
    Split,
    load_split_or_all,
    refuse_model,
)
from db3kd.cli.options.teacher import TeacherOptions
from db3kd.cli.options.training import StudentTrainingOptions
from db3kd.cli.plan_output import print_resumption
from db3kd.cli.rows import NARROW
from db3kd.errors import ArgumentError
from db3kd.wording import input_noun

if TYPE_CHECKING:
    from db3kd.data.image_set import ImageSet
    from db3kd.pipelines.distill_settings import DistillSettings
    from db3kd.pipelines.prepared_run import PreparedRun
    from db3kd.storage.run_queries import RunQueries
    from db3kd.teachers import Teacher

Student = Annotated[
    str | None,
    common_option(
        "--student",
        "--model",
        help="Network to train: lenet5-half, alexnet-half, resnet18, mlp, … or "
        "package.module:factory.",
        show_default="a small one for the data",
    ),
]


@dataclass(frozen=True, kw_only=True)
class TransferOptions(ImageOptions):
    """The images to query and to train on, and those to measure accuracy on."""

    data: Annotated[
        str | None,
        common_option(
            help="Images or rows to query, as for db3kd label; without any, db3kd makes pseudo "
            "samples."
        ),
    ] = None  # type: ignore[assignment]  # images are optional here
    split: Split = "train"
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only this many images or rows, drawn at random.")
    ] = None
    test: Annotated[
        str | None,
        typer.Option(
            help="Labelled images or rows to measure the student's accuracy on; costs no query.",
            show_default="the test split of --data",
        ),
    ] = None
    test_limit: Annotated[
        int | None,
        typer.Option(min=1, help="Use only this many test images or rows, drawn at random."),
    ] = None

    def refuse_unused(self, spending: "SpendingOptions") -> None:
        """Refuses options that have no effect without `--data` or `--test`.

        Raises:
            ValueError: If one of them was given.
        """
        if self.data is None:
            refuse_options(self, "needs --data", "split", "limit")
            refuse_options(
                spending, "needs --data; pseudo samples need no such option", "rare_classes"
            )
            if self.test is None:
                needed = "needs --data, or --test with images or rows"
                refuse_options(self, needed, "test_limit", *READING)
        if self.test is None and self.split == "test":
            refuse_options(self, "needs --test if --split is test", "test_limit")

    def load(self, seed: int, teacher: str | None) -> "ImageSet | None":
        """Loads the images to query; None without --data."""
        from db3kd.data.sample_choice import draw_images

        if self.data is None:
            return None
        return draw_images(self._load_perhaps_without_labels(teacher), self.limit, seed)

    def _load_perhaps_without_labels(self, teacher: str | None) -> "ImageSet":
        """Loads the images of --data, which need no labels: --label-column may refer to --test."""
        from db3kd.data.files.table_files import MissingColumnError

        source = self.source(self.split, teacher)
        try:
            return source.load()
        except MissingColumnError:
            if self.test is None:
                raise
            return replace(source, label_column=None).load()

    def test_images(
        self, transfer: "ImageSet | None", teacher: str | None, seed: int
    ) -> "ImageSet":
        """Loads the images of --test, or the test split of --data, and draws --test-limit of them.

        If --test names a set without splits, all of its images are test images. Rows of a table are
        encoded like those of `transfer`, the images of --data. `teacher` is the value of --teacher.
        """
        from db3kd.data.sample_choice import draw_images

        images = self._all_test_images(transfer, teacher)
        return draw_images(images, self.test_limit, seed, "--test-limit")

    def _all_test_images(self, transfer: "ImageSet | None", teacher: str | None) -> "ImageSet":
        from db3kd.tables.checks import InvalidValueError

        if self.test is None:
            source = self.source("test", teacher)
            return (source if transfer is None else source.with_features_of(transfer)).load()
        refuse_model(self.test, "test")
        source = self.source("test", teacher, data=self.test)
        if transfer is not None:
            source = source.with_features_of(transfer)
        try:
            with naming_options(data="--test"):
                return load_split_or_all(source)[0]
        except InvalidValueError as error:
            if error.declare and transfer is not None:
                error = error.advising(
                    "pass --features FILE that declares {}, because the features are inferred from "
                    "--data otherwise"
                    if self.features is None
                    else "declare {} in the file of --features"
                )
            raise ArgumentError("test", str(error)) from None

    def load_test(
        self, teacher: "Teacher", transfer: "ImageSet | None", source: str | None, seed: int
    ) -> "ImageSet | None":
        """Returns labelled test images with the teacher's class numbers; None without any.

        `source` is the value of --teacher; for the other arguments, see `test_images`.
        """
        from db3kd.pipelines.inputs import check_test, usable_test_split

        load = partial(self.test_images, transfer, source, seed)
        if self.test is None:
            if self.data is None or self.split == "test":
                return None
            return usable_test_split(load, partial(check_test, teacher=teacher))
        images = load()
        if images.labels is None:
            noun = input_noun(images.image_shape)
            raise ArgumentError(
                "test",
                f"expected labelled {noun}s, got {images.name} without labels; use a folder with a "
                "folder for each class, a .npz file with labels, or a table with --label-column",
            )
        return check_test(images, teacher)


@dataclass(frozen=True, kw_only=True)
class SpendingOptions(OptionSet):
    """How many queries and how much time a run may take."""

    panel = "Budget"

    budget: Annotated[int | None, common_option(min=1, help="Maximum number of queries.")] = None
    dry_run: Annotated[
        bool,
        common_option(
            "--dry-run",
            help="Print the plan, its price and its time, and stop before the first query.",
        ),
    ] = False
    price_per_1000: PricePer1000 = None
    held_out: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of held-out images or rows, which measure the agreement; each costs a "
            "query within --budget.",
            show_default="one in twenty, at most 1,000",
        ),
    ] = None
    time_limit: Annotated[
        float | None, typer.Option(min=1, help="Approximate seconds that all training may take.")
    ] = None
    rare_classes: RareClasses = False


@dataclass(frozen=True, kw_only=True)
class ProxyOptions(OptionSet):
    """Networks that choose images to query and teach the student."""

    panel = "Proxies"

    proxy: Annotated[
        str | None,
        typer.Option(
            help="Network of the proxies, as for --student.",
            show_default="the largest of the student's family",
        ),
    ] = None
    proxies: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of proxies, which choose the queries and teach the student; 0 for none.",
        ),
    ] = 2


def check_options(
    out: Path | None,
    images: TransferOptions,
    spending: SpendingOptions,
    training: StudentTrainingOptions,
    resuming: CheckedResumeOptions,
    made: str,
) -> None:
    """Refuses options that need others, before anything is loaded.

    `made` is what --out is to hold, such as "run".

    Raises:
        ValueError: If a folder is missing, or an option has no effect.
    """
    if out is None and not spending.dry_run:
        raise ArgumentError("out", f"expected a folder for the {made}, got none")
    if out is None and resuming.resume:
        raise ArgumentError("resume", f"needs --out, the folder of the {made}")
    resuming.check()
    if images.data is None:
        refuse_options(resuming, "needs --data", "consistency_checks")
    images.refuse_unused(spending)
    training.check_tracker((out or Path()) / "student")


def open_inputs(
    teacher: TeacherOptions, images: TransferOptions, seed: int
) -> "tuple[Teacher, ImageSet | None, ImageSet | None]":
    """Returns the teacher, the images to query, and those to measure students on."""
    transfer = images.load(seed, teacher.teacher)
    opened = teacher.open(transfer)
    return opened, transfer, images.load_test(opened, transfer, teacher.teacher, seed)


def print_resumed(prepared: "PreparedRun", so_far: "RunQueries", *, width: int = NARROW) -> None:
    """Prints what is repeated and what is left if a run is resumed; `so_far` as it was counted."""
    if prepared.resume:
        requested = prepared.consistency_check.queries
        checks = prepared.count_checks(so_far)
        cost = prepared.plan.queries, prepared.price_per_1000
        print_resumption(so_far, *cost, requested_checks=requested, checks=checks, width=width)


def distill_settings(
    training: StudentTrainingOptions, proxies: ProxyOptions, spending: SpendingOptions, device: str
) -> "DistillSettings":
    """Returns how the networks of a distillation are trained and measured."""
    from db3kd.pipelines.distill_settings import DistillSettings

    if proxies.proxies == 0:
        refuse_options(proxies, "needs --proxies of at least 1", "proxy")
    return DistillSettings(
        training=training.patient_settings(device),
        proxy=proxies.proxy,
        proxies=proxies.proxies,
        time_limit=spending.time_limit,
        held_out=spending.held_out,
    )
