"""Errors of the library are shown with the names of options."""

import dataclasses
import inspect

import pytest
import typer.main

from db3kd.cli.app import app
from db3kd.cli.errors import CommandError, as_options, naming_options, options_of
from db3kd.distillation.loss import KDLoss
from db3kd.distillation.surrogate_settings import SurrogateSettings
from db3kd.distillation.train_settings import TrainSettings
from db3kd.labelling.run_writer import RunExecution, write_run
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.soft_labels import SoftLabelSettings
from db3kd.labelling.source import Source
from db3kd.pipelines import DistillSettings, run_zero_shot
from db3kd.pipelines import compare as run_comparison
from db3kd.pipelines import distill as run_distillation
from db3kd.synthesis.moves import Moves
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.teachers import load_teacher

TUNING = {"tolerance", "sign_opt", "query_batch_size", "starting_points", "mixtures"}
OPTIMIZATION = {"optimizer", "schedule", "weight_decay", "ema", "gradient_clip"}
TRAINING = {*OPTIMIZATION, "shuffle", "epochs"}
TEACHER = {"source", "bounds", "assumed_shape", "assumed_classes", "class_names", "threshold"}

WITHOUT_OPTION = {
    ("label", LabelSettings): TUNING - {"starting_points", "mixtures"},
    ("label", SoftLabelSettings): set(),
    ("label", write_run): {*("folder", "source", "images", "settings", "soft_labels", "execution")},
    ("label", RunExecution): set(),
    ("label", load_teacher): {*TEACHER, "model"},
    ("label", Source): set(),
    ("evaluate", load_teacher): {*TEACHER, "max_batch", "autocast", "compile", "cuda_graphs"},
    ("evaluate", Source): set(),
    ("synthesize", SynthesisSettings): {*TUNING, "acquisition", "held_out"}
    - {"tolerance", "sign_opt"},
    ("synthesize", Moves): {"count", "length", "halvings", "warm", "tolerance", "sign_opt"},
    ("zero-shot", SynthesisSettings): {*TUNING, "acquisition", "held_out"}
    - {"tolerance", "sign_opt"},
    ("zero-shot", run_zero_shot): {"settings"},
    ("zero-shot", TrainSettings): {*TRAINING, "precision"},
    ("surrogate", SurrogateSettings): {"clean_share", "training"},
    ("surrogate", TrainSettings): TRAINING,
    ("distill", TrainSettings): {"shuffle", "gradient_clip"},
    ("distill", DistillSettings): {"learning_rates", "training"},
    ("distill", run_distillation): {"callbacks", "images", "settings"},
    ("compare", TrainSettings): {"shuffle", "gradient_clip"},
    ("compare", DistillSettings): {"learning_rates", "training", "alpha", "patience"},
    ("compare", run_comparison): {
        *("ask_about_test", "callbacks", "images", "on_student", "settings"),
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("queries: expected an integer of at least 0", "--budget: expected an integer of at"),
        ("t.pt: pass image_shape= and classes=", "t.pt: pass --image-shape and --classes"),
        ("if you trust it, pass trust_code=True, else", "pass --trust-code, else"),
        ("pass channels=1 or channels=3", "pass --channels 1 or --channels 3"),
        ("split: digits has 'train', got 'x'", "--split: digits has"),
        ("image-shape: expected sizes", "--image-shape: expected sizes"),
        ("mix the answers with accept_changed_teacher=True", "with --accept-changed-teacher"),
        ("name them with data='hub:x'", "name them with --data 'hub:x'"),
        ("threshold: belongs to a model of 2 classes", "threshold: belongs to"),
        ("expected data: of a kind", "expected data: of a kind"),
        ("http://host/infer?seed=1 failed", "http://host/infer?seed=1 failed"),
    ],
)
def test_arguments_are_shown_as_options(text, shown):
    assert shown in as_options(text, options("label"))


def test_without_options_a_message_stays_as_it_is():
    assert as_options("data: expected classes=", {}) == "data: expected classes="


def test_a_call_may_name_its_own_options():
    with (
        pytest.raises(CommandError, match=r"^--architecture: expected one of"),
        naming_options(model="--architecture"),
    ):
        raise ValueError("model: expected one of lenet5")


@pytest.mark.parametrize("error", [OSError("disk: full"), KeyError("model: ")])
def test_other_errors_keep_their_type(error):
    with pytest.raises(type(error)) as raised, naming_options(model="--architecture"):
        raise error
    assert raised.value is error
