"""ONNX files as teachers."""

import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from teachers_analytic import LinearTeacher

from db3kd.models import ModelMetadata
from db3kd.teachers import ModelOverrides, OnnxTeacher, Preprocessing, TeacherError, load_teacher
from db3kd.teachers import decide_checked as decide
from db3kd.teachers.class_numbers import Numbering
from db3kd.teachers.onnx.files import _named_files as named_files

SHAPE = (1, 8, 8)


def write(path, truth, shape=("n", *SHAPE), outputs=("scores",), bias=None):
    """A linear classifier; outputs may be its scores and its class, "label"."""
    weights = truth.weights.float().numpy().T.copy()
    bias = truth.bias.float().numpy() if bias is None else bias
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    infos = {
        "scores": helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], 10]),
        "label": helper.make_tensor_value_info("label", TensorProto.INT64, [shape[0]]),
    }
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [infos[output] for output in outputs],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(bias.astype(np.float32), "bias"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_a_file_of_scores_declares_everything(tmp_path, truth, images):
    teacher = load_teacher(write(tmp_path / "t.onnx", truth))

    assert (teacher.image_shape, teacher.classes, teacher.bounds) == (SHAPE, 10, (0.0, 1.0))
    assert decide(teacher, images).equal(truth.decide(images))
    assert teacher.name == "t.onnx" and len(teacher.fingerprint()) == 64


def test_a_file_of_classes_needs_their_number(tmp_path, truth, images):
    path = write(tmp_path / "t.onnx", truth, outputs=("label",))
    with pytest.raises(ValueError, match="does not declare its number of classes; pass classes="):
        load_teacher(path)

    assert decide(load_teacher(path, classes=10), images).equal(truth.decide(images))
    assert load_teacher(path, assumed_classes=10).classes == 10


def test_one_of_several_outputs_is_chosen(tmp_path, truth, images):
    path = write(tmp_path / "t.onnx", truth, outputs=("label", "scores"))
    with pytest.raises(ValueError, match="has several outputs, label, scores; choose one"):
        OnnxTeacher(path)
    with pytest.raises(ValueError, match="output: expected one of label, scores"):
        OnnxTeacher(path, ModelOverrides(output="logits"))

    assert decide(OnnxTeacher(path, ModelOverrides(output="scores")), images).equal(
        truth.decide(images)
    )


DECLARED = ModelMetadata(SHAPE, 10, (-1.0, 1.0), tuple("abcdefghij"))


def with_properties(path, properties):
    model = onnx.load(path)
    helper.set_model_props(model, properties)
    onnx.save(model, path)
    return path


def test_metadata_of_an_export_are_used_unless_the_user_says_otherwise(tmp_path, truth):
    path = with_properties(write(tmp_path / "t.onnx", truth, tuple("nchw")), DECLARED.header())
    teacher = load_teacher(path, assumed_shape=(8, 8, 1))
    assert (teacher.image_shape, teacher.bounds) == (SHAPE, (-1.0, 1.0))
    assert teacher.class_names == tuple("abcdefghij")

    names = [str(number) for number in range(10)]
    teacher = load_teacher(path, bounds=(0, 2), class_names=names)
    assert (teacher.bounds, teacher.class_names) == ((0.0, 2.0), tuple(names))


def test_steps_of_a_description_precede_an_exported_file(tmp_path, truth, images):
    path = with_properties(write(tmp_path / "t.onnx", truth), DECLARED.header())
    teacher = OnnxTeacher(path, preprocessing=Preprocessing(bounds=(0, 1), scale=(-1, 1)))
    assert teacher.bounds == (0.0, 1.0)
    assert decide(teacher, images).equal(truth.decide(2 * images - 1))
    teacher = OnnxTeacher(path, ModelOverrides(numbering=Numbering(numbers=(3, 5))))
    assert (teacher.classes, teacher.class_names) == (2, None)
    assert OnnxTeacher(
        path, ModelOverrides(image_shape=(1, 16, 16)), Preprocessing(resize=(8, 8))
    ).image_shape == (1, 16, 16)


def test_damaged_metadata_are_an_error(tmp_path, truth):
    header = DECLARED.header() | {"bounds": "[1, 0]"}
    path = with_properties(write(tmp_path / "t.onnx", truth), header)
    with pytest.raises(TeacherError, match=r"t\.onnx: its metadata are damaged \(bounds: expected"):
        load_teacher(path)


def test_declarations_that_contradict_the_file_are_refused(tmp_path, truth):
    path = write(tmp_path / "t.onnx", truth)
    with pytest.raises(ValueError, match=r"expected \[1, 8, 8\] per image .*, got \[1, 9"):
        load_teacher(path, image_shape=(1, 9, 9))
    with pytest.raises(ValueError, match="got 10 from the model's scores, 7 from classes="):
        load_teacher(path, classes=7)
    with pytest.raises(ValueError, match=r"dtype: expected float32, .* t\.onnx, got 'uint8'"):
        OnnxTeacher(path, preprocessing=Preprocessing(scale=(0, 255), dtype="uint8"))
    assert load_teacher(path, assumed_shape=(1, 9, 9), assumed_classes=7).classes == 10


@pytest.mark.parametrize("batch", [1, 8])
def test_a_fixed_batch_is_filled_up(tmp_path, truth, images, batch):
    teacher = load_teacher(write(tmp_path / "t.onnx", truth, shape=(batch, *SHAPE)), max_batch=99)

    assert teacher.max_batch == batch
    assert decide(teacher, images).equal(truth.decide(images))
    assert teacher.decide(images[:0]).shape == (0,)


def test_preprocessing_is_applied_before_the_model(tmp_path, truth):
    colour = torch.rand(5, 3, 8, 8)
    flat = LinearTeacher(torch.randn(10, 192), torch.zeros(10), (3, 8, 8))
    path = write(tmp_path / "t.onnx", flat, shape=("n", 8, 8, 3))
    teacher = OnnxTeacher(path, preprocessing=Preprocessing(layout="NHWC", scale=(0, 255)))

    assert teacher.image_shape == (3, 8, 8)
    assert decide(teacher, colour).equal(flat.decide(colour.permute(0, 2, 3, 1)))
    assert dict(teacher.details())["layout"] == "NHWC"
    assert dict(teacher.details())["runs on"] == "ONNX Runtime, CPU"


def test_the_fingerprint_changes_with_file_and_preprocessing(tmp_path, truth):
    path = write(tmp_path / "t.onnx", truth)
    other = write(tmp_path / "o.onnx", truth, bias=np.ones(10))
    teachers = [
        load_teacher(path),
        load_teacher(other),
        OnnxTeacher(path, preprocessing=Preprocessing(scale=(0, 2))),
        OnnxTeacher(path, preprocessing=Preprocessing(bounds=(0, 2))),
    ]

    assert len({teacher.fingerprint() for teacher in teachers}) == 4
    assert load_teacher(path, max_batch=3).fingerprint() == teachers[0].fingerprint()


def test_nan_scores_are_a_typed_error(tmp_path, truth, images):
    teacher = load_teacher(write(tmp_path / "t.onnx", truth, bias=np.full(10, np.nan)))
    with pytest.raises(TeacherError, match=r"t\.onnx.*got NaN among the scores"):
        decide(teacher, images)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12\x04torch"])
def test_a_corrupt_file_is_one_clear_error(tmp_path, content):
    (tmp_path / "t.onnx").write_bytes(content)
    with pytest.raises(TeacherError, match=r"t\.onnx: cannot be read as ONNX"):
        load_teacher(tmp_path / "t.onnx")


def test_weights_beside_the_file_belong_to_it(tmp_path, truth, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub, folder = tmp_path / "hub", tmp_path / "models"
    hub.mkdir()
    folder.mkdir()
    path = write(folder / "t.onnx", truth)
    inside = load_teacher(path).fingerprint()
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="w.data", size_threshold=0
    )
    teacher = load_teacher(path)
    assert decide(teacher, images).equal(truth.decide(images))

    weights = folder / "w.data"
    (hub / "blob").write_bytes(weights.read_bytes())
    weights.unlink()
    weights.symlink_to(hub / "blob")  # as in the cache of the Hugging Face hub
    assert load_teacher(path).fingerprint() == teacher.fingerprint() != inside
    (hub / "blob").write_bytes(bytes(weights.stat().st_size))
    assert load_teacher(path).fingerprint() != teacher.fingerprint()
    (hub / "blob").write_bytes(b"")
    with pytest.raises(TeacherError, match=r"t\.onnx: cannot be read as ONNX \(.*ONNXRuntime"):
        load_teacher(path)
    weights.unlink()
    with pytest.raises(TeacherError, match=r"weights in .*models/w\.data, which does not exist"):
        load_teacher(path)


@pytest.mark.parametrize("location", ["../w.data", "/w.data", "a/../../w.data", "C:\\w.data", ""])
def test_weights_outside_of_the_folder_are_not_read(tmp_path, truth, location):
    (tmp_path / "models").mkdir()
    path = write(tmp_path / "models" / "t.onnx", truth)
    (tmp_path / "w.data").write_bytes(bytes(10_000))
    model = onnx.load(path)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(
        TeacherError, match=r"t\.onnx: expected its weights in files beside it, got"
    ):
        load_teacher(path)


def test_weights_of_a_subgraph_are_found():
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "inner")
    onnx.external_data_helper.set_external_data(tensor, "inner.data")
    branch = helper.make_graph([], "branch", [], [], [tensor])
    node = helper.make_node("If", ["a"], ["b"], then_branch=branch, else_branch=branch)
    model = helper.make_model(helper.make_graph([node], "outer", [], []))
    assert set(named_files(model, onnx.TensorProto)) == {"inner.data"}


def test_a_missing_file_and_a_missing_device_are_named(tmp_path, truth):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_teacher(tmp_path / "none.onnx")
    path = write(tmp_path / "t.onnx", truth)
    with pytest.raises(ValueError, match="device: expected cpu or cuda"):
        load_teacher(path, device="meta")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ValueError, match="device: cuda needs a CUDA build of ONNX Runtime"):
            load_teacher(path, device="cuda")


def test_without_onnx_runtime_the_extra_is_named(tmp_path, truth, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "db3kd\[onnx\]"'):
        load_teacher(write(tmp_path / "t.onnx", truth))
