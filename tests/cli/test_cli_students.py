"""The commands that train students, measure them and write reports of label runs."""

import json
import re
from pathlib import Path

import pytest
from command_line import (
    fail,
    label,
    succeed,
)

from db3kd.labels.label_files import load_labels
from db3kd.storage.manifest import read_manifest


def test_distill_chooses_a_scale_and_evaluate_loads_the_student(run, teacher, tmp_path):
    student = tmp_path / "student.safetensors"
    options = ("--model", "linear", "--steps", 30, "--seeds", 2, "--device", "cpu")

    out = succeed("distill", "--labels", run, "--out", student, *options)

    assert "on labelled images that each run left out): " in out and "over 2 seeds" in out
    assert "student-seed1.safetensors: accuracy " in out and "mean accuracy " in out
    assert not student.exists(), "with several seeds, each file name contains its seed"
    one = student.with_stem("student-seed1")
    out = succeed("evaluate", "--model", one, "--data", "digits", "--agree-with", teacher)
    assert "accuracy" in out and "agreement" in out and "queries    359" in out
    described = json.loads(one.with_suffix(".json").read_text())
    labelled = read_manifest(run)
    assert described["seed"] == 1 and described["settings"]["scale"] > 0
    assert (described["teacher"], described["data"]) == (labelled["teacher"], labelled["data"])
    assert described["queries"] == labelled["totals"]["queries"]
    assert json.loads(teacher.with_suffix(".json").read_text())["teacher"] == labelled["teacher"]


@pytest.mark.parametrize(("rate", "steps", "useless"), [(1e-12, 1, True), (1e-2, 200, False)])
def test_a_student_that_learned_nothing_is_warned_of(run, tmp_path, rate, steps, useless):
    where = ("--labels", run, "--out", tmp_path / "s.safetensors", "--scale", 3)
    options = ("--student", "linear", "--device", "cpu", "--learning-rate", rate, "--steps", steps)

    out = succeed("distill", *where, *options)

    warnings = [line for line in out.splitlines() if line.startswith("warning")]
    assert len(warnings) == useless
    most = int(load_labels(run).decision.bincount().max())
    for line in warnings:
        assert "of 40 images that it was trained on. Always answering with class" in line
        assert f"would agree on {most} of them, so the student has learned nothing" in line


def test_a_run_with_soft_labels_is_distilled_with_its_scale(teacher, tmp_path):
    label(teacher, tmp_path / "run", "--scale", 3, "--queries-per-pair", 10)
    options = ("--model", "linear", "--steps", 5, "--device", "cpu")

    out = succeed(
        "distill", "--labels", tmp_path / "run", "--out", tmp_path / "s.safetensors", *options
    )

    assert "chosen" not in out
    assert load_labels(tmp_path / "run").soft_labels is not None


def test_a_student_is_trained_with_the_paper_preset(run, tmp_path):
    options = ("--preset", "paper", "--epochs", 2, "--model", "linear", "--device", "cpu")

    out = succeed("distill", "--labels", run, "--out", tmp_path / "s.safetensors", *options)

    assert "scale" not in out and (tmp_path / "s.safetensors").is_file()


def test_images_that_were_not_labelled_are_refused(run, tmp_path):
    message = fail(
        "distill", "--labels", run, "--data", "mnist5k", "--out", tmp_path / "s.safetensors"
    )

    assert "expected the data that" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--scale", "large"), "--scale: expected a number or auto"),
        (("--scale", "nan"), "error: --scale: expected a finite number above 0 or auto, got nan"),
        (("--scale", "0"), "error: --scale: expected a finite number above 0 or auto, got 0.0"),
        (("--temperature", "nan"), "error: --temperature: expected a finite number above 0"),
        (("--alpha", "2"), "error: --alpha: expected a number in [0, 1], got 2.0"),
        (("--normalisation", "inverse", "--scale", "2"), "inverse has no scale"),
        (("--steps", "5", "--epochs", "5"), "expected --epochs or --steps, got both"),
        (("--preset", "paper", "--alpha", "0.1"), "--preset: paper sets --normalisation"),
        (("--student", "lenet6"), "--student: expected one of"),
    ],
)
def test_contradictory_training_options_are_refused(run, tmp_path, options, words):
    out = tmp_path / "s.safetensors"

    assert words in fail("distill", "--labels", run, "--out", out, *options)
    assert not out.exists()


@pytest.mark.parametrize("command", ["teacher", "distill"])
def test_weights_are_never_overwritten(command, run, teacher):
    before = teacher.read_bytes()
    source = ("--labels", run) if command == "distill" else ("--data", "digits")

    assert "already exists" in fail(command, *source, "--out", teacher)
    assert teacher.read_bytes() == before


