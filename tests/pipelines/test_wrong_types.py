"""A value of the wrong type is named with its argument, what was expected and what came."""

import inspect
from dataclasses import fields, replace
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from distill_cases import QUICK, images, teacher
from teachers_analytic import CountingTeacher

import db3kd
from db3kd import pipelines
from db3kd.labelling import RunExecution
from db3kd.pipelines import DistillSettings
from db3kd.teachers import ModelOverrides, Preprocessing

FOR_DISTILL = {"images": images(), "budget": 60, "student": "linear", "settings": QUICK}
FUNCTIONS: dict[str, dict[str, Any]] = {
    "distill": FOR_DISTILL,
    "compare": FOR_DISTILL | {"strategies": ["decisions"]},
    "run_demo": {"out": "run", "quick": True},
}
"""The public functions of the pipelines, with valid arguments for those that need them."""

WRONG: tuple[Any, ...] = (3, "many", {}, ["a", 1], object(), None)
VALID: dict[tuple[str, str], tuple[Any, ...]] = {
    ("*", "images"): (None,),
    ("*", "student"): (None,),
    ("*", "settings"): (None,),
    ("*", "out"): ("many", None),
    ("*", "test"): (None,),
    ("*", "price_per_1000"): (3, None),
    ("*", "progress"): ({},),  # it has a method update
    ("*", "budget"): (3,),
    ("*", "consistency_checks"): (3,),
    ("compare", "seeds"): (3,),
    ("compare", "callbacks"): (None,),
    ("compare", "on_student"): (None,),
    ("run_demo", "seed"): (3,),
}
"""Values of a right type; None counts for every function only if it is the default."""


def cases() -> list[tuple[str, str, Any]]:
    found = []
    for function in FUNCTIONS:
        for name, parameter in inspect.signature(getattr(pipelines, function)).parameters.items():
            right = VALID.get((function, name))
            if right is None:
                required = parameter.default is inspect.Parameter.empty
                usual = VALID.get(("*", name), ())
                right = tuple(value for value in usual if value is not None or not required)
            found += [(function, name, value) for value in WRONG if value not in right]
    return found


def test_the_table_has_every_function():
    public = {name for name in pipelines.__all__ if inspect.isfunction(getattr(pipelines, name))}
    assert public == FUNCTIONS.keys()


