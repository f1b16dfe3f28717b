"""What `distill` refuses before the first query, and what few images are enough for."""

import math
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from distill_cases import CLASSES, QUICK, SHAPE, TRAINING, images, teacher
from label_runs import write_run
from teachers_analytic import (
    ConstantTeacher,
    CountingTeacher,
    WrongTeacher,
    beyond_range,
    one_short,
)
from torch import nn

import db3kd
from db3kd.data.source import Source
from db3kd.errors import ArgumentError
from db3kd.pipelines import DistillResult, DistillSettings
from db3kd.surrogates.files import prepare_surrogate
from db3kd.teachers import TeacherError, load_teacher
from db3kd.training.settings import TrainSettings

PIXELS = images().read(range(120))


def run(asked: Any = None, data: Any = PIXELS, budget: Any = 300, **options: Any) -> DistillResult:
    given = {"student": "linear", "settings": QUICK} | options
    return db3kd.distill(asked or teacher(), data, budget=budget, **given)


def labelled(shape: tuple[int, ...] = SHAPE, highest: int = CLASSES - 1) -> db3kd.ImageSet:
    return db3kd.ImageSet.from_arrays(np.zeros((5, *shape), np.float32), [0, 1, 0, 1, highest])


REFUSED = {
    "budget": ({"budget": 0}, ValueError, "budget: expected an integer of at least 1, got 0"),
    "fraction": ({"budget": 2.5}, ValueError, "budget: expected an integer"),
    "tiny": ({"budget": 19}, ValueError, "budget: expected at least 20 queries, got 19"),
    "one image": ({"data": PIXELS[:1]}, ValueError, "images: expected at least 2"),
    "no image": ({"data": PIXELS[:0]}, ValueError, "images: the set is empty"),
    "NaN": ({"data": PIXELS * math.nan}, ValueError, "images.* got NaN at row 0"),
    "scale": ({"data": PIXELS * 255}, ValueError, r"images.* in \[0, 1\].*divide by 255"),
    "int64": ({"data": (PIXELS * 255).long()}, TypeError, "images: .*int64; convert it to uint8"),
    "size": ({"data": PIXELS[..., :5]}, ValueError, r"images: expected shape \(1, 6, 6\)"),
    "distances": (
        {"data": PIXELS[:2], "strategy": "bd"},
        ValueError,
        "images: strategy 'bd' needs at least 3",
    ),
    "no images": (
        {"data": None, "strategy": "sd"},
        ValueError,
        "images: strategy 'sd' needs images",
    ),
    "settings": (
        {"settings": TRAINING},
        TypeError,
        "settings: expected DistillSettings, got TrainSettings",
    ),
    "resume": ({"resume": True}, ValueError, "resume: needs out="),
    "price": ({"price_per_1000": -1.0}, ValueError, "price_per_1000: expected a finite number"),
    "NaN price": ({"price_per_1000": math.nan}, ValueError, "price_per_1000: expected"),
    "callback": ({"callbacks": db3kd.TrainingCallback()}, TypeError, r"callbacks: .*pass \[it\]"),
    "function": ({"callbacks": [print]}, TypeError, "callbacks: expected instances of Training"),
    "test": ({"test": PIXELS}, ValueError, "test: expected labelled images"),
    "test size": (
        {"test": labelled((1, 8, 8))},
        ValueError,
        r"test: expected shape \(1, 6, 6\).* got \(1, 8, 8\)",
    ),
    "test label": ({"test": labelled(highest=9)}, ValueError, r"test: .*\[0, 4\).* got 9"),
    "student": ({"student": nn.Linear(9, CLASSES)}, ValueError, "student: expected a network for"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_are_refused_before_the_first_query(case, tmp_path):
    options, error, message = REFUSED[case]
    counting = CountingTeacher(teacher())
    keeping = {} if "resume" in options else {"out": tmp_path / "run"}
    with pytest.raises(error, match=message):
        run(counting, **options, **keeping)
    assert counting.total == 0
    assert not (tmp_path / "run").exists()


def test_a_single_learning_rate_must_be_in_a_tuple():
    with pytest.raises(TypeError, match=r"learning_rates: .*use \(0.1,\)"):
        DistillSettings(learning_rates=0.1)


def test_what_training_settings_leave_out_is_that_of_the_pipeline():
    training = db3kd.TrainSettings(steps=50, seed=3)

    partial = DistillSettings(training=training)

    assert partial == DistillSettings(
        training=db3kd.TrainSettings(steps=50, seed=3, schedule="cosine")
    )
    assert partial.training.schedule == "cosine"
    assert partial.completed(pseudo_samples=False).learning_rates == (3e-3, 1e-3)
    constant = replace(training, schedule="constant", learning_rate=0.01)
    chosen = DistillSettings(training=constant).completed(pseudo_samples=False)
    assert chosen.training.schedule == "constant" and chosen.learning_rates == (0.01,)
    listed = DistillSettings(training=constant, learning_rates=[0.1])
    assert listed.completed(pseudo_samples=False).learning_rates == (0.1,)
    surrogate = db3kd.SurrogateSettings(training=training).training
    assert (surrogate.rate, surrogate.schedule) == (1e-3, "constant")


@pytest.mark.parametrize(
    ("given", "optimizer", "rates"),
    [
        ({}, ("sgd", 5e-4), (0.05, 0.01)),
        ({"learning_rates": (0.02, 0.01)}, ("adam", 0.0), (0.02, 0.01)),
        ({"learning_rates": (3e-3, 1e-3)}, ("adam", 0.0), (3e-3, 1e-3)),
        ({"training": db3kd.TrainSettings(learning_rate=0.02)}, ("adam", 0.0), (0.02,)),
        ({"training": db3kd.TrainSettings(optimizer="adamw")}, ("adamw", 0.0), (3e-3, 1e-3)),
    ],
)
def test_students_of_pseudo_samples_train_by_sgd_unless_told_otherwise(given, optimizer, rates):
    settings = replace(DistillSettings(**given), alpha=0.2)  # a copy is no other choice

    made = settings.completed(pseudo_samples=True)

    assert (made.training.optimizer, made.training.weight_decay) == optimizer
    assert made.learning_rates == rates and made.training.schedule == "cosine"
    assert made.completed(pseudo_samples=True) == made
    real = settings.completed(pseudo_samples=False)
    assert real.learning_rates == ((3e-3, 1e-3) if optimizer[0] == "sgd" else rates)
    assert real.training.optimizer == ("adam" if optimizer[0] == "sgd" else optimizer[0])


def test_the_length_of_a_distillation_is_given_in_steps():
    with pytest.raises(ArgumentError, match="steps: expected epochs or steps, got 3 and 50"):
        db3kd.TrainSettings(epochs=3, steps=50)
    with pytest.raises(ArgumentError, match=r"training\.epochs: expected None, .*got 3; set "):
        DistillSettings(training=db3kd.TrainSettings(epochs=3))


def test_many_pseudo_samples_are_trained_on_for_longer():
    settings = DistillSettings()

    assert settings.steps_for(20_000) == settings.steps_for(20_000, pseudo_samples=True) == 6_000
    assert settings.steps_for(99_000, pseudo_samples=True) == 15 * 774
    assert settings.steps_for(99_000) == 6_000
    fixed = DistillSettings(training=db3kd.TrainSettings(steps=7))
    assert fixed.steps_for(99_000, pseudo_samples=True) == 7


@pytest.mark.parametrize("change", [one_short, beyond_range, lambda decisions: None])
def test_answers_that_are_no_classes_end_the_run_and_leave_no_folder(change, tmp_path):
    with pytest.raises(TeacherError, match="teacher WrongTeacher"):
        run(WrongTeacher(teacher(), change), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("strategy", ["auto", "decisions", "augmented"])
def test_a_few_images_are_enough(count, strategy):
    counting = CountingTeacher(teacher())
    result = run(counting, PIXELS[:count], strategy=strategy)
    assert result.queries == counting.total == (count if strategy == "decisions" else 300)
    assert result.held_out == 1


@pytest.mark.parametrize("count", [3, 10])
@pytest.mark.parametrize("strategy", ["sd", "bd", "mbd", "db3kd-paper"])
def test_a_few_images_are_enough_for_distances(count, strategy):
    counting = CountingTeacher(teacher())
    result = run(counting, PIXELS[:count], strategy=strategy)
    assert count <= result.queries == counting.total <= 300


def test_integers_of_numpy_and_tensors_with_gradients_are_accepted():
    result = run(data=PIXELS.clone().requires_grad_(), budget=np.int64(40))
    assert result.queries == 40 and result.plan.budget == 40


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("a", "b", "c", "d"), ["car", "van"] * 60),
        (None, [f"class {number % 9}" for number in range(120)]),
        (None, [number % 9 for number in range(120)]),
    ],
)
@pytest.mark.parametrize("strategy", ["auto", "sd"])
def test_labels_of_classes_that_the_teacher_does_not_have_are_left_out(
    names, labels, strategy, tmp_path, caplog
):
    asked = teacher()
    asked.class_names = names
    others = db3kd.ImageSet.from_arrays(PIXELS.numpy(), labels)

    result = run(asked, others, strategy=strategy, out=tmp_path / "run")

    assert "the labels of arrays are ignored" in caplog.text
    again = run(asked, others, strategy=strategy, out=tmp_path / "run", resume=True)
    assert again.agreement == result.agreement
    loaded = load_teacher(tmp_path / "run" / "student.safetensors")
    assert loaded.class_names == names
    with pytest.raises(ValueError, match=r"test: expected labels|class names: expected"):
        run(asked, test=others)


