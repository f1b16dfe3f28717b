import re
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
import torch
from counting_names import CountingName, counting_names
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sklearn.datasets import load_wine
from table_cases import mixed_frame

from db3kd.tables import Feature, Features
from db3kd.tables.checks import advice_on_dates
from db3kd.tables.column_dtypes import least_and_most, number_dtype


def test_columns_of_a_frame_are_inferred_from_their_dtypes_and_values():
    frame = mixed_frame()
    features = Features.infer(frame)
    alcohol, year = frame["alcohol"], frame["year"]
    assert list(features) == [
        Feature.continuous("alcohol", alcohol.min(), alcohol.max()),
        Feature.integer("year", year.min(), year.max()),
        Feature.categorical("colour", ["red", "rosé", "white"]),
        Feature.categorical("grape", ["b", "a", "c"], "category"),
        Feature.categorical("organic", [False, True], "bool"),
        Feature.integer("stars", 1, 5, "float32"),
        Feature.categorical("country", ["here"]),
    ]
    assert features.as_frame
    assert features.unit_shape == (1 + 1 + 3 + 3 + 2 + 1,)


def test_a_bunch_names_the_columns_of_its_array():
    features = Features.infer(load_wine())
    assert features.names[:2] == ("alcohol", "malic_acid")
    assert not features.as_frame
    assert [feature.name for feature in features if feature.kind == "integer"] == [
        "magnesium",
        "proline",
    ]
    framed = Features.infer(load_wine(as_frame=True))
    assert framed.as_frame
    assert list(framed) == list(features)


def test_columns_of_an_array_are_named_by_number_unless_names_are_given():
    array = np.array([[0.5, 1], [1.5, 3]])
    assert Features.infer(array).names == ("x0", "x1")
    assert Features.infer(array, names=["a", "b"]).names == ("a", "b")
    with pytest.raises(ValueError, match="table: expected 1 column, got 2"):
        Features.infer(array, names=["a"])


def test_columns_of_an_array_of_objects_are_inferred_one_by_one():
    array = np.array([[1, 2.5, "a", True], [2, 3, "b", False], [np.int64(3), 3, "a", True]], object)
    assert [feature.kind for feature in Features.infer(array)] == [
        "integer",
        "continuous",
        "categorical",
        "categorical",
    ]
    assert Features.infer(array)[3].values == (False, True)


def test_an_array_of_strings_is_categorical():
    features = Features.infer(np.array([["a", "x"], ["b", "x"]]))
    assert [feature.values for feature in features] == [("a", "b"), ("x",)]


def test_integers_of_a_wide_range_are_continuous():
    features = Features.infer(np.array([[0, 2**23], [2**23 + 1, 0]]))
    assert [feature.kind for feature in features] == ["continuous", "integer"]
    assert features[0].dtype == "int64"


def test_what_is_declared_counts_more_than_the_values():
    features = Features.infer(
        mixed_frame(),
        names=["year", "stars", "alcohol", "colour"],
        kinds={"year": "continuous", "stars": "categorical"},
        bounds={"year": (1900, 2100), "alcohol": (0, 20)},
        values={"colour": ["white", "red", "rosé", "orange"]},
    )
    assert list(features) == [
        Feature.continuous("year", 1900, 2100, "int64"),
        Feature.categorical("stars", [1, 2, 3, 4, 5], "float32"),
        Feature.continuous("alcohol", 0, 20),
        Feature.categorical("colour", ["white", "red", "rosé", "orange"]),
    ]


def test_numeric_codes_with_values_are_categorical():
    array = np.array([[1.0, 0.5], [3.0, 0.7]])
    features = Features.infer(array, names=["code", "x"], values={"code": [1, 2, 3]})
    assert features["code"].values == (1, 2, 3)
    assert features.encode(array)[:, :3].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert np.allclose(features.decode(features.encode(array)), array)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": {"yaer": "integer"}}, "kinds: .*got 'yaer'; did you mean 'year'"),
        (
            {"kinds": {"year": "ordinal"}},
            r"kinds\['year'\]: expected one of continuous, .*'ordinal'",
        ),
        ({"kinds": {"year": "categoric"}}, "got 'categoric'; did you mean 'categorical'"),
        ({"kinds": {"alcohol": "integer"}}, "column 'alcohol': expected whole numbers"),
        ({"bounds": {"colour": (0, 1)}}, r"bounds\['colour'\]: the feature is categorical"),
        ({"bounds": {"year": (2000, 2020)}}, r"bounds\['year'\]: expected bounds around the val"),
        ({"values": {"colour": ["red"]}}, r"values\['colour'\]: expected all values of the column"),
        (
            {"values": {"year": [1]}, "kinds": {"year": "integer"}},
            r"values\['year'\]: the feature is integer; declare bounds instead",
        ),
    ],
)
def test_declarations_that_contradict_the_table_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Features.infer(mixed_frame(), **arguments)


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        ([0.5, np.nan], ValueError, "column 'a': expected a value .* none in row 1"),
        ([0.5, -np.inf], ValueError, "column 'a': expected finite numbers, got -inf in row 1"),
        (["x", None], ValueError, "column 'a': expected a value in each row, got none in row 1"),
        (pd.array([1, None], "Int64"), ValueError, "got none in row 1"),
        (pd.to_datetime(["2020", "2021"]), TypeError, "expected numbers, got datetime64"),
        ([1 + 2j, 1j], TypeError, "column 'a': expected numbers, got complex128"),
        ([["x"], ["y"]], TypeError, "column 'a': expected strings, numbers or booleans"),
    ],
)
def test_columns_that_cannot_be_features_are_refused(column, error, message):
    with pytest.raises(error, match=message):
        Features.infer(pd.DataFrame({"a": column, "b": [0, 1]}))


