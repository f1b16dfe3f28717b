"""The zero-shot pipeline, end to end on tiny images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from teachers_analytic import ConstantTeacher, CountingTeacher, LinearTeacher, RaisingTeacher

import db3kd
from db3kd.labelling.settings import LabelSettings
from db3kd.pipelines import (
    DemoSettings,
    TransferSet,
    ZeroShotSettings,
    make_transfer_set,
    run_demo,
    run_zero_shot,
)
from db3kd.synthesis.moves import Moves
from db3kd.synthesis.sample_run import SynthesisTotals
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.teachers import TeacherError, load_teacher
from db3kd.training.settings import TrainSettings

SHAPE = (1, 6, 6)


def linear(**options: object) -> LinearTeacher:
    """Returns a linear teacher of three classes."""
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(3, 36, generator=generator, dtype=torch.float64)
    weights -= weights.mean(1, keepdim=True)
    return LinearTeacher(weights, torch.zeros(3), SHAPE, **options)


def quick_settings(**changes: object) -> ZeroShotSettings:
    values = {
        "synthesis": SynthesisSettings(samples=120),
        "student": "linear",
        "training": TrainSettings(steps=60, batch_size=32, learning_rate=0.02, device="cpu"),
        "seeds": 2,
    }
    return ZeroShotSettings(**values | changes)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a file of noise images, labelled by the teacher, that `load_data` reads."""
    random = np.random.default_rng(0)
    images = random.random((150, 6, 6)).astype(np.float32)
    labels = linear().decide(torch.from_numpy(images)[:, None]).numpy()
    file = tmp_path_factory.mktemp("real") / "real.npz"
    np.savez(file, x_train=images[:60], y_train=labels[:60], x_test=images[60:], y_test=labels[60:])
    return str(file)


# Whole runs


def test_a_run_ends_with_students_and_a_report(tmp_path, real):
    teacher = CountingTeacher(linear())
    synthesis = SynthesisSettings(
        samples=120, moves=Moves(count=2, queries_per_sample=80), snapshots=(0, 1)
    )

    result = run_zero_shot(
        teacher,
        tmp_path / "out",
        quick_settings(synthesis=synthesis, labelling=LabelSettings("bd", queries_per_pair=10)),
        test=real,
    )

    names = [row.name for row in result.rows]
    assert names == [
        "pseudo samples, BD soft labels",
        "pseudo samples, decisions",
        "first 10% of the pseudo samples",
        "first 30% of the pseudo samples",
        "plain noise, decisions",
        "real images, decisions",
    ]
    rows = dict(zip(names, result.rows, strict=True))
    assert [row.images for row in result.rows] == [120, 120, 12, 36, 120, 60]
    assert rows["pseudo samples, decisions"].queries == result.totals.queries
    spent = rows["pseudo samples, BD soft labels"].queries
    about_test_images = 90
    assert teacher.total == spent + 120 + 60 + about_test_images
    assert result.queries == teacher.total
    assert all(len(row.accuracies) == len(row.agreements) == 2 for row in result.rows)
    assert max(rows["pseudo samples, decisions"].accuracies) > 0.6
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {
        "pseudo-samples",
        "labels",
        "noise-decisions",
        "real-decisions",
        "test-decisions",
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
    labels = spent - result.totals.queries
    assert (
        f"The whole run asked {teacher.total:,} queries: {result.totals.queries:,} for pseudo "
        f"samples, {labels:,} for their labels, 120 for plain noise, 60 for real images, 90 for "
        "test images."
    ) in page


def test_the_saved_students_are_those_that_were_measured(tmp_path, real):
    result = run_zero_shot(linear(), tmp_path / "out", quick_settings(), test=real)

    student = load_teacher(str(tmp_path / "out" / "student-seed1.safetensors"), device="cpu")
    with np.load(real) as data:
        images, labels = torch.from_numpy(data["x_test"])[:, None], data["y_test"]
    accuracy = (student.decide(images).numpy() == labels).mean()
    assert accuracy == pytest.approx(result.rows[0].accuracies[1])


def test_without_test_images_the_report_has_no_table(tmp_path):
    teacher = CountingTeacher(linear())

    result = run_zero_shot(teacher, tmp_path / "out", quick_settings())

    assert result.rows == [] and teacher.total == result.totals.queries == result.queries
    queries = f"{result.totals.queries:,} queries"
    assert repr(result).startswith(f"ZeroShotResult(120 pseudo samples, {queries}, 0 rows; ")
    assert (tmp_path / "out" / "student-seed0.safetensors").is_file()
    assert "| students of |" not in result.report.read_text()


def test_an_interrupted_run_is_resumed_without_paying_twice(tmp_path):
    settings = quick_settings(labelling=LabelSettings("bd", queries_per_pair=10), seeds=1)
    whole = CountingTeacher(linear())
    expected = make_transfer_set(whole, tmp_path / "whole", settings)
    teacher = CountingTeacher(linear())
    for queries in (50, 700):  # fails while starts are asked, then while they are labelled
        with pytest.raises(TeacherError, match="the line is dead"):
            make_transfer_set(
                RaisingTeacher(teacher, queries), tmp_path / "run", settings, resume=True
            )

    transfer = make_transfer_set(teacher, tmp_path / "run", settings, resume=True)

    assert torch.equal(transfer.samples.pixels, expected.samples.pixels)
    assert torch.equal(transfer.label_run.labels.distances, expected.label_run.labels.distances)
    assert teacher.total == whole.total


PHASES = ("pseudo samples", "labels", "plain noise", "real images", "test images")


def interrupted_settings() -> ZeroShotSettings:
    """Little training, because each row has to be the same after any."""
    training = TrainSettings(steps=5, batch_size=32, learning_rate=0.02, device="cpu")
    labelling = LabelSettings("bd", queries_per_pair=10)
    return quick_settings(training=training, labelling=labelling, seeds=1, shares=())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, real):
    """Returns the result of a run without an interruption, and the queries before each phase."""
    teacher = CountingTeacher(linear(max_batch=16))
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    result = run_zero_shot(teacher, out, interrupted_settings(), test=real)
    assert result.queries == teacher.total
    samples, labels = result.totals.queries, result.rows[0].queries
    before = (0, samples, labels, labels + 120, labels + 180)
    assert labels + 180 + 90 == teacher.total
    return result, dict(zip(PHASES, before, strict=True))


