"""The `db3kd label` command."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.errors import naming_options
from db3kd.cli.options.label import (
    AUTO,
    BudgetOptions,
    SearchOptions,
    SoftLabelOptions,
    WorkerOptions,
)
from db3kd.cli.options.sets import common_option, expand_option_sets
from db3kd.cli.options.shared import CheckedResumeOptions, ImageOptions, Split
from db3kd.cli.options.teacher import ModelFileOptions, TeacherOptions
from db3kd.cli.outputs import check_run_folder, hint_at_resuming
from db3kd.cli.plan_output import (
    TIME_OF_QUERIES,
    price_text,
    print_checks,
    print_paid_twice,
    print_resumption,
    surrogate_text,
)
from db3kd.cli.rows import WIDE, print_row
from db3kd.errors import ArgumentError
from db3kd.wording import also_paid, counted, input_noun

if TYPE_CHECKING:
    from torch import nn

    from db3kd.data.image_set import ImageSet
    from db3kd.labelling.runs.auto_surrogate import AutoSurrogate
    from db3kd.labelling.runs.planned_run import PlannedRun
    from db3kd.labelling.runs.totals import Totals
    from db3kd.labelling.settings import LabelSettings
    from db3kd.storage.run_queries import RunQueries
    from db3kd.teachers import Teacher
    from db3kd.wording import InputNoun

INCONSISTENT = 3
"""Exit status of a finished run whose teacher put equal images in different classes."""


@expand_option_sets
def label(
    teacher: TeacherOptions,
    images: ImageOptions,
    out: Annotated[
        Path, typer.Option(help="Folder of the run, new or empty unless --resume is given.")
    ],
    search: SearchOptions,
    budget: BudgetOptions,
    soft_labels: SoftLabelOptions,
    workers: WorkerOptions,
    resuming: CheckedResumeOptions,
    split: Split = "train",
    limit: Annotated[
        int | None,
        common_option(min=1, help="Label only this many images or rows, drawn at random."),
    ] = None,
) -> None:
    """Label images or rows with their distances to a teacher's other classes.

    A query sends one image or row to the teacher and uses only the class that it returns. The
    answers never exceed the budget. The maximum number of queries is printed before the first one;
    --dry-run stops there. Query only teachers that you are allowed to query. The exit status is 3
    if the run finished but the teacher put equal images in different classes.

    For example:

        db3kd label --teacher teacher.safetensors --data mnist5k --limit 300 --measure bd
        --out runs/bd

        db3kd label --teacher my_package.model:predict --data images.npz --budget 100000
        --out runs/mine

        db3kd label --teacher my_package.model:predict --data images.npz --budget 100000
        --out runs/mine --resume

        db3kd label --teacher my_package.model:predict --data images.npz --budget 100000
        --out runs/mine --price-per-1000 0.5 --dry-run

        db3kd label --teacher my_package.model:predict --data images.npz --queries-per-pair 100
        --surrogate surrogate.safetensors --out runs/with-surrogate

        db3kd label --teacher my_package.model:predict --data images.npz --budget 100000
        --surrogate auto --out runs/auto
    """
    from db3kd.labelling.runs.planned_run import RunExecution, plan_source_run
    from db3kd.labelling.runs.run_writer import carry_out
    from db3kd.labels.labels import LABELS

    search.refuse_unused(budget)
    resuming.check()
    settings, soft_label_settings = search.settings(budget), soft_labels.settings()
    check_run_folder(out, resuming.resume, LABELS.format)
    source = images.source(split, teacher.teacher, search.surrogate)
    loaded = source.load()
    noun = input_noun(loaded.image_shape)
    _note_undecided(settings, min(len(loaded), limit or len(loaded)), noun)
    anywhere = replace(teacher, teacher=_absolute(teacher.teacher))
    execution = RunExecution(
        workers=workers.pool(partial(anywhere.open, loaded), teacher.device),
        consistency_checks=resuming.consistency_checks,
        accept_changed_teacher=resuming.accept_changed_teacher,
    )
    opened = teacher.open(loaded)
    surrogate = _surrogate(search, loaded, opened, teacher)
    named = naming_options(
        address="--ray-address", model="--surrogate-model", networks="--surrogate-networks"
    )
    with named, hint_at_resuming(out):
        planned = plan_source_run(
            out,
            opened,
            source,
            settings,
            images=loaded,
            limit=limit,
            soft_labels=soft_label_settings,
            surrogate=surrogate,
            concurrent_chunks=workers.concurrent_chunks,
            rare_classes=budget.rare_classes,
            resume=resuming.resume,
            execution=execution,
        )
        so_far = planned.count_queries()
        _print_plan(planned, so_far, budget.price)
        if budget.dry_run:
            if not so_far.finished:
                print_row("querying", TIME_OF_QUERIES, WIDE)
            print_row("dry run", "no query was sent; nothing was written", WIDE)
            return
        totals = carry_out(planned)
    if so_far.finished:
        print_row("nothing to do", "the run was already finished", WIDE)
    _report(totals, out, planned.folder, budget.price, noun)


def _note_undecided(settings: "LabelSettings", samples: int, noun: "InputNoun") -> None:
    """Prints a note if the budget covers fewer decisions than there are samples."""
    if settings.queries is not None and settings.queries < samples:
        print(
            f"note: the budget covers the decisions of at most {settings.queries:,} of "
            f"{counted(samples, noun)}; the others get no label. --limit draws fewer {noun}s",
            file=sys.stderr,
        )


def _print_plan(planned: "PlannedRun", so_far: "RunQueries", price: float | None) -> None:
    """Prints the maximum number of queries of a run and their price, before the first of them."""
    queries, surrogate = planned.max_queries, planned.surrogate
    print_row(
        "plan",
        f"at most {counted(queries, 'query')} for "
        f"{counted(len(planned.job.index), 'sample')}{price_text(queries, price)}",
        WIDE,
    )
    if surrogate is not None:
        plan = surrogate.plan
        cost = f"trained on {plan.queries:,} of these queries" if plan.queries else "none"
        print_row("surrogate", f"{cost}: {plan.why}", WIDE)
    print_resumption(
        so_far,
        queries,
        price,
        requested_checks=planned.execution.consistency_checks,
        checks=planned.count_checks(so_far),
        width=WIDE,
    )


def _report(
    totals: "Totals", out: Path, folder: Path, price: float | None, noun: "InputNoun"
) -> None:
    """Prints what a run measured, and exits with status 3 if the teacher contradicted itself."""
    from db3kd.querying.consistency import describe_checks
    from db3kd.storage.manifest import MANIFEST, current_names, queries_in_flight, read_manifest

    after = read_manifest(folder)
    print_row("samples", f"{totals.samples:,}: {totals.statuses_text}", WIDE)
    queries, paid_twice = totals.queries + totals.other_queries, queries_in_flight(after)
    others = f" and {totals.other_queries:,} others" if totals.other_queries else ""
    print_row(
        "queries",
        f"{queries:,}, {totals.queries_per_sample:,.1f} per sample{others}"
        f"{price_text(queries, price)}{also_paid(paid_twice, queries, price)}",
        WIDE,
    )
    print_paid_twice(paid_twice, WIDE)
    for title, text in totals.describe(current_names(after), noun).items():
        print_row(title, text, WIDE)
    print_row("written to", out, WIDE)
    print_checks(totals.check_queries, describe_checks(after), WIDE)
    if described := surrogate_text(after, noun, included=True):
        print_row("surrogate", described, WIDE)
    if totals.statuses["contradictory"]:
        print(
            "error: the teacher gave different answers to the same "
            f"{noun}s; {out / MANIFEST} states how many",
            file=sys.stderr,
        )
        raise typer.Exit(INCONSISTENT)


def _absolute(teacher: str) -> str:
    """Returns a file's absolute path, for workers in other folders; other names are unchanged."""
    return str(Path(teacher).absolute()) if Path(teacher).exists() else teacher


