"""From a teacher alone to a student, end to end on tiny images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from teachers_analytic import ConstantTeacher, CountingTeacher, LinearTeacher, RaisingTeacher

from db3kd.distillation.training import TrainSettings
from db3kd.labelling.settings import LabelSettings
from db3kd.pipelines.zero_shot import (
    TransferSet,
    ZeroShotSettings,
    make_transfer_set,
    run_zero_shot,
)
from db3kd.synthesis.moves import Moves
from db3kd.synthesis.sample_run import SynthesisTotals
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.teachers import TeacherError, load_teacher

SHAPE = (1, 6, 6)


def linear(**options: object) -> LinearTeacher:
    """Three classes."""
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(3, 36, generator=generator, dtype=torch.float64)
    weights -= weights.mean(1, keepdim=True)
    return LinearTeacher(weights, torch.zeros(3), SHAPE, **options)


def plan(**changes: object) -> ZeroShotSettings:
    values = {
        "synthesis": SynthesisSettings(samples=120),
        "student": "linear",
        "training": TrainSettings(steps=60, batch_size=32, learning_rate=0.02, device="cpu"),
        "seeds": 2,
    }
    return ZeroShotSettings(**values | changes)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images of noise with the teacher's own classes: a file that `load_data` reads."""
    random = np.random.default_rng(0)
    images = random.random((150, 6, 6)).astype(np.float32)
    labels = linear().decide(torch.from_numpy(images)[:, None]).numpy()
    file = tmp_path_factory.mktemp("real") / "real.npz"
    np.savez(file, x_train=images[:60], y_train=labels[:60], x_test=images[60:], y_test=labels[60:])
    return str(file)


# The whole way


def test_the_whole_way_ends_in_students_and_a_report(tmp_path, real):
    teacher = CountingTeacher(linear())
    synthesis = SynthesisSettings(
        samples=120, moves=Moves(count=2, queries_per_sample=80), snapshots=(0, 1)
    )

    result = run_zero_shot(
        teacher,
        tmp_path / "out",
        plan(synthesis=synthesis, labelling=LabelSettings("bd", queries_per_pair=10)),
        test=real,
    )

    names = [row.name for row in result.rows]
    assert names == [
        "pseudo samples, bd soft labels",
        "pseudo samples, decisions",
        "the first 10% of them",
        "the first 30% of them",
        "plain noise, decisions",
        "real images, decisions",
    ]
    rows = dict(zip(names, result.rows, strict=True))
    assert [row.images for row in result.rows] == [120, 120, 12, 36, 120, 60]
    assert rows["pseudo samples, decisions"].queries == result.totals.queries
    spent = rows["pseudo samples, bd soft labels"].queries
    about_test_images = 90
    assert teacher.total == spent + 120 + 60 + about_test_images
    assert all(len(row.accuracies) == len(row.agreements) == 2 for row in result.rows)
    assert max(rows["pseudo samples, decisions"].accuracies) > 0.6
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {
        "pseudo-samples",
        "labels",
        "student-seed0.safetensors",
        "student-seed1.safetensors",
        "report.md",
        "classes.png",
        "moves.png",
        "distance.png",
        "accuracy.png",
    }
    page = result.report.read_text()
    assert all(f"| {name} |" in page for name in names)
    assert all(f"({file})" in page for file in files if file.endswith(".png"))


def test_students_are_kept_as_they_were_measured(tmp_path, real):
    result = run_zero_shot(linear(), tmp_path / "out", plan(), test=real)

    student = load_teacher(str(tmp_path / "out" / "student-seed1.safetensors"), device="cpu")
    with np.load(real) as data:
        images, labels = torch.from_numpy(data["x_test"])[:, None], data["y_test"]
    accuracy = (student.decide(images).numpy() == labels).mean()
    assert accuracy == pytest.approx(result.rows[0].accuracies[1])


def test_without_test_images_there_are_students_and_pictures_but_no_table(tmp_path):
    teacher = CountingTeacher(linear())

    result = run_zero_shot(teacher, tmp_path / "out", plan())

    assert result.rows == [] and teacher.total == result.totals.queries
    assert (tmp_path / "out" / "student-seed0.safetensors").is_file()
    assert "| students of |" not in result.report.read_text()


