"""A surrogate that a run trains itself, against a plane whose distances are known."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from label_runs import write_run
from teachers_analytic import CountingTeacher, LinearTeacher, RaisingTeacher
from torch import nn

import db3kd
from db3kd.labelling import RunExecution, Source
from db3kd.labelling.runs import run_surrogate
from db3kd.labelling.runs.planned_run import plan_source_run
from db3kd.labelling.runs.run_surrogate import WEIGHTS
from db3kd.labelling.runs.totals import queries_of_surrogate
from db3kd.models import save_model
from db3kd.storage.choice_log import ChoiceLog, choice_files
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import TeacherError, load_teacher

pytest.importorskip("pyarrow")

SHAPE, IMAGES, EACH = (1, 8, 8), 40, 100
BUDGET, TRAINING = IMAGES * (1 + EACH), 2_000
SETTINGS = db3kd.LabelSettings(queries=BUDGET)
TRAINED = db3kd.TrainSettings(steps=100, learning_rate=0.03, device="cpu")
AUTO = db3kd.AutoSurrogate("linear", networks=1, training=TRAINED)


def plane(**options) -> LinearTeacher:
    """Two classes on both sides of a plane through the middle of the box."""
    normal = torch.randn(64, generator=torch.Generator().manual_seed(0))
    weights = torch.stack([torch.zeros(64), normal])
    return LinearTeacher(
        weights, torch.tensor([0.0, -normal.sum() / 2]), SHAPE, max_batch=32, **options
    )


def images() -> torch.Tensor:
    return torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(1))


def label(folder, teacher, *, resume=False, surrogate=AUTO, settings=SETTINGS) -> db3kd.Labels:
    return db3kd.label(
        teacher, images(), settings, surrogate=surrogate, out=folder, resume=resume, progress=False
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[db3kd.Labels, CountingTeacher, Path]:
    """An undisturbed run, and its teacher."""
    folder, teacher = tmp_path_factory.mktemp("whole") / "run", CountingTeacher(plane())
    return label(folder, teacher), teacher, folder


def test_both_parts_spend_exactly_what_they_say_and_at_most_the_budget(whole):
    labels, teacher, folder = whole
    manifest = read_manifest(folder)

    assert queries_of_surrogate(manifest) == TRAINING
    assert manifest["totals"]["queries"] == int(labels.queries.sum())
    assert manifest["totals"]["surrogate_queries"] == TRAINING
    assert teacher.total == int(labels.queries.sum()) + TRAINING <= BUDGET
    assert manifest["settings"]["surrogate"]["queries"] == TRAINING
    assert manifest["settings"]["labelling"]["queries"] == BUDGET - TRAINING


def test_labels_are_nearer_the_plane_than_those_of_the_same_budget_alone(whole, tmp_path):
    labels, _, _ = whole
    distances = torch.stack([plane().distance(images(), target) for target in (0, 1)], 1)
    rows = torch.arange(IMAGES)
    teacher = CountingTeacher(plane())

    alone = label(tmp_path / "run", teacher, surrogate=None)

    near, far = (
        each.distances[rows, 1 - each.decision] / distances[rows, 1 - each.decision]
        for each in (labels, alone)
    )
    assert teacher.total <= BUDGET
    assert (near > 1 - 1e-5).all()
    assert near.mean() - 1 < (far.mean() - 1) / 2


@pytest.mark.parametrize(
    "answered", [35, IMAGES + 700, IMAGES + 1_150, IMAGES + 1_850, IMAGES + TRAINING + 400]
)
def test_a_run_that_fails_in_any_part_continues_and_pays_nothing_twice(
    whole, tmp_path, monkeypatch, answered
):
    counting = CountingTeacher(plane())
    with pytest.raises(TeacherError):
        label(tmp_path / "run", RaisingTeacher(counting, answered))
    before = counting.total
    if answered > IMAGES + TRAINING:
        monkeypatch.setattr(run_surrogate, "train_surrogate", None)  # it is trained already

    labels = label(tmp_path / "run", counting, resume=True)

    expected, undisturbed, folder = whole
    assert 0 < before <= answered
    assert counting.total == undisturbed.total
    assert torch.equal(labels.distances, expected.distances)
    assert read_manifest(tmp_path / "run")["totals"] == read_manifest(folder)["totals"]


def test_a_run_that_stops_while_it_trains_or_keeps_the_weights_asks_nothing_again(
    whole, tmp_path, monkeypatch
):
    counting = CountingTeacher(plane())

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    def stop(name: str, of: object = run_surrogate) -> None:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(of, name, interrupted)
            label(tmp_path / "run", counting, resume=True)

    (tmp_path / "run").mkdir()
    stop("train_surrogate")
    assert counting.total == IMAGES + TRAINING // 2, "it trains before it chooses points"
    for name in ("save_surrogate", "train_surrogate", "save_surrogate"):
        stop(name)
        assert counting.total == IMAGES + TRAINING
    stop("empty", ChoiceLog)

    labels = label(tmp_path / "run", counting, resume=True)

    assert torch.equal(labels.distances, whole[0].distances)
    assert counting.total == whole[1].total
    points = choice_files(tmp_path / "run")
    assert points and not any(file.stat().st_size for file in points)


def test_a_run_searches_only_with_the_weights_that_it_began_with(tmp_path):
    counting = CountingTeacher(plane())
    with pytest.raises(TeacherError):
        label(tmp_path / "run", RaisingTeacher(counting, IMAGES + TRAINING + 400))
    file, before = tmp_path / "run" / WEIGHTS, counting.total
    kept = file.read_bytes()

    file.unlink()
    with pytest.raises(ValueError, match="weights of the run's surrogate are missing; restore"):
        label(tmp_path / "run", counting, resume=True)
    network = db3kd.build_model("linear", SHAPE, 2)
    save_model(file, network, model="linear", image_shape=SHAPE, classes=2)
    with pytest.raises(ValueError, match="expected the weights that the run began with"):
        label(tmp_path / "run", counting, resume=True)
    refused = r"different run: settings\.{}; pass"
    for other, words in (
        (replace(AUTO, networks=2), r"surrogate\.networks: was 1, is 2 \(networks=\)"),
        (None, r"surrogate: was \{.*, is null \(surrogate=\)"),
    ):
        with pytest.raises(ValueError, match=refused.format(words)):
            label(tmp_path / "run", counting, resume=True, surrogate=other)
    assert counting.total == before
    file.write_bytes(kept)
    label(tmp_path / "run", counting, resume=True)


def test_the_weights_are_a_teacher_file_that_agrees_with_the_teacher(whole):
    decided = load_teacher(whole[2] / WEIGHTS).decide(images())

    assert (decided == plane().decide(images())).double().mean() > 0.9


def test_too_small_a_budget_labels_without_a_surrogate(tmp_path):
    small = replace(SETTINGS, queries=IMAGES * 30)

    labels = label(tmp_path / "run", plane(), settings=small)

    alone = label(tmp_path / "alone", plane(), settings=small, surrogate=None)
    assert torch.equal(labels.distances, alone.distances)
    assert not (tmp_path / "run" / WEIGHTS).exists()
    assert "surrogate" not in read_manifest(tmp_path / "run")["settings"]


def test_a_run_on_disk_counts_its_checks_beside_both_parts(tmp_path):
    def write(folder, asked, checks=0):
        return write_run(
            folder, asked, Source("digits"), db3kd.LabelSettings(queries=16_000), limit=60,
            surrogate=AUTO, resume=checks > 0, execution=RunExecution(consistency_checks=checks),
        )  # fmt: skip

    stopped = CountingTeacher(digits_teacher())
    with pytest.raises(TeacherError):
        write(tmp_path / "stopped", RaisingTeacher(stopped, 2_500))
    continued = write(tmp_path / "stopped", stopped, checks=20)
    teacher = CountingTeacher(digits_teacher())
    totals = write(tmp_path / "run", teacher)

    assert vars(continued) == vars(totals) | {"check_queries": 20}
    manifest = read_manifest(tmp_path / "run")
    assert totals.surrogate_queries == queries_of_surrogate(manifest) > 2_000
    assert teacher.total == totals.queries + totals.surrogate_queries <= 16_000
    assert stopped.total == teacher.total + 20


def digits_teacher() -> LinearTeacher:
    weights = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    return LinearTeacher(weights, -weights.sum(1) / 4, SHAPE)


def test_a_plan_states_the_decision_before_anything_is_spent(tmp_path):
    teacher = CountingTeacher(digits_teacher())

    def plan(queries):
        settings = db3kd.LabelSettings(queries=queries)
        return plan_source_run(
            tmp_path / "run", teacher, Source("digits"), settings, limit=60, surrogate=AUTO
        )

    large, small = plan(16_000), plan(2_000)

    assert large.max_queries == 16_000 and large.surrogate.plan.queries > 2_000
    assert "and a surrogate than with 30 alone" in large.surrogate.plan.why
    assert small.max_queries == 2_000 and small.surrogate.plan.queries == 0
    assert "too many of 1,940 for 540 pairs" in small.surrogate.plan.why
    assert teacher.total == 0 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("surrogate", "settings", "teacher", "out", "error"),
    [
        (AUTO, db3kd.LabelSettings("bd"), plane(), True, "expected one only with measure 'mbd'"),
        (AUTO, SETTINGS, plane(), False, "surrogate: a surrogate that the run trains needs out="),
        (AUTO, SETTINGS, plane(bounds=(-1.0, 1.0)), True, "takes images in [0, 1], got"),
        (replace(AUTO, model="none"), SETTINGS, plane(), True, "model: expected one of"),
        ("auto", SETTINGS, plane(), True, "torch.nn.Module or db3kd.AutoSurrogate(), got 'auto'"),
    ],
)
def test_a_run_that_cannot_train_a_surrogate_is_refused_before_a_query(
    tmp_path, surrogate, settings, teacher, out, error
):
    counting = CountingTeacher(teacher)

    with pytest.raises((ValueError, TypeError), match=re.escape(error)):
        db3kd.label(
            counting, images() * 2 - 1 if teacher.bounds[0] < 0 else images(), settings,
            surrogate=surrogate, out=tmp_path / "run" if out else None,
        )  # fmt: skip

    assert counting.total == 0
    assert not (tmp_path / "run").exists()


def test_resuming_with_another_surrogate_names_only_this_argument(whole):
    _, teacher, folder = whole
    spent, network = teacher.total, nn.Sequential(nn.Flatten(), nn.Linear(64, 2))

    with pytest.raises(ValueError, match=r"surrogate: was {.*, is ") as caught:
        label(folder, teacher, surrogate=network, resume=True)

    assert str(caught.value).count(": was") == 1 and "(surrogate=)" in str(caught.value)
    assert teacher.total == spent


def test_another_plan_does_not_blame_the_surrogate(whole):
    _, teacher, folder = whole
    other = replace(SETTINGS, queries_per_pair=90)

    with pytest.raises(ValueError, match=r"queries_per_pair: was \d+, is 90") as caught:
        label(folder, teacher, settings=other, resume=True)

    assert "(surrogate=)" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"networks": 0}, {"training": db3kd.TrainSettings(epochs=3)}])
def test_training_settings_are_checked(wrong):
    with pytest.raises(ValueError, match="expected"):
        replace(AUTO, **wrong)