@pytest.mark.parametrize("paid", [False, True], ids=["refused", "lost"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_run_interrupted_in_any_phase_pays_for_no_answer_twice(
    tmp_path, real, undisturbed, phase, paid
):
    whole, before = undisturbed
    teacher = CountingTeacher(linear(max_batch=16))
    left = before[phase] + 40
    # The call that fails either was not answered, or was paid for and its answers are lost.
    if paid:
        failing = CountingTeacher(RaisingTeacher(teacher, left, KeyboardInterrupt()))
    else:
        failing = RaisingTeacher(teacher, left, KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        run_zero_shot(failing, tmp_path / "out", interrupted_settings(), test=real)
    assert before[phase] < teacher.total <= left
    lost = failing.total - teacher.total if paid else 0
    result = run_zero_shot(
        teacher, tmp_path / "out", interrupted_settings(), test=real, resume=True
    )

    assert teacher.total == whole.queries
    assert lost == (16 if paid else 0), "one call was paid for, and its answers are lost"
    assert result.queries == whole.queries
    assert result.rows == whole.rows


def test_a_run_interrupted_in_training_asks_nothing_when_it_is_resumed(
    tmp_path, real, undisturbed, monkeypatch
):
    whole, _ = undisturbed
    teacher = CountingTeacher(linear(max_batch=16))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("db3kd.pipelines.zero_shot.students.compare_methods", interrupt)
        run_zero_shot(teacher, tmp_path / "out", interrupted_settings(), test=real)
    assert teacher.total == whole.queries
    for _ in range(2):  # unfinished, then finished
        result = run_zero_shot(
            teacher, tmp_path / "out", interrupted_settings(), test=real, resume=True
        )
        assert result.rows == whole.rows
    assert teacher.total == whole.queries


def test_a_run_can_be_measured_later_but_not_on_other_test_images(tmp_path, real):
    teacher, settings = CountingTeacher(linear()), quick_settings(seeds=1, shares=())
    out = tmp_path / "out"
    run_zero_shot(teacher, out, settings)

    result = run_zero_shot(teacher, out, settings, test=real, resume=True)

    assert result.queries == teacher.total
    with np.load(real) as data:
        np.savez(tmp_path / "other.npz", **{**data, "x_test": 1 - data["x_test"]})
    with pytest.raises(ValueError, match="test-decisions: holds a different run"):
        run_zero_shot(teacher, out, settings, test=str(tmp_path / "other.npz"), resume=True)
    assert result.queries == teacher.total


def test_a_measured_run_is_resumed_with_its_test_images(tmp_path, real):
    teacher, settings = CountingTeacher(linear()), quick_settings(seeds=1, shares=())
    out = tmp_path / "out"
    result = run_zero_shot(teacher, out, settings, test=real)
    report = result.report.read_text()

    with pytest.raises(ValueError, match=r"test: expected the images that the run in .*, got None"):
        run_zero_shot(teacher, out, settings, resume=True)
    assert result.report.read_text() == report and teacher.total == result.queries


@pytest.mark.parametrize("resume", [False, True])
def test_the_folder_of_another_run_is_refused(resume, tmp_path):
    out, counting = tmp_path / "out", CountingTeacher(linear())
    db3kd.distill(
        linear(), torch.rand(40, *SHAPE), budget=60, student="linear", out=out,
        settings=db3kd.DistillSettings(training=quick_settings().training, proxies=0),
    )  # fmt: skip
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}

    with pytest.raises(FileExistsError, match="run of db3kd zero-shot, got a run of db3kd distill"):
        run_zero_shot(counting, out, quick_settings(), resume=resume)
    with pytest.raises(FileExistsError, match="already holds a run"):
        run_demo(DemoSettings.quick(), out)
    assert counting.total == 0
    assert before == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}


def test_a_folder_with_files_of_the_user_is_refused(tmp_path):
    (tmp_path / "report.md").write_text("mine")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="got a folder with files"):
            run_zero_shot(linear(), tmp_path, quick_settings(), resume=resume)
    assert (tmp_path / "report.md").read_text() == "mine"


