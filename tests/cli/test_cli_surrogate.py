"""The command that trains a surrogate."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from command_line import TEACHERS, CountingTeacher, Result, fail, succeed

from db3kd.cli.commands.surrogate import surrogate
from db3kd.labelling.runs.auto_surrogate import AutoSurrogate
from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.pipelines.student_training import time_limit
from db3kd.report import wilson_interval
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.teachers import load_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of 8x8 images, told apart at random."""
    torch.manual_seed(0)
    network = build_model("linear", (1, 8, 8), 10)
    file = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_model(file, network, model="linear", image_shape=(1, 8, 8), classes=10)
    return file


def arguments(teacher: Path | str, out: Path, *options: object) -> tuple[object, ...]:
    where = ("--teacher", teacher, "--data", "digits", "--out", out, "--device", "cpu")
    made = ("--limit", 40, "--queries-per-sample", 5, "--model", "lenet5-fifth", "--steps", 5)
    return ("surrogate", *where, *made, *options)


def test_a_surrogate_is_trained_and_compared_with_its_teacher(teacher, tmp_path):
    out = tmp_path / "surrogate.safetensors"

    printed = succeed(*arguments(teacher, out))

    made = json.loads(out.with_suffix(".json").read_text())
    assert "queries        200, 5 per sample" in printed
    low, high = wilson_interval(round(10 * made["agreement"]), 10)
    measured = f"{made['agreement']:.1%} (95 % interval {low:.1%} to {high:.1%})"
    # Two of the 40 digits are held out, in five versions each.
    assert f"agreement      {measured} of 10 held-out images, augmented versions" in printed
    assert made["held_out"] == 10
    assert "paid twice" not in printed
    asked = ("--data", "digits", "--agree-with", teacher, "--device", "cpu")
    assert "agreement" in succeed("evaluate", "--model", out, *asked)


def test_each_option_reaches_the_surrogate(tmp_path):
    out = tmp_path / "surrogate.safetensors"
    options = ("--batch-size", 7, "--learning-rate", 0.5, "--seed", 3, "--split", "test")

    succeed(*arguments(f"{TEACHERS}:CountingTeacher", out, *options, "--precision", "bf16"))

    settings = json.loads(out.with_suffix(".json").read_text())["settings"]
    training = settings["surrogate"]["training"]
    assert (training["batch_size"], training["learning_rate"], training["seed"]) == (7, 0.5, 3)
    assert (training["steps"], training["precision"], training["device"]) == (5, "bf16", "cpu")
    assert (settings["surrogate"]["model"], settings["limit"]) == ("lenet5-fifth", 40)
    assert settings["source"]["split"] == "test"
    assert load_teacher(out).image_shape == (1, 8, 8)


def test_a_surrogate_is_resumed_only_with_its_option(tmp_path):
    out, teacher = tmp_path / "surrogate.safetensors", f"{TEACHERS}:CountingTeacher"
    CountingTeacher.asked = 0

    failing = Result(*arguments(f"{TEACHERS}:TiringTeacher", out))

    assert failing.code == 1 and CountingTeacher.asked == 1
    assert "the answers so far are kept; up to 64 queries of the last call may" in failing.err
    message = fail(*arguments(teacher, out))
    assert "already holds a run; continue it with --resume" in message
    message = fail(*arguments(teacher, out, "--resume", "--seed", 1))
    assert "holds a different run: seed: was 0, is 1" in message
    assert "nothing to do" not in succeed(*arguments(teacher, out, "--resume"))
    assert CountingTeacher.asked == 200
    assert "nothing to do" in succeed(*arguments(teacher, out, "--resume"))
    message = fail(*arguments(teacher, out, "--resume", "--steps", 6))
    assert "settings.surrogate.training.steps: was 5, is 6" in message
    assert "already exists" in fail(*arguments(teacher, out))
    assert CountingTeacher.asked == 200


def test_an_invalid_output_file_is_refused_before_images_are_loaded(tmp_path):
    options = ("--data", "no such data", "--teacher", "no such teacher")

    message = fail("surrogate", *options, "--out", tmp_path / "surrogate.pt")

    assert "--out: expected a name ending in .safetensors" in message


def test_the_command_trains_as_many_networks_as_python_does():
    default = inspect.signature(surrogate).parameters["networks"].default
    assert default == SurrogateSettings.networks == AutoSurrogate.networks


def test_the_queries_and_their_price_are_shown_before_the_first_one(tmp_path, monkeypatch):
    out, before = tmp_path / "surrogate.safetensors", CountingTeacher.asked
    given = arguments(f"{TEACHERS}:CountingTeacher", out, "--price-per-1000", 0.3)

    monkeypatch.setattr(time_limit, "seconds_per_step", lambda *_: 4.0)
    planned = succeed(*given, "--dry-run")

    plan = "plan           200 queries: 40 images in 5 versions each, price 0.06 at 0.30 per 1,000"
    assert planned.splitlines() == [
        plan,
        "training       about 0:01:00 on this machine, 15 steps of all networks",
        "dry run        no query was sent; nothing was written",
    ]
    assert CountingTeacher.asked == before and not list(tmp_path.iterdir())
    made = succeed(*given)
    assert made.startswith(plan) and "200, 5 per sample, price 0.06 at 0.30 per 1,000" in made
    assert CountingTeacher.asked == before + 200


def test_a_dry_run_of_a_resumed_surrogate_says_what_is_answered(tmp_path):
    out = tmp_path / "surrogate.safetensors"
    tiring = arguments(f"{TEACHERS}:TiringTeacher", out, "--price-per-1000", 1000)
    assert Result(*tiring).code == 1
    given = arguments(f"{TEACHERS}:CountingTeacher", out, "--price-per-1000", 1000)

    planned = succeed(*given, "--resume", "--dry-run")

    left = "which are not sent again; at most 199 are left, price 199.00 at 1,000.00 per 1,000"
    assert f"answered       1 of these queries, {left}" in planned
    succeed(*given, "--resume")
    finished = "answered       200 queries; the run is finished"
    assert finished in succeed(*given, "--resume", "--dry-run")
    message = fail(*given, "--resume", "--dry-run", "--seed", 1)
    assert "holds another surrogate: " in message and "seed: was 0, is 1" in message