def test_copies_of_one_image_are_no_error_if_augmented_images_differ_in_class():
    result = run(data=torch.cat([PIXELS[:1].expand(49, *SHAPE), PIXELS[1:2]]))
    assert result.queries == 300


def test_a_teacher_with_one_class_is_asked_for_one_round_only(tmp_path):
    counting = CountingTeacher(ConstantTeacher(1, SHAPE, CLASSES))
    with pytest.raises(TeacherError, match="Likely causes: images that are unlike"):
        run(counting, budget=10_000, out=tmp_path / "run")
    assert counting.total < 3000


def test_students_with_batch_normalisation_are_trained_on_a_few_images():
    make = lambda: nn.Sequential(  # noqa: E731
        nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES)
    )
    for strategy in ("auto", "sd"):
        result = run(data=PIXELS[:13], student=make, strategy=strategy)
        assert torch.stack([value.isfinite().all() for value in result.student.parameters()]).all()


@pytest.mark.parametrize(
    "query",
    [
        lambda asked, _: run(asked),
        lambda asked, _: db3kd.compare(asked, PIXELS, budget=300, settings=QUICK),
        lambda asked, _: db3kd.label(asked, PIXELS),
        lambda asked, out: db3kd.label(asked, PIXELS, out=out),
        lambda asked, _: db3kd.label_chunks(asked, PIXELS),
        lambda asked, out: write_run(
            out, asked, Source("noise"), db3kd.LabelSettings(), images=images()
        ),
        lambda asked, _: db3kd.make_surrogate(asked, PIXELS),
        lambda asked, out: db3kd.make_surrogate(asked, PIXELS, out=out),
        lambda asked, out: prepare_surrogate(
            f"{out}.safetensors", asked, Source("noise"), images=images()
        ).write(),
        lambda asked, _: db3kd.synthesize(asked),
        lambda asked, out: db3kd.synthesize(asked, out=out),
        lambda asked, _: db3kd.evaluate(asked, PIXELS, [0] * len(PIXELS)),
        lambda asked, _: db3kd.agreement(asked, PIXELS, [0] * len(PIXELS)),
    ],
)
def test_several_processes_of_a_launcher_do_not_ask_twice(query, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    counting = CountingTeacher(teacher())
    with pytest.raises(ValueError, match="expected a single process, got 2 from a launcher"):
        query(counting, tmp_path / "run")
    assert counting.total == 0
    assert not list(tmp_path.iterdir())


def test_each_process_of_a_launcher_may_measure_a_module(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    student = nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))
    for model in (student, db3kd.ModuleTeacher(student, (1, 6, 6), CLASSES)):
        assert 0 <= db3kd.evaluate(model, PIXELS, [0] * len(PIXELS)) <= 1