DATES = [f"{1980 + number}-01-31" for number in range(40)]


@pytest.mark.parametrize(
    "dates",
    [
        DATES,
        [f"31.01.{each[:4]}" for each in DATES],
        [f"1/31/{each[:4]} 10:30" for each in DATES],
        [date.fromisoformat(each) for each in DATES],
        pd.to_datetime(DATES),
    ],
)
def test_dates_are_refused_with_what_to_do_with_them(dates):
    days = Features.infer(pd.DataFrame({"joined": range(40), "b": range(40)}))
    frame = pd.DataFrame({"joined": dates, "b": range(40)})
    for read in (Features.infer, days.encode):
        with pytest.raises((TypeError, ValueError), match=r"'joined'.*days since a date.*back in"):
            read(frame)


@pytest.mark.parametrize("text", ["customer 1", "1.2.3", "2020-1", "12-34-56"])
def test_other_texts_are_not_taken_for_dates(text):
    assert advice_on_dates(text) == ""


def test_a_column_of_names_is_refused_unless_they_are_declared():
    names = [f"customer {number}" for number in range(40)]
    frame = pd.DataFrame({"name": names, "b": range(40)})
    with pytest.raises(ValueError, match="column 'name': expected categories that repeat, got 40"):
        Features.infer(frame)
    assert Features.infer(frame, values={"name": names}).unit_shape == (41,)
    assert Features.infer(frame, names=["b"]).names == ("b",)


@pytest.mark.parametrize("table", [np.empty((0, 3)), np.empty((3, 0)), pd.DataFrame()])
def test_empty_tables_are_refused(table):
    with pytest.raises(ValueError, match="table: expected at least one row and one column"):
        Features.infer(table)


def test_columns_of_equal_names_are_refused():
    frame = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    with pytest.raises(ValueError, match="distinct column names, got 'a' twice"):
        Features.infer(frame)


def test_columns_are_found_without_comparing_each_name_with_all_others():
    names = counting_names(1_000)
    features = Features.infer(pd.DataFrame(np.eye(2, 1_000), columns=pd.Index(names, dtype=object)))
    assert len(features) == 1_000 and CountingName.comparisons < 50_000


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"bounds": {"a": (-5, 10)}}, "bounds around whole .* uint8 holds, 0 to 255, got -5 to 10"),
        ({"bounds": {"a": (0, 256)}}, "dtype uint8 holds, 0 to 255, got 0 to 256; .* convert the"),
        ({"bounds": {"a": (-1, 10)}, "kinds": {"a": "continuous"}}, "uint8 holds, .* got -1 to 10"),
        ({"values": {"a": [1, 7, 300]}}, "values among the whole .* uint8 holds, .* got 300"),
        ({"values": {"a": [1, 7, 2.5]}}, "values among the whole .* uint8 holds, .* got 2.5"),
        ({"values": {"a": [1, 7, "x"]}}, "values among the whole .* uint8 holds, .* got 'x'"),
        ({"bounds": {"b": (-5, 10)}}, "dtype UInt8 holds, 0 to 255, got -5 to 10"),
        ({"bounds": {"c": (0, 1e6)}}, "dtype float16 holds, -65,504 to 65,504, got 0 to 1,000,000"),
        ({"bounds": {"d": (0, 2)}, "kinds": {"d": "integer"}}, "dtype bool holds, 0 to 1, got 0"),
    ],
)
def test_bounds_and_values_that_the_dtype_of_a_column_cannot_hold_are_refused(declared, message):
    frame = pd.DataFrame({name: [1, 7] for name in "abcd"})
    frame = frame.astype({"a": "uint8", "b": "UInt8", "c": "float16", "d": "bool"})
    with pytest.raises(ValueError, match=f"feature '[abcd]': expected .*{message}"):
        Features.infer(frame, **declared)


