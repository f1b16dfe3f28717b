"""How to make the student of a run again (command, call, seeds, versions), and how to use it."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from db3kd.data.image_set import ImageSet
from db3kd.errors import InputError
from db3kd.models.networks import is_own_model
from db3kd.pipelines.distill_settings import DistillSettings, with_fixed_steps
from db3kd.pipelines.distillation.finished_run import FinishedRun
from db3kd.pipelines.query_rounds.answer_run import LARGER_BUDGETS
from db3kd.planning import BudgetPlan
from db3kd.storage.manifest import CHANGED_TEACHERS
from db3kd.teachers.descriptions.description import read_description
from db3kd.teachers.remote.secret_header import ALLOWED_SECRETS
from db3kd.training.settings import TrainSettings
from db3kd.wording import counted, input_noun


def reproduction(run: FinishedRun) -> dict[str, str]:
    """Returns what a report states under this heading, by name.

    A time limit depends on the speed of a machine, so the steps that it led to take its place.
    """
    prepared, steps, manifest = run.prepared, run.trained.steps, run.manifest
    plan, settings, training = prepared.plan, prepared.settings, prepared.settings.training
    images, test, student = prepared.images, prepared.test, prepared.student.title
    trained = prepared.student_settings.training
    fixed = settings
    if settings.time_limit is not None:
        fixed = with_fixed_steps(settings, steps)
    accepted = [each["teacher"] for each in manifest.get(CHANGED_TEACHERS, [])]
    # Accepted class names leave the fingerprint of most teachers as it is.
    fingerprints = [each for each, _ in groupby([manifest["teacher"], *accepted])]
    budgets = [plan.budget]
    if plan.further:
        budgets = [manifest["settings"]["plan"]["budget"], *(each.budget for each in plan.further)]
    known = {
        "command": command_lines(
            sys.argv,
            None if settings.time_limit is None else steps,
            budgets,
            prepared.price_per_1000,
        ),
        "Python": "\n".join(
            [
                *_names(student, manifest, images, test),
                *_calls(plan, student, fixed, run.folder, budgets, tested=test is not None),
            ]
        ),
        **command_needs(sys.argv),
        "time limit": "" if settings.time_limit is None else _TIME_LIMIT,
        "earlier budgets": _OTHER_PROXIES if _proxies_differ(manifest) else "",
        "data": "none: pseudo samples" if images is None else described_data(images),
        "test data": "" if test is None else described_data(test),
        "seed": str(training.seed),
        "training": (
            f"{counted(steps, 'step')} of {counted(training.batch_size, run.noun)}, "
            f"{trained.optimizer}, {trained.schedule} schedule"
        ),
        "teacher fingerprint": ", then ".join(fingerprints),
        "data fingerprint": manifest["data"] or "",
        "versions": ", ".join(f"{name} {value}" for name, value in manifest["versions"].items()),
    }
    return {name: value for name, value in known.items() if value}


_TIME_LIMIT = (
    "These rows have the student's steps instead. Proxies that choose images may have trained for "
    "other steps, so the answers of this run give the same student, and new ones a similar one."
)


_OTHER_PROXIES = (
    "The proxies that chose images for earlier budgets were trained with other settings "
    "(entry choosing of the manifest), so new answers give a similar student."
)


def _proxies_differ(manifest: Mapping[str, Any]) -> bool:
    """Returns whether proxies of other settings chose the images of a larger budget."""
    larger = [each["choosing"] for each in manifest.get(LARGER_BUDGETS, [])]
    known = [manifest["settings"].get("choosing"), *larger]
    used = [each for each in known if each is not None]
    return any(each != used[0] for each in used)


def command_lines(
    arguments: Sequence[str],
    steps: int | None,
    budgets: Sequence[int],
    price_per_1000: float | None = None,
) -> str:
    """Returns the commands that make a run of this process again; none if it is no command.

    Example:
        >>> arguments = ["/bin/db3kd", "distill", "--budget", "500", "--time-limit", "60"]
        >>> print(command_lines(arguments, 900, [100, 500]))
        db3kd distill --steps 900 --budget 100
        db3kd distill --steps 900 --budget 500 --resume

    Args:
        arguments: The arguments of the process, its program first.
        steps: The steps that take the place of a time limit; None without one.
        budgets: The budgets of the run: the first one, and the larger ones with which it was
            continued.
        price_per_1000: The price of 1,000 queries, which a resumed run need not repeat, or None.
    """
    if not _is_command(arguments):
        return ""
    kept = ["db3kd"]
    rest = iter(arguments[1:])
    left_out = {"--consistency-checks"}
    if steps is not None:
        left_out.add("--time-limit")
    if len(budgets) > 1:
        left_out.add("--budget")
    if price_per_1000 is not None:
        left_out.add("--price-per-1000")
    for each in rest:
        if each.partition("=")[0] in left_out:
            if "=" not in each:
                next(rest, None)
        elif each not in ("--resume", "--accept-changed-teacher"):
            kept.append(each)
    if steps is not None:
        kept += ["--steps", str(steps)]
    if price_per_1000 is not None:
        kept += ["--price-per-1000", f"{price_per_1000:.10g}"]
    if len(budgets) == 1:
        return shlex.join(kept)
    return "\n".join(
        shlex.join([*kept, "--budget", str(budget), *(["--resume"] if number else [])])
        for number, budget in enumerate(budgets)
    )


def command_needs(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the files and the environment variables that a command needs, besides its data.

    These are the files among its arguments and, if the teacher is a description file, those that
    it names. Of an environment variable, only the name is stated.
    """
    if not _is_command(arguments):
        return {}
    words = [word for each in arguments[1:] for word in _split_option(each)]
    files: list[Path] = []
    variables: list[str] = []
    for option, value in pairwise(words):
        if not option.startswith("--") or option in _DATA_OPTIONS:
            continue
        path = Path(value)
        # The value need not be a path, and the file may have changed since the run began.
        with suppress(InputError, OSError):
            if path.is_file():
                files.append(path)
            if option == "--teacher" and path.suffix in (".toml", ".json"):
                described = read_description(path)
                named = (described.file, described.labels)
                files += [path.parent / name for name in named if isinstance(name, str)]
                if described.header is not None:
                    variables += [described.header.variable, ALLOWED_SECRETS]
    return {"files": ", ".join(map(str, files)), "environment variables": ", ".join(variables)}


