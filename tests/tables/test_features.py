import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from table_cases import any_features, is_valid, mixed_frame

from db3kd.tables import Feature, Features

MIXED = Features(
    [
        Feature.continuous("size", -2, 6),
        Feature.integer("rooms", 1, 5),
        Feature.categorical("colour", ["red", "white", "rosé"]),
        Feature.integer("floors", 7, 7),
    ]
)
unit_numbers = st.floats(0, 1, width=32)


def units(features: Features, draw: st.DataObject, rows: int = 4) -> torch.Tensor:
    size = rows * features.unit_shape[0]
    drawn = draw.draw(st.lists(unit_numbers, min_size=size, max_size=size))
    return torch.tensor(drawn, dtype=torch.float32).view(rows, -1)


@given(features=any_features(), draw=st.data())
@examples(max_examples=60, deadline=None)
def test_any_unit_vector_decodes_to_a_valid_row(features, draw):
    assert is_valid(features, features.decode(units(features, draw)))


@given(features=any_features(), draw=st.data())
@examples(max_examples=60, deadline=None)
def test_a_projected_vector_is_projected_to_itself(features, draw):
    once = features.project(units(features, draw))
    assert torch.equal(features.project(once), once)


@given(features=any_features(), draw=st.data())
@examples(max_examples=60, deadline=None)
def test_a_projection_stands_for_the_row_that_the_vector_decodes_to(features, draw):
    unit = units(features, draw)
    projected = features.project(unit)
    rows = features.decode(unit)
    assert pd.DataFrame(rows).equals(pd.DataFrame(features.decode(projected)))
    continuous = features.project.groups < 0
    encoded = features.encode(rows)
    assert torch.equal(encoded[:, ~continuous], projected[:, ~continuous])
    # Real numbers of a range that is tiny beside their size lose digits in float64.
    wide = torch.tensor(
        [f.upper - f.lower > 1e-3 for f in features if f.kind == "continuous" and f.width]
    )
    assert torch.allclose(
        encoded[:, continuous][:, wide], projected[:, continuous][:, wide], atol=2e-4, rtol=0
    )


@given(features=any_features(), draw=st.data())
@examples(max_examples=60, deadline=None)
def test_rows_are_decoded_as_they_were_encoded(features, draw):
    columns = []
    for feature in features:
        if feature.values is not None:
            value = st.sampled_from(feature.values)
        elif feature.kind == "integer":
            value = st.integers(int(feature.lower), int(feature.upper))
        else:
            value = st.floats(feature.lower, feature.upper)
        columns.append(draw.draw(st.lists(value, min_size=3, max_size=3)))
    table = np.array(columns, object).T
    if features.as_frame:
        table = pd.DataFrame(table, columns=list(features.names))
    decoded = features.decode(features.encode(table))
    for feature, before, after in zip(
        features, np.asarray(table).T, np.asarray(decoded, object).T, strict=True
    ):
        if feature.kind == "continuous":
            precision = (feature.upper - feature.lower) * 2**-24 + abs(feature.upper) * 1e-15
            assert np.allclose(before.astype(float), after.astype(float), rtol=0, atol=precision)
        else:
            assert before.tolist() == after.tolist()


def test_a_row_has_the_places_that_its_features_declare():
    table = np.array([[0, 2, "white", 7], [6, 5, "red", 7]], object)
    expected = [[0.25, 0.25, 0, 1, 0], [1, 1, 1, 0, 0]]
    assert MIXED.encode(table).tolist() == expected
    assert MIXED.unit_shape == (5,)
    assert MIXED.unit_names == ("size", "rooms", "colour=red", "colour=white", "colour=rosé")
    assert MIXED.decode(torch.tensor(expected)).tolist() == table.tolist()


def test_a_vector_is_decoded_to_the_nearest_whole_number_and_the_highest_category():
    unit = torch.tensor([[0.5, 0.3, 0.4, 0.39, 0.1], [0.5, 0.4, 0.2, 0.2, 0.7]])
    assert MIXED.decode(unit).tolist() == [[2, 2, "red", 7], [2, 3, "rosé", 7]]
    assert MIXED.project(unit).tolist() == [[0.5, 0.25, 1, 0, 0], [0.5, 0.5, 0, 0, 1]]


def test_projecting_clamps_and_leaves_the_argument_alone():
    unit = torch.tensor([[-0.5, 1.5, 0.0, 0.0, 0.0]])
    assert MIXED.project(unit).tolist() == [[0, 1, 1, 0, 0]]
    assert unit.tolist() == [[-0.5, 1.5, 0, 0, 0]]


def test_the_groups_of_a_projection_are_its_integers_and_categories():
    assert MIXED.project.groups.tolist() == [-1, 0, 1, 1, 1]


def test_a_frame_comes_back_with_its_dtypes_whatever_the_order_of_its_columns():
    frame = mixed_frame()
    features = Features.infer(frame)
    shuffled = frame[list(reversed(frame.columns))].assign(another=1)
    decoded = features.decode(features.encode(shuffled))
    pd.testing.assert_frame_equal(decoded, frame, rtol=1e-6)
    assert isinstance(features.decode(features.encode(frame), as_frame=False), np.ndarray)


@pytest.mark.parametrize("dtype", ["Int64", "Float32", "boolean", "string"])
def test_columns_of_nullable_dtypes_come_back(dtype):
    values = {"boolean": [True, False, True], "string": ["a", "b", "a"]}.get(dtype, [1, 4, 2])
    frame = pd.DataFrame({"a": pd.Series(values, dtype=dtype), "b": [0.5, 1.0, 1.5]})
    features = Features.infer(frame)
    pd.testing.assert_frame_equal(features.decode(features.encode(frame)), frame)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool])