def test_bounds_without_a_number_of_the_dtype_are_refused():
    for lower, upper, dtype in ((0.2, 0.8, "int64"), (0.5, 0.5, "int64")):
        with pytest.raises(ValueError, match=f"feature 'a': expected bounds .* {dtype} holds"):
            Feature.continuous("a", lower, upper, dtype)
    with pytest.raises(ValueError, match=r"'a': expected a dtype of numbers, .* got 'category'"):
        Feature.integer("a", 0, 5, "category")


def test_a_fraction_is_no_value_of_a_continuous_column_of_integers():
    frame = pd.DataFrame({"rooms": [1, 9], "price": [0.5, 1.0]})
    features = Features.infer(frame, kinds={"rooms": "continuous"})
    fractions = frame.assign(rooms=[1.0, 2.6])
    with pytest.raises(ValueError, match=r"'rooms': expected whole numbers, .* a dtype of floats"):
        features.encode(fractions)
    assert features.decode(features.encode(fractions, clip=True))["rooms"].tolist() == [1, 3]


@given(
    dtype=st.sampled_from(["int8", "uint8", "int64", "uint64", "Int64", "UInt8", "bool", "boolean"])
    | st.sampled_from(["float16", "float32", "float64", "Float32"]),
    kind=st.sampled_from([None, "continuous", "integer", "categorical"]),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=5),
    span=st.sampled_from([200.0, 2.0**24 - 1, 2.0**62]),
    wider=st.tuples(*[st.floats(0, 1e6) | st.just(0)] * 2),
    share=st.floats(0, 1, width=32),
)
@examples(max_examples=60, deadline=None)
def test_columns_keep_their_rows_and_bounds(dtype, kind, shares, span, wider, share):
    """Declarations that do not fit the dtype are refused before anything is decoded."""
    plain = number_dtype(dtype)
    least, most = (float(end) for end in least_and_most(plain))
    least, most = max(least, -span / 2), min(most, span / 2)
    numbers = np.rint([least * (1 - each) + most * each for each in shares]).astype(plain)
    frame = pd.DataFrame({"a": pd.Series(numbers, dtype=dtype), "b": np.arange(len(shares)) / 2})
    low, high = float(numbers.min()) - wider[0], float(numbers.max()) + wider[1]
    arguments = {"kinds": {"a": kind} if kind else {}, "bounds": {"a": (low, high)}}
    if kind == "categorical" or (kind is None and plain.kind == "b"):
        del arguments["bounds"]
    try:
        features = Features.infer(frame, **arguments)
    except ValueError as error:
        assert re.search("'a': expected (bounds around|whole|integers)", str(error))
        return
    feature, rows = features["a"], features.decode(features.encode(frame))["a"]
    assert rows.dtype == frame["a"].dtype
    if feature.values is not None:
        assert rows.tolist() == numbers.tolist()
        return
    width = feature.upper - feature.lower
    if feature.kind == "integer" or (plain.kind != "f" and width < 2**24):
        assert rows.tolist() == numbers.tolist()
    assert np.allclose(rows.astype(float), numbers.astype(float), rtol=1e-6, atol=width * 2**-23)
    unit = torch.tensor([[share, 0.0], [0.0, 0.0], [1.0, 0.0]])[:, -len(features.unit_names) :]
    for value in features.decode(unit)["a"].tolist():
        assert feature.lower <= value <= feature.upper
        assert feature.kind == "continuous" or value == int(value)


def test_nullable_integers_may_have_a_wide_range():
    frame = pd.DataFrame({"income": pd.array([0, 7, 9_999_999], "Int64"), "b": [0.0, 0.5, 1.0]})
    features = Features.infer(frame)
    assert features["income"].kind == "continuous"
    pd.testing.assert_frame_equal(features.decode(features.encode(frame)), frame)
    whole = features.decode(torch.tensor([[0.123, 0.0]]))["income"]
    assert whole.tolist() == [1_230_000] and whole.dtype == "Int64"


@pytest.mark.parametrize("ordered", [False, True])
def test_the_order_of_categories_comes_back(tmp_path, ordered):
    sizes = pd.Categorical(["m", "s", "l", "s"], categories=["s", "m", "l"], ordered=ordered)
    frame = pd.DataFrame({"size": sizes, "price": [1.0, 2.0, 3.5, 4.0]})
    features = Features.infer(frame)
    features = Features.load(features.save(tmp_path / "features.json"))
    pd.testing.assert_frame_equal(features.decode(features.encode(frame)), frame)


