import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from table_cases import is_valid, mixed_frame

from db3kd.tables import Feature, Features
from db3kd.teachers import (
    FunctionTeacher,
    TabularTeacher,
    Teacher,
    TeacherError,
    decide_checked,
    load_teacher,
)

IRIS = load_iris()
FEATURES = Features.infer(IRIS)
NUMBERS = Features([Feature.integer("a", 0, 9), Feature.integer("b", 0, 9)])


def rows_of(*rows):
    return NUMBERS.encode(np.array(rows))


def larger(rows):
    """Whether the second number is larger; refuses all but whole numbers in an array."""
    assert rows.dtype == np.int64
    return (rows[:, 1] > rows[:, 0]).astype(int)


@pytest.mark.parametrize("as_frame", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
        GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [2, 3]}),
    ],
    ids=["tree", "pipeline", "search"],
)
def test_a_fitted_model_decides_as_it_does_on_the_rows_and_warns_of_nothing(model, as_frame):
    data = load_iris(as_frame=as_frame)
    model.fit(data.data, data.target_names[data.target])
    teacher = TabularTeacher(model, Features.infer(data))
    assert isinstance(teacher, Teacher)
    assert (teacher.image_shape, teacher.bounds, teacher.classes) == ((4,), (0.0, 1.0), 3)
    assert teacher.class_names == ("setosa", "versicolor", "virginica")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decisions = decide_checked(teacher, teacher.features.encode(data))
    assert [teacher.class_names[d] for d in decisions] == model.predict(data.data).tolist()


@pytest.mark.parametrize(("fitted", "inferred"), [(True, False), (False, True)])
def test_a_model_gets_rows_as_it_was_fitted_whatever_the_features_were_inferred_from(
    fitted, inferred
):
    data = load_iris(as_frame=fitted)
    tree = DecisionTreeClassifier(random_state=0).fit(data.data, data.target)
    features = Features.infer(load_iris(as_frame=inferred))
    decisions = decide_checked(TabularTeacher(tree.predict, features), FEATURES.encode(IRIS))
    assert np.array_equal(decisions, tree.predict(data.data))


def test_a_model_gets_the_columns_in_the_order_that_it_was_fitted_on():
    data = load_iris(as_frame=True)
    tree = DecisionTreeClassifier(random_state=0).fit(data.data, data.target)
    features = Features.infer(data, names=list(reversed(data.feature_names)))
    decisions = decide_checked(TabularTeacher(tree, features), features.encode(data))
    assert np.array_equal(decisions, tree.predict(data.data))
    with pytest.raises(ValueError, match=r"expected the columns that DecisionTree.* are missing"):
        TabularTeacher(tree, Features.infer(data, names=data.feature_names[:3]))


def test_every_row_that_a_function_sees_is_valid_and_has_the_dtypes_of_the_table():
    frame = mixed_frame()
    features = Features.infer(frame)
    seen = []

    def taste(rows: pd.DataFrame) -> np.ndarray:
        seen.append(rows)
        return np.where(rows["organic"] & (rows["colour"] == "red"), "good", "fair")

    teacher = TabularTeacher(taste, features, classes=["fair", "good"])
    unit = torch.rand(500, *features.unit_shape, generator=torch.Generator().manual_seed(0))
    decisions = decide_checked(teacher, unit)
    rows = pd.concat(seen)
    assert len(rows) == 500
    assert is_valid(features, rows)
    assert (rows.dtypes == frame.dtypes).all()
    good = rows["organic"].to_numpy() & (rows["colour"] == "red").to_numpy()
    assert np.array_equal(decisions, good)
    assert 0 < good.sum() < 500


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1], None),
        ([1, 2], ("1", "2")),
        ([-1, 1], ("-1", "1")),
        ([0.0, 1.0], None),
        ([1.0, 2.0], ("1", "2")),
        ([0.5, 1.5], ("0.5", "1.5")),
        ([False, True], ("False", "True")),
        (["no", "yes"], ("no", "yes")),
    ],
)
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_class_labels_of_any_kind_are_numbered_in_their_order(labels, names, shape):
    def function(rows):
        return np.array(labels)[larger(rows)].reshape(shape)

    for classes in (labels, np.array(labels)):
        teacher = TabularTeacher(function, NUMBERS, classes)
        assert teacher.class_names == names
        assert decide_checked(teacher, rows_of([1, 2], [2, 1])).tolist() == [1, 0]
    renamed = TabularTeacher(function, NUMBERS, labels, class_names=["small", "large"])
    assert renamed.class_names == ("small", "large")
    assert decide_checked(renamed, rows_of([1, 2], [2, 1])).tolist() == [1, 0]


