"""Errors of the library are shown with the names of options."""

import dataclasses
import inspect
import re
from functools import partial
from pathlib import Path

import command_line
import numpy as np
import pytest
import torch
import typer.main
from command_line import TEACHERS, Result, fail
from torch import nn

from db3kd import ops
from db3kd.cli.app import app
from db3kd.cli.errors import naming_options, one_line, options_of
from db3kd.data.source import Source
from db3kd.errors import (
    ArgumentError,
    ArgumentTypeError,
    InputError,
    InputNotFoundError,
    OutputExistsError,
)
from db3kd.labelling.runs.planned_run import RunExecution, plan_source_run
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.soft_labels import SoftLabelSettings
from db3kd.models import build_model
from db3kd.pipelines import DistillSettings
from db3kd.pipelines import compare as run_comparison
from db3kd.pipelines import distill as run_distillation
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.synthesis.moves import Moves
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.teachers import (
    FunctionTeacher,
    ModuleTeacher,
    TeacherError,
    decide_checked,
    load_teacher,
)
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings
from db3kd.wording import counted

TUNING = {"tolerance", "sign_opt", "query_batch_size", "starting_points", "mixtures"}
OPTIMIZATION = {"optimizer", "schedule", "weight_decay", "ema", "gradient_clip"}
TRAINING = {*OPTIMIZATION, "shuffle", "epochs"}
TEACHER = {
    "source",
    "bounds",
    "assumed_shape",
    "assumed_classes",
    "assumed_class_names",
    "threshold",
}

ROOT = Path(__file__).parents[2]
FAILS = inspect.getsourcelines(command_line.failing)[1] + 1
"""The line that raises the error of this teacher."""
TO_SEE_MORE = "run db3kd --debug COMMAND ... to see the traceback"

WITHOUT_OPTION = {
    ("label", LabelSettings): TUNING - {"starting_points", "mixtures"},
    ("label", SoftLabelSettings): set(),
    ("label", plan_source_run): {
        *("folder", "source", "images", "settings", "soft_labels", "execution")
    },
    ("label", RunExecution): set(),
    ("label", load_teacher): {*TEACHER, "model"},
    ("label", Source): set(),
    ("evaluate", load_teacher): {*TEACHER, "max_batch", "autocast", "compile", "cuda_graphs"},
    ("evaluate", Source): set(),
    ("synthesize", SynthesisSettings): {*TUNING, "acquisition", "held_out"}
    - {"tolerance", "sign_opt"},
    ("synthesize", Moves): {"count", "length", "halvings", "warm", "tolerance", "sign_opt"},
    ("surrogate", SurrogateSettings): {"clean_share", "training"},
    ("surrogate", TrainSettings): TRAINING,
    ("distill", TrainSettings): {"shuffle", "gradient_clip"},
    ("distill", DistillSettings): {"learning_rates", "training"},
    ("distill", run_distillation): {"callbacks", "images", "progress", "settings"},
    ("compare", TrainSettings): {"shuffle", "gradient_clip"},
    ("compare", DistillSettings): {"learning_rates", "training", "alpha", "patience"},
    ("compare", run_comparison): {
        *("ask_about_test", "callbacks", "images", "on_student", "progress", "settings"),
    },
    ("distill", KDLoss): {"beta", "reduction"},
    ("teacher", TrainSettings): {*OPTIMIZATION, "shuffle", "steps"},
    ("teacher", Source): {"split"},
}
"""Arguments of the library that a command leaves at their defaults, or calls otherwise."""


def options(command: str) -> dict[str, str]:
    return options_of(typer.main.get_command(app).commands[command].params)


@pytest.mark.parametrize(("command", "called"), WITHOUT_OPTION)
def test_each_argument_of_the_library_has_its_option(command, called):
    fields = dataclasses.fields(called) if dataclasses.is_dataclass(called) else ()
    names = {field.name for field in fields} or set(inspect.signature(called).parameters)

    assert names - set(options(command)) == WITHOUT_OPTION[command, called]


@pytest.mark.parametrize("kind", [ArgumentError, ArgumentTypeError])
def test_an_argument_is_shown_as_its_option(kind):
    for argument, problem, shown in (
        ("queries", "expected an integer", "--budget: expected an integer"),
        ("image_shape", "pass classes=", "--image-shape: pass --classes"),
        ("kinds['data']", "expected data: none", "kinds['data']: expected data: none"),
        ("threshold", "expected one score", "threshold: expected one score"),
    ):
        assert one_line(kind(argument, problem), options("label")) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("t.pt: pass image_shape= and classes=", "t.pt: pass --image-shape and --classes"),
        ("if you trust it, pass trust_code=True, else", "pass --trust-code, else"),
        ("pass channels=1 or channels=3", "pass --channels 1 or --channels 3"),
        ("pass image_shape=(3, 24, 32)", "pass --image-shape 3,24,32"),
        ("mix the answers with accept_changed_teacher=True", "with --accept-changed-teacher"),
        ("name them with data='hub:x'", "name them with --data 'hub:x'"),
        ("expected data: of a kind", "expected data: of a kind"),
        ("http://host/infer?seed=1 failed", "http://host/infer?seed=1 failed"),
        ("parts/split=train/data=3: no image", "parts/split=train/data=3: no image"),
        ("got 'data=3'; pass data=", "got 'data=3'; pass --data"),
    ],
)
def test_arguments_that_a_message_mentions_are_shown_as_options(text, shown):
    for error in (InputError(text), TeacherError(text), OutputExistsError(text)):
        assert shown in one_line(error, options("label"))


