"""What model files declare: written as texts or as JSON, and read back or refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_cases import any_features

from db3kd.models import ModelMetadata

WORDS = st.text(min_size=1).map(str.strip).filter(bool)


@st.composite
def metadata(draw):
    classes = draw(st.integers(2, 5))
    bounds = draw(st.sampled_from([(0.0, 1.0), (-1.5, 2.25), (0.1, 0.3)]))
    exactly = {"min_size": classes, "max_size": classes, "unique": True}
    names = draw(st.none() | st.lists(WORDS, **exactly).map(tuple))
    threshold = draw(st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32))
    shape = draw(st.lists(st.integers(1, 99), min_size=1, max_size=4).map(tuple))
    features = draw(st.none() | any_features())
    if features is not None:
        shape = features.unit_shape
    threshold = threshold if classes == 2 else None
    return ModelMetadata(shape, classes, bounds, names, threshold, features)


@given(metadata())
def test_metadata_are_read_back(declared):
    assert ModelMetadata.from_header(declared.header()) == declared
    assert ModelMetadata.from_json(json.dumps(declared.entries())) == declared
    other = declared.header() | {"model": "lenet5", "preprocessing": "{}"}
    assert ModelMetadata.from_header(other) == declared


def test_those_of_other_programs_are_none():
    assert ModelMetadata.from_header({"format": "pt", "classes": "3"}) is None
    for text in ("", b"", "[1]", '{"classes": 3}'):
        assert ModelMetadata.from_json(text) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"classes": None}, "metadata: expected classes, got none"),
        ({"classes": 1}, "classes: expected an integer of at least 2"),
        ({"image_shape": [0]}, "image_shape: expected positive integers"),
        ({"bounds": [1, 0]}, "bounds: expected finite lower < upper"),
        ({"class_names": ["a", "a"]}, "got 'a' twice"),
        ({"threshold": 0.5, "classes": 3}, "threshold: belongs to a model of 2 classes"),
        ({"features": {}}, "metadata: expected a table 'features'"),
        (
            {"features": {"features": {"a": {"kind": "integer", "lower": 0, "upper": 1}}}},
            r"features: expected those of encoded rows of shape \(2,\), got ones of shape \(1,\)",
        ),
    ],
)
def test_damaged_metadata_are_named(changed, words):
    entries = ModelMetadata((2,), 2).entries() | changed
    entries = {name: value for name, value in entries.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        ModelMetadata.from_json(json.dumps(entries))
    with pytest.raises(ValueError):
        ModelMetadata.from_header({"format": entries["format"], "image_shape": "{"})
