"""What the report of a student says is needed to make it again, and which soft labels it shows."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import db3kd
from db3kd.pipelines import distill_report
from db3kd.pipelines.reproduction import command_line, reproduction
from db3kd.planning import plan_budget

PLAN = plan_budget(1000, 10, 100)
MANIFEST = {
    "teacher": "t",
    "data": "d",
    "versions": {"db3kd": "1"},
    "settings": {"teacher": "my_model:predict", "source": {"data": "photos, split train"}},
}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/usr/bin/db3kd distill --out run", "db3kd distill --out run"),
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
    assert command_line(given.split(), steps) == shown
    assert command_line(["db3kd", "my data"], None) == "db3kd 'my data'"


@pytest.mark.parametrize("limit", ["--time-limit 60", "--time-limit=60"])
def test_a_time_limit_stays_if_no_steps_take_its_place(limit):
    command = f"db3kd compare {limit} --out r"
    assert command_line(command.split(), None) == command


def test_the_call_has_the_settings_that_the_run_had():
    training = db3kd.TrainSettings(optimizer="adamw", seed=3)
    settings = db3kd.DistillSettings(training=training, proxies=1, time_limit=60)

    call = reproduction(PLAN, "mlp", settings, 900, MANIFEST, tested=True)["Python"]

    def distill(*arguments, settings, **others):
        assert arguments == ("t", "i")
        assert others == {"budget": 1000, "student": "mlp", "strategy": "auto", "test": "x"}
        return settings

    class Names:
        DistillSettings, TrainSettings = db3kd.DistillSettings, db3kd.TrainSettings

    Names.distill = staticmethod(distill)
    names = {"db3kd": Names, "teacher": "t", "images": "i", "test": "x"}
    *comments, call = call.splitlines()
    assert comments == [
        "import db3kd",
        "# teacher: the teacher my_model:predict",
        "# images: the 100 images of photos, split train",
        "# test: the labelled test images",
    ]
    made = eval(call, names)
    assert made == replace(
        settings, training=replace(settings.training, steps=900), time_limit=None
    )


def test_what_is_usual_is_left_out():
    usual = reproduction(PLAN, "Net", db3kd.DistillSettings(), 6000, MANIFEST, tested=False)
    *comments, call = usual["Python"].splitlines()
    assert call == "db3kd.distill(teacher, images, budget=1000, student=student, strategy='auto')"
    assert "# student: the network, or the function that makes it: Net" in comments
    assert "time limit" not in usual and usual["seed"] == "0"


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
    )
    assert (distill_report._soft_examples(run) is not None) == shown