def test_only_messages_of_db3kd_about_files_name_options():
    text = "data: there is no file x.csv; pass out="
    shown = "--data: there is no file x.csv; pass --out"
    assert one_line(InputNotFoundError(text), options("label")) == shown
    assert one_line(FileNotFoundError(text), options("label")) == text


def test_a_plain_error_that_a_module_of_db3kd_raises_is_called_unexpected():
    module = {"__name__": "db3kd.imagined", "__package__": "db3kd"}
    error = raised(lambda: exec("raise ValueError('data: expected text')", module))
    assert one_line(error, options("label")).startswith("unexpected ValueError: data: expected")


def test_without_options_a_message_stays_as_it_is():
    assert one_line(ArgumentError("data", "expected classes="), {}) == "data: expected classes="


def test_a_call_may_name_its_own_options():
    for model, shown in (("lenet", "--architecture: expected one of"), ("a", "--architecture: ")):
        with pytest.raises(ArgumentError) as raised, naming_options(model="--architecture"):
            build_model(model, (1, 28, 28), 10)
        assert one_line(raised.value, {"model": "--model"}).startswith(shown)


def test_the_options_of_an_inner_call_count():
    with (
        pytest.raises(InputError) as raised,
        naming_options(model="--model", data="--test"),
        naming_options(model="--architecture"),
    ):
        raise InputError("pass model= and data=")
    assert one_line(raised.value, {}) == "pass --architecture and --test"


@pytest.mark.parametrize(
    "error", [OSError("disk: full"), KeyError("model: "), ArgumentError("a", "b")]
)
def test_errors_of_such_a_call_stay_what_they_are(error):
    with pytest.raises(type(error)) as raised, naming_options(model="--architecture"):
        raise error
    assert raised.value is error


def raised(call) -> Exception:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


def test_an_error_of_another_library_is_shown_as_it_is_with_its_type():
    error = raised(lambda: np.fromstring("1 2", sep=" ").reshape(3, 3))
    assert one_line(error, {}) == (
        "unexpected ValueError: cannot reshape array of size 2 into shape (3,3); run db3kd "
        "--debug COMMAND ... to see the traceback"
    )

    def failing():
        raise TypeError("cannot reshape, data=x.raw size=12")

    assert "cannot reshape, data=x.raw size=12;" in one_line(raised(failing), options("label"))


def test_a_mistake_inside_db3kd_is_called_unexpected():
    own = raised(lambda: counted(None, "image"))
    assert one_line(own, {}).startswith("unexpected TypeError: unsupported format")
    distances, predicted = torch.full((1, 3), torch.nan), torch.tensor([0])
    native = raised(lambda: ops.soft_labels(distances, predicted, normalisation="margin"))
    assert one_line(native, {}).startswith("unexpected ValueError: ")


def test_a_message_that_an_error_quotes_is_shown_as_it_is():
    class Failing(nn.Module):
        def forward(self, images):
            raise ValueError("cannot reshape,\n  data=x.raw classes=3")

    teacher = ModuleTeacher(Failing(), (1, 8, 8), 10, max_batch=4)
    error = raised(lambda: teacher.decide(torch.rand(2, 1, 8, 8)))
    shown = f": cannot reshape, data=x.raw classes=3 ({__file__.removeprefix(f'{Path.cwd()}/')}, "
    assert shown in one_line(error, options("label"))


ANSWERING = ("--data", "digits", "--limit", 20)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            "failing",
            f": out of service (tests/helpers/command_line.py, line {FAILS}); {TO_SEE_MORE}",
        ),
        ("one_based", "returned class 10, expected [0, 10); if it numbers its classes from 1, "),
        ("one_based", "let it return each number minus 1; otherwise correct --classes"),
    ],
)
def test_an_error_of_a_teacher_says_where_it_is(monkeypatch, function, words):
    monkeypatch.chdir(ROOT)
    assert words in fail("evaluate", "--teacher", f"{TEACHERS}:{function}", *ANSWERING)


def test_an_error_without_lines_of_the_user_is_shown_with_the_last_line():
    reshaped = partial(np.reshape, shape=(3, 3))
    teacher = FunctionTeacher(reshaped, (64,), 10, fingerprint="f")
    error = raised(lambda: decide_checked(teacher, torch.rand(2, 64)))
    assert re.search(r"into shape \(3,3\) \(numpy/\S+\.py, line \d+\)$", str(error))


def test_an_unexpected_error_of_a_command_names_its_type_and_how_to_see_more(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "db3kd.cli.commands.label._print_plan", lambda *_: np.zeros(3).reshape(2, 2)
    )
    command = (
        "label",
        "--teacher",
        f"{TEACHERS}:CountingTeacher",
        "--data",
        "digits",
        "--out",
        tmp_path,
    )
    words = "cannot reshape array of size 3 into shape (2,2)"
    assert fail(*command) == f"error: unexpected ValueError: {words}; {TO_SEE_MORE}"
    assert Result("--debug", *command).exception.args == (words,)