def test_a_number_of_classes_is_enough_for_numbers_and_for_names():
    assert decide_checked(TabularTeacher(larger, NUMBERS, 2), rows_of([1, 2])).tolist() == [1]
    names = ["small", "large"]
    teacher = TabularTeacher(
        lambda rows: np.array(names)[larger(rows)], NUMBERS, np.int64(2), class_names=names
    )
    assert decide_checked(teacher, rows_of([1, 2], [2, 1])).tolist() == [1, 0]


@pytest.mark.parametrize("kind", [list, np.array, pd.Series])
def test_booleans_are_the_numbers_of_two_classes(kind):
    def is_larger(rows):
        return kind((rows[:, 1] > rows[:, 0]).tolist())

    def one_by_one(rows):
        yield from is_larger(rows)

    unit = rows_of([1, 2], [2, 1], [0, 9])
    for function in (is_larger, one_by_one):
        assert decide_checked(TabularTeacher(function, NUMBERS, 2), unit).tolist() == [1, 0, 1]
        with pytest.raises(TeacherError, match=r"got .*bool"):
            decide_checked(TabularTeacher(function, NUMBERS, 3), unit)


def test_a_label_that_is_none_of_the_classes_is_refused():
    teacher = TabularTeacher(lambda rows: ["a", "c"], NUMBERS, ["a", "b"], name="mine")
    message = (
        r"teacher mine: .*from the function, one of 'a', 'b', got 'c' for row 1; return one of "
        "these labels, or correct classes=$"
    )
    with pytest.raises(TeacherError, match=message):
        decide_checked(teacher, rows_of([1, 2], [2, 1]))
    tree = DecisionTreeClassifier().fit([[0, 0], [9, 9]], ["a", "b"])
    tree.predict = lambda rows: ["c"] * len(rows)
    message = r"from predict, one of 'a', 'b', got 'c' for row 0; pass classes=, all labels"
    with pytest.raises(TeacherError, match=message):
        decide_checked(TabularTeacher(tree, NUMBERS), rows_of([1, 2]))


@pytest.mark.parametrize("classes", [2, ["no", "yes"]])
def test_scores_instead_of_classes_are_answered_with_how_to_convert_them(classes):
    def scores(rows):
        return np.eye(2)[larger(rows)]

    message = r"from the function, got a table \[2, 2\]; if these are scores, return .*argmax\(1\)"
    with pytest.raises(TeacherError, match=message):
        decide_checked(TabularTeacher(scores, NUMBERS, classes), rows_of([1, 2], [2, 1]))


@pytest.mark.parametrize("answer", [None, [0], [[0, 1], [1, 0]], ["0", "1"]])
def test_answers_that_are_no_classes_are_refused(answer):
    teacher = TabularTeacher(lambda rows: answer, NUMBERS, 2)
    with pytest.raises(TeacherError):
        decide_checked(teacher, rows_of([1, 2], [2, 1]))


def test_a_generator_is_asked_row_by_row():
    asked = []

    def one_by_one(rows):
        for first, second in rows.tolist():
            asked.append((first, second))
            if first == 9:
                raise ConnectionError("the line is dead")
            yield "large" if second > first else "small"

    teacher = TabularTeacher(one_by_one, NUMBERS, ["small", "large"])
    assert decide_checked(teacher, rows_of([1, 2], [2, 1])).tolist() == [1, 0]
    with pytest.raises(TeacherError, match="the line is dead") as caught:
        decide_checked(teacher, rows_of([1, 2], [9, 1], [3, 4]))
    assert caught.value.answered.tolist() == [1]
    assert asked[-1] == (9, 1)


def test_the_fingerprint_changes_with_the_model_the_features_and_the_classes():
    wine = load_wine()
    features = Features.infer(wine)
    forest = RandomForestClassifier(5, random_state=0).fit(wine.data, wine.target)
    other = RandomForestClassifier(5, random_state=1).fit(wine.data, wine.target)
    wider = Features.infer(wine, bounds={"alcohol": (0, 20)})
    names = list(wine.target_names)
    teachers = [
        TabularTeacher(forest, features),
        TabularTeacher(other, features),
        TabularTeacher(forest, wider),
        TabularTeacher(forest, features, class_names=names),
        TabularTeacher(forest, features, [2, 1, 0]),
        TabularTeacher(forest, features, fingerprint="mine"),
    ]
    prints = [teacher.fingerprint() for teacher in teachers]
    assert len(set(prints)) == len(prints)
    assert prints[-1] == "mine"
    assert TabularTeacher(forest.predict, features).fingerprint() == prints[0]


