"""Each public settings dataclass refuses values that its annotations exclude."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import db3kd

REQUIRED: dict[str, dict[str, Any]] = {
    "SoftLabelSettings": {"normalisation": "margin", "scale": 1.0, "temperature": 1.0},
}
"""Valid values of the fields without a default."""


def public_settings() -> set[type]:
    """Returns the settings that the package or a stage exports, and the settings in their fields.

    Settings are dataclasses whose names end in `Settings`.
    """
    packages = [
        importlib.import_module(part.name)
        for part in pkgutil.walk_packages(db3kd.__path__, "db3kd.")
        if part.ispkg
    ]
    found = {
        getattr(package, name)
        for package in (db3kd, *packages)
        for name in getattr(package, "__all__", ())
        if name.endswith("Settings") and dataclasses.is_dataclass(getattr(package, name))
    }
    for kind in list(found):
        for hint in get_type_hints(kind).values():
            found.update(filter(dataclasses.is_dataclass, (hint, *get_args(hint))))
    return found


def holds_floats(hint: Any) -> bool:
    return hint is float or any(holds_floats(each) for each in get_args(hint))


def in_tuple(hint: Any) -> bool:
    return get_origin(hint) is tuple or any(in_tuple(each) for each in get_args(hint))


def fields_with(matches: Callable[[Any], bool]) -> list[tuple[type, str, Any]]:
    """Returns each class, the name of each of its fields whose annotation matches, and that."""
    return [
        (kind, field.name, hint)
        for kind in sorted(public_settings(), key=lambda kind: kind.__name__)
        for field in dataclasses.fields(kind)
        if field.init and matches(hint := get_type_hints(kind)[field.name])
    ]


def holds_choices(hint: Any) -> bool:
    return get_origin(hint) is Literal or any(holds_choices(each) for each in get_args(hint))


def holds_settings(hint: Any) -> bool:
    return any(each in public_settings() for each in (hint, *get_args(hint)))


def float_fields() -> list[tuple[type, str, bool]]:
    """Returns each class, the name of each of its fields of floats, and whether it is a tuple."""
    cases = []
    for kind in sorted(public_settings(), key=lambda kind: kind.__name__):
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.init and holds_floats(hints[field.name]):
                cases.append((kind, field.name, in_tuple(hints[field.name])))
    return cases


def test_settings_are_found_through_all_stages_and_in_fields():
    names = {kind.__name__ for kind in public_settings()}
    assert names >= {"SignOptSettings", "TrainSettings", "RequestSettings", "Moves"}
    assert {name for _, name, _ in float_fields()} >= {"growth", "learning_rates", "max_backoff"}


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        True,
        False,
        1e300,
        pytest.param(2**1500, id="large"),
    ],
)
@pytest.mark.parametrize(("kind", "name", "several"), float_fields())
def test_a_float_that_is_not_finite_and_a_bool_are_refused(kind, name, several, value):
    given = REQUIRED.get(kind.__name__, {}) | {name: (value,) if several else value}
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected "):
        kind(**given)


def is_integer(hint: Any) -> bool:
    return hint in (int, int | None, tuple[int, ...])


@pytest.mark.parametrize("value", [2**63, 2**1500, 2**20000], ids=int.bit_length)
@pytest.mark.parametrize(("kind", "name", "hint"), fields_with(is_integer))
def test_an_integer_beyond_64_bits_is_refused(kind, name, hint, value):
    given = REQUIRED.get(kind.__name__, {}) | {name: (value,) if in_tuple(hint) else value}
    with pytest.raises(ValueError, match=rf"^{name}: expected .* below 2\^6[123], got "):
        kind(**given)


def holds_numbers(hint: Any) -> bool:
    return hint in (int, float) or any(holds_numbers(each) for each in get_args(hint))


@pytest.mark.parametrize(("kind", "name", "hint"), fields_with(holds_numbers))
def test_a_number_of_numpy_becomes_one_of_python(kind, name, hint):
    # JSON, manifests and torch.load(weights_only=True) take no others.
    plain, of_numpy = (float, np.float32) if holds_floats(hint) else (int, np.int64)
    valid = {each.name: each.default for each in dataclasses.fields(kind)}
    valid |= REQUIRED.get(kind.__name__, {})
    if not isinstance(valid[name], int | float):
        valid[name] = {int: 1, float: 0.5}[plain]
    value = of_numpy(valid[name])
    given = REQUIRED.get(kind.__name__, {}) | {name: (value,) if in_tuple(hint) else value}
    kept = getattr(kind(**given), name)
    if in_tuple(hint):
        (kept,) = kept
    assert type(kept) is plain
    assert kept == value


def test_choices_and_nested_settings_are_found():
    choices = {(kind.__name__, name) for kind, name, _ in fields_with(holds_choices)}
    assert choices >= {("LabelSettings", "order"), ("SignOptSettings", "frequencies")}
    nested = {(kind.__name__, name) for kind, name, _ in fields_with(holds_settings)}
    assert nested >= {("SynthesisSettings", "acquisition"), ("Moves", "sign_opt")}


@pytest.mark.parametrize("value", ["foo", "", 1.5, True])
@pytest.mark.parametrize(("kind", "name", "hint"), fields_with(holds_choices))
def test_another_choice_is_refused(kind, name, hint, value):
    given = REQUIRED.get(kind.__name__, {}) | {name: (value,) if in_tuple(hint) else value}
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected "):
        kind(**given)


@pytest.mark.parametrize("value", [float("nan"), True, {}, "foo", "class"])
@pytest.mark.parametrize(("kind", "name", "hint"), fields_with(holds_settings))
def test_other_types_than_nested_settings_are_refused(kind, name, hint, value):
    if value == "class":
        value = next(each for each in (hint, *get_args(hint)) if dataclasses.is_dataclass(each))
    with pytest.raises(TypeError, match=rf"^{name}: expected .*, got "):
        kind(**REQUIRED.get(kind.__name__, {}) | {name: value})