def _is_command(arguments: Sequence[str]) -> bool:
    """Returns whether arguments are those of `db3kd` or of `python -m db3kd`."""
    program = Path(arguments[0] if arguments else "").parts
    return program[-1:] == ("db3kd",) or program[-2:] == ("db3kd", "__main__.py")


_DATA_OPTIONS = ("--data", "--test", "--out")


def _split_option(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--") else [argument]


def described_data(images: ImageSet) -> str:
    """Returns where images come from, and which of the images there they are.

    Example:
        >>> described_data(db3kd.load_data("digits").subset(range(400)))
        'digits, split train: 400 of 1,438 images, numbers 0 to 399, counted from 0'

    Args:
        images: The images.
    """
    noun, selection = input_noun(images.image_shape), images.selection
    numbers, total = selection.numbers, selection.total
    first = int(numbers[0])
    in_order = np.array_equal(numbers, np.arange(first, first + len(numbers)))
    whole = in_order and len(numbers) == total
    part = "all" if whole else f"{len(numbers):,} of"
    how = selection.how
    if not how and not whole:
        shown = f"{first:,} to {int(numbers[-1]):,}"
        if not in_order:
            shown = ", ".join(map(str, numbers[:_SHOWN_NUMBERS].tolist()))
            shown += ", \N{HORIZONTAL ELLIPSIS}" if len(numbers) > _SHOWN_NUMBERS else ""
        how = f"numbers {shown}, counted from 0"
        if len(numbers) == 1:
            how = f"number {first:,}, counted from 0"
    return f"{images.name}: {part} {counted(total, noun)}{', ' if how else ''}{how}"


_SHOWN_NUMBERS = 10


def _names(
    student: str, manifest: Mapping[str, Any], images: ImageSet | None, test: ImageSet | None
) -> list[str]:
    """Returns a comment for each name that the call takes for granted."""
    found = ["import db3kd", f"# teacher: the teacher {manifest['settings']['teacher']}"]
    if images is not None:
        found.append(f"# images: {described_data(images)}")
    if not _has_name(student):
        found.append(f"# student: the network, or the function that makes it: {student}")
    if test is not None:
        found.append(f"# test: {described_data(test)}, with labels")
    return [" ".join(line.split()) for line in found]


def _has_name(student: str) -> bool:
    return is_own_model(student) or ":" in student


def usage(folder: Path, student: str, images: ImageSet | None) -> dict[str, str]:
    """Returns the lines that load, measure or export the student of a run, by what they do.

    A network of the caller's is made by a function, which they call `make_student`. The teacher of
    a command that trusts its code needs that again.

    Example:
        >>> usage(Path("runs/mine"), "lenet5", images)["load"]
        "student = db3kd.load_teacher('runs/mine')"

    Args:
        folder: The run folder, or a weights file.
        student: The name of the student's architecture, or the type of a network of the caller's.
        images: Images that the student was trained on or tested with: other data are read alike.
    """
    run, named = str(folder), ""
    option = f" --model {shlex.quote(student)}" if ":" in student else ""
    architecture = option.replace("--model", "--architecture")
    if not is_own_model(student):
        named = f", model={student!r}" if option else ", model=make_student"
    export = f"db3kd export {shlex.quote(run)} --format onnx{option}"
    data = f"--data DATA{'' if images is None else _reading_options(images)}"
    measure = f"db3kd evaluate {shlex.quote(run)}{architecture} {data} --agree-with TEACHER"
    if _is_command(sys.argv) and "--trust-code" in sys.argv:
        measure += " --trust-code"
    if not _has_name(student):
        export = f"db3kd.export_model({run!r}, 'student.onnx'{named})"
        measure = "db3kd.agreement(student, images, db3kd.predict(teacher, images))"
    return {
        "load": f"student = db3kd.load_teacher({run!r}{named})",
        "decide": "classes = student.decide(batch)",
        "measure": measure,
        "export": export,
    }


def _reading_options(images: ImageSet) -> str:
    """Returns the options of a command that read other files as those of the images were read."""
    texts = []
    for name, value in images.reading.items():
        if value is True:
            texts.append(f" --{name}")
        elif value:
            sizes = value if isinstance(value, tuple) else (value,)
            texts.append(f" --{name} {','.join(map(str, sizes))}")
    return "".join(texts)


def _calls(
    plan: BudgetPlan,
    student: str,
    settings: DistillSettings,
    folder: Path,
    budgets: Sequence[int],
    *,
    tested: bool,
) -> Iterator[str]:
    """Yields the calls that make a run: one for each of its budgets."""
    inputs = ["teacher", *(["images"] if plan.images is not None else [])]
    arguments = [
        f"student={student!r}" if _has_name(student) else "student=student",
        f"strategy={plan.strategy!r}",
    ]
    if changed := _changed(settings, DistillSettings()):
        arguments.append(f"settings=db3kd.DistillSettings({changed})")
    if tested:
        arguments.append("test=test")
    arguments.append(f"out={str(folder)!r}")
    for number, budget in enumerate(budgets):
        given = [*inputs, f"budget={budget}", *arguments, *(["resume=True"] if number else [])]
        yield f"db3kd.distill({', '.join(given)})"


def _changed(settings: DistillSettings | TrainSettings, usual: Any) -> str:
    """Returns the arguments that make settings of the usual ones."""
    texts = []
    for field in fields(settings):
        value, default = getattr(settings, field.name), getattr(usual, field.name)
        if value == default:
            continue
        if isinstance(value, TrainSettings):
            texts.append(f"{field.name}=db3kd.TrainSettings({_changed(value, default)})")
        else:
            texts.append(f"{field.name}={value!r}")
    return ", ".join(texts)