def test_a_model_is_asked_about_many_rows_at_once_and_a_function_about_fewer():
    tree = DecisionTreeClassifier().fit(IRIS.data, IRIS.target)
    assert TabularTeacher(tree, FEATURES).max_batch == 4096
    assert TabularTeacher(tree, FEATURES, max_batch=7).max_batch == 7
    assert TabularTeacher(larger, NUMBERS, 2).max_batch == 256


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"predict": 3}, TypeError, "predict: expected a function or a fitted model .*got int"),
        ({"predict": DecisionTreeClassifier}, TypeError, "got DecisionTreeClassifier"),
        ({"features": IRIS.data}, TypeError, "features: expected db3kd.Features, got ndarray"),
        ({"classes": None}, ValueError, "classes: expected the class labels, or their number"),
        (
            {"predict": DecisionTreeClassifier(), "classes": None},
            ValueError,
            r"predict: expected a fitted classifier, got DecisionTreeC.*call its method fit",
        ),
        ({"classes": 1}, ValueError, "classes: expected an integer of at least 2, got 1"),
        ({"classes": ["a"]}, ValueError, r"two or more different labels, got \['a'\]"),
        ({"classes": ["a", "a"]}, ValueError, "two or more different labels"),
        (
            {"classes": [np.arange(2), np.arange(2)]},
            ValueError,
            "one list of class labels",
        ),
        ({"class_names": ["a", "b", "c"]}, ValueError, "class_names: expected 2 names"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        TabularTeacher(**{"predict": larger, "features": NUMBERS, "classes": 2, **arguments})


def larger_of_two(rows):
    """A function that a teacher's name can say."""
    return larger(rows)


TREE = DecisionTreeClassifier(random_state=0).fit(IRIS.data, IRIS.target_names[IRIS.target])
TEACHER = TabularTeacher(larger, NUMBERS, classes=2)


def test_a_named_function_or_model_is_a_teacher_of_the_rows_of_the_data():
    named = load_teacher(f"{__name__}:larger_of_two", features=NUMBERS, classes=2)
    assert isinstance(named, TabularTeacher) and named.features == NUMBERS
    assert named.decide(rows_of([1, 2], [2, 1])).tolist() == [1, 0]

    tree = load_teacher(f"{__name__}:TREE", features=FEATURES, assumed_classes=7)
    assert tree.class_names == ("setosa", "versicolor", "virginica"), "the model knows its classes"
    unit = FEATURES.encode(IRIS)
    assert np.array_equal(np.array(tree.class_names)[tree.decide(unit)], TREE.predict(IRIS.data))


def test_a_named_function_of_rows_needs_the_number_of_classes():
    with pytest.raises(ValueError, match=r"larger_of_two: does not declare .*; pass classes=$"):
        load_teacher(f"{__name__}:larger_of_two", features=NUMBERS)


def test_a_described_function_gets_rows_of_the_table(tmp_path):
    file = tmp_path / "teacher.toml"
    file.write_text(f'function = "{__name__}:larger_of_two"\nclasses = 2\n')
    teacher = load_teacher(file, features=NUMBERS, trust_code=True)
    assert teacher.decide(rows_of([1, 2], [2, 1])).tolist() == [1, 0]
    file.write_text(file.read_text() + "[preprocessing]\nscale = [0, 255]\n")
    with pytest.raises(ValueError, match=r"expected no \[preprocessing\]"):
        load_teacher(file, features=NUMBERS, trust_code=True)


def test_a_named_teacher_refuses_data_of_other_features():
    assert load_teacher(f"{__name__}:TEACHER", features=NUMBERS) is TEACHER
    with pytest.raises(ValueError, match=r"features: expected those of teacher .*TEACHER, got"):
        load_teacher(f"{__name__}:TEACHER", features=FEATURES)
    with pytest.raises(ValueError, match=r"image_shape: expected \(2,\), .*leave it out"):
        load_teacher(f"{__name__}:larger_of_two", features=NUMBERS, classes=2, image_shape=(3,))


def test_a_frame_is_decided_and_rows_of_an_array_are_to_be_encoded():
    data = load_iris(as_frame=True)
    tree = DecisionTreeClassifier(random_state=0).fit(data.data, data.target)
    teacher = TabularTeacher(tree, Features.infer(data))
    assert teacher.decide(data.data).tolist() == tree.predict(data.data).tolist()
    with pytest.raises(TypeError, match=r"got ndarray; encode rows .*teacher\.features\.encode"):
        teacher.decide(data.data.to_numpy())


@pytest.mark.parametrize("shape", [(13,), (1, 4, 4)])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda inputs: None, "expected one class per {} from the function, got None"),
        (lambda inputs: np.full(len(inputs), np.nan), "got NaN for {} 0"),
        (lambda inputs: 1 / 0, "raised ZeroDivisionError on 5 {}s"),
    ],
)
def test_errors_of_functions_call_their_inputs_rows_or_images(shape, answer, message):
    teacher = FunctionTeacher(answer, shape, 3, fingerprint="f")
    noun = "row" if len(shape) == 1 else "image"
    with pytest.raises(TeacherError, match=message.format(noun)):
        decide_checked(teacher, torch.zeros(5, *shape))