@pytest.mark.parametrize(("function", "name", "value"), cases())
def test_a_wrong_type_is_named(function, name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counting = CountingTeacher(teacher())
    given = {} if function == "run_demo" else {"teacher": counting}

    with pytest.raises((TypeError, ValueError)) as raised:
        getattr(pipelines, function)(**given | FUNCTIONS[function] | {name: value})

    message = str(raised.value)
    assert message.startswith((f"{name}: ", f"{name}s: "))
    assert "expected" in message and "got" in message
    assert counting.total == 0 and list(tmp_path.iterdir()) == []


STAGES = {
    "label": {"images": images()},
    "make_surrogate": {"images": images()},
    "synthesize": {},
}
"""Functions of single stages that spend queries."""


def stage_cases() -> list[tuple[str, str, Any]]:
    return [
        (function, name, value)
        for function in STAGES
        for name in ("teacher", "images", "settings", "out", "resume")
        if name in inspect.signature(getattr(db3kd, function)).parameters
        for value in (3, {}, ["a", 1], *(["many"] if name != "out" else []))
    ]


@pytest.mark.parametrize(("function", "name", "value"), stage_cases())
def test_a_wrong_type_is_named_by_single_stages(function, name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counting = CountingTeacher(teacher())

    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected .*, got "):
        getattr(db3kd, function)(**{"teacher": counting} | STAGES[function] | {name: value})

    assert counting.total == 0 and list(tmp_path.iterdir()) == []


SETTINGS: list[tuple[type, str, Any]] = [
    (DistillSettings, "training", {}),
    (DistillSettings, "training", None),
    (DistillSettings, "learning_rates", "fast"),
    (DistillSettings, "learning_rates", ("fast",)),
    (DistillSettings, "proxy", 3),
    (DistillSettings, "proxies", "many"),
    (DistillSettings, "alpha", "half"),
    (DistillSettings, "time_limit", "long"),
    (DistillSettings, "patience", 2.5),
    (db3kd.TrainSettings, "steps", "many"),
    (db3kd.TrainSettings, "steps", 2.5),
    (db3kd.TrainSettings, "epochs", 0.5),
    (db3kd.TrainSettings, "batch_size", "large"),
    (db3kd.TrainSettings, "learning_rate", "high"),
    (db3kd.TrainSettings, "schedule", 3),
    (db3kd.TrainSettings, "seed", "random"),
    (db3kd.TrainSettings, "device", 0),
    (db3kd.TrainSettings, "precision", 16),
    (db3kd.TrainSettings, "shuffle", "yes"),
    (db3kd.TrainSettings, "optimizer", object()),
    (db3kd.TrainSettings, "weight_decay", "little"),
    (db3kd.TrainSettings, "ema", "0.9"),
    (db3kd.TrainSettings, "gradient_clip", "one"),
    (db3kd.SignOptSettings, "steps", 0.1),
    (db3kd.SignOptSettings, "growth", "fast"),
    (db3kd.LabelSettings, "tolerance", "1e-3"),
    (db3kd.SynthesisSettings, "effort", "much"),
]


@pytest.mark.parametrize(("kind", "name", "value"), SETTINGS)
def test_a_wrong_type_of_a_setting_is_named(kind, name, value):
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected .*, got "):
        kind(**{name: value})


STAGES_OF_SETTINGS = ("boundary", "labelling", "pipelines", "synthesis", "teachers")


def public_settings() -> list[type]:
    modules = [db3kd, *(import_module(f"db3kd.{stage}") for stage in STAGES_OF_SETTINGS)]
    found = {name: getattr(module, name) for module in modules for name in module.__all__}
    others = (db3kd.AutoSurrogate, db3kd.Moves, Preprocessing, RunExecution, ModelOverrides)
    return [*(kind for name, kind in found.items() if name.endswith("Settings")), *others]


@pytest.mark.parametrize("kind", public_settings())
def test_an_unknown_argument_of_settings_suggests_known_ones(kind):
    names = [field.name for field in fields(kind)]
    with pytest.raises(TypeError, match=f"^zzz: {kind.__name__} has .*; expected one of ") as error:
        kind(zzz=1)
    assert str(error.value).endswith(", ".join(names))
    longest = max(names, key=len)
    with pytest.raises(TypeError, match=f"; did you mean '{longest}'\\?$"):
        kind(**{f"{longest}x": 1})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: DistillSettings(steps=3),
            r"steps: .*; pass training=TrainSettings\(steps=\.\.\.\)$",
        ),
        (lambda: db3kd.LabelSettings(noise=1), r"; pass sign_opt=SignOptSettings\(noise=\.\.\.\)$"),
        (lambda: db3kd.SynthesisSettings(pool=3), r"acquisition=AcquisitionSettings\(pool="),
        (lambda: replace(QUICK, proxis=3), r"proxis: DistillSettings .*did you mean 'proxies'\?"),
    ],
)
def test_an_argument_of_inner_settings_is_shown_with_them(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_the_name_of_an_unknown_network_is_that_of_its_argument():
    for name, options in (("student", {"student": "huge"}), ("proxy", {"proxy": "huge"})):
        chosen = DistillSettings(proxy=options.pop("proxy", "linear"))
        with pytest.raises(ValueError, match=f"^{name}: expected one of lenet5, .* got 'huge'"):
            pipelines.distill(teacher(), **FOR_DISTILL | {"settings": chosen} | options)


@pytest.mark.parametrize("seed", [-1, 2**63, 10**20])
@pytest.mark.parametrize(
    "kind", [db3kd.TrainSettings, db3kd.LabelSettings, db3kd.SynthesisSettings]
)
def test_a_seed_beyond_those_of_generators_is_refused_by_all_settings(kind, seed):
    with pytest.raises(ValueError, match=rf"^seed: expected .* below 2\^63, got {seed}$"):
        kind(seed=seed)


def test_a_seed_without_room_for_the_next_ones_is_refused():
    counting = CountingTeacher(teacher())
    compare = partial(pipelines.compare, strategies=["decisions"])
    for run, bits in ((pipelines.distill, 62), (compare, 61)):
        training = replace(QUICK.training, seed=2**bits)
        given = FOR_DISTILL | {"settings": replace(QUICK, training=training)}
        with pytest.raises(ValueError, match=rf"^settings\.training\.seed: .* below 2\^{bits}"):
            run(counting, **given)
    training = replace(QUICK.training, seed=2**62)
    with pytest.raises(ValueError, match=r"^training\.seed: expected .* below 2\^62"):
        db3kd.SurrogateSettings(training=training)
    assert counting.total == 0


def test_the_largest_seed_trains_proxies_and_students():
    training = replace(QUICK.training, seed=2**61 - 1)
    largest = replace(QUICK, training=training, proxies=2)
    given = FOR_DISTILL | {"settings": largest, "strategies": ["auto", "sd"]}
    assert len(pipelines.compare(teacher(), **given, seeds=2).rows[0].students) == 2
