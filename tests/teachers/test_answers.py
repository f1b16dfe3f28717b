"""Answers of every form, converted to decisions or to one clear error."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from db3kd.teachers import TeacherError
from db3kd.teachers.answers import AnswerReader
from db3kd.teachers.class_numbers import read_names

READER = AnswerReader(3)
NAMED = AnswerReader(3, ["cat", "dog", "ox"])


@pytest.mark.parametrize(
    "answers",
    [
        [0, 2, 1],
        [[0], [2], [1]],
        [0.0, 2.0, 1.0],
        np.array([0, 2, 1], dtype=np.uint8),
        np.array([[0], [2], [1]], dtype=np.int64),
        [[0.5, 0.1, 0.1], [0, 0, 1e-9], [-2, -1, -3]],
        np.array([[9, 1, 1], [0, 0, 2], [0, 1, 0]]),
        [[float("-inf"), float("-inf"), float("-inf")], [0, 0, 1], [0, 1, 0]],
    ],
)
def test_classes_are_read_from_numbers_and_scores(answers):
    assert READER.read(answers, 3, "who").tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    "answers",
    [["cat", "ox", "dog"], [["cat"], ["ox"], ["dog"]], np.array([b"cat", b"ox", b"dog"], object)],
)
def test_names_are_read_by_their_line_in_the_label_file(answers):
    assert NAMED.read(answers, 3, "who").tolist() == [0, 2, 1]


@given(arrays.arrays(np.float32, (4, 3), elements=st.floats(-1e3, 1e3, width=32)))
def test_only_the_position_of_the_largest_score_is_used(scores):
    assert READER.read(scores, 4, "who").tolist() == scores.argmax(1).tolist()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([0, 3], r"got class 3 for image 1; classes are whole numbers in \[0, 3\)"),
        ([0, -1], "got class -1 for image 1"),
        ([0, 0.5], "got class 0.5 for image 1"),
        ([0, float("nan")], "got class nan"),
        ([0, float("inf")], "got class inf"),
        ([[0, 1, float("nan")], [0, 0, 1]], "got NaN among the scores"),
        ([0], r"got an answer of shape \[1\]"),
        ([[0, 1], [1, 0]], r"got an answer of shape \[2, 2\]"),
        ([[[0]], [[1]]], r"shape \[2, 1, 1\]"),
        ([[0, 1, 2], [0]], "rows of different lengths"),
        (7, r"shape \[\]"),
        (None, r"shape \[\]"),
        ({"label": 3}, r"shape \[\]"),
        ([None, None], "got NoneType for image 0"),
        ([True, False], "got bool"),
        ([10**30, 0], "got class [0-9]{20,} for image 0"),
        (["cat", "dog"], "got the class name 'cat' for image 0; pass the label file"),
        (np.array([1j, 2j]), "got complex128"),
    ],
)
def test_anything_else_is_a_typed_error(answers, words):
    with pytest.raises(TeacherError, match="^who: expected 2 classes, or scores.*" + words):
        READER.read(answers, 2, "who")


def test_an_unknown_name_is_repeated_unless_it_may_be_a_secret():
    names = list("abc")
    with pytest.raises(
        TeacherError,
        match=r"got the class name 'A' for image 1, which is not one of the known class names, "
        r"'a', 'b', 'c'; correct the label file \(labels\)",
    ):
        AnswerReader(3, names).read(["a", "A"], 2, "who")
    with pytest.raises(TeacherError, match="which is not one of the known class names") as raised:
        AnswerReader(3, names, quote=False).read(["a", "Bearer 12345"], 2, "who")
    assert "12345" not in str(raised.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)


@given(JSON)
def test_every_json_answer_gives_classes_or_a_typed_error(value):
    value = json.loads(json.dumps(value))
    try:
        decisions = NAMED.read(value, 2, "who")
    except TeacherError:
        return
    assert decisions.shape == (2,) and all(0 <= decision < 3 for decision in decisions.tolist())


def test_a_label_file_has_a_name_a_line(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\n dog \nox\n\n", encoding="utf-8")

    assert read_names(tmp_path / "labels.txt") == ("cat", "dog", "ox")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cat\ncat\ndog\n", "each class name once, got 'cat' again"),
        (b"cat\n\ndog\n", "no empty line"),
        (b"cat\n", "two or more class names"),
        (b"\xff\xfe\x00cat\ndog", "expected UTF-8 text"),
    ],
)
def test_a_label_file_that_is_not_one_is_refused(tmp_path, content, words):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_names(tmp_path / "labels.txt")


def test_class_names_and_class_count_agree():
    with pytest.raises(ValueError, match="labels: expected 4 class names, got 2"):
        AnswerReader(4, ["cat", "dog"])
