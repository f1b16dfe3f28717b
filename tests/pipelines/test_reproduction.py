"""What the report of a student says is needed to make it again, and which soft labels it shows."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TEACHERS, succeed
from distill_cases import QUICK, teacher
from distill_cases import images as noise
from torch import Tensor, nn

import db3kd
from db3kd.data.image_set import ImageSet
from db3kd.data.sample_choice import draw_images
from db3kd.pipelines.distillation import report as distill_report
from db3kd.pipelines.distillation.reproduction import (
    command_lines,
    command_needs,
    described_data,
    reproduction,
)
from db3kd.pipelines.student_training.rules import why_taught_by
from db3kd.planning import plan_budget

PLAN = plan_budget(1000, 10, 100)
RUN = Path("runs/mine")
MANIFEST = {
    "teacher": "t",
    "data": "d",
    "versions": {"db3kd": "1"},
    "settings": {"teacher": "my_model:predict", "source": {"data": "photos, split train"}},
}


def finished(
    student: str, settings: db3kd.DistillSettings, steps: int, test: ImageSet | None = None
) -> Any:
    return SimpleNamespace(
        prepared=SimpleNamespace(
            plan=PLAN,
            student=SimpleNamespace(title=student),
            settings=settings,
            student_settings=settings.completed(pseudo_samples=False),
            images=photos(),
            test=test,
            price_per_1000=None,
        ),
        trained=SimpleNamespace(steps=steps),
        manifest=MANIFEST,
        folder=RUN,
        noun="image",
    )


def photos() -> ImageSet:
    pixels = np.zeros((100, 4, 4), np.uint8)
    return ImageSet.from_arrays(pixels, np.arange(100) % 10, "photos, split train")


@pytest.mark.parametrize(
    ("images", "selected"),
    [
        (photos(), "photos, split train: all 100 images"),
        (photos()[20:60][10:20], "10 of 100 images, numbers 30 to 39, counted from 0"),
        (photos().subset([5]), "1 of 100 images, number 5, counted from 0"),
        (photos().subset([9, 5]).with_labels(None), "2 of 100 images, numbers 9, 5, counted from"),
        (photos().subset([*range(90, 0, -1)]), "90 of 100 images, numbers 90, 89, 88, 87, 86, 85,"),
        (photos().subset([*range(90, 0, -1)]), "82, 81, \N{HORIZONTAL ELLIPSIS}, counted from 0"),
        (photos().subset([3], "the best"), "photos, split train: 1 of 100 images, the best"),
        (draw_images(photos(), 7, 4), "7 of 100 images, drawn at random, as --limit 7 --seed"),
        (draw_images(photos(), 100, 4), "photos, split train: all 100 images"),
    ],
)
def test_the_selection_of_images_can_be_made_again(images, selected):
    assert selected in described_data(images)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (torch.zeros(120, 1, 6, 6), "images: all 120 images, passed in Python as Tensor"),
        (noise().subset(range(60)), "noise: 60 of 120 images, numbers 0 to 59, counted from 0"),
    ],
)
def test_a_report_states_which_images_a_run_had(given, shown, tmp_path):
    if isinstance(given, Tensor):
        given = noise().read(range(120))
    test = noise().with_labels(torch.arange(120) % 4)[30:120]
    db3kd.distill(
        teacher(), given, budget=50, student="linear", settings=QUICK, out=tmp_path / "r",
        test=test,
    )  # fmt: skip
    rows = {
        "data": shown,
        "test data": "noise: 90 of 120 images, numbers 30 to 119, counted from 0",
    }
    settings = (tmp_path / "r" / "report.md").read_text().split("## Settings")[1]
    page = (tmp_path / "r" / "report.html").read_text().split("Settings</h2>")[1]
    for name, text in rows.items():
        assert f"| {name} | `{text}` |" in settings
        assert text in page


def test_a_report_states_how_the_command_line_drew_its_images(tmp_path):
    run, comparison = tmp_path / "run", tmp_path / "comparison"
    options = ("--teacher", f"{TEACHERS}:CountingTeacher", "--data", "digits", "--limit", 60,
               "--seed", 3, "--budget", 60, "--student", "linear", "--steps", 3)  # fmt: skip
    drawn = "digits, split train: 60 of 1,438 images, drawn at random, as --limit 60 --seed 3 does"

    succeed("distill", *options, "--out", run)
    printed = succeed(
        "compare", *options, "--strategies", "decisions", "--seeds", 2, "--out", comparison
    )

    assert f"| data | `{drawn}` |" in (run / "report.md").read_text()
    assert f"Data: {drawn}." in printed
    second = comparison / "decisions-4" / "report.md"
    assert f"| data | `{drawn}` |" in second.read_text(), "its own seed is another one"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/usr/bin/db3kd distill --out run", "db3kd distill --out run"),
        ("/lib/db3kd/__main__.py distill --out run", "db3kd distill --out run"),  # python -m db3kd
        ("/lib/other/__main__.py distill --out run", ""),
        ("db3kd distill --resume --time-limit 60 --out r", "db3kd distill --out r --steps 900"),
        ("db3kd distill --time-limit=60", "db3kd distill --steps 900"),
        ("db3kd distill --resume --accept-changed-teacher", "db3kd distill"),
        ("db3kd distill --resume --consistency-checks 9 --out r", "db3kd distill --out r"),
        ("db3kd distill --resume --consistency-checks=9", "db3kd distill"),
        ("python script.py", ""),
        ("db3kd compare --out r", "db3kd compare --out r"),
        ("", ""),
    ],
)
def test_the_command_depends_on_no_machine_and_no_earlier_run(given, shown):
    steps = 900 if "time-limit" in given else None
    assert command_lines(given.split(), steps, [600]) == shown
    assert command_lines(["db3kd", "my data"], None, [600]) == "db3kd 'my data'"


@pytest.mark.parametrize("limit", ["--time-limit 60", "--time-limit=60"])
def test_a_time_limit_stays_if_no_steps_take_its_place(limit):
    command = f"db3kd compare {limit} --out r"
    assert command_lines(command.split(), None, [600]) == command


@pytest.mark.parametrize("given", ["--out r --price-per-1000 2", "--price-per-1000=2.5 --out r"])
@pytest.mark.parametrize("resumed", [False, True])
def test_the_command_has_the_price_of_the_run(given, resumed):
    command = "db3kd distill --out r --resume" if resumed else f"db3kd distill {given}"
    shown = command_lines(command.split(), None, [600], 2.5)
    assert shown == "db3kd distill --out r --price-per-1000 2.5"


@pytest.mark.parametrize("teacher", ["--teacher {}", "--teacher={}"])
def test_the_files_and_variables_that_a_command_needs_are_named(teacher, tmp_path, monkeypatch):
    monkeypatch.setenv("DIGITS_KEY", "Bearer 0a1b2c")
    description = tmp_path / "api.toml"
    description.write_text(
        'url = "http://127.0.0.1:9/v1"\nlabels = "names.txt"\n[header]\nvariable = "DIGITS_KEY"\n'
    )
    features, data = tmp_path / "features.json", tmp_path / "data.csv"
    for file in (features, data):
        file.write_text("{}")
    command = f"db3kd distill {teacher.format(description)} --features {features} --data {data}"

    assert command_needs(f"{command} --budget 9".split()) == {
        "files": f"{description}, {tmp_path / 'names.txt'}, {features}",
        "environment variables": "DIGITS_KEY, DB3KD_ALLOW_SECRET",
    }
    description.write_text("url = 3")
    as_module = command.replace("db3kd", "/lib/db3kd/__main__.py", 1)
    for given in (command, as_module):
        assert command_needs(given.split())["files"] == f"{description}, {features}"
    assert command_needs(["script.py", "--teacher", str(description)]) == {}


def test_the_call_has_the_settings_that_the_run_had():
    training = db3kd.TrainSettings(optimizer="adamw", seed=3)
    settings = db3kd.DistillSettings(training=training, proxies=1, time_limit=60)

    call = reproduction(finished("mlp", settings, 900, test=photos()))["Python"]

    def distill(*arguments, settings, **others):
        assert arguments == ("t", "i")
        given = {"budget": 1000, "student": "mlp", "strategy": "auto", "test": "x"}
        assert others == given | {"out": "runs/mine"}
        return settings

    class Names:
        DistillSettings, TrainSettings = db3kd.DistillSettings, db3kd.TrainSettings

    Names.distill = staticmethod(distill)
    names = {"db3kd": Names, "teacher": "t", "images": "i", "test": "x"}
    *comments, call = call.splitlines()
    assert comments == [
        "import db3kd",
        "# teacher: the teacher my_model:predict",
        "# images: photos, split train: all 100 images",
        "# test: photos, split train: all 100 images, with labels",
    ]
    made = eval(call, names)
    assert made == replace(
        settings, training=replace(settings.training, steps=900), time_limit=None
    )


def test_what_is_usual_is_left_out():
    usual = reproduction(finished("Net", db3kd.DistillSettings(), 6000))
    *comments, call = usual["Python"].splitlines()
    assert call == (
        "db3kd.distill(teacher, images, budget=1000, student=student, strategy='auto', "
        "out='runs/mine')"
    )
    assert "# student: the network, or the function that makes it: Net" in comments
    assert "time limit" not in usual and usual["seed"] == "0"


def make_student() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 4))


@pytest.mark.parametrize(
    "student", ["linear", f"{__name__}:make_student", make_student, make_student()]
)
def test_the_lines_of_a_report_load_and_export_the_student(student, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"budget": 100, "settings": QUICK, "out": "my runs/one"}
    result = db3kd.distill(teacher(), noise(), student=student, **given)
    page = result.report.with_suffix(".md").read_text()
    section = page.split("## Use the student")[1].split("## ")[0]
    lines = dict(re.findall(r"^\| (\w+) \| `(.*)` \|$", section, re.MULTILINE))

    batch = noise().read(range(100))
    names = {"db3kd": db3kd, "batch": batch, "make_student": make_student}
    exec(lines["load"], names)
    exec(lines["decide"], names)
    assert names["classes"].equal(result.student(batch).argmax(1))
    if lines["export"].startswith("db3kd export "):
        succeed(*shlex.split(lines["export"])[1:])
        assert list(Path("my runs/one").glob("*.onnx"))
    else:
        exec(lines["export"], names)
        assert Path("student.onnx").is_file()
        names |= {"images": noise(), "teacher": teacher()}
        assert 0 <= eval(lines["measure"], names) <= 1


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"steps": 12}, "12 steps, 0.2 % of the default of 6,000."),
        ({"steps": 12, "patience": 3}, "at most 12 steps, 0.2 % of the default of 6,000."),
    ],
)
def test_a_report_says_how_long_training_was_and_why_who_taught(tmp_path, settings, share):
    patience = settings.get("patience")
    result = db3kd.distill(
        teacher(), noise(), budget=100, student="linear", out=tmp_path / "r",
        settings=replace(QUICK, patience=patience),
    )  # fmt: skip
    page = result.report.with_suffix(".md").read_text()
    assert f"The student was trained for {share}" in page
    assert "taught the student, because" in page and f"{result.validation:,}." in page


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0, 0, 9_000, 900), "Decisions alone taught the student, because the run had no proxies."),
        ((2, 2, 9_000, 900), "Decisions and proxies taught the student by validation agreement"),
        ((2, 0, 600, 200), "Decisions alone taught the student by validation agreement"),
        (
            (2, 0, 599, 200),
            "with many answers per image, proxies help in long training only. Comparing students",
        ),
        (
            (2, 0, 6_000, 199),
            "per image, this kind of student gains nothing from proxies. Comparing",
        ),
        ((2, 2, 600, 199), "or if training is long. Comparing students with and without proxies"),
        ((2, 2, 600, 199), "versions of them); this run has 600 and 199."),
    ],
)
def test_a_reason_is_given_for_who_taught(numbers, words):
    assert words in why_taught_by(*numbers)


@pytest.mark.parametrize(("certain", "shown"), [(1.0, False), (0.9996, False), (0.99, True)])
def test_soft_labels_that_say_no_more_than_decisions_are_not_shown(certain, shown):
    class Proxy(nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            assert len(images) == 2
            return torch.tensor([[certain, 1 - certain], [0.0, 1.0]]).log()

    clean = SimpleNamespace(rows=torch.arange(2), decisions=torch.arange(2))
    images = SimpleNamespace(read=lambda rows: torch.rand(len(rows), 1, 4, 4))
    run: Any = SimpleNamespace(
        trained=SimpleNamespace(proxies=[Proxy(1, 1)]),
        answers=SimpleNamespace(training=SimpleNamespace(clean=clean), images=images),
        noun="image",
        prepared=SimpleNamespace(images=None),
    )
    assert (distill_report._soft_examples(run) is not None) == shown
