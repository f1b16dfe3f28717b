"""Commands on tables: a fitted model as the teacher, students, and features in files."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import Result, fail, succeed
from tasters import WINES, Taster, wine_frame

from db3kd.labelling.runs.label_run import open_run
from db3kd.models import build_model, save_model
from db3kd.tables import Feature, Features
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
    assert "of 60 rows" in succeed(*other)


def test_the_report_of_labelled_rows_encodes_them_as_the_run_did(table):
    WINES.save("wide.json")
    budget = ("--measure", "bd", "--queries-per-pair", 20, "--features", "wide.json")
    succeed("label", *asked(table), *budget, "--out", "bd")
    moved = table.rename(table.with_name("moved.csv"))
    page = Path(succeed("report", "bd", "--data", moved).strip()).read_text()
    assert re.search(r"^\| row \d+ \| fair \| good \S+ \|$", page, re.MULTILINE)
    assert "## Distances between classes" in page and "samples.png" not in page


def test_a_surrogate_of_rows_guides_their_labelling(table):
    train = ("--queries-per-sample", 3, "--steps", 20, "--out", "s.safetensors")
    assert "queries        180" in succeed("surrogate", *asked(table), *train)
    made = json.loads(Path("s.json").read_text())["settings"]
    assert made["surrogate"]["model"] == "mlp"
    assert Features.from_json(made["source"]["features"]) == Features.load("s.safetensors")
    guided = ("--measure", "mbd", "--queries-per-pair", 20, "--surrogate", "s.safetensors")
    assert "60 ok" in succeed("label", *asked(table), *guided, "--out", "mbd")
    narrow = pd.read_csv(table).query("9 < alcohol < 15")  # the features are those of the surrogate
    narrow.to_csv("narrow.csv", index=False)
    others = ("label", *asked(Path("narrow.csv").absolute()), *guided, "--dry-run", "--out", "few")
    assert "dry run" in succeed(*others)


def test_a_distillation_measures_accuracy_on_another_file(table):
    where = ("--budget", 150, "--steps", 20, "--test", "others.csv", "--out", "run")
    WINES.save("wide.json")
    printed = succeed("distill", *asked(table), "--features", "wide.json", *where)

    assert "accuracy" in printed and "queries    150" in printed
    assert Features.load("run/student.safetensors") == WINES
    exported = succeed("export", "run", "--format", "onnx")
    assert "makes the same decisions as student.safetensors on 1,000 rows" in exported
    assert load_teacher("run/student.onnx").features == WINES


def narrow_student(kind: str = "safetensors") -> str:
    """Writes a student whose features are narrower than the tables, and returns its file."""
    features = Features.infer(wine_frame(60))
    features = Features([Feature.continuous("alcohol", 9, 15), *list(features)[1:]], as_frame=True)
    names, path = ("fair", "good"), Path("narrow.safetensors")
    save_model(
        path, build_model("mlp", (5,), 2), model="mlp", image_shape=(5,), classes=2,
        class_names=names, features=features,
    )  # fmt: skip
    return str(path) if kind == "safetensors" else succeed_export(path, kind)


def succeed_export(path: Path, kind: str) -> str:
    out = path.with_suffix(f".{kind}")
    succeed("export", path, "--out", out)
    return str(out)


@pytest.mark.parametrize("kind", ["safetensors", "onnx", "pt2", "ts", "toml"])
def test_a_student_of_any_format_encodes_tables_by_its_features(table, kind, caplog):
    student = narrow_student("safetensors" if kind == "toml" else kind)
    if kind == "toml":
        Path("described.toml").write_text(f'file = "{student}"\n')
        student = "described.toml"
    trust = ("--trust-code",) if kind in ("pt2", "ts") else ()
    evaluate = ("evaluate", student, "--data", table, "--label-column", "quality", *trust)
    message = fail(*evaluate)
    assert re.fullmatch(
        r"error: \S+wines.csv, column 'alcohol': expected 9 to 15, got \S+ in row \d+, counted "
        "from 1 without the header; pass --clip to use the nearest valid value, or leave the row "
        "out",
        message,
    ), "it advises no other features, which the student would refuse"
    with caplog.at_level(logging.WARNING):
        assert "of 60 rows" in succeed(*evaluate, "--clip")
    outside = int((~wine_frame(60)["alcohol"].between(9, 15)).sum())
    assert f"clipped to valid values: {outside} rows of column 'alcohol'" in caplog.text


def test_an_export_is_checked_on_rows_that_the_student_encodes(table):
    export = ("export", narrow_student(), "--format", "onnx", "--data", table)
    assert "; pass --clip to use the nearest valid value, or leave the row out" in fail(*export)
    assert "same decisions" in succeed(*export, "--clip")
    Features.infer(wine_frame(60)).save("other.json")
    message = fail(*export[:2], "--out", "b.onnx", *export[4:], "--features", "other.json")
    assert message == (
        "error: --features: expected those that narrow.safetensors declares, got others; leave "
        "--features out, because they are read from the model"
    )


def test_a_teacher_with_features_encodes_the_table_that_is_labelled(table):
    name = f"declared_{table.parent.name}"
    Path(f"{name}.py").write_text(
        "from tasters import Taster\nteacher = Taster().teacher()\ncalls = []\n"
        "def make():\n    calls.append(1)\n    return teacher\n"
    )
    options = ("--data", table, "--label-column", "quality", "--measure", "sd", "--device", "cpu")
    succeed("label", "--teacher", f"{name}:teacher", *options, "--out", "run")
    assert open_run("run", str(table)).images.features == WINES
    student = narrow_student()
    message = fail("evaluate", student, "--agree-with", f"{name}:teacher", *options[:4])
    assert message.startswith(f"error: {student} and {name}:teacher: expected models that encode")


def test_only_tables_are_encoded_by_the_features_of_a_student(table):
    np.savez("encoded.npz", images=np.random.default_rng(0).random((20, 5), np.float32))
    options = ("--data", "encoded.npz", "--agree-with", narrow_student(), "--split", "train")
    assert "agreement  100.00%" in succeed("evaluate", narrow_student(), *options)


@pytest.mark.parametrize(
    "command", ["distill", "compare", "label", "surrogate", "evaluate", "export"]
)
@pytest.mark.parametrize(
    "source", ["narrow.safetensors", "my_package.models:forest", "https://h/m"]
)
def test_a_model_in_place_of_the_data_is_named(table, command, source):
    narrow_student()
    options = {
        "distill": ("--teacher", table, "--budget", 50, "--out", "run"),
        "compare": ("--teacher", table, "--budget", 50, "--out", "run"),
        "label": ("--teacher", table, "--measure", "sd", "--out", "run"),
        "surrogate": ("--teacher", table, "--out", "run.safetensors"),
        "evaluate": (table,),
        "export": ("narrow.safetensors", "--format", "onnx"),
    }[command]
    advice = (
        f": expected images or rows, got the model '{source}'; pass it as the teacher or student, "
        "and the images or rows as --data"
    )
    assert fail(command, *options, "--data", source) == f"error: --data{advice}"
    if command in ("distill", "compare"):
        message = fail(command, *asked(table), *options[2:], "--test", source)
        assert message == f"error: --test{advice}"


def test_a_test_row_outside_the_bounds_names_the_file_and_what_to_do(table, caplog):
    others = wine_frame(60, 1).assign(quality="fair")
    others.loc[34, "alcohol"] = 99.5
    others.to_csv("others.csv", index=False)
    distill = ("distill", *asked(table), "--budget", 150, "--dry-run")
    message = fail(*distill, "--test", "others.csv")
    assert "error: --test: others.csv, column 'alcohol': expected " in message
    assert message.endswith(
        ", got 99.5 in row 35, counted from 1 without the header; pass --features FILE that "
        "declares wider bounds, because the features are inferred from --data otherwise, pass "
        "--clip to use the nearest valid value, or leave the row out"
    )

    Features.infer(wine_frame(60)).save("narrow.json")
    message = fail(*distill, "--test", "others.csv", "--features", "narrow.json")
    assert "; declare wider bounds in the file of --features, pass --clip" in message

    with caplog.at_level(logging.WARNING):
        succeed(*distill, "--test", "others.csv", "--clip")
    assert any(text.startswith("others.csv: clipped to valid values: ") for text in caplog.messages)
    Features.infer(wine_frame(60), bounds={"alcohol": (0, 100), "year": (1990, 2020)}).save(
        "w.json"
    )
    succeed(*distill, "--test", "others.csv", "--features", "w.json")
    valid = pd.read_csv("others.csv").drop(index=34)
    inferred = Features.infer(wine_frame(60))
    for name in ("alcohol", "year"):
        valid = valid[valid[name].between(inferred[name].lower, inferred[name].upper)]
    valid.to_csv("valid.csv", index=False)
    succeed(*distill, "--test", "valid.csv")


def test_rows_need_no_labels_although_the_test_has_some(table):
    wine_frame(60).to_csv("rows.csv", index=False)
    teacher = ("--teacher", asked(table)[1], "--device", "cpu")
    where = ("--budget", 150, "--steps", 20, "--test", table, "--label-column", "quality")
    printed = succeed("distill", *teacher, "--data", "rows.csv", *where, "--out", "run")
    assert "accuracy" in printed and "queries    150" in printed

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
    assert message.endswith("; or pass the data of your run as --data")

    Features.infer(wine_frame(60)).save("features.json")
    shown = succeed(
        "info", "--teacher", asked(table)[1], "--features", "features.json", "--time", 5
    )
    assert "kind           TabularTeacher" in shown
    assert "columns        3: alcohol, year, colour" in shown and "row            5 values" in shown
    assert "ms per query in calls of 4; 5 queries were sent" in shown


def test_a_fitted_model_is_described_and_timed_with_the_data_of_a_run(table):
    """As a dry run advises, whose other options are those of the run."""
    options = ("--teacher", asked(table)[1], "--data", table, "--label-column", "quality")

    shown = succeed("info", *options, "--time", 5)

    assert "kind           TabularTeacher" in shown and "missing" not in shown
    assert "columns        3: alcohol, year, colour" in shown and "row            5 values" in shown
    assert "ms per query in calls of 4; 5 queries were sent" in shown
    assert "query time" not in succeed("info", *options)
    succeed("info", "--data", table, "--label-column", "quality", "--features-out", "given.json")
    given = succeed("info", *options, "--features", "given.json")
    fingerprint = next(line for line in given.splitlines() if line.startswith("fingerprint"))
    assert fingerprint in shown, "the features are those that are inferred from the table"
    message = fail("info", *options[:2], "--data", "digits", "--time", 5)
    assert "a fitted model needs --features, or data that are a table" in message
    assert "pass the data" not in message


def test_the_features_of_a_table_are_shown_and_written_to_a_file(table):
    options = ("--data", table, "--label-column", "quality")
    shown = succeed("info", *options, "--features-out", "f.json")
    inferred = Features.infer(wine_frame(60))
    assert Features.load("f.json") == inferred
    alcohol, year = inferred["alcohol"], inferred["year"]
    assert [line.split(None, 1) for line in shown.splitlines()] == [
        ["rows", "60"],
        ["dimensions", "5"],
        ["alcohol", f"continuous, {alcohol.lower:,.10g} to {alcohol.upper:,.10g}"],
        ["year", f"integer, {year.lower:,.10g} to {year.upper:,.10g}"],
        ["colour", "categorical: red, rosé, white"],
        ["written", "to     f.json"],
    ]

    text = Path("f.json").read_text().replace('"integer"', '"continuous"')
    Path("edited.json").write_text(text)
    shown = succeed("info", *options, "--features", "edited.json")
    assert f"continuous, {year.lower:,.10g} to" in shown
    succeed("distill", *asked(table), "--budget", 60, "--features", "edited.json", "--dry-run")

    assert "f.json: already exists; pass another --features-out" in fail(
        "info", *options, "--features-out", "f.json"
    )
    assert "--features-out: needs --data" in fail("info", "--features-out", "g.json")
    assert not Path("g.json").exists()
    assert "--data: expected a table, got the images of digits" in fail("info", "--data", "digits")


def test_a_fitted_model_says_which_columns_of_a_table_are_features(table):
    inferred = Features.infer(wine_frame(60))
    frame = pd.read_csv(table)
    frame.insert(0, "bottle", [f"W-{number}" for number in range(len(frame))])
    frame.to_csv("bottles.csv", index=False)
    bottles = ("--data", "bottles.csv", "--device", "cpu")
    model = asked(table)[1]

    command = ("label", "--teacher", model, *bottles, "--measure", "sd", "--out", "sd")
    succeed(*command)
    succeed(*command, "--resume")
    assert open_run("sd").images.features == inferred

    described = ("info", "--teacher", f"{model}.predict", *bottles[:2])
    assert "written to     f.json" in succeed(*described, "--features-out", "f.json")
    assert Features.load("f.json") == inferred
    succeed(*described, "--features", "f.json")
    assert "--label-column: expected no feature, got 'year', which is one" in fail(
        *described, "--label-column", "year"
    )

    message = fail("info", *bottles[:2])
    assert "column 'bottle': expected categories that repeat, got 60 different values" in message
    assert "or pass --features that declare them, or that lack the column" in message
    frame.rename(columns={"year": "Year"}).to_csv("renamed.csv", index=False)
    message = fail("info", "--teacher", model, "--data", "renamed.csv")
    assert "columns of the fitted model: expected columns of renamed.csv (bottle, " in message
    assert "got 'year'; did you mean 'Year'?" in message
    wider = (*inferred, Feature.integer("age", 0, 9))
    Features(wider, as_frame=True).save("wide.json")
    message = fail("info", "--teacher", model, "--features", "wide.json")
    assert "got also age; name the column of the class labels as --label-column" in message
    assert message.endswith("pass --features without the others")


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
