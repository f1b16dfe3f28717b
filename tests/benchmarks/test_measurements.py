"""What the benchmarks compute from their measurements."""

import argparse
import json
import subprocess
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("matplotlib")
pytest.importorskip("benchmarks.systems.growth", reason="benchmarks are not installed")

from teachers_analytic import NearestCentroidTeacher

import db3kd
from benchmarks.common import commit, record
from benchmarks.students import budgets
from benchmarks.students.compare import TrainingData, _methods, _training_data
from benchmarks.students.label_quality import logit_gaps, rank_correlation, runner_up_share
from benchmarks.students.many_classes import many_classes
from benchmarks.students.targets import _narrowed
from benchmarks.systems.growth import Cost, Point, Series, _measure
from db3kd.data.augmented_images import AugmentedImages
from db3kd.data.loading import load_data
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.labels import Labels
from db3kd.labels.soft_labels import with_soft_labels
from db3kd.models.networks import build_model
from db3kd.surrogates.queries import decide_augmented
from db3kd.training.evaluation import predict_logits
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings


def some_labels(distances: torch.Tensor, decision: torch.Tensor) -> Labels:
    return Labels(
        index=torch.arange(len(decision)),
        decision=decision,
        distances=distances,
        queries=torch.ones(distances.shape, dtype=torch.int64),
        status=["ok"] * len(decision),
    )


def test_the_exponent_of_a_power_law_is_found():
    series = Series("samples", "samples", [Point(samples=n) for n in (10, 100, 1000)])
    for number, point in enumerate(series.points):
        series.costs.append(Cost(3 * point.samples**1.5, 0, point.samples, 400, 100 * number + 1))

    assert series.exponent("seconds") == pytest.approx(1.5)
    assert series.exponent("queries", last=2) == pytest.approx(1)
    assert series.exponent("peak_mib") == pytest.approx(0, abs=1e-9)


def test_a_point_costs_what_its_budget_allows():
    point = Point(
        samples=40, labelled=8, classes=4, shape=(1, 5, 5), targets=2, threads=1, queries_per_pair=9
    )
    cost = _measure(point)

    assert 8 < cost.queries <= 8 * (1 + 2 * 9)
    assert 0 < cost.teacher_seconds < cost.seconds and cost.before_mib <= cost.peak_mib


def test_distances_that_order_classes_as_the_logits_do_correlate_fully():
    decision = torch.tensor([0, 2])
    logits = torch.tensor([[9.0, 1, 2, 3], [1, 2, 9, 3]])
    alike, opposed = some_labels(10 - logits, decision), some_labels(logits, decision)

    assert rank_correlation(alike, logits) == pytest.approx(1)
    assert rank_correlation(opposed, logits) == pytest.approx(-1)
    assert (runner_up_share(alike, logits), runner_up_share(opposed, logits)) == (1, 0)


def test_margins_of_the_white_box_at_scale_one_are_its_own_soft_labels():
    logits = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    labels = some_labels(torch.ones(20, 6), logits.argmax(1))

    made = with_soft_labels(logit_gaps(labels, logits), scale=1.0, temperature=4.0)

    torch.testing.assert_close(made.soft_labels, F.softmax(logits / 4, 1))


