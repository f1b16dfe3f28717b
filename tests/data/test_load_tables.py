"""Tables as image sets: in memory, bundled, and in files."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris, load_wine
from table_cases import mixed_frame

from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.tables import Feature, Features

FRAME = mixed_frame(30).drop(columns="grape")
LABELS = np.array(["fair", "good", "bad"])[np.arange(30) % 3]


def labelled(labels=LABELS, column="label"):
    return FRAME.assign(**{column: labels})


def assert_rows(rows: ImageSet, frame: pd.DataFrame) -> None:
    decoded = rows.features.decode(rows.read(range(len(rows))))
    pd.testing.assert_frame_equal(decoded, frame, rtol=1e-6, check_dtype=False)


# Tables in memory


def test_a_table_becomes_encoded_rows_with_its_features():
    rows = ImageSet.from_table(FRAME, LABELS)
    assert rows.features == Features.infer(FRAME)
    assert rows.image_shape == rows.features.unit_shape
    assert rows.class_names == ("bad", "fair", "good")
    assert repr(rows) == "ImageSet('table': 30 rows of shape (8,), 3 classes)"
    assert_rows(rows, FRAME)
    row, label = rows[4]
    assert row.shape == (8,)
    assert rows.class_names[label] == "good"


def test_views_keep_the_features():
    rows = ImageSet.from_table(FRAME, LABELS)
    assert rows[3:7].features is rows.features
    assert rows.with_labels(torch.zeros(30).long(), None).features is rows.features
    assert_rows(rows.subset([2, 0]), FRAME.iloc[[2, 0]].reset_index(drop=True))


def test_rows_are_encoded_by_the_features_that_are_given():
    wide = Features.infer(FRAME, bounds={"alcohol": (0, 100)})
    rows = ImageSet.from_table(FRAME, features=wide)
    assert rows.labels is None
    assert rows.features is wide
    assert rows.read([0])[0, 0].item() == pytest.approx(FRAME["alcohol"][0] / 100)


@pytest.mark.parametrize(
    ("labels", "class_names", "numbers", "names"),
    [
        ([0, 2, 1], None, [0, 2, 1], None),
        ([0.0, 2.0, 1.0], None, [0, 2, 1], None),
        ([2, 1, 3], None, [1, 0, 2], ("1", "2", "3")),
        ([10, 9, 10], None, [1, 0, 1], ("9", "10")),
        ([-1, 1, 1], None, [0, 1, 1], ("-1", "1")),
        ([True, False, True], None, [1, 0, 1], ("False", "True")),
        ([True, False, True], ["no", "yes"], [1, 0, 1], ("no", "yes")),
        ([1, 2, 1], ["a", "b", "c"], [1, 2, 1], ("a", "b", "c")),
        (["b", "a", "b"], None, [1, 0, 1], ("a", "b")),
        (pd.Series(["b", "a", "b"], dtype="category"), None, [1, 0, 1], ("a", "b")),
    ],
)
def test_labels_of_a_table_are_numbered_as_a_fitted_model_numbers_them(
    labels, class_names, numbers, names
):
    rows = ImageSet.from_table(FRAME[:3], labels, class_names=class_names)
    assert rows.labels.tolist() == numbers
    assert rows.class_names == names


@pytest.mark.parametrize("labels", [[0.5, 1.5, 0.5], [[1, 2], [1, 2], [1, 2]]])
def test_labels_that_are_no_classes_are_refused(labels):
    with pytest.raises((TypeError, ValueError), match="table labels: expected"):
        ImageSet.from_table(FRAME[:3], labels)


# Bundled tables


@pytest.mark.parametrize(
    ("name", "features", "train", "test", "names"),
    [
        ("wine", 13, 142, 36, ("class_0", "class_1", "class_2")),
        ("breast_cancer", 30, 456, 113, ("malignant", "benign")),
        ("iris", 4, 120, 30, ("setosa", "versicolor", "virginica")),
    ],
)
def test_a_bundled_table_holds_out_a_fifth_of_every_class(name, features, train, test, names):
    parts = [load_data(name, "train"), load_data(name, "test")]
    assert [len(part) for part in parts] == [train, test]
    assert parts[0].features == parts[1].features
    for part in parts:
        assert len(part.features) == features
        assert part.image_shape == (features,)
        assert part.class_names == names
    both = torch.cat([part.read(range(len(part))) for part in parts])
    assert both.min() == 0
    assert both.max() == 1


def test_a_bundled_table_has_the_rows_and_labels_of_scikit_learn():
    iris = load_iris()
    known = {(*row, label) for row, label in zip(iris.data.tolist(), iris.target, strict=True)}
    found = set()
    for split in ("train", "test"):
        part = load_data("iris", split)
        rows = part.features.decode(part.read(range(len(part)))).round(6)
        found |= {(*row, int(label)) for row, label in zip(rows.tolist(), part.labels, strict=True)}
    assert found == known


# Files


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_is_a_table_whose_features_are_inferred(tmp_path, suffix):
    path = tmp_path / f"wines.{suffix}"
    frame = labelled()
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    rows = load_data(path)
    assert (
        rows.features == Features.infer(FRAME.astype({"stars": "float64"})) or suffix == "parquet"
    )
    assert rows.features.names == tuple(FRAME.columns)
    assert rows.class_names == ("bad", "fair", "good")
    assert [rows.class_names[label] for label in rows.labels] == LABELS.tolist()
    assert_rows(rows, FRAME)
    assert load_data(path).fingerprint() == rows.fingerprint()


def test_the_columns_may_be_an_array(tmp_path):
    """A fitted scikit-learn model has its `feature_names_in_` as an array of strings."""
    labelled().to_csv(tmp_path / "wines.csv", index=False)
    names = list(FRAME.columns[:2])
    rows = load_data(tmp_path / "wines.csv", columns=np.array(names, object))
    assert rows.features.names == tuple(names)
    with pytest.raises(ValueError, match="got 'age'"):
        load_data(tmp_path / "wines.csv", columns=np.array([*names, "age"]))


@pytest.mark.parametrize("column", ["labels", "target"])
def test_a_column_with_a_usual_name_holds_the_labels(tmp_path, column):
    labelled(column=column).to_csv(tmp_path / "wines.csv", index=False)
    assert load_data(tmp_path / "wines.csv").classes == 3


def test_one_of_two_columns_with_usual_names_is_declared(tmp_path):
    path = tmp_path / "wines.csv"
    labelled().assign(target=range(30)).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"label_column: .* got 'label' and 'target'; name"):
        load_data(path)
    rows = load_data(path, label_column="label")
    assert rows.features.names == (*FRAME.columns, "target")
    assert load_data(path, features=rows.features).classes == 3
    assert load_data(path, columns=FRAME.columns).class_names == rows.class_names


def test_another_column_of_labels_is_declared(tmp_path):
    path = tmp_path / "wines.csv"
    labelled(column="quality").to_csv(path, index=False)
    assert load_data(path).labels is None
    assert "quality" in load_data(path).features.names
    rows = load_data(path, label_column="quality")
    assert rows.classes == 3
    assert "quality" not in rows.features.names
    with pytest.raises(
        ValueError, match=r"label_column: expected one of .*, got 'qualtiy'; did you mean"
    ):
        load_data(path, label_column="qualtiy")


def test_features_may_be_given_or_in_a_file(tmp_path):
    path = tmp_path / "wines.csv"
    labelled().to_csv(path, index=False)
    features = Features(
        [
            Feature.categorical("colour", ["rosé", "white", "red"]),
            Feature.integer("year", 1900, 2100),
        ]
    )
    file = features.save(tmp_path / "features.json")
    for given in (features, file, str(file)):
        rows = load_data(path, features=given)
        assert rows.features == features
        assert rows.image_shape == (4,)
        assert rows.class_names == ("bad", "fair", "good")
    with pytest.raises(ValueError, match="label_column: expected no feature, got 'year'"):
        load_data(path, features=features, label_column="year")


def test_a_feature_of_a_usual_label_name_is_no_label(tmp_path):
    path = tmp_path / "wines.csv"
    FRAME.assign(target=range(30)).to_csv(path, index=False)
    features = Features([Feature.integer("target", 0, 29)])
    assert load_data(path, features=features).labels is None


def test_splits_in_a_folder_share_features_and_class_numbers(tmp_path):
    frame = labelled()
    frame[frame["label"] != "bad"].to_csv(tmp_path / "train.csv", index=False)
    frame[frame["label"] == "bad"].to_csv(tmp_path / "test-1.csv", index=False)
    frame[:3].to_parquet(tmp_path / "test-2.parquet")
    train, test = load_data(tmp_path, "train"), load_data(tmp_path, "test")
    assert (len(train), len(test)) == (20, 13)
    assert train.features == test.features
    assert train.class_names == test.class_names == ("bad", "fair", "good")
    assert test.labels[:10].tolist() == [0] * 10
    assert set(train.labels.tolist()) == {1, 2}
    with pytest.raises(ValueError, match=r"split: .* has .*'train'.*, got 'validation'"):
        load_data(tmp_path, "validation")


def test_a_split_without_labels_has_none(tmp_path):
    labelled().to_csv(tmp_path / "train.csv", index=False)
    FRAME.to_csv(tmp_path / "test.csv", index=False)
    assert load_data(tmp_path, "test").labels is None
    assert load_data(tmp_path, "train").classes == 3


def test_a_csv_file_beside_images_is_no_table(tmp_path):
    image = pytest.importorskip("PIL.Image").new("L", (4, 4))
    (tmp_path / "cat").mkdir()
    image.save(tmp_path / "cat" / "1.png")
    labelled().to_csv(tmp_path / "labels.csv", index=False)
    assert load_data(tmp_path).image_shape == (1, 4, 4)


@pytest.mark.parametrize("text", ["", "NA", "N/A", "NaN", "null"])
def test_missing_values_are_refused_with_their_column(tmp_path, text):
    (tmp_path / "rows.csv").write_text(f"a,b\n1,x\n{text},y\n3,x\n")
    with pytest.raises(ValueError, match="column 'a': expected a value in each row, got none in r"):
        load_data(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (40, "a", "", "column 'a': expected a value in each row, got none in {}"),
        (40, "a", "inf", "column 'a': expected finite numbers, got inf in {}"),
        (40, "colour", "", "column 'colour': expected a value in each row, got none in {}"),
        (40, "label", "", "column 'label': expected a class in each row, got none in {}"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("several", [False, True])
def test_errors_name_the_file_the_column_and_the_row(
    tmp_path, row, column, value, message, kind, several
):
    frame = pd.DataFrame({"a": np.arange(60) / 7, "colour": ["red", "blue"] * 30, "label": "x"})
    text = frame.astype(str)
    text.loc[row, column] = value
    text.to_csv(tmp_path / "rows.csv", index=False)
    broken = pd.read_csv(tmp_path / "rows.csv")
    (tmp_path / "rows.csv").unlink()
    folder = tmp_path / "set"
    folder.mkdir()
    parts = {"a": broken[:30], "b": broken[30:]} if several else {"a": broken}
    for name, part in parts.items():
        path = folder / f"{name}.{kind}"
        part.to_csv(path, index=False) if kind == "csv" else part.to_parquet(path)
    spec = folder if several else folder / f"a.{kind}"

    with pytest.raises(ValueError) as error:
        load_data(spec)

    number, file = (11, f" of {folder / f'b.{kind}'}") if several else (41, "")
    where = f"row {number}{file}, counted from 1{' without the header' if kind == 'csv' else ''}"
    known = "set" if several else str(spec)
    assert str(error.value).startswith(f"{known}, {message.format(where)}; ")


def test_rows_outside_declared_features_are_named_in_their_split(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        FRAME.to_csv(tmp_path / split / "rows.csv", index=False)
    wrong = FRAME.assign(alcohol=99.0)
    wrong[:1].to_csv(tmp_path / "test" / "rows.csv", index=False)
    features = Features.infer(FRAME)

    with pytest.raises(
        ValueError, match=r"column 'alcohol': expected .* in row 1, counted from 1 wi"
    ):
        load_data(tmp_path, "test", features=features)
    with pytest.raises(ValueError, match=f"^{tmp_path.name}: expected the columns .* none named"):
        FRAME.drop(columns="alcohol").to_csv(tmp_path / "test" / "rows.csv", index=False)
        load_data(tmp_path, "test", features=features)
    load_data(tmp_path, "train", features=features)
    with pytest.raises(
        ValueError, match=r"^table, column 'alcohol': expected .* row 0, counted from 0"
    ):
        ImageSet.from_table(wrong, features=features)


@pytest.mark.parametrize("labels", ["boolean", "Int64", "Float64", "string", "category", "object"])
def test_missing_labels_of_nullable_dtypes_are_refused(labels):
    values = ["0", "1"] if labels in ("string", "category", "object") else [False, True]
    whole = pd.Series(values * 15).astype(int if labels in ("Int64", "Float64") else object)
    whole = whole.astype(labels)
    plain = ImageSet.from_table(FRAME, pd.Series(values * 15))
    found = ImageSet.from_table(FRAME, whole)
    assert found.labels.equal(plain.labels) and found.classes == 2

    with pytest.raises(
        ValueError, match=r"table labels: expected a class in .* row 7, counted from 0"
    ):
        ImageSet.from_table(FRAME, whole.where(whole.index != 7))


def test_the_text_none_is_a_category(tmp_path):
    (tmp_path / "rows.csv").write_text("alley\nNone\nPave\nNone\n")
    assert load_data(tmp_path / "rows.csv").features["alley"].values == ("None", "Pave")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a table, which pandas could not read"),
        ("a,b\n", "expected at least one row and one column"),
        (",a\n0,1\n1,2\n", r"got none for number 0; .*to_csv\(index=False\)"),
        (
            "a,label\n1,x\n2,\n",
            "column 'label': expected a class in each row, got none in row 2, counted from 1 w",
        ),
        ("a\n1\n1\n", "got only constants: a"),
        ("a,b,label\n1,10,100,x\n2,20,200,y\n", "expected as many values in each row as names"),
        ("# wines\na,b,label\n1,2,x\n2,3,y\n", "expected as many values in each row as names"),
        ("a;b;label\n1;2;x\n2;3;y\n", "separated by commas, got one column named 'a;b;label'"),
        ("a\tlabel\n1\tx\n2\ty\n", "separated by commas, got one column named"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path, content, message):
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path / "rows.csv")


def test_rows_may_end_with_a_comma(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b,label\n1,10,x,\n2,20,y,\n")
    rows = load_data(tmp_path / "rows.csv")
    assert rows.features.decode(rows.read([0, 1])).to_dict("list") == {"a": [1, 2], "b": [10, 20]}
    assert rows.class_names == ("x", "y")


@pytest.mark.parametrize("spec", ["digits", "wine", "hub:me/set"])
def test_other_sets_have_no_columns_to_declare(spec):
    with pytest.raises(ValueError, match="features=, label_column= and clip= apply to tables"):
        load_data(spec, label_column="label")


def test_a_table_has_no_size(tmp_path):
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ValueError, match="size= and channels= apply to image files"):
        load_data(tmp_path / "rows.csv", size=8)


def test_bundled_features_are_those_of_all_rows():
    assert load_data("wine").features == Features.infer(load_wine())
