"""Values that features do not allow: what each function advises works in that function."""

import inspect
import logging
import re

import numpy as np
import pandas as pd
import pytest
import torch
from label_runs import write_run
from tasters import WINES, Taster, wine_frame
from torch import nn

import db3kd
from db3kd.data.source import Source
from db3kd.labelling.runs.label_run import open_run
from db3kd.models import save_model
from db3kd.tables import Feature, Features

WIDE = Features(
    [
        Feature.continuous("alcohol", 8, 100),
        Feature.continuous("year", 1990, 2020),
        WINES["colour"],
    ],
    as_frame=True,
)


def frame(column: str = "alcohol", value: object = 99.5) -> pd.DataFrame:
    """Wines, of which row 2 has a value that WINES does not allow."""
    rows = wine_frame(30)
    rows[column] = rows[column].astype(type(value))
    rows.loc[2, column] = value
    return rows


INVALID = [("alcohol", 99.5), ("year", 2000.5)]


def refused(call, *arguments, **named) -> str:
    with pytest.raises(ValueError, match=r"got .* in row") as raised:
        call(*arguments, **named)
    return str(raised.value)


def passed(message: str, name: str) -> str:
    """Returns the expression that a message advises to pass."""
    return re.search(rf"pass ({re.escape(name)}\(.*?\)) ", message)[1]


@pytest.mark.parametrize(("column", "value"), INVALID)
def test_functions_that_read_tables_advise_only_arguments_that_they_have(column, value, tmp_path):
    table, file = frame(column, value), tmp_path / "wines.csv"
    table.to_csv(file, index=False)
    for function, arguments in (
        (db3kd.load_data, {"spec": file, "features": WINES}),
        (db3kd.ImageSet.from_table, {"table": table, "features": WINES}),
        (WINES.encode, {"table": table}),
    ):
        message = refused(function, **arguments)
        mentioned = set(re.findall(r"(\w+)=", message))
        assert "clip" in mentioned and mentioned <= set(inspect.signature(function).parameters)
        assert len(function(**arguments, clip=True)) == 30
        if "features" in mentioned:
            assert len(function(**{**arguments, "features": WIDE})) == 30
        left = {"table": table.drop(index=2)}
        if "table" in arguments:
            assert len(function(**{**arguments, **left})) == 29
    assert len(WIDE.encode(table)) == 30, "which declare wider bounds, and a continuous feature"


@pytest.mark.parametrize(("column", "value"), INVALID)
@pytest.mark.parametrize("kind", ["function", "student", "ONNX"])
def test_decide_advises_to_encode_the_table(kind, column, value, tmp_path):
    teacher, table = Taster().teacher(), frame(column, value)
    if kind != "function":
        path = tmp_path / "student.safetensors"
        network = nn.Linear(*WINES.unit_shape, 2)
        save_model(path, network, model=None, image_shape=(5,), classes=2, features=WINES)
        teacher = db3kd.load_teacher(path, model=lambda: nn.Linear(5, 2))
    if kind == "ONNX":
        teacher = db3kd.load_teacher(db3kd.export_model(teacher, tmp_path / "s.onnx").path)
    message = refused(teacher.decide, table)
    assert "declare" not in message, "the features of a teacher are what they are"
    encoded = eval(passed(message, "teacher.features.encode"), {"teacher": teacher, "table": table})
    assert len(teacher.decide(encoded)) == 30
    assert len(teacher.decide(table.drop(index=2))) == 29


@pytest.mark.parametrize("name", ["label", "make_surrogate", "distill", "compare"])
def test_stages_advise_a_set_of_clipped_rows(name):
    teacher, table, training = Taster().teacher(), frame(), db3kd.TrainSettings(steps=2)
    settings = db3kd.DistillSettings(training=training, proxies=0)
    call = {
        "label": lambda teacher, rows: db3kd.label(teacher, rows, db3kd.LabelSettings("sd")),
        "make_surrogate": lambda teacher, rows: db3kd.make_surrogate(
            teacher, rows, db3kd.SurrogateSettings(queries_per_sample=1, training=training)
        ),
        "distill": lambda teacher, rows: db3kd.distill(teacher, rows, budget=60, settings=settings),
        "compare": lambda teacher, rows: db3kd.compare(
            teacher, rows, budget=60, strategies=["decisions"], seeds=1, settings=settings
        ),
    }[name]
    message = refused(call, teacher, table)
    assert "pass a db3kd.TabularTeacher whose features declare wider bounds" in message
    names = {"db3kd": db3kd, "table": table, "features": teacher.features}
    call(teacher, eval(passed(message, "db3kd.ImageSet.from_table"), names))
    call(db3kd.TabularTeacher(Taster(), WIDE, ["fair", "good"]), table)


def test_a_category_that_is_not_declared_cannot_be_clipped():
    table = frame("colour", "blue")
    message = refused(WINES.encode, table, clip=True)
    assert message == (
        "column 'colour': expected one of 'red', 'white', 'rosé', got 'blue' in row 2, counted "
        "from 0, and a category cannot be clipped; declare it as a value of the feature, or leave "
        "the row out"
    )
    assert "clip" not in refused(WINES.encode, table)
    assert refused(Taster().teacher().decide, table).endswith("; leave the row out")


def test_the_clipped_rows_of_each_column_are_counted(caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = wine_frame(30).astype({"year": float})
    table.loc[:3, "alcohol"] = [99.5, -1, 16.5, np.nextafter(8, 0)]
    table.loc[:1, "year"] = [2000.25, 2021]
    table.to_csv("wines.csv", index=False)
    with caplog.at_level(logging.WARNING):
        clipped = db3kd.load_data("wines.csv", features=WINES, clip=True)
    assert caplog.messages == [
        "wines.csv: clipped to valid values: 4 rows of column 'alcohol', 2 rows of column 'year'"
    ]
    valid = table.assign(alcohol=table["alcohol"].clip(8, 16), year=table["year"].round())
    valid["year"] = valid["year"].clip(upper=2020)
    assert torch.equal(clipped.read(range(30)), WINES.encode(valid))

    caplog.clear()
    WINES.encode(valid, clip=True)
    assert not caplog.messages


def test_a_bundled_table_is_clipped(caplog):
    narrow = Features.infer(db3kd.load_data("wine").features.decode(torch.rand(20, 13)))
    message = refused(db3kd.load_data, "wine", features=narrow)
    assert "pass clip=True" in message
    assert len(db3kd.load_data("wine", features=narrow, clip=True)) == 142
    assert "clipped to valid values: " in caplog.text


def test_a_label_run_whose_table_changed_asks_for_the_original_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wine_frame(30).to_csv("wines.csv", index=False)
    source = Source("wines.csv", features=WINES.to_json())
    write_run("run", Taster().teacher(), source, db3kd.LabelSettings("sd"))
    frame().to_csv("wines.csv", index=False)
    for data in (None, "wines.csv"):
        message = refused(open_run, "run", data)
        assert message.startswith("data: expected the data that run was labelled from, got other")
        assert message.endswith("; pass the original data as data=") and "clip" not in message
