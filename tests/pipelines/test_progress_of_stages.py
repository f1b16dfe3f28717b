"""What the public functions show of their progress: one rule for all of them."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_cases import QUICK, TRAINING, images, teacher

import db3kd
from db3kd.training.row_batches import RowBatches

pytest.importorskip("pyarrow")

SETTINGS = replace(QUICK, proxies=1)
SURROGATE = db3kd.SurrogateSettings("linear", 2, training=replace(TRAINING, steps=4))
SD = db3kd.LabelSettings("sd")
SAMPLES = db3kd.SynthesisSettings(samples=20)


def labels() -> db3kd.Labels:
    return db3kd.label(teacher(), images(20), SD, progress=False)


def distill(out: Path | None, **options: Any) -> None:
    common = {"student": "linear", "settings": SETTINGS, "out": out}
    db3kd.distill(teacher(), **{"images": images(), "budget": 200} | common | options)


def compare(out: Path | None, **options: Any) -> None:
    db3kd.compare(
        teacher(), images(), budget=100, strategies=["decisions"], seeds=1, student="linear",
        settings=QUICK, test=images(10), **options,
    )  # fmt: skip


def choose_scale(out: Path | None, **options: Any) -> None:
    loss, settings = db3kd.KDLoss(temperature=4.0), replace(TRAINING, steps=2)
    db3kd.choose_scale("linear", images(20), labels(), loss, settings, **options)


def train_batches(out: Path | None, **options: Any) -> None:
    made = labels()
    db3kd.train_batches(
        db3kd.build_model("linear", (1, 6, 6), 4),
        RowBatches(images(20).read(range(20)), [made.decision], torch.arange(20), TRAINING),
        torch.nn.functional.cross_entropy,
        TRAINING,
        **options,
    )


def train_student(out: Path | None, **options: Any) -> None:
    soft = db3kd.with_soft_labels(labels(), scale=4.0, temperature=4.0)
    db3kd.train_student("linear", images(20), soft, settings=TRAINING, **options)


CALLS: dict[str, Callable[..., object]] = {
    "distill": distill,
    "compare": compare,
    "label": lambda out, **how: db3kd.label(teacher(), images(20), SD, out=out, **how),
    "label_chunks": lambda out, **how: list(db3kd.label_chunks(teacher(), images(20), SD, **how)),
    "make_surrogate": lambda out, **how: db3kd.make_surrogate(
        teacher(), images(20), SURROGATE, out=out, **how
    ),
    "synthesize": lambda out, **how: db3kd.synthesize(teacher(), SAMPLES, out=out, **how),
    "choose_scale": choose_scale,
    "train_batches": train_batches,
    "train_classifier": lambda out, **how: db3kd.train_classifier(
        "linear", images(20), [0, 1] * 10, settings=TRAINING, **how
    ),
    "train_student": train_student,
}
"""A call of each public function that queries a teacher or trains a network, with a new folder."""

OTHER_STAGES: dict[str, Callable[..., object]] = {
    "distill without images": lambda out, **how: distill(out, images=None, **how),
    "distill from distances": lambda out, **how: distill(out, strategy="bd", budget=900, **how),
    "label in memory": lambda out, **how: db3kd.label(teacher(), images(20), SD, **how),
    "make_surrogate in memory": lambda out, **how: db3kd.make_surrogate(
        teacher(), images(20), SURROGATE, **how
    ),
    "synthesize in memory": lambda out, **how: db3kd.synthesize(teacher(), SAMPLES, **how),
}
"""Calls that go other ways through the same functions."""


class Listener:
    """Keeps the counts."""

    def __init__(self) -> None:
        self.queries: list[int] = []
        self.samples: list[int] = []

    def update(self, *, samples: int | None = None, queries: int | None = None, **_: Any) -> None:
        self.samples += [] if samples is None else [samples]
        self.queries += [] if queries is None else [queries]


def test_the_table_has_every_function_with_progress():
    functions = {name: getattr(db3kd, name) for name in db3kd.__all__}
    defaults = {
        name: inspect.signature(found).parameters["progress"].default
        for name, found in functions.items()
        if inspect.isfunction(found) and "progress" in inspect.signature(found).parameters
    }
    assert defaults == dict.fromkeys(CALLS, True)


@pytest.mark.parametrize("call", CALLS)
def test_each_stage_is_shown_once(call, tmp_path, capsys):
    CALLS[call](tmp_path / "run")
    stages = [line.split(" done: ")[0] for line in capsys.readouterr().err.splitlines()]
    assert stages and len(set(stages)) == len(stages)


@pytest.mark.parametrize("call", [*CALLS, *OTHER_STAGES])
def test_a_listener_receives_what_is_shown_otherwise(call, tmp_path, capsys):
    listener = Listener()
    (CALLS | OTHER_STAGES)[call](tmp_path / "run", progress=listener)
    assert capsys.readouterr().err == ""
    assert listener.samples and max(listener.samples) > 0
    trains_only = call.startswith(("choose", "train"))
    assert (not listener.queries) == trains_only