def test_damaged_decisions_are_refused(tmp_path, real):
    settings, out = quick_settings(seeds=1, shares=()), tmp_path / "out"
    run_zero_shot(linear(), out, settings, test=real)
    (shard,) = (out / "noise-decisions").glob("*.parquet")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)

    with pytest.raises(ValueError, match="noise-decisions"):
        run_zero_shot(linear(), out, settings, test=real, resume=True)


def test_the_report_names_the_optimizer_of_the_training(tmp_path):
    training = TrainSettings(steps=5, optimizer="sgd", learning_rate=0.02, device="cpu")

    result = run_zero_shot(linear(), tmp_path / "out", quick_settings(training=training, seeds=1))

    page = result.report.read_text()
    assert "images, sgd with a learning rate of 0.02 (cosine), 1 seed." in page
    assert "Adam" not in page


def test_plain_noise_of_a_single_class_has_a_row(tmp_path, real):
    teacher = linear()
    teacher.bias[0] = 1.5  # pixel noise has no contrast to overcome it

    result = run_zero_shot(teacher, tmp_path / "out", quick_settings(seeds=1), test=real)

    assert "plain noise, decisions" in [row.name for row in result.rows]


def test_unreached_classes_are_named_in_the_report(tmp_path):
    teacher = linear()
    teacher.classes = 5

    result = run_zero_shot(teacher, tmp_path / "out", quick_settings(seeds=1))

    assert "No image was found for the classes 3, 4." in result.report.read_text()


# Refusals before the first query


def test_bounds_that_cannot_be_mapped_to_unit_images_are_refused(tmp_path):
    teacher = CountingTeacher(linear(bounds=(-1.0, 3.0)))

    with pytest.raises(ValueError, match=r"got \[-1, 3\].*RescaledTeacher\(teacher\)"):
        run_zero_shot(teacher, tmp_path / "out", quick_settings())
    assert teacher.total == 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "test", "message"),
    [
        ({"student": "lenet6"}, None, "student: expected one of"),
        ({"student": "alexnet-half"}, None, "student: AlexNet needs images of at least 8x8"),
        ({}, "nothing", "data: expected mnist5k"),
        ({}, "digits", r"test: expected shape \(1, 6, 6\), .* got \(1, 8, 8\)"),
    ],
)
def test_unfit_students_and_test_images_are_refused_before_any_query(
    tmp_path, changes, test, message
):
    teacher = CountingTeacher(linear())

    with pytest.raises(ValueError, match=message):
        run_zero_shot(teacher, tmp_path / "out", quick_settings(**changes), test=test)
    assert teacher.total == 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full(10, 7), r"test: expected labels in \[0, 3\), because teacher .*, got 7"),
        (None, "test: expected labelled images, got images without labels"),
    ],
)
def test_test_images_need_labels_of_the_teachers_classes(tmp_path, labels, message):
    images = np.zeros((10, 6, 6), np.uint8)
    names = {"y_train": labels, "y_test": labels} if labels is not None else {}
    np.savez(tmp_path / "real.npz", x_train=images, x_test=images, **names)

    with pytest.raises(ValueError, match=message):
        run_zero_shot(linear(), tmp_path / "out", quick_settings(), test=str(tmp_path / "real.npz"))


def test_a_constant_teacher_ends_the_run_with_an_error(tmp_path):
    with pytest.raises(TeacherError, match="expected at least two classes"):
        run_zero_shot(ConstantTeacher(1, SHAPE, 3), tmp_path / "out", quick_settings())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": TrainSettings(epochs=2)}, r"training.steps: expected a number"),
        ({"balance": 1.5}, r"balance: expected a number in \[0, 1\], got 1.5"),
        ({"seeds": 0}, "seeds: expected an integer of at least 1, got 0"),
        ({"shares": (0.5, 1.0)}, r"shares: expected numbers in \(0, 1\), got 1.0"),
    ],
)
def test_invalid_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        quick_settings(**changes)


def test_a_transfer_set_without_labels_has_none(tmp_path: Path):
    transfer = make_transfer_set(linear(), tmp_path, quick_settings())

    assert repr(transfer).startswith("TransferSet(PseudoSamples(120 images of shape (1, 6, 6)")
    assert isinstance(transfer, TransferSet) and transfer.label_run is None
    assert isinstance(transfer.totals, SynthesisTotals) and len(transfer.samples) == 120