def test_a_run_that_was_stopped_goes_on(tmp_path):
    settings = plan(labelling=LabelSettings("bd", queries_per_pair=10), seeds=1)
    whole = CountingTeacher(linear())
    expected = make_transfer_set(whole, tmp_path / "whole", settings)
    paid = CountingTeacher(linear())
    for more in (50, 700):  # while starts are asked, and while they are labelled
        with pytest.raises(TeacherError, match="the line is dead"):
            make_transfer_set(RaisingTeacher(paid, more), tmp_path / "run", settings, resume=True)

    made = make_transfer_set(paid, tmp_path / "run", settings, resume=True)

    assert torch.equal(made.samples.pixels, expected.samples.pixels)
    assert torch.equal(made.labels.labels.distances, expected.labels.labels.distances)
    assert paid.total == whole.total


def test_plain_noise_of_one_class_is_a_row_too(tmp_path, real):
    teacher = linear()
    teacher.bias[0] = 1.5  # pixel noise has no contrast to overcome it

    result = run_zero_shot(teacher, tmp_path / "out", plan(seeds=1), test=real)

    assert "plain noise, decisions" in [row.name for row in result.rows]


def test_unreached_classes_are_named_in_the_report(tmp_path):
    teacher = linear()
    teacher.classes = 5

    result = run_zero_shot(teacher, tmp_path / "out", plan(seeds=1))

    assert "No image was found for the classes 3, 4." in result.report.read_text()


# What does not fit is found before anything is paid for


def test_bounds_that_students_do_not_take_are_refused(tmp_path):
    teacher = CountingTeacher(linear(bounds=(-1.0, 3.0)))

    with pytest.raises(ValueError, match=r"got \[-1, 3\].*RescaledTeacher\(teacher\)"):
        run_zero_shot(teacher, tmp_path / "out", plan())
    assert teacher.total == 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "test", "words"),
    [
        ({"student": "lenet6"}, None, "model: expected one of"),
        ({"student": "alexnet-half"}, None, "image_shape: AlexNet needs at least 8x8"),
        ({}, "nothing", "data: expected mnist5k"),
        ({}, "digits", r"test: expected images of shape \(1, 6, 6\) as teacher .* got \(1, 8, 8\)"),
    ],
)
def test_what_does_not_fit_is_named_before_a_query(tmp_path, changes, test, words):
    teacher = CountingTeacher(linear())

    with pytest.raises(ValueError, match=words):
        run_zero_shot(teacher, tmp_path / "out", plan(**changes), test=test)
    assert teacher.total == 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.full(10, 7), r"test: expected labels in \[0, 3\) as teacher .* 3 classes, got 7"),
        (None, "test: expected labels to measure students by, got none"),
    ],
)
def test_test_labels_must_be_the_teachers(tmp_path, labels, words):
    images = np.zeros((10, 6, 6), np.uint8)
    names = {"y_train": labels, "y_test": labels} if labels is not None else {}
    np.savez(tmp_path / "real.npz", x_train=images, x_test=images, **names)

    with pytest.raises(ValueError, match=words):
        run_zero_shot(linear(), tmp_path / "out", plan(), test=str(tmp_path / "real.npz"))


def test_a_teacher_that_is_constant_on_noise_ends_the_run(tmp_path):
    with pytest.raises(TeacherError, match="expected at least two classes"):
        run_zero_shot(ConstantTeacher(1, SHAPE, 3), tmp_path / "out", plan())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": TrainSettings(epochs=2)}, "training: expected a number of steps"),
        ({"balance": 1.5}, r"balance: expected a number in \[0, 1\], got 1.5"),
        ({"seeds": 0}, "seeds: expected at least 1, got 0"),
        ({"shares": (0.5, 1.0)}, r"shares: expected numbers in \(0, 1\), got 1.0"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        plan(**changes)


def test_a_transfer_set_without_labels_has_none(tmp_path: Path):
    made = make_transfer_set(linear(), tmp_path, plan())

    assert isinstance(made, TransferSet) and made.labels is None
    assert isinstance(made.totals, SynthesisTotals) and len(made.samples) == 120
