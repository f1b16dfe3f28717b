"""Models with their own class numbers, with one score per image, or with class names."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from served_doubles import Answer, Loopback
from torch import nn

from db3kd.models import save_model
from db3kd.teachers import (
    FunctionTeacher,
    ModelOverrides,
    ModuleTeacher,
    OnnxTeacher,
    TeacherError,
    decide_checked,
    load_teacher,
)
from db3kd.teachers.answers import AnswerReader
from db3kd.teachers.class_numbers import Numbering

SHAPE = (1, 2, 2)
IMAGES = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(0))


def read(numbering, answers, classes=3, names=None):
    return AnswerReader(classes, names, numbering).read(answers, len(answers), "who").tolist()


def test_class_numbers_from_one_are_shifted():
    assert read(Numbering(offset=1), [1, 3, 2]) == [0, 2, 1]
    assert read(Numbering(offset=1), [[1.0], [3.0], [2.0]]) == [0, 2, 1]


def test_the_column_of_a_background_class_belongs_to_no_class():
    scores = [[0.1, 0.5, 0.2, 0.2], [0.0, 0.0, 0.1, 0.9]]
    assert read(Numbering(offset=1), scores) == [0, 2]


def test_classes_may_have_any_numbers():
    numbering = Numbering(numbers=(7, 2, 5))
    assert read(numbering, [2, 5, 7]) == [1, 2, 0]
    scores = np.zeros((3, 9))
    scores[[0, 1, 2], [5, 7, 2]] = 1
    assert read(numbering, scores) == [2, 0, 1]


@pytest.mark.parametrize(
    ("numbering", "answers"),
    [
        (Numbering(offset=1), [1, 0]),
        (Numbering(offset=1), [1, 4]),
        (Numbering(offset=1), [1, 10**9]),
        (Numbering(offset=1), [1.0, 1e300]),
        (Numbering(offset=1), np.array([1, 2**63 + 1], np.uint64)),
        (Numbering(offset=1), [[0, 1, 0, 0], [0.9, 0.1, 0, 0]]),
        (Numbering(numbers=(7, 2, 5)), [7, 3]),
        (Numbering(offset=1, background="next best"), [1, 0]),
    ],
)
def test_an_answer_that_is_none_of_the_classes_is_an_error(numbering, answers):
    with pytest.raises(TeacherError, match="for image 1, which is not one of the declared classes"):
        read(numbering, answers)


def test_the_score_of_the_background_can_be_ignored():
    numbering = Numbering(offset=1, background="next best")
    assert read(numbering, [[0.9, 0.0, 0.1, 0.05], [0.2, 0.0, 0.1, 0.7]]) == [1, 2]


def test_scores_of_the_classes_alone_do_not_fit_an_offset():
    with pytest.raises(TeacherError, match=r"or scores \[2, 4\], got an answer of shape \[2, 3\]"):
        read(Numbering(offset=1), [[1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"offset": -1}, "class_offset: expected an integer of at least 0"),
        ({"offset": 10**9}, "class_offset: expected a number below 1,000,000"),
        ({"offset": 1, "numbers": (1, 2)}, "class_offset: cannot be combined with class_numbers"),
        ({"numbers": (1, 1)}, "class_numbers: expected two or more different numbers"),
        ({"numbers": (1, -2)}, "class_numbers: expected an integer of at least 0"),
        ({"numbers": (1, 10**9)}, "class_numbers: expected numbers below 1,000,000"),
        ({"background": "last"}, "background: expected 'next best'"),
    ],
)
def test_invalid_numberings_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Numbering(**options)


def test_one_score_per_image_is_class_1_from_the_threshold_on():
    reader = AnswerReader(2, threshold=0.5)
    assert reader.read([0.2, 0.5, 0.9], 3, "who").tolist() == [0, 1, 1]
    assert reader.read([[0.2], [0.5], [0.9]], 3, "who").tolist() == [0, 1, 1]
    for answers, words in (([[0.1, 0.9]], "of shape"), ([float("nan")], "got NaN"), (["a"], "got")):
        with pytest.raises(TeacherError, match=words):
            reader.read(answers, 1, "who")


def test_a_score_without_a_threshold_is_an_error_that_names_the_key():
    with pytest.raises(TeacherError, match=r"its threshold: threshold = 0\.5 for a sigmoid"):
        AnswerReader(2).read([0.3], 1, "who")
    with pytest.raises(TeacherError, match="from 1, declare class_offset = 1"):
        AnswerReader(2).read([1, 2], 2, "who")


class Binary(nn.Module):
    """The sigmoid of the sum less its mean, one score per image."""

    def __init__(self, columns=True):
        super().__init__()
        self.columns = columns
        self.shift = nn.Parameter(torch.tensor(2.0))

    def forward(self, images):
        scores = torch.sigmoid(images.flatten(1).sum(1) - self.shift)
        return scores[:, None] if self.columns else scores


EXPECTED = (IMAGES.flatten(1).sum(1) >= 2).long()


@pytest.mark.parametrize("columns", [True, False])
def test_a_module_with_one_score_per_image_has_two_classes(columns):
    teacher = ModuleTeacher(Binary(columns), SHAPE, 2, threshold=0.5)

    assert decide_checked(teacher, IMAGES).equal(EXPECTED)
    assert 0 < EXPECTED.sum() < len(EXPECTED)
    others = (ModuleTeacher(Binary(columns), SHAPE, 2, threshold=value) for value in (0.4, 0.6))
    assert len({teacher.fingerprint(), *(each.fingerprint() for each in others)}) == 3


def test_a_module_with_one_score_and_no_threshold_is_an_error_that_names_both_arguments():
    with pytest.raises(TeacherError, match="if it is the one score of a model with two"):
        decide_checked(ModuleTeacher(Binary(), SHAPE, 2), IMAGES)
    with pytest.raises(ValueError, match="threshold: belongs to a model of 2 classes"):
        ModuleTeacher(Binary(), SHAPE, 3, threshold=0.5)
    broken = ModuleTeacher(Binary(), SHAPE, 2, threshold=0.5)
    broken.module.shift.data.fill_(float("nan"))
    with pytest.raises(TeacherError, match="NaN"):
        decide_checked(broken, IMAGES)


def binary_factory(image_shape, classes):
    return Binary()


def test_a_weights_file_keeps_threshold_and_names(tmp_path):
    model = f"{__name__}:binary_factory"
    path = save_model(
        tmp_path / "t.safetensors",
        Binary(),
        model=model,
        image_shape=SHAPE,
        classes=2,
        threshold=0.5,
        class_names=["no ", "yes"],
    )
    teacher = load_teacher(path, model=model)

    assert decide_checked(teacher, IMAGES).equal(EXPECTED)
    assert (teacher.class_names, teacher.threshold) == (("no", "yes"), 0.5)


def test_an_exported_program_with_one_score_takes_a_threshold(tmp_path):
    program = torch.export.export(Binary(), (IMAGES,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, tmp_path / "t.pt2")
    teacher = load_teacher(tmp_path / "t.pt2", threshold=0.5, trust_code=True)

    assert decide_checked(teacher, IMAGES).equal(EXPECTED)


def write_onnx(path, weights, metadata=None):
    """Scores [n, C]: the sigmoid of images · weights - 1."""
    classes = weights.shape[1]
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["sums"]),
        helper.make_node("Sigmoid", ["sums"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(np.full(classes, -2, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def test_an_onnx_model_with_one_score_is_described_with_a_threshold(tmp_path):
    write_onnx(tmp_path / "t.onnx", np.ones((4, 1)))
    (tmp_path / "t.toml").write_text('file = "t.onnx"\nthreshold = 0.5')
    (tmp_path / "zero.toml").write_text('file = "t.onnx"\nthreshold = 1')
    teacher = load_teacher(tmp_path / "t.toml")

    assert teacher.classes == 2
    assert decide_checked(teacher, IMAGES).equal(EXPECTED)
    assert not decide_checked(load_teacher(tmp_path / "zero.toml"), IMAGES).any()
    assert teacher.fingerprint() != load_teacher(tmp_path / "zero.toml").fingerprint()
    with pytest.raises(TeacherError, match="declare its threshold"):
        decide_checked(load_teacher(tmp_path / "t.onnx", classes=2), IMAGES)


def test_an_onnx_model_with_a_background_class_is_described_with_an_offset(tmp_path):
    weights = np.concatenate([np.zeros((4, 1)), np.eye(4)], 1)
    write_onnx(tmp_path / "t.onnx", weights)
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "t.toml").write_text('file = "t.onnx"\nclass_offset = 1\nlabels = "names.txt"')
    teacher = load_teacher(tmp_path / "t.toml")

    assert (teacher.classes, teacher.class_names) == (4, ("a", "b", "c", "d"))
    assert decide_checked(teacher, IMAGES).equal(IMAGES.flatten(1).argmax(1))
    assert teacher.fingerprint() != load_teacher(tmp_path / "t.onnx").fingerprint()
    (tmp_path / "wrong.toml").write_text('file = "t.onnx"\nclass_offset = 2\nlabels = "names.txt"')
    with pytest.raises(ValueError, match="got 3 from the model's scores, 4 from the label file"):
        load_teacher(tmp_path / "wrong.toml")
    (tmp_path / "far.toml").write_text('file = "t.onnx"\nclass_numbers = [1, 5]')
    with pytest.raises(ValueError, match=r"class_numbers: expected numbers in \[0, 5\)"):
        load_teacher(tmp_path / "far.toml")


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        ({"names": "{0: 'ox', 1: 'cat'}"}, ("ox", "cat")),
        ({"names": '{"1": "cat", "0": "ox"}'}, ("ox", "cat")),
        ({"class_names": '["ox", "cat"]'}, ("ox", "cat")),
        ({"names": "['ox']", "labels": "['a', 'b']"}, ("a", "b")),
        ({"names": "{0: 'ox', 2: 'cat'}"}, None),
        ({"names": "__import__('os').getcwd()"}, None),
        ({}, None),
    ],
)
def test_names_in_an_onnx_file_are_those_of_its_classes(tmp_path, metadata, names):
    path = write_onnx(tmp_path / "t.onnx", np.eye(4)[:, :2], metadata)
    assert OnnxTeacher(path).class_names == names
    assert OnnxTeacher(path, ModelOverrides(class_names=("x", "y"))).class_names == ("x", "y")


def test_a_service_that_numbers_classes_from_one(tmp_path):
    def answer(asked):
        images = torch.tensor(json.loads(asked.body)["x"])
        return Answer.of((images.flatten(1).argmax(1) + 1).tolist())

    with Loopback(answer) as server:
        description = {
            "url": server.url,
            "image_shape": list(SHAPE),
            "classes": 4,
            "class_offset": 1,
            "rest": {"request": {"x": "$images"}, "answer": "*"},
        }
        (tmp_path / "t.json").write_text(json.dumps(description))
        teacher = load_teacher(tmp_path / "t.json")
        assert decide_checked(teacher, IMAGES).equal(IMAGES.flatten(1).argmax(1))
        teacher.close()


def test_names_given_with_a_teacher_are_checked():
    teacher = FunctionTeacher(lambda images: [0] * len(images), SHAPE, 2, class_names=["a", "b "])
    assert teacher.class_names == ("a", "b")
    for names, error in ((["a"], ValueError), (["a", "a"], ValueError), ("ab", TypeError)):
        with pytest.raises(error, match="class_names"):
            ModuleTeacher(Binary(), SHAPE, 2, class_names=names)
