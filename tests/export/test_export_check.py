"""What the check of an exported file refuses; nothing is written then."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import db3kd
from db3kd.errors import Db3kdError
from db3kd.export import ExportError, export_model, exporting
from db3kd.export.check_images import check_batches
from db3kd.export.formats import encode
from db3kd.export.image_values import where_values_are_read
from db3kd.export.student import DeployedStudent
from db3kd.models import build_model
from db3kd.models.networks import model_names
from db3kd.teachers import FunctionTeacher, ModuleTeacher

SHAPE = (1, 8, 8)


class CountedBatch(nn.Module):
    """Has another answer in batches of two, which graphs are recorded from."""

    def forward(self, images):
        scores = images.flatten(1)[:, :2]
        return scores if len(images) == 2 else -scores


class Sampled(nn.Module):
    """Adds noise, which no file repeats."""

    def forward(self, images):
        return images.flatten(1)[:, :2] + torch.randn(len(images), 2)


class Dictionary(nn.Module):
    def forward(self, images):
        return {"scores": images.flatten(1)}


def linear(image_shape=SHAPE, classes=10):
    torch.manual_seed(0)
    return build_model("linear", image_shape, classes)


@pytest.mark.parametrize("name", ["m.onnx", "m.ts", "m.pt2"])
def test_a_file_that_decides_differently_is_not_written(tmp_path, name):
    reasons = r"on 1,000 images, got .* other decisions|cannot be converted|fails on a batch of 1 "
    with pytest.raises(ExportError, match=reasons):
        export_model(ModuleTeacher(CountedBatch(), SHAPE, 2), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["m.onnx", "m.ts", "m.pt2"])
def test_a_network_that_is_random_in_eval_mode_is_named(tmp_path, name):
    with pytest.raises(ExportError, match=r"same scores each time, got Sampled, which is random"):
        export_model(ModuleTeacher(Sampled(), SHAPE, 2), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_error_counts_the_other_decisions(tmp_path):
    with pytest.raises(ExportError, match=r"CountedBatch on 1,000 images, got \d{3,} other dec"):
        export_model(ModuleTeacher(CountedBatch(), SHAPE, 2), tmp_path / "m.ts")


def test_a_network_that_returns_no_scores_is_an_error(tmp_path):
    with pytest.raises(db3kd.TeacherError, match="wrap it so that it returns only the scores"):
        export_model(ModuleTeacher(Dictionary(), SHAPE, 64), tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"class_names": tuple("ab")}, r"expected class_names None in .*, got \('a', 'b'\)"),
        ({"bounds": (0, 2)}, r"expected bounds \(0\.0, 1\.0\) in .*, got \(0\.0, 2\.0\)"),
        ({"threshold": 0.5}, "fails on a batch of 1 image: .*expected scores"),
    ],
)
def test_a_file_that_declares_something_else_is_not_written(tmp_path, monkeypatch, other, words):
    network = linear(SHAPE, 2)
    wrong = DeployedStudent(ModuleTeacher(network, SHAPE, 2, **other), None)
    content = encode(wrong, "torchscript")
    monkeypatch.setattr("db3kd.export.exporting.encode", lambda *_: content)
    with pytest.raises(ExportError, match=words):
        export_model(ModuleTeacher(network, SHAPE, 2), tmp_path / "m.ts")
    assert not list(tmp_path.iterdir())


def test_an_existing_file_survives_an_error(tmp_path):
    path = tmp_path / "m.ts"
    path.write_bytes(b"before")
    with pytest.raises(ExportError):
        export_model(ModuleTeacher(CountedBatch(), SHAPE, 2), path)
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("student", "kind", "words"),
    [
        (lambda: linear(), TypeError, "got Sequential; wrap a network: db3kd.ModuleTeacher"),
        (lambda: "none.safetensors", FileNotFoundError, "there is no none"),
        (lambda: FunctionTeacher(len, SHAPE, 2), TypeError, "got FunctionTeacher"),
        (
            lambda: ModuleTeacher(linear(), SHAPE, 10, autocast=torch.bfloat16),
            ValueError,
            "autocast: expected a student without it",
        ),
    ],
)
def test_other_students_are_refused(tmp_path, student, kind, words):
    with pytest.raises(kind, match=words):
        export_model(student(), tmp_path / "m.ts")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_programs_are_refused(tmp_path):
    traced = torch.jit.trace(linear(), torch.rand(2, *SHAPE))
    with pytest.raises(TypeError, match="got a program from"):
        export_model(ModuleTeacher(traced, SHAPE, 10), tmp_path / "m.ts")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("m.pb", {}, r"out: expected a name ending in \.onnx, .*got 'm\.pb'"),
        ("m.safetensors", {}, "model: expected the name of the architecture"),
        ("m.safetensors", {"model": linear}, "pass model= as text, 'package.module:make' for a"),
        ("m.ts", {"classes": 10}, "declares its image_shape and classes; omit both"),
        ("m.ts", {"images": torch.rand(5, 1, 9, 9)}, r"expected \[N, 1, 8, 8\] float32"),
        ("m.ts", {"images": 2 * torch.ones(5, 1, 8, 8)}, r"expected finite values in \[0, 1\]"),
    ],
)
def test_wrong_arguments_are_named_and_write_nothing(tmp_path, name, arguments, words):
    with pytest.raises(ValueError, match=words):
        export_model(ModuleTeacher(linear(), SHAPE, 10), tmp_path / name, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    words = rf'export to ONNX needs the package {package}: pip install "db3kd\[onnx\]"'
    with pytest.raises(ModuleNotFoundError, match=words):
        export_model(ModuleTeacher(linear(), SHAPE, 10), tmp_path / "m.onnx")


@given(
    count=st.integers(1, 2500),
    shape=st.sampled_from([(3,), (1, 4, 4), (3, 2, 5)]),
    bounds=st.sampled_from([(0, 1), (-1, 1), (0, 255), (0.2, 0.3)]),
)
def test_a_thousand_images_are_checked_whatever_is_given(count, shape, bounds):
    student = ModuleTeacher(linear(shape, 2), shape, 2, bounds)
    marks = torch.linspace(0, 1, count)
    images = marks.view(-1, *(1 for _ in shape)).expand(count, *shape).contiguous()

    batches = list(check_batches(student, images))

    assert [len(batch) for batch in batches[:3]] == [1, 37, 128]
    together = torch.cat(batches)
    assert together.shape == (1000, *shape) and together.dtype == torch.float32
    lower, upper = (torch.tensor(bound, dtype=torch.float32) for bound in student.bounds)
    assert lower <= together.min() and together.max() <= upper
    first = lower + marks[0] * (upper - lower)
    assert together[0].flatten()[0] == first
    if count >= 1000:
        assert together.flatten(1)[-1, 0] == pytest.approx(float(upper))
    assert together.equal(torch.cat(list(check_batches(student, images))))


def test_random_images_reach_several_classes():
    truth = linear()
    student = ModuleTeacher(truth, SHAPE, 10)
    images = torch.cat(list(check_batches(student, None)))
    assert len(student.decide(images).unique()) >= 3
    assert len(images.unique(dim=0)) == 1000


class Branching(nn.Module):
    """A network that would decide bright images otherwise, if they come alone."""

    def __init__(self, read=None):
        super().__init__()
        self.dark, self.bright = linear(classes=4), linear(classes=4)
        self.read = read

    def forward(self, images):
        if self.read is not None:
            is_bright = self.read(images)
        else:
            is_bright = len(images) == 1 and float(images.mean()) > 0.9
        return (self.bright if is_bright else self.dark)(images)


@pytest.mark.parametrize(
    "read",
    [
        None,
        lambda images: images.mean() > 0.9,
        lambda images: (images * 2).sum(1).max().item() > 1.8,
        lambda images: torch.equal(images, images.round()),
        lambda images: any(row.mean() > 0.9 for row in images),
        lambda images: images.mean((1, 2, 3)).tolist() == [0.9],
        lambda images: images.numpy().mean() > 0.9,
        lambda images: np.asarray(images.flatten()).mean() > 0.9,
        lambda images: images.new_zeros(3).copy_(images.mean())[0] > 0.9,
    ],
)
def test_a_network_that_reads_values_of_its_images_is_not_traced(tmp_path, read):
    network = Branching(read)
    with pytest.raises(ExportError, match=r"torchscript, because its code reads values of its ima"):
        export_model(ModuleTeacher(network, SHAPE, 4), tmp_path / "m.ts")
    assert not list(tmp_path.iterdir())


def test_the_error_says_where_values_are_read(tmp_path):
    with pytest.raises(ExportError, match=r"\(__float__ in test_export_check.py, line \d+\), and"):
        export_model(ModuleTeacher(Branching(), SHAPE, 4), tmp_path / "m.pt")


def reads_shapes(images):
    """What code may read: shapes, and values that do not depend on the images."""
    assert images.shape[1] == 1 and len(images) > 0 and images.is_floating_point()
    limit = torch.tensor([0.5, 3.0])
    return int(images.size(2)) == 9 or bool(limit.max() < 1) or limit.tolist() == []


def test_a_network_may_read_shapes_and_its_own_values(tmp_path):
    teacher = ModuleTeacher(Branching(reads_shapes), SHAPE, 4)
    assert export_model(teacher, tmp_path / "m.ts").largest_difference == 0


@pytest.mark.parametrize("name", model_names())
def test_no_network_of_db3kd_reads_values_of_its_images(name):
    shape = (3, 32, 32)
    assert where_values_are_read(build_model(name, shape, 10).eval(), shape) is None


class Accented(nn.Module):
    def __init__(self):
        super().__init__()
        self.add_module("größe", linear(classes=4))

    def forward(self, images):
        return self.größe(images)


def test_names_that_torchscript_cannot_read_are_refused(tmp_path):
    with pytest.raises(ExportError, match=r"expected ASCII names of modules .* got 'größe' in Acc"):
        export_model(ModuleTeacher(Accented(), SHAPE, 4), tmp_path / "m.ts")
    assert export_model(ModuleTeacher(Accented(), SHAPE, 4), tmp_path / "m.onnx").images == 1000


class TwoOutputs(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :4], images.flatten(1)[:, 4:8]


@pytest.mark.parametrize("name", ["m.onnx", "m.ts", "m.pt2"])
def test_a_network_with_two_outputs_is_refused_before_it_is_converted(tmp_path, name, monkeypatch):
    monkeypatch.setattr(exporting, "encode", None)
    with pytest.raises(db3kd.TeacherError, match="got tuple; wrap it so that it returns only the"):
        export_model(ModuleTeacher(TwoOutputs(), SHAPE, 4), tmp_path / name)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("folder.pt", IsADirectoryError, "out: expected the path of a file, got the folder"),
        ("x" * 300 + ".pt", ValueError, "out: expected a path, got a name that is too long"),
        ("x" * 300 + "/m.pt", ValueError, "out: expected a path, got a name that is too long"),
        ("a\0.pt", ValueError, "out: expected a path, got .* with a null character"),
        ("nl\udcff.onnx", ValueError, "out: expected a name in UTF-8"),
    ],
)
def test_an_impossible_file_is_refused_before_the_conversion(
    tmp_path, name, kind, words, monkeypatch
):
    (tmp_path / "folder.pt").mkdir()
    monkeypatch.setattr(exporting, "encode", None)
    with pytest.raises(kind, match=words) as raised:
        export_model(ModuleTeacher(linear(), SHAPE, 10), f"{tmp_path}/{name}")
    assert isinstance(raised.value, Db3kdError)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.pt"]


def test_a_name_may_be_as_long_as_file_systems_allow(tmp_path):
    out = tmp_path / ("x" * 252 + ".ts")
    export_model(ModuleTeacher(linear(), SHAPE, 10), out)
    assert [file.name for file in tmp_path.iterdir()] == [out.name]
