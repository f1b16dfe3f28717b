"""Images in [0, 1] for teachers with other bounds are mapped or refused in every stage."""

import json

import numpy as np
import pytest
import torch
from command_line import succeed
from label_runs import write_run
from served_doubles import Answer, Loopback
from teachers_analytic import CountingTeacher, LinearTeacher

import db3kd
from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.data.source import Source
from db3kd.labelling.workers.worker import Worker
from db3kd.surrogates.files import prepare_surrogate
from db3kd.teachers import RescaledTeacher, TeacherError, decide_checked, load_teacher
from db3kd.teachers.rescaled import takes_unit_images

SHAPE = (1, 4, 4)
CONVENTIONS = [(0.0, 255.0), (-1.0, 1.0), (-0.5, 0.5), (0.0, 65535.0)]
SETTINGS = db3kd.LabelSettings("bd", queries_per_pair=8)


def unit_teacher():
    """Compares the brightness of the left half, the upper half and the lower right quarter."""
    weights = torch.zeros(3, *SHAPE[1:])
    weights[0, :, :2], weights[1, :2], weights[2, 2:, 2:] = 1, 1, 1.7
    return LinearTeacher(weights.flatten(1), torch.tensor([0.0, 0.3, 0.1]), SHAPE)


def teacher_of(bounds):
    """The same teacher for the same images in other bounds."""
    lower, upper = bounds
    unit = unit_teacher()
    weights = unit.weights / (upper - lower)
    teacher = LinearTeacher(weights, unit.bias - weights.sum(1) * lower, SHAPE)
    teacher.bounds = bounds
    return teacher


def images(count=40):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(3))


def image_set(count=40):
    pixels = images(count)
    return ImageSet.from_arrays(pixels, unit_teacher().decide(pixels), "images", 3)


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "images.npz"
    np.savez(file, images=images().numpy(), labels=unit_teacher().decide(images()).numpy())
    return Source(str(file))


@pytest.mark.parametrize("bounds", CONVENTIONS)
def test_labels_are_those_of_the_same_teacher_in_unit_bounds(bounds):
    found = db3kd.label(teacher_of(bounds), image_set(), SETTINGS)
    expected = db3kd.label(unit_teacher(), image_set(), SETTINGS)

    assert len(set(expected.decision.tolist())) == 3
    assert found.decision.equal(expected.decision) and found.label.equal(found.decision)
    # Distances are in the units of the images, not of the teacher.
    assert torch.allclose(found.distances, expected.distances, atol=1e-2)


def test_every_stage_maps_the_images(source, tmp_path, monkeypatch):
    teacher, seen = teacher_of((0.0, 255.0)), []
    decide = teacher.decide
    monkeypatch.setattr(teacher, "decide", lambda rows: (seen.append(rows), decide(rows))[1])

    def highest():
        most = max(float(rows.max()) for rows in seen)
        assert min(float(rows.min()) for rows in seen) >= 0
        seen.clear()
        return most

    write_run(tmp_path / "run", teacher, source, SETTINGS)
    assert 200 < highest() <= 255
    surrogate = db3kd.SurrogateSettings("lenet5-fifth", 2, training=db3kd.TrainSettings(steps=1))
    monkeypatch.setattr("db3kd.surrogates.settings.check_model", lambda *_: None)
    monkeypatch.setattr(
        "db3kd.surrogates.training.build_model",
        lambda *_: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)),
    )
    prepare_surrogate(tmp_path / "s.safetensors", teacher, source, surrogate).write()
    assert 200 < highest() <= 255
    db3kd.make_surrogate(teacher, image_set(), surrogate)
    assert 200 < highest() <= 255
    settings = db3kd.DistillSettings(training=db3kd.TrainSettings(steps=1), proxies=0)
    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    db3kd.distill(teacher, budget=80, student=student, settings=settings, out=tmp_path / "student")
    assert 200 < highest() <= 255
    samples = tmp_path / "student" / "pseudo-samples"
    assert db3kd.load_pseudo_samples(samples).bounds == (0.0, 1.0)
    assert load_data(samples).labels is not None


def test_a_worker_maps_as_the_main_process_does(source, tmp_path):
    prepared = takes_unit_images(teacher_of((0.0, 255.0)))
    worker = Worker()
    from db3kd.labelling.workers.worker import WorkerTask
    from db3kd.labels.labels import LABELS
    from db3kd.storage.run_journals import Journals

    loaded = source.load()
    job = WorkerTask(
        make_teacher=lambda: teacher_of((0.0, 255.0)),
        fingerprint=prepared.fingerprint(),
        images=loaded,
        data_fingerprint=loaded.fingerprint(),
        settings=SETTINGS,
        journals=Journals(tmp_path / "none", LABELS, "", ""),
        threads=1,
    )
    worker.prepare(job)
    assert worker._teacher.bounds == (0.0, 1.0)


def test_accuracy_and_distances_are_right_on_the_command_line(tmp_path):
    """The service takes pixels from 0 to 255, as the bounds in its description declare."""
    pixels = images()
    np.savez(tmp_path / "d.npz", x_test=pixels.numpy(), y_test=unit_teacher().decide(pixels))
    truth = teacher_of((0.0, 255.0))

    def answer(asked):
        rows = torch.tensor(json.loads(asked.body)["x"]).view(-1, *SHAPE)
        return Answer.of(truth.decide(rows).tolist())

    with Loopback(answer) as server:
        described = {
            "url": server.url,
            "image_shape": list(SHAPE),
            "classes": 3,
            "preprocessing": {"bounds": [0, 255]},
            "rest": {"request": {"x": "$images"}, "answer": "*"},
        }
        (tmp_path / "t.json").write_text(json.dumps(described))
        reported = succeed("evaluate", "--model", tmp_path / "t.json", "--data", tmp_path / "d.npz")
    assert "accuracy   100.00% (40 of 40 images)" in reported