def _surrogate(
    search: SearchOptions, images: "ImageSet", teacher: "Teacher", options: TeacherOptions
) -> "nn.Module | AutoSurrogate | None":
    """Returns what --surrogate names; a network must number its classes as the teacher does."""
    from db3kd.teachers import ModuleTeacher
    from db3kd.teachers.base import class_names_of

    if search.surrogate in (None, AUTO):
        return search.auto_surrogate(options.device)
    file = str(search.surrogate)
    with naming_options(teacher="--surrogate"):
        loaded = ModelFileOptions(trust_code=options.trust_code).load(file, images, "cpu")
    if not isinstance(loaded, ModuleTeacher):
        raise ArgumentError(
            "surrogate",
            f"expected a torch network, which has gradients, got {file}",
        )
    if loaded.bounds != images.bounds:
        raise ArgumentError(
            "surrogate",
            f"expected a network for images in [0, 1], got bounds {loaded.bounds} in "
            f"{file}; train one with db3kd surrogate",
        )
    names = class_names_of(teacher)
    if None not in (names, loaded.class_names) and names != loaded.class_names:
        raise ArgumentError(
            "surrogate",
            f"expected the teacher's class names in the same order, got others in "
            f"{file}; train one on this teacher with db3kd surrogate",
        )
    return loaded.module
