"""Wrong arguments of public functions are named, with what was expected and what came."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import db3kd
from db3kd import KDLoss, TrainSettings, ops
from db3kd.data import ImageSet
from db3kd.labelling import SoftLabelSettings
from db3kd.training.loop import train_batches
from db3kd.training.train import train

SHAPE = (1, 4, 4)
IMAGES = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(12) % 2
ONE_STEP = TrainSettings(steps=1, device="cpu")


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def brightness() -> nn.Module:
    """Puts images in class 1 if their mean is above 0.5."""
    made = network()
    with torch.no_grad():
        made[1].weight.copy_(torch.stack([torch.zeros(16), torch.ones(16)]))
        made[1].bias.copy_(torch.tensor([8.0, 0.0]))
    return made


def labels() -> db3kd.Labels:
    teacher = db3kd.ModuleTeacher(brightness(), SHAPE, 2)
    settings = db3kd.LabelSettings(measure="sd")
    return db3kd.with_soft_labels(db3kd.label(teacher, IMAGES, settings, progress=False))


LABELS = labels()
TEACHER = db3kd.ModuleTeacher(brightness(), SHAPE, 2)
train_student = partial(db3kd.train_student, settings=ONE_STEP)
train_classifier = partial(db3kd.train_classifier, settings=ONE_STEP)

CASES = {
    "classes of images": (
        lambda: train_classifier(network, IMAGES, CLASSES[:9]),
        "labels: expected 12 classes .*, got [9]",
    ),
    "no labels": (
        lambda: train_student(network, IMAGES, CLASSES),
        "labels: expected db3kd.Labels, got Tensor; for plain classes, use db3kd.train_classifier",
    ),
    "swapped": (
        lambda: train_student(network, LABELS, IMAGES),
        "labels: expected db3kd.Labels, got Tensor",
    ),
    "labelled images": (
        lambda: db3kd.LabelledImages(IMAGES, [1]),
        "labels: expected db3kd.Labels, got list",
    ),
    "soft labels of a tensor": (
        lambda: db3kd.with_soft_labels(CLASSES),
        "labels: expected db3kd.Labels, got Tensor",
    ),
    "loss": (
        lambda: train_student(network, IMAGES, LABELS, loss=ONE_STEP),
        "loss: expected db3kd.KDLoss, got TrainSettings",
    ),
    "settings": (
        lambda: db3kd.train_student(network, IMAGES, LABELS, settings={}),
        "settings: expected TrainSettings, got dict",
    ),
    "rows": (
        lambda: train_student(network, IMAGES, LABELS, rows=[0.5]),
        "rows: expected row numbers in [0, 12), .* got list of float64",
    ),
    "checkpoint": (
        lambda: train_student(network, IMAGES, LABELS, checkpoint=3),
        "checkpoint: expected db3kd.Checkpoint or a path, got 3",
    ),
    "null character": (
        lambda: db3kd.load_labels("a\0b"),
        "path: expected a path, got .* with a null character",
    ),
    "path of a checkpoint": (lambda: db3kd.Checkpoint(3, ""), "path: expected a path, .* got 3"),
    "one callback": (
        lambda: train_student(network, IMAGES, LABELS, callbacks=db3kd.EarlyStopping()),
        "callbacks: expected a list of callbacks, got a single one; pass [it]",
    ),
    "one callback of batches": (
        lambda: train_batches(network, None, None, ONE_STEP, callbacks=db3kd.EarlyStopping()),
        "callbacks: expected a list of callbacks, got a single one; pass [it]",
    ),
    "model": (
        lambda: train_student(3, IMAGES, LABELS),
        "model: expected a torch.nn.Module, or a function that makes one, got 3",
    ),
    "what a model makes": (
        lambda: train_student(lambda: 3, IMAGES, LABELS),
        "model: expected a function that makes a torch.nn.Module, got 3",
    ),
    "soft labels": (
        lambda: train(network, IMAGES, CLASSES, [1], None, ONE_STEP),
        "soft_labels: expected a tensor [N, C], got list",
    ),
    "decisions to agree with": (
        lambda: db3kd.agreement(network(), IMAGES, np.zeros(12)),
        "decisions: expected 12 classes .*, got ndarray of float64",
    ),
    "true labels": (
        lambda: db3kd.evaluate(network(), IMAGES, ["a"] * 12),
        "labels: expected 12 classes .*, got list of <U1",
    ),
    "batch": (
        lambda: db3kd.evaluate(network(), IMAGES, CLASSES, batch=0),
        "batch: expected an integer of at least 1, got 0",
    ),
    "progress": (
        lambda: db3kd.synthesize(TEACHER, db3kd.SynthesisSettings(samples=2), progress=3),
        "progress: expected True, False or .*, got 3",
    ),
    "progress of training": (
        lambda: train_student(network, IMAGES, LABELS, progress="yes"),
        "progress: expected True, False or .*, got 'yes'",
    ),
    "native op": (
        lambda: ops.soft_labels(np.ones((1, 2)), CLASSES[:1], normalisation="margin"),
        "distances: expected Tensor, got ndarray",
    ),
    "number of a native op": (
        lambda: ops.soft_labels(
            torch.ones(1, 2), CLASSES[:1], normalisation="margin", temperature="4"
        ),
        "temperature: expected float, got str",
    ),
    "data": (lambda: db3kd.load_data(3), "spec: expected a path, .* got 3"),
    "label file": (lambda: db3kd.load_labels(LABELS), "path: expected a path, .* got Labels"),
    "teacher": (
        lambda: db3kd.load_teacher(network()),
        "source: expected a path, .*, got the network Sequential; wrap it: db3kd.ModuleTeacher",
    ),
    "swapped model file": (
        lambda: db3kd.save_model(
            network(), "a.safetensors", model=None, image_shape=SHAPE, classes=2
        ),
        "path: expected a path, .* got Sequential",
    ),
    "weights": (
        lambda: db3kd.save_model(
            "a.safetensors", network().state_dict(), model=None, image_shape=SHAPE, classes=2
        ),
        "module: expected a torch.nn.Module, got OrderedDict",
    ),
    "function as the name of a model": (
        lambda: db3kd.save_model(
            "a.safetensors", network(), model=network, image_shape=SHAPE, classes=2
        ),
        "model: expected a name that build_model takes, or None, got function",
    ),
    "exported file": (lambda: db3kd.export_model(TEACHER, 3), "out: expected a path, .* got 3"),
    "exported student": (
        lambda: db3kd.export_model(3, "a.onnx"),
        "student: expected .*, got (3|int)",
    ),
    "file of labels": (lambda: LABELS.save(3), "path: expected a path, .* got 3"),
    "snapshots of labels": (
        lambda: db3kd.LabelSettings(snapshots=5),
        "snapshots: expected integers .*, got 5",
    ),
    "snapshots of samples": (
        lambda: db3kd.SynthesisSettings(snapshots=5),
        "snapshots: expected integers .*, got 5",
    ),
    "autocast": (
        lambda: db3kd.ModuleTeacher(network(), SHAPE, 2, autocast="bf32"),
        "autocast: expected 'bf16', 'fp16' or None, got 'bf32'",
    ),
    "features": (
        lambda: db3kd.ModuleTeacher(network(), SHAPE, 2, features=3),
        "features: expected db3kd.Features or None, got 3",
    ),
    "device": (
        lambda: db3kd.ModuleTeacher(network(), SHAPE, 2, device="gpu"),
        'device: expected "cpu", "cuda" or "cuda:<n>", got \'gpu\'',
    ),
    "device of a file": (
        lambda: db3kd.load_teacher("a.safetensors", device="cudaa"),
        'device: expected "cpu", "cuda" or "cuda:<n>", got \'cudaa\'',
    ),
    "device of training": (
        lambda: TrainSettings(device="gpu"),
        'device: expected "auto", "cpu", "cuda" or "cuda:<n>", got \'gpu\'',
    ),
    "model of a surrogate": (
        lambda: db3kd.SurrogateSettings(model=3),
        "model: expected the name of a network or None, got 3",
    ),
    "model of a run's surrogate": (
        lambda: db3kd.AutoSurrogate(model=network()),
        "model: expected the name of a network or None, got Sequential",
    ),
    "patience": (
        lambda: db3kd.EarlyStopping(patience="3"),
        "patience: expected an integer of at least 1, got '3'",
    ),
    "alpha": (lambda: KDLoss(alpha="x"), "alpha: expected a finite number .*, got 'x'"),
    "temperature": (
        lambda: SoftLabelSettings("margin", 1.0, "4"),
        "temperature: expected a finite number above 0, got '4'",
    ),
    "teacher instead of images": (
        lambda: db3kd.agreement(network(), TEACHER, IMAGES),
        r"images: expected no model, got .*; pass .* agreement(student, images, db3kd.predict(",
    ),
    "teacher instead of its decisions": (
        lambda: db3kd.agreement(network(), IMAGES, TEACHER),
        r"decisions: expected no model, got .*; pass .* agreement(student, images, db3kd.predict(",
    ),
    "held-out decisions": (
        lambda: db3kd.HeldOutAgreement(IMAGES, ["a"] * 12),
        "decisions: expected 12 classes .*, got list of <U1",
    ),
    "rescaled network": (
        lambda: db3kd.RescaledTeacher(network()),
        "teacher: expected a teacher, got Sequential; wrap it: db3kd.ModuleTeacher",
    ),
    "images and teacher swapped": (
        lambda: db3kd.distill(TEACHER, TEACHER, budget=60),
        "images: expected .*; pass the teacher first, then the images",
    ),
    "count of images": (
        lambda: db3kd.plan_budget(100, 2, IMAGES),
        "images: expected an integer of at least 1, got Tensor",
    ),
    "text as a count": (
        lambda: db3kd.plan_budget("100", 2, 12),
        "budget: expected an integer of at least 1, got '100'",
    ),
}
"""A call, and the pattern of its error, where only `.*` and `|` in brackets are special."""

VALUES = {"classes of images", "batch", "autocast", "null character"} | {
    name for name in CASES if "device" in name
}
"""The calls with a value of the right type."""


def pattern(text: str) -> str:
    return "^" + re.escape(text).replace(r"\.\*", ".*").replace(r"\(3\|int\)", "(3|int)")


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_argument_is_named(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, message = CASES[case]
    kind = (db3kd.ArgumentError, ValueError) if case in VALUES else (TypeError,)
    for each in kind:
        with pytest.raises(each, match=pattern(message)) as raised:
            call()
    assert isinstance(raised.value, db3kd.ArgumentError | db3kd.ArgumentTypeError)
    assert len(str(raised.value)) < 250
    assert list(tmp_path.iterdir()) == []


def test_settings_and_losses_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        db3kd.train_student(network, IMAGES, LABELS, ONE_STEP)
    with pytest.raises(TypeError, match="positional"):
        db3kd.train_classifier(network, IMAGES, CLASSES, ONE_STEP)


@pytest.mark.parametrize("form", [list, np.array, lambda classes: torch.tensor(classes).int()])
def test_classes_and_rows_may_have_any_form(form):
    seen = form(CLASSES.tolist())
    start = network()
    given = partial(db3kd.train_classifier, start, IMAGES)
    trained = [
        given(CLASSES, rows=torch.arange(6), settings=ONE_STEP),
        given(seen, rows=form(list(range(6))), settings=ONE_STEP),
    ]
    assert torch.equal(*(each[1].weight for each in trained))
    assert db3kd.evaluate(start, IMAGES, seen) == db3kd.evaluate(start, IMAGES, CLASSES)
    assert db3kd.agreement(start, IMAGES, seen) == db3kd.agreement(start, IMAGES, CLASSES)
    assert torch.equal(ImageSet.from_arrays(IMAGES.numpy()).read(form([3, 5])), IMAGES[[3, 5]])


def test_a_mask_chooses_images():
    images = ImageSet.from_arrays(IMAGES.numpy())
    assert torch.equal(images.subset(CLASSES.bool()).read(range(6)), IMAGES[CLASSES.bool()])


def test_a_network_may_be_named():
    made = db3kd.build_model("linear", SHAPE, 2)
    by_name = [
        train_student("linear", IMAGES, LABELS),
        train_classifier("linear", IMAGES, CLASSES),
        train_classifier("linear", ImageSet.from_arrays(IMAGES.numpy(), CLASSES.numpy())),
    ]
    for trained in by_name:
        shapes = {name: value.shape for name, value in trained.state_dict().items()}
        assert shapes == {name: value.shape for name, value in made.state_dict().items()}


def test_a_checkpoint_may_be_a_path(tmp_path):
    file = tmp_path / "training.checkpoint"
    first = train_student(network, IMAGES, LABELS, checkpoint=file)
    assert file.is_file()
    again = train_student(network, IMAGES, LABELS, checkpoint=str(file))
    assert torch.equal(first[1].weight, again[1].weight)


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), (None, None)]
)
def test_autocast_is_a_name_or_a_dtype(name, dtype):
    for given in (name, dtype):
        teacher = db3kd.ModuleTeacher(network(), SHAPE, 2, autocast=given)
        assert teacher.autocast == dtype


def test_the_progress_of_pseudo_samples_is_shown_or_heard(capsys):
    settings = db3kd.SynthesisSettings(samples=40, seed=1)
    seen = []

    class Listener:
        def update(self, **totals):
            seen.append(totals)

    samples = [
        db3kd.synthesize(TEACHER, settings, progress=progress)
        for progress in (True, False, Listener())
    ]
    assert capsys.readouterr().err.count("making pseudo samples done: 40/40 samples") == 1
    assert seen[-1]["samples"] == 40
    assert all(torch.equal(samples[0].pixels, each.pixels) for each in samples)


def test_whole_floats_are_counts():
    assert db3kd.plan_budget(1e3, 2, 12.0) == db3kd.plan_budget(1000, 2, 12)
    settings = db3kd.LabelSettings(queries=1e5, snapshots=[1e2])
    assert settings == db3kd.LabelSettings(queries=100_000, snapshots=(100,))
    assert type(settings.queries) is int
