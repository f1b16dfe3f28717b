"""Soft labels and the settings that they are made with."""

import dataclasses

import pytest
import torch
from label_cases import some_labels

from db3kd.errors import ArgumentError
from db3kd.labels.soft_labels import SoftLabelSettings, with_soft_labels


def test_soft_labels_carry_their_temperature():
    labels = dataclasses.replace(some_labels(optional=False), decision=torch.tensor([0, 1, 0, -1]))

    softened = with_soft_labels(labels, scale=2.0, temperature=3.0)

    assert softened.soft_label_temperature == 3.0
    torch.testing.assert_close(softened.soft_labels.sum(1), torch.ones(4))
    torch.testing.assert_close(softened.soft_labels[3], torch.full((3,), 1 / 3))


@pytest.mark.parametrize(("normalisation", "temperature"), [("margin", 4.0), ("inverse", 20.0)])
def test_soft_labels_have_the_temperature_of_the_command_line_by_default(
    normalisation, temperature
):
    labels = some_labels(optional=False)
    options = {"normalisation": normalisation, "scale": 2.0}

    softened = with_soft_labels(labels, **options)

    assert softened.soft_label_temperature == temperature
    expected = with_soft_labels(labels, **options, temperature=temperature)
    assert torch.equal(softened.soft_labels, expected.soft_labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalisation": "softmax"}, "normalisation: expected one of .*margin, got 'softmax'"),
        ({"scale": 0.0}, "scale: expected a finite number above 0, got 0.0"),
        ({"temperature": float("inf")}, "temperature: expected a finite number above 0, got inf"),
        ({"temperature": True}, "temperature: expected a finite number above 0, got True"),
        ({"scale": "4"}, "scale: expected a finite number above 0, got '4'"),
    ],
)
def test_invalid_settings_are_refused(change, message):
    valid = {"normalisation": "margin", "scale": 4.0, "temperature": 4.0}
    with pytest.raises((TypeError, ValueError), match=message):
        SoftLabelSettings(**valid | change)


@pytest.mark.parametrize("name", ["scale", "temperature"])
@pytest.mark.parametrize("value", [float("nan"), 0.0, 1e300])
def test_an_invalid_number_is_an_error_of_its_argument(name, value):
    with pytest.raises(ArgumentError, match=rf"^{name}: expected a finite number above 0, got "):
        with_soft_labels(some_labels(optional=False), **{name: value})