def test_labels_narrowed_from_a_full_run_are_those_of_a_run_with_fewer_targets():
    centroids = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(9))
    images = torch.rand(40, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    teacher = NearestCentroidTeacher(centroids, (1, 5, 5))
    sample_distances = label(teacher, images, LabelSettings("sd"))
    full = label(teacher, images, LabelSettings(queries_per_pair=60))

    narrowed = _narrowed(full, sample_distances, 2)

    few = label(teacher, images, LabelSettings(queries_per_pair=60, targets=2))
    for name in ("distances", "queries", "searched"):
        assert torch.equal(getattr(narrowed, name), getattr(few, name)), name


def test_each_row_of_a_student_has_its_cost_and_a_decision_counts_once():
    images = many_classes(4, 6, 0)
    everything = torch.arange(len(images))
    teacher = NearestCentroidTeacher(images.read(torch.arange(0, 24, 6)), (1, 28, 28))
    labels = {
        "SD": label(teacher, images, LabelSettings("sd")),
        "MBD": label(teacher, images, LabelSettings(queries_per_pair=20)),
    }
    student = partial(build_model, "lenet5-fifth", images.image_shape, images.classes)
    network = student()
    data = TrainingData(
        images,
        teacher.decide(images.read(everything)),
        decide_augmented(teacher, AugmentedImages(images, 5, seed=0)),
        labels,
        partial(predict_logits, network),
        predict_logits(network, images),
    )
    scales = dict.fromkeys(data.margins, 1.0)

    rows = list(_methods(student, data, scales, KDLoss(), TrainSettings(steps=1)))

    spent = labels["MBD"].queries.sum().item() / len(images)
    assert spent > 10
    assert {row.name: row.queries_per_sample for row in rows} == {
        "cross-entropy on decisions": 1,
        "cross-entropy on augmented decisions": 5,
        "white-box KD": None,
        "surrogate KD": 1,
        "noise logits": 1,
        "SD, margin": 1,
        "MBD, margin": spent,
        "white-box KD, margin": None,
        "MBD, margin, and augmented decisions": spent + 4,
        "MBD, inverse, T = 20 (the paper's)": spent,
    }


def test_with_a_surrogate_the_logits_are_still_those_of_the_teacher(tmp_path):
    network = build_model("lenet5", (1, 8, 8), 10).eval()
    options = argparse.Namespace(
        data="digits", labels=tmp_path, images=12, targets=1, queries_per_pair=[8],
        surrogate="lenet5-fifth", surrogate_queries=2, surrogate_queries_per_pair=8,
        steps=1, precision="no", augmented=2,
    )  # fmt: skip
    teacher = NearestCentroidTeacher(load_data("digits").read(range(10)), (1, 8, 8))

    data = _training_data(network, teacher, "digits", options)

    images = data.images.read(range(12))
    assert torch.equal(data.image_logits, predict_logits(network, images))
    assert list(data.labels) == ["SD", "BD", "MBD 8", "MBD 8, surrogate"]


def test_earlier_results_do_not_make_a_commit_dirty(tmp_path, monkeypatch):
    results, code = tmp_path / "benchmarks" / "results", tmp_path / "code.py"
    results.mkdir(parents=True)
    monkeypatch.setattr(commit, "ROOT", tmp_path)
    monkeypatch.delenv("DB3KD_COMMIT", raising=False)
    for file in (results / "old.json", code):
        file.write_text("1")
    author = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "Begin"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)

    (results / "old.json").write_text("2")
    clean = record.measured()["commit"]
    code.write_text("2")

    assert record.measured()["commit"] == f"{clean}-dirty" and not clean.endswith("dirty")
    monkeypatch.setattr(commit, "ROOT", tmp_path / "nowhere")
    assert record.measured()["commit"] == "unknown"
    monkeypatch.setenv("DB3KD_COMMIT", "abc")
    assert record.measured()["commit"] == "abc"


def test_a_row_that_a_result_has_is_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    options, measured = argparse.Namespace(save="rows"), []

    def fill(seeds, facts=None):
        def measure(seed):
            measured.append(seed)
            return None if seed == 1 else {"share": seed / 10}

        rows = (({"seed": seed}, partial(measure, seed)) for seed in seeds)
        record.measure_missing(options, {"steps": 5}, rows, facts)
        return json.loads((tmp_path / "rows.json").read_text())

    assert fill([0, 1])["rows"] == [{"seed": 0, "share": 0.0}]
    result = fill([0, 1, 2], {"data": "digits"})
    assert measured == [0, 1, 1, 2]
    assert result["rows"][1:] == [{"seed": 2, "share": 0.2}]
    assert [name for name in result if name != "measured"] == ["data", "steps", "rows"]


def test_generated_classes_have_equally_many_images_which_the_seed_changes():
    first, other = many_classes(7, 3, 0), many_classes(7, 3, 1)

    assert torch.bincount(first.labels).tolist() == [3] * 7
    assert first.image_shape == (1, 28, 28)
    assert not torch.equal(first.read([0]), other.read([0]))


def test_students_of_budgets_start_from_the_learning_rates_of_distill():
    training = budgets._training(argparse.Namespace(steps=30), 2)
    settings = db3kd.DistillSettings(training=training)
    usual = db3kd.DistillSettings()
    assert settings.learning_rates == usual.learning_rates
    assert settings.training == replace(usual.training, steps=30, seed=2, device="cpu")
