"""Commands on tables: a fitted model as the teacher, students, and features in files."""

import json
import re
from pathlib import Path

import pytest
from command_line import Result, fail, succeed
from tasters import WINES, Taster, wine_frame

from db3kd.tables import Features
from db3kd.teachers import load_teacher

MODEL = """
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

table = pd.read_csv({path!r})
columns = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
model = make_pipeline(columns, DecisionTreeClassifier(random_state=0))
model.fit(table.drop(columns="quality"), table["quality"])
"""
QUICK = ("--steps", 20, "--device", "cpu")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labelled wines; beside them, others that have other bounds, and a module with a teacher."""
    for name, seed in (("wines", 0), ("others", 1)):
        frame = wine_frame(60, seed)
        frame.assign(quality=Taster()(frame)).to_csv(tmp_path / f"{name}.csv", index=False)
    path = tmp_path / "wines.csv"
    name = f"fitted_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODEL.format(path=str(path)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return path


def asked(table: Path) -> tuple[object, ...]:
    teacher = f"fitted_{table.parent.name}:model"
    return ("--teacher", teacher, "--data", table, "--label-column", "quality", "--device", "cpu")


def test_labels_of_rows_and_a_student_of_them(table):
    budget = ("--measure", "bd", "--queries-per-pair", 20)
    assert "60 ok" in succeed("label", *asked(table), *budget, "--out", "bd")
    succeed(
        "distill", "--labels", "bd", "--data", table, *QUICK, "--scale", 1, "--out", "s.safetensors"
    )

    student = load_teacher("s.safetensors")
    assert student.class_names == ("fair", "good")
    inferred = Features.infer(wine_frame(60))
    assert student.features.names == inferred.names
    assert json.loads(Path("s.json").read_text())["settings"]["model"] == "mlp"
    rows = ("--label-column", "quality", "--split", "train", "--device", "cpu")
    other = ("evaluate", "--model", "s.safetensors", "--data", "others.csv", *rows)
    assert "of 60 rows" in succeed(*other, "--features", "s.safetensors")
    message = fail(*other)
    assert (
        "--features: expected those that the network in s.safetensors was trained with" in message
    )
    assert "--features 's.safetensors'" in message


def test_a_surrogate_of_rows_guides_their_labelling(table):
    train = ("--queries-per-sample", 3, "--steps", 20, "--out", "s.safetensors")
    assert "queries        180" in succeed("surrogate", *asked(table), *train)
    made = json.loads(Path("s.json").read_text())["settings"]
    assert made["surrogate"]["model"] == "mlp"
    assert Features.from_json(made["source"]["features"]) == Features.load("s.safetensors")
    guided = ("--measure", "mbd", "--queries-per-pair", 20, "--surrogate", "s.safetensors")
    assert "60 ok" in succeed("label", *asked(table), *guided, "--out", "mbd")


def test_a_distillation_measures_accuracy_on_another_file(table):
    where = ("--budget", 150, "--steps", 20, "--test", "others.csv", "--out", "run")
    WINES.save("wide.json")
    printed = succeed("distill", *asked(table), "--features", "wide.json", *where)

    assert "accuracy" in printed and "queries    150" in printed
    assert Features.load("run/student.safetensors") == WINES
    exported = succeed("export", "run", "--format", "onnx")
    assert "makes the same decisions as student.safetensors on 1,000 rows" in exported
    assert load_teacher("run/student.onnx").features == WINES


def test_a_test_row_outside_the_bounds_names_the_file_and_what_to_do(table):
    others = wine_frame(60, 1).assign(quality="fair")
    others.loc[34, "alcohol"] = 99.5
    others.to_csv("others.csv", index=False)
    message = fail("distill", *asked(table), "--budget", 150, "--test", "others.csv", "--dry-run")
    assert "error: --test: others.csv, column 'alcohol': expected " in message
    assert (
        ", got 99.5 in row 35, counted from 1 without the header; the bounds are those of --data "
        in message
    )
    assert "unless --features FILE declares them" in message and "clip" not in message


def test_rows_need_no_labels_although_the_test_has_some(table):
    wine_frame(60).to_csv("rows.csv", index=False)
    teacher = ("--teacher", asked(table)[1], "--device", "cpu")
    where = ("--budget", 150, "--steps", 20, "--test", table, "--label-column", "quality")
    printed = succeed("distill", *teacher, "--data", "rows.csv", *where, "--out", "run")
    assert "accuracy" in printed and "queries    150" in printed

    message = fail("distill", *teacher, "--data", table, "--budget", 150, "--dry-run")
    assert "got also quality; name the column of the class labels as --label-column" in message
    assert "--features" not in message
    message = fail("distill", *teacher, "--data", "rows.csv", *where[:4], *where[6:], "--dry-run")
    assert "--label-column: expected one of the columns of rows.csv ('alcohol', " in message
    student = ("--model", "run/student.safetensors", "--features", "run/student.safetensors")
    agreed = ("evaluate", *student, "--data", "rows.csv", "--agree-with", asked(table)[1])
    assert "of 60 rows" in succeed(*agreed, "--device", "cpu")


def test_a_network_is_trained_on_a_bundled_table(tmp_path):
    out = tmp_path / "teacher.safetensors"
    options = ("--epochs", 1, "--device", "cpu", "--out", out)
    assert "of 30 test rows (iris)" in succeed("teacher", "--data", "iris", *options)
    assert load_teacher(out).features.names[0] == "sepal length (cm)"


def test_a_fitted_model_is_described_without_a_table(table):
    shown = succeed("info", "--teacher", asked(table)[1])
    assert "kind           fitted model Pipeline" in shown
    assert "classes        2: fair, good" in shown
    assert "columns        3: alcohol, year, colour" in shown
    assert "a fitted model needs --features, or data that are a table" in shown
    message = fail("info", "--teacher", asked(table)[1], "--time", 5)
    assert "a fitted model needs --features" in message

    Features.infer(wine_frame(60)).save("features.json")
    shown = succeed(
        "info", "--teacher", asked(table)[1], "--features", "features.json", "--time", 5
    )
    assert "kind           TabularTeacher" in shown
    assert "columns        3: alcohol, year, colour" in shown and "image shape    5" in shown
    assert "ms per query in calls of 4; 5 queries were sent" in shown


def test_commands_call_rows_of_a_table_rows(table):
    teacher = f"fitted_{table.parent.name}:model"
    asking = ("--teacher", teacher, "--data", "wines.csv", "--label-column", "quality")
    budget = ("--budget", 1_200, "--device", "cpu", "--price-per-1000", 0.5)

    shown = [
        Result("distill", *asking, *budget, "--steps", 5, "--out", "run"),
        Result("distill", *asking, *budget, "--steps", 5, "--test", "others.csv", "--out", "two"),
        Result("compare", *asking, *budget, "--test", "others.csv", "--dry-run"),
        Result("compare", *asking, "--budget", 30, "--steps", 5, "--seeds", 1, "--out", "three"),
        Result("surrogate", *asking, "--steps", 5, "--device", "cpu", "--out", "s.safetensors"),
        Result("label", *asking, "--measure", "sd", "--limit", 30, "--out", "labels"),
        Result("distill", "--labels", "labels", "--steps", 5, "--out", "l.safetensors"),
        Result("export", "run", "--format", "onnx"),
        Result("distill", *asking, "--budget", 3, "--dry-run"),
    ]

    assert [each.code for each in shown] == [0, 0, 0, 0, 0, 0, 0, 0, 1]
    for each in shown:
        assert "image" not in each.out + each.err
    told = [each.out + each.err for each in shown]
    assert ["row" in each for each in told].count(False) <= 1, "a label run counts samples"
    for page in ("run/report.md", "two/report.md", "three/report.md"):
        text = Path(page).read_text().replace("# images: ", "").replace("(teacher, images, ", "")
        assert "image" not in text, "apart from the name of the argument"
    assert "choosing rows to query, round 2 of 4" in shown[0].err


@pytest.mark.parametrize("command", ["label", "distill", "compare", "surrogate", "evaluate"])
def test_the_help_of_commands_that_take_tables_speaks_of_rows_too(command):
    text = " ".join(re.sub(r"[│╭╰─╮╯]", " ", succeed(command, "--help")).split())
    alone = re.findall(r"(?:only|of|per|first 1,000) (?:this many )?images?(?! or row)\b.{9}", text)
    assert alone == [] and "images or rows" in text
    assert "Data " in succeed(command, "--help") and "Images ─" not in succeed(command, "--help")


def test_errors_about_tables_speak_of_rows(table):
    frame = wine_frame(40).drop(columns="quality", errors="ignore")
    frame.to_csv("rows.csv", index=False)
    where = ("--teacher", asked(table)[1], "--device", "cpu", "--budget", 150, "--dry-run")
    message = fail("distill", *where, "--data", "rows.csv", "--test", "rows.csv")
    assert "error: --test: expected labelled rows, got rows.csv without labels" in message
    save_model = ("evaluate", asked(table)[1], "--data", "rows.csv")
    assert "--data: accuracy needs rows with true classes, got none in rows.csv" in fail(
        *save_model
    )