def test_rare_classes_need_images():
    taught = {"teacher": db3kd.FunctionTeacher(len, (1, 8, 8), 10), "budget": 1_000}

    for call in (db3kd.distill, db3kd.compare):
        with pytest.raises(ValueError, match="rare_classes: needs images"):
            call(**taught, rare_classes=True)


def test_a_shape_without_channels_is_answered_with_one_that_has_them():
    digits = db3kd.load_data("digits")
    with pytest.raises(ValueError, match=r"lacks the channels; did you mean \(1, 8, 8\)"):
        db3kd.distill(ConstantTeacher(0, (8, 8), 10), digits, budget=1_000)


@pytest.mark.parametrize(
    ("module", "package"), [("matplotlib", "matplotlib"), ("jinja2", "Jinja2")]
)
def test_a_missing_report_package_is_an_error_before_the_first_query(
    monkeypatch, tmp_path, module, package
):
    monkeypatch.setitem(sys.modules, module, None)
    counting = CountingTeacher(teacher())
    given = {"budget": 60, "student": "linear", "settings": QUICK, "out": tmp_path / "run"}
    for run in (db3kd.distill, partial(db3kd.compare, strategies=["decisions"])):
        with pytest.raises(ModuleNotFoundError, match=rf"{package}: pip install .db3kd\[cli\]"):
            run(counting, images(), **given)
    assert counting.total == 0 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "settings",
    [
        lambda: DistillSettings(time_limit=1e308),
        lambda: DistillSettings(learning_rates=(1e300,)),
        lambda: TrainSettings(epochs=10**400),
    ],
)
def test_numbers_that_training_cannot_use_are_refused_before_the_first_query(settings):
    with pytest.raises(ArgumentError, match=r"^(time_limit|learning_rates|epochs): expected "):
        settings()