@pytest.mark.parametrize("dtype", ["int64", "uint64", object])
def test_integers_that_float64_does_not_distinguish_are_refused(dtype):
    frame = pd.DataFrame({"id": np.array([2**60 + 3, 2**60 + 4], dtype), "price": [1.0, 2.5]})
    with pytest.raises(
        ValueError, match=r"'id': expected integers from -\(2\^53 - 1\) .* subtract"
    ):
        Features.infer(frame, kinds={"id": "integer"})
    with pytest.raises(
        ValueError, match=r"'id': expected integers from -\(2\^53 - 1\) to 2\^53 - 1"
    ):
        Features([Feature.integer("id", -(2**60), -(2**60) + 5)])
    frame["id"] -= 2**60
    features = Features.infer(frame, kinds={"id": "integer"})
    assert features.decode(features.encode(frame))["id"].tolist() == [3, 4]


@pytest.mark.parametrize("column", [[2**53 + 1] * 4, [2**53, 2**53 + 1] * 2, [-(2**53) - 1] * 4])
def test_integers_that_float64_rounds_to_the_limit_are_refused(column):
    frame = pd.DataFrame({"id": column, "price": [1.0, 2.5, 3.0, 4.5]})
    with pytest.raises(ValueError, match=r"'id': expected integers from -\(2\^53"):
        Features.infer(frame)


def test_the_largest_integers_come_back():
    frame = pd.DataFrame({"id": [2**53 - 2, 2**53 - 1] * 2, "price": [1.0, 2.5, 3.0, 4.5]})
    features = Features.infer(frame)
    assert features.decode(features.encode(frame))["id"].tolist() == frame["id"].tolist()


@pytest.mark.parametrize("column", [[True, 1, "x", 0], [0, "x", 0.0, 1], ["x", False, 0, "x"]])
def test_equal_values_of_different_types_are_refused(column):
    frame = pd.DataFrame({"odd": np.array(column, object), "price": [1.0, 2.5, 3.0, 4.5]})
    with pytest.raises(TypeError, match="'odd': expected equal values to have the same type"):
        Features.infer(frame)


def test_numbers_of_the_whole_range_of_an_integer_dtype_do_not_overflow():
    ends = np.array([[0, 0], [2**64 - 1, 1]], np.uint64)
    features = Features.infer(pd.DataFrame(ends, columns=["hash", "flag"]))
    decoded = features.decode(features.encode(pd.DataFrame(ends, columns=["hash", "flag"])))
    assert decoded["hash"].tolist()[0] == 0
    assert decoded["hash"].tolist()[1] == pytest.approx(2**64, rel=1e-6)


def test_all_columns_with_missing_values_are_named_at_once():
    frame = pd.DataFrame({"a": [1, 2], "b": [1.5, None], "c": [None, "x"], "d": ["x", None]})
    with pytest.raises(ValueError, match="column 'b': expected a value in each row") as caught:
        Features.infer(frame)
    assert "counted from 0; values are missing in 'c', 'd' too; fill" in str(caught.value)
    assert "docs/tabular.md" in str(caught.value)


def test_sparse_columns_are_read_like_dense_ones():
    dense = pd.DataFrame({"count": [0, 0, 1, 2], "price": [0.0, 0.0, 1.5, 0.0]})
    sparse = dense.astype({"count": "Sparse[int64]", "price": "Sparse[float64]"})
    features = Features.infer(sparse)
    assert features == Features.infer(dense)
    assert features.encode(sparse).equal(features.encode(dense))
    sparse["price"] = pd.arrays.SparseArray([0.0, np.nan, 1.5, 0.0])
    with pytest.raises(
        ValueError, match="'price': expected a value in each row, got none in row 1"
    ):
        features.encode(sparse)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([True, False], "boolean"),
        ([True, False], "bool[pyarrow]"),
        ([3, 5], "Int64"),
        ([3, 5], "UInt8"),
        ([1.5, 2.25], "Float64"),
        (["a", "b"], "string"),
    ],
)
@pytest.mark.parametrize("category", [False, True])
def test_nullable_columns_are_read_as_plain_ones_and_decoded_to_their_dtype(
    values, dtype, category
):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    nullable = pd.Series(values * 5, dtype=dtype)
    plain = pd.Series(values * 5)
    if category:
        nullable, plain = nullable.astype("category"), plain.astype("category")
    frame = pd.DataFrame({"a": nullable, "b": np.arange(10) / 7})

    features = Features.infer(frame)
    expected = Features.infer(frame.assign(a=plain))

    assert replace(features["a"], dtype=expected["a"].dtype) == expected["a"]
    unit = features.encode(frame)
    assert unit.equal(expected.encode(frame.assign(a=plain)))
    decoded = features.decode(unit)["a"]
    assert decoded.tolist() == nullable.tolist()
    if not category:
        assert decoded.dtype == nullable.dtype
    missing = frame.assign(a=nullable.where(nullable.index != 4))
    for read in (Features.infer, features.encode, expected.encode):
        with pytest.raises(
            ValueError, match="'a': expected a value in each row, got none in row 4"
        ):
            read(missing)