@pytest.mark.parametrize("bounds", [(-3.0, 3.0), (0.0, 2.0), (-2.1, 2.6)])
def test_unconventional_bounds_are_refused(bounds):
    with pytest.raises(
        ValueError, match=r"expected bounds that images in \[0, 1\] can be mapped to.*Rescaled"
    ):
        db3kd.label(teacher_of(bounds), image_set(), SETTINGS)
    counting = CountingTeacher(teacher_of(bounds))
    with pytest.raises(ValueError, match=r"RescaledTeacher\(teacher\)"):
        db3kd.distill(counting, budget=80)
    assert counting.total == 0

    declared = RescaledTeacher(teacher_of(bounds))
    labels = db3kd.label(declared, image_set(), SETTINGS)
    assert labels.label.equal(labels.decision)


@pytest.mark.parametrize("bounds", CONVENTIONS)
def test_a_tensor_that_looks_scaled_to_unit_bounds_is_refused(bounds):
    words = r"look scaled to \[0, 1\].*ImageSet.from_arrays"
    if bounds[1] < 1:
        words = r"expected finite values in \[-0\.5, 0\.5\]"
    with pytest.raises(ValueError, match=words):
        db3kd.label(teacher_of(bounds), images(), SETTINGS)

    lower, upper = bounds
    right = db3kd.label(teacher_of(bounds), images() * (upper - lower) + lower, SETTINGS)
    assert right.decision.equal(unit_teacher().decide(images()))


@pytest.mark.parametrize("bounds", CONVENTIONS)
def test_arrays_may_declare_their_bounds(bounds):
    lower, upper = bounds
    array = (images() * (upper - lower) + lower).numpy()
    declared = ImageSet.from_arrays(array, bounds=bounds)

    assert torch.allclose(declared.read(range(40)), images(), atol=1e-6)
    assert declared.bounds == (0.0, 1.0)
    labels = db3kd.label(teacher_of(bounds), declared, SETTINGS)
    assert labels.decision.equal(unit_teacher().decide(images()))
    with pytest.raises(ValueError, match="expected all values within bounds"):
        ImageSet.from_arrays(array * 1.1 - 0.1, bounds=bounds)


def test_uint8_arrays_need_no_bounds():
    array = (images() * 255).byte().numpy()
    said = ImageSet.from_arrays(array, bounds=(0, 255))
    assert said.read([0, 1]).equal(ImageSet.from_arrays(array).read([0, 1]))


def test_pseudo_samples_with_other_bounds_are_images_in_0_1(tmp_path):
    teacher = teacher_of((0.0, 255.0))
    settings = db3kd.SynthesisSettings(samples=40, acquisition=None, moves=db3kd.Moves(count=0))
    samples = db3kd.synthesize(teacher, settings, out=tmp_path / "run")
    found = samples.as_image_set()

    assert samples.bounds == (0.0, 255.0)
    assert torch.allclose(found.read(range(40)) * 255, samples.images())
    rescaled = takes_unit_images(teacher)
    assert decide_checked(rescaled, found.read(range(40))).equal(found.labels)


class Failing(LinearTeacher):
    """Decides three images, then fails with their decisions; neither async nor streaming."""

    def decide(self, rows):
        if len(rows) > 3:
            raise TeacherError("full", super().decide(rows[:3]))
        return super().decide(rows)


def test_a_rescaled_teacher_passes_on_everything_else(module):
    inner = db3kd.ModuleTeacher(module, (1, 8, 8), 10, (-1.0, 1.0), class_names=list("abcdefghij"))
    outer = RescaledTeacher(inner)
    pixels = torch.rand(7, 1, 8, 8)

    assert outer.class_names == inner.class_names and outer.max_batch == inner.max_batch
    assert outer.decide_async(pixels).result().equal(inner.decide(pixels * 2 - 1))
    assert not hasattr(outer, "stream")
    others = {RescaledTeacher(inner, (0, 255)).fingerprint(), inner.fingerprint()}
    assert outer.fingerprint() not in others and len(others) == 2
    assert decide_checked(outer, pixels[3:4]).equal(outer.decide(pixels)[3:4])
    failing = Failing(torch.rand(3, 16), torch.zeros(3), SHAPE)
    with pytest.raises(TeacherError) as error:
        decide_checked(RescaledTeacher(failing, (0, 255)), images() * 255)
    assert error.value.answered.tolist() == LinearTeacher.decide(failing, images(3)).tolist()


def test_students_of_a_teacher_with_other_bounds_take_images_in_0_1(source, tmp_path):
    write_run(tmp_path / "run", teacher_of((0.0, 255.0)), source, db3kd.LabelSettings("sd"))
    out = tmp_path / "student.safetensors"
    pixels = tmp_path / "images.npz"
    succeed(
        *("distill", "--labels", tmp_path / "run", "--data", pixels, "--out", out),
        *("--model", f"{__name__}:linear_student", "--steps", 1, "--scale", 1),
    )
    assert load_teacher(out, model=f"{__name__}:linear_student").bounds == (0.0, 1.0)


def linear_student(image_shape, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, classes))
