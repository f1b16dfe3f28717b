"""Labels of rows of a table: true distances, valid rows, and runs on disk."""

import numpy as np
import pytest
from label_runs import write_run
from table_cases import is_valid
from tasters import WINES, Taster, wine_frame, wines

from db3kd.boundary import SignOptSettings
from db3kd.data.image_set import ImageSet
from db3kd.data.source import Source
from db3kd.labelling import LabelSettings, label
from db3kd.labelling.runs.label_run import open_run
from db3kd.tables import Feature, Features
from db3kd.teachers import FunctionTeacher, TabularTeacher

BUDGETED = {"queries_per_pair": 60, "seed": 0}


@pytest.mark.parametrize("measure", ["bd", "mbd"])
def test_the_distance_to_a_threshold_is_measured_in_standardised_units(measure):
    features = Features([Feature.continuous("alcohol", 8, 16)])
    strength = np.linspace(8, 16, 20)[:, None]
    teacher = TabularTeacher(lambda rows: (rows[:, 0] >= 12).astype(int), features, classes=2)
    rows = ImageSet.from_table(strength, features=features)

    labels = label(teacher, rows, LabelSettings(measure=measure, **BUDGETED))

    assert labels.decision.tolist() == (strength[:, 0] >= 12).astype(int).tolist()
    other = labels.distances[range(20), 1 - labels.decision]
    assert other.numpy() == pytest.approx(np.abs(strength[:, 0] - 12) / 8, abs=0.01)


@pytest.mark.parametrize("measure", ["sd", "bd", "mbd"])
def test_a_search_asks_about_valid_rows_only_and_spends_what_the_teacher_saw(measure):
    taster = Taster()

    labels = label(taster.teacher(), wines(), LabelSettings(measure=measure, **BUDGETED))

    assert is_valid(WINES, taster.rows)
    assert len(taster.rows) == labels.queries.sum()
    assert labels.decision.tolist() == wines().labels.tolist()
    assert ((labels.distances[range(60), 1 - labels.decision]) > 0).all()


def test_a_run_encodes_its_rows_as_it_did_at_first(tmp_path):
    def write(split, lower, upper):
        frame = wine_frame(40)
        frame["alcohol"] = frame["alcohol"].clip(lower, upper)
        frame.assign(label=Taster()(frame)).to_csv(tmp_path / f"{split}.csv", index=False)

    write("train", 10, 14)
    write("test", 9, 15)
    source = Source(str(tmp_path))
    features = source.load().features
    assert (features["alcohol"].lower, features["alcohol"].upper) == (9, 15)
    teacher = TabularTeacher(Taster(), features, classes=["fair", "good"])
    run = tmp_path.with_suffix(".run")
    write_run(run, teacher, source, LabelSettings(measure="sd", **BUDGETED))

    write("test", 10, 14)
    assert source.load().features != features
    assert open_run(run, str(tmp_path)).images.features == features


def test_rows_that_other_features_encoded_are_refused():
    frame = wine_frame(30)
    narrow = ImageSet.from_table(frame)
    taster = Taster()
    with pytest.raises(ValueError, match=r"expected rows .* of teacher taster, got others in tabl"):
        label(taster.teacher(), narrow, LabelSettings(measure="sd"))
    assert not taster.seen


def test_frequencies_of_rows_are_refused_before_a_query(tmp_path):
    taster, out = Taster(), tmp_path / "run"
    sign_opt = SignOptSettings(frequencies=5)
    with pytest.raises(ValueError, match=r"^frequencies: expected None, as .* shape \[5\]"):
        label(taster.teacher(), wines(), LabelSettings("mbd", sign_opt=sign_opt), out=out)
    assert not taster.seen and not out.exists()
    label(taster.teacher(), wines(), LabelSettings("sd", sign_opt=sign_opt))


def test_features_of_another_kind_are_no_features_of_a_table():
    teacher = FunctionTeacher(lambda rows: (rows[:, 0] > 0.5).astype(int), (5,), 2)
    teacher.features = ["a torch module calls its layers so"]
    labels = label(teacher, wines(), LabelSettings(measure="sd"))
    assert labels.queries.sum() == 60
