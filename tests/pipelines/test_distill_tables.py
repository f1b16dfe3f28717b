"""Distillation of a teacher over rows of a table."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from distill_cases import QUICK, weights
from sklearn.tree import DecisionTreeClassifier
from table_cases import is_valid
from tasters import WINES, Taster, wine_frame, wines
from teachers_analytic import ConstantTeacher

import db3kd
from db3kd.models.networks import MLP
from db3kd.planning import STRATEGIES
from db3kd.teachers import TeacherError, load_teacher

BUDGET = 400
SD = db3kd.LabelSettings(measure="sd")


def distil(taster, rows=None, **options):
    given = {"budget": BUDGET, "settings": QUICK} | options
    return db3kd.distill(taster.teacher(), wines() if rows is None else rows, **given)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "zero-shot"])
def test_every_strategy_asks_about_valid_rows_within_the_budget(strategy):
    taster = Taster()

    result = distil(taster, strategy=strategy)

    assert isinstance(result.student, MLP)
    assert result.queries == len(taster.rows) <= BUDGET
    assert is_valid(WINES, taster.rows)


def test_the_student_is_saved_with_the_features_of_the_table(tmp_path):
    result = distil(Taster(), out=tmp_path / "run")

    file = result.folder / "student.safetensors"
    student = load_teacher(file)
    assert student.features == WINES == db3kd.Features.load(file)
    assert student.class_names == ("fair", "good")
    unit = WINES.encode(wine_frame(50, seed=1))
    assert torch.equal(student.decide(unit), result.student(unit).argmax(1))


def test_the_report_shows_rows_as_the_table_has_them(tmp_path):
    # With few answers for each row, proxies teach, and the report shows their probabilities.
    result = distil(Taster(), budget=150, out=tmp_path / "run")

    text = result.report.with_suffix(".md").read_text()
    for name in WINES.names:
        assert f"| {name} | " in text
    (years,) = re.findall(r"^\| year \| (.*) \|$", text.split("## Soft labels")[1], re.MULTILINE)
    assert {int(year) for year in years.split(" | ")} <= set(range(1990, 2021))
    assert "held-out rows" in text


def test_rows_in_a_tensor_give_the_same_student():
    results = [distil(Taster(), rows) for rows in (wines(), wines().read(range(60)))]
    assert torch.equal(*(weights(result.student) for result in results))


@pytest.mark.parametrize("kind", ["pandas", "pyarrow"])
def test_a_table_is_encoded_by_the_features_of_the_teacher(kind):
    frame = wine_frame(60)
    mixed = frame[["colour", "year", "alcohol"]].assign(comment="ignored")
    table = mixed if kind == "pandas" else pytest.importorskip("pyarrow").Table.from_pandas(mixed)

    taster = Taster()
    student = distil(taster, table).student
    labels = [db3kd.label(Taster().teacher(), rows, SD) for rows in (table, wines())]

    assert torch.equal(*(weights(each) for each in (student, distil(Taster()).student)))
    assert torch.equal(*(each.decision for each in labels))
    assert is_valid(WINES, taster.rows)


def test_a_fitted_model_and_a_table_are_enough():
    frame = wine_frame(80)
    numbers = frame[["alcohol", "year"]]
    tree = DecisionTreeClassifier(random_state=0).fit(numbers, Taster()(frame))
    # The other order, and a column that the model does not know.
    table = frame[["colour", "year", "alcohol"]]

    result = db3kd.distill(tree, table, budget=200, settings=QUICK)

    teacher = db3kd.TabularTeacher(tree, db3kd.Features.infer(frame[["year", "alcohol"]]))
    expected = [
        teacher.class_names[number] for number in teacher.decide(teacher.features.encode(frame))
    ]
    assert expected == tree.predict(numbers).tolist()
    assert result.queries == 200 and result.student(torch.rand(3, 2)).shape == (3, 2)
    with pytest.raises(ValueError, match=r"features: expected the columns .*, alcohol are missing"):
        db3kd.TabularTeacher(tree, db3kd.Features.infer(frame[["year", "colour"]]))
    with pytest.raises(ValueError, match="got also colour; name the column of the class labels"):
        db3kd.TabularTeacher(tree, db3kd.Features.infer(frame))


def test_a_table_for_a_teacher_without_features_must_hold_numbers():
    network = torch.nn.Linear(2, 2)  # answers which of the two numbers is larger
    network.weight.data, network.bias.data = torch.eye(2), torch.zeros(2)
    numbers = pd.DataFrame({"a": [0.1, 0.9, 0.4] * 20, "b": [True, False, True] * 20})
    labels = db3kd.label(network, numbers, SD)
    assert labels.decision.equal(db3kd.label(network, numbers.to_numpy(np.float32), SD).decision)

    message = (
        r"images: column 'b': expected numbers, got 'x' in row 0, .* db3kd.TabularTeacher\(model"
    )
    with pytest.raises(TypeError, match=message):
        db3kd.label(network, numbers.assign(b="x"), SD)
    with pytest.raises(ValueError, match=r"column 'a': expected a value in each row, got none"):
        db3kd.label(network, numbers.assign(a=np.nan), SD)
    with pytest.raises(ValueError, match=r"from_table\(table, .*, features\)"):
        distil(Taster(), test=wine_frame(9))
    with pytest.raises(TypeError, match=r"encode it: db3kd.ImageSet.from_table"):
        db3kd.evaluate(network, numbers, torch.zeros(60, dtype=torch.int64))


def test_test_rows_must_be_encoded_by_the_same_features():
    frame = wine_frame(30, seed=1)
    tested = distil(Taster(), test=wines(30, seed=1))
    assert tested.accuracy is not None

    taster = Taster()
    other = db3kd.ImageSet.from_table(frame, Taster()(frame), name="others")
    with pytest.raises(
        ValueError, match=r"expected rows .* of teacher taster, got others in other"
    ):
        distil(taster, test=other)
    network = db3kd.build_model("linear", (5,), 2)
    with pytest.raises(ValueError, match="by the features of wines, got others in others"):
        db3kd.distill(network, wines(), budget=BUDGET, settings=QUICK, test=other)
    assert not taster.seen


def test_a_test_row_outside_the_bounds_names_the_argument():
    outside = wine_frame(5).assign(alcohol=[9, 10, 99.5, 11, 12])
    message = r"^test: table, column 'alcohol': expected 8 to 16, got 99.5 in row 2, .*wider bounds"
    with pytest.raises(ValueError, match=message):
        distil(Taster(), test=outside)
    with pytest.raises(
        ValueError, match=r"^wines, column 'alcohol': .*pass features= that declare wider"
    ):
        db3kd.ImageSet.from_table(outside, features=WINES, name="wines")


def test_without_rows_the_message_says_where_to_read_on(tmp_path):
    taster = Taster()
    with pytest.raises(ValueError, match=r"images: expected rows .*, got none; .*docs/tabular.md"):
        db3kd.distill(taster.teacher(), budget=BUDGET, settings=QUICK)
    assert not taster.seen


def test_a_teacher_with_one_class_is_refused_in_terms_of_rows(tmp_path):
    teacher, out = ConstantTeacher(1, (5,), 2), tmp_path / "run"
    with pytest.raises(TeacherError, match=r"two classes for \d+ rows.*causes: rows that are"):
        db3kd.distill(teacher, torch.rand(60, 5), budget=BUDGET, settings=QUICK, out=out)


def test_results_and_errors_call_rows_rows():
    count = len(wines())

    result = distil(Taster(), strategy="decisions")

    assert "held-out rows" in repr(result) and "image" not in repr(result)
    with pytest.raises(ValueError, match=f"each of {count} rows, got 30 queries; use fewer rows"):
        distil(Taster(), strategy="sd", budget=30)
    with pytest.raises(ValueError, match=f"with {count} rows of 2 classes"):
        distil(Taster(), budget=3)