def test_an_array_comes_back_with_its_dtype(dtype):
    array = np.array([[0, 1], [1, 0], [1, 1]], dtype)
    features = Features.infer(array)
    decoded = features.decode(features.encode(array))
    assert decoded.dtype == dtype
    assert np.array_equal(decoded, array)


def test_a_constant_is_decoded_to_the_nearest_number_of_its_dtype():
    features = Features([Feature.continuous("a", 0.1, 0.1, "float32"), Feature.integer("b", 0, 2)])
    decoded = features.decode(torch.zeros(1, 1), as_frame=True)["a"]
    assert decoded.dtype == "float32" and decoded[0] == np.float32(0.1)


def test_values_outside_the_bounds_are_refused_or_clipped():
    table = np.array([[7, 2, "red", 7], [0, 2.4, "red", 7]], object)
    with pytest.raises(ValueError, match=r"'size': expected -2 to 6, got 7 in row 0, .*clip"):
        MIXED.encode(table)
    assert MIXED.encode(table, clip=True)[:, :2].tolist() == [[1, 0.25], [0.25, 0.25]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 2.5, "red", 7], "column 'rooms': expected whole numbers, got 2.5 in row 0"),
        ([0, 2, "blue", 7], "column 'colour': expected one of 'red', .*, got 'blue' in row 0"),
        ([0, 2, None, 7], "column 'colour': expected a value in each row, got none in row 0"),
        ([0, 2, ["red"], 7], r"column 'colour': expected one of .*, got \['red'\] in row 0"),
        ([np.nan, 2, "red", 7], "column 'size': expected a value in each row, got none in row 0"),
        ([np.inf, 2, "red", 7], "column 'size': expected finite numbers, got inf in row 0"),
        ([0, 2, "red", 8], "column 'floors': expected 7 to 7, got 8 in row 0"),
    ],
)
def test_invalid_values_are_refused(row, message):
    with pytest.raises(ValueError, match=message):
        MIXED.encode([row])


def test_text_in_a_column_of_numbers_is_refused():
    with pytest.raises(TypeError, match="column 'size': expected numbers, got 'tall' in row 0, c"):
        MIXED.encode([["tall", 2, "red", 7]])


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (np.zeros((2, 3)), ValueError, "table: expected 4 columns, got 3"),
        (np.zeros(4), ValueError, r"table: expected rows \[n, F\], got the shape \[4\]"),
        (pd.DataFrame({"size": [1]}), ValueError, "got none named 'rooms' among size"),
        ("rows.csv", TypeError, "table: expected a NumPy array, .*, got str"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table, error, message):
    with pytest.raises(error, match=message):
        MIXED.encode(table)


def test_vectors_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"unit: expected \[N, 5\] float32"):
        MIXED.decode(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"unit: expected vectors \[n, 5\], got \[2, 4\]"):
        MIXED.project(torch.zeros(2, 4))


def test_features_are_a_sequence_and_found_by_name():
    assert len(MIXED) == 4
    assert MIXED["rooms"] is MIXED[1]
    assert [feature.name for feature in MIXED] == list(MIXED.names)
    with pytest.raises(KeyError):
        MIXED["doors"]


def test_equal_features_have_equal_fingerprints():
    same = Features(list(MIXED))
    other = Features([*MIXED[:3], Feature.integer("floors", 8, 8)])
    assert same == MIXED
    assert hash(same) == hash(MIXED)
    assert same.fingerprint() == MIXED.fingerprint() != other.fingerprint()
    assert other != MIXED


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        ([Feature.integer("a", 1, 1)], ValueError, "expected at least one feature that varies"),
        ([Feature.integer("a", 1, 2)] * 2, ValueError, "expected different names, got 'a' twice"),
        (["a"], TypeError, "expected Feature objects, got 'a'"),
    ],
)
def test_lists_that_are_no_features_are_refused(features, error, message):
    with pytest.raises(error, match=message):
        Features(features)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Feature.continuous("a", 2, 1), ValueError, "feature 'a': expected finite lower"),
        (lambda: Feature.continuous("a", 0, np.inf), ValueError, "expected finite lower"),
        (lambda: Feature.continuous("a", -1e308, 1e308), ValueError, "expected finite lower"),
        (lambda: Feature.continuous("a", "0", 1), TypeError, "expected a number as lower, got '0'"),
        (lambda: Feature.continuous("a", 0, True), TypeError, "expected a number as upper"),
        (lambda: Feature.integer("a", 0.5, 2), ValueError, "expected whole numbers as bounds"),
        (lambda: Feature.integer("a", 0, 2**23 + 1), ValueError, "at most 8,388,608"),
        (lambda: Feature.categorical("a", []), ValueError, "expected at least one value"),
        (lambda: Feature.categorical("a", "red"), TypeError, "expected a sequence of values"),
        (lambda: Feature.categorical("a", ["x", "x"]), ValueError, "got 'x' twice"),
        (lambda: Feature.categorical("a", [1, True]), ValueError, "got True twice"),
        (lambda: Feature.categorical("a", [None, 1]), TypeError, "got NoneType None"),
        (lambda: Feature.categorical("a", [np.nan, 1]), ValueError, "expected a finite number"),
        (
            lambda: Feature("a", "ordinal", 0, 1),
            ValueError,
            "'a': expected one of continuous",
        ),
        (lambda: Feature("a", "integer", 0, 1, (0, 1)), ValueError, "only a categorical feature"),
        (lambda: Feature("a", "categorical", 0, 1, (0, 1)), ValueError, "has values, got bounds"),
        (lambda: Feature("", "integer", 0, 1), ValueError, "name: expected the name of a column"),
    ],
)
def test_values_that_are_no_feature_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