def test_the_report_of_a_run_has_pictures(run, tmp_path):
    succeed("report", "--labels", run, "--out", tmp_path / "report")

    names = {file.name for file in (tmp_path / "report").iterdir()}
    assert names == {"report.md", "samples.png", "distance_curve.png", "class_distances.png"}
    page = (tmp_path / "report" / "report.md").read_text()
    assert "40 samples labelled by BD" in page and "is an upper bound of the true one" in page
    frame = load_labels(run).to_pandas()
    listed = re.findall(r"^\| row (\d+) \| (\d) \| (\d) (\S+),", page, re.MULTILINE)
    assert len(listed) == 12
    for index, decision, nearest, distance in listed:
        row = frame[frame["index"] == int(index)].iloc[0]
        assert (int(decision), int(nearest)) == (row["decision"], row["nearest_class"])
        assert float(distance) == pytest.approx(row["nearest_distance"], rel=6e-3)


@pytest.mark.parametrize("options", [("--measure", "sd"), ("--queries-per-pair", 20)])
def test_a_run_of_one_number_of_queries_has_no_curve(teacher, tmp_path, options):
    label(teacher, tmp_path / "run", *options)

    page = Path(succeed("report", "--labels", tmp_path / "run").strip()).read_text()

    assert not (tmp_path / "run" / "_report" / "distance_curve.png").exists()
    assert "Distance against queries" not in page
    assert ("db3kd label --snapshots 10,100" in page) == (options[0] != "--measure")


def test_the_run_of_a_report_is_an_argument_or_an_option(run, tmp_path):
    succeed("report", run, "--out", tmp_path / "report")

    assert "40 samples labelled" in (tmp_path / "report" / "report.md").read_text()
    both = fail("report", run, "--labels", run, "--out", tmp_path / "other")
    assert f"--labels: expected one run folder, got {run} and {run}" in both
    assert "--labels: expected a run folder, such as db3kd report runs/bd" in fail("report")


def test_a_run_that_has_its_report_is_answered_with_it(tmp_path):
    page = tmp_path / "report.html"
    page.touch()
    message = fail("report", tmp_path)
    assert f"got {tmp_path}, whose command has written a report: {page}" in message


def test_pseudo_samples_have_no_report_and_are_read_in_python(tmp_path):
    (tmp_path / "pseudo-samples-0000000000-00000000.parquet").touch()
    assert f"read them in Python: db3kd.load_pseudo_samples('{tmp_path}')" in fail(
        "report", tmp_path
    )


def test_a_run_without_reached_pairs_has_a_report(teacher, tmp_path):
    label(teacher, tmp_path / "run", "--budget", 1)

    succeed("report", "--labels", tmp_path / "run")

    page = (tmp_path / "run" / "_report" / "report.md").read_text()
    assert "Pairs reached: 0 of " in page and "Mean distance: no class was reached." in page
    assert "39 budget, 1 unreached." in page and "\n1 query, " in page


def test_a_report_counts_the_pairs_of_decided_samples_only(teacher, tmp_path, monkeypatch):
    label(teacher, tmp_path / "run", "--budget", 20)
    titles = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda _, text, **__: titles.append(text))

    succeed("report", "--labels", tmp_path / "run")

    assert " of 180 pairs not reached" in titles[-1], "20 samples are decided, of 10 classes"


def test_a_student_is_trained_and_logged_as_asked_for(run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ("--model", "linear", "--scale", 2, "--steps", 20, "--device", "cpu")
    how = ("--optimizer", "adamw", "--schedule", "cosine", "--weight-decay", 0.01, "--ema", 0.9)
    student = tmp_path / "s.safetensors"

    succeed(
        "distill", "--labels", run, "--out", student, *options, *how, "--tracker", "tensorboard"
    )

    described = json.loads(student.with_suffix(".json").read_text())
    settings = described["settings"]["plan"]["settings"]
    assert (settings["optimizer"], settings["schedule"]) == ("adamw", "cosine")
    assert (settings["weight_decay"], settings["ema"]) == (0.01, 0.9)
    logged = EventAccumulator(str(tmp_path / "logs" / "s")).Reload()
    assert len(logged.Scalars("loss")) == 20


def test_a_folder_of_logs_needs_a_tracker(run, tmp_path):
    message = fail(
        "distill", "--labels", run, "--out", tmp_path / "s.safetensors", "--tracker-dir", tmp_path
    )
    assert "--tracker-dir: needs --tracker tensorboard" in message
