"""Every answer of a server becomes one decision per image or a TeacherError."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from served_doubles import Answer, Loopback, Scripted

from db3kd.teachers import (
    ModelOverrides,
    RequestSettings,
    Teacher,
    TeacherError,
    decide_checked,
    open_inference_teacher,
    rest_teacher,
)

SHAPE = (1, 8, 8)
SAID = ModelOverrides(image_shape=SHAPE, classes=10)
REQUESTS = RequestSettings(batch=4, in_flight=1, timeout=5.0, max_attempts=1, initial_backoff=0.001)
IMAGES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))

NUMBERS = st.integers(-2, 11) | st.integers() | st.floats() | st.booleans() | st.none()
VALUES = st.recursive(
    NUMBERS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
ROWS = st.lists(st.integers(0, 9), min_size=3, max_size=5) | st.lists(NUMBERS, max_size=5) | VALUES


class Served:
    """A teacher whose server answers with `body`."""

    def __init__(self, teacher: Teacher | None = None) -> None:
        self.body, self.headers, self.teacher = b"", {}, teacher

    def answer(self, *_: object) -> Answer:
        return Answer(200, self.body, self.headers)

    def check(self, content: Any, right: object, headers: dict[str, str] | None = None) -> None:
        """Checks the decisions, or the error, that this answer gives for four images."""
        self.body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.headers = headers or {}
        try:
            decisions = decide_checked(self.teacher, IMAGES)
        except TeacherError as error:
            assert len(str(error)) < 1000
        else:
            assert decisions.shape == (4,) and decisions.dtype == torch.int64
            assert 0 <= int(decisions.min()) <= int(decisions.max()) < 10
            if isinstance(right, list) and all(type(value) is int for value in right):
                assert decisions.tolist() == right


@pytest.fixture(scope="module")
def rest() -> Iterator[Served]:
    served = Served()
    with Loopback(served.answer) as server:
        address = f"{server.url}/predict"
        served.teacher = rest_teacher(address, {"x": "$images"}, "y", SAID, requests=REQUESTS)
        yield served
        served.teacher.close()


@pytest.fixture(scope="module", params=[True, False], ids=["binary", "JSON"])
def protocol(truth, request) -> Iterator[Served]:
    served = Served()
    with Scripted(truth, lambda n, asked, infer: served.answer()) as server:
        served.teacher = open_inference_teacher(
            server.model, SAID, requests=REQUESTS, binary=request.param
        )
        yield served
        served.teacher.close()


@given(rows=ROWS)
@settings(max_examples=40)
def test_any_json_of_a_rest_service(rest, rows):
    rest.check({"y": rows}, rows)


@given(body=st.binary(max_size=40) | VALUES)
@settings(max_examples=25)
def test_any_body_of_a_rest_service(rest, body):
    rest.check(body, None)


@given(
    rows=ROWS,
    shape=st.just([4]) | st.lists(st.integers(-1, 5) | st.integers(), max_size=3),
    datatype=st.sampled_from(["INT64", "FP32", "BYTES", "BOOL", "UINT8", "WRONG"]) | VALUES,
    length=st.none() | st.integers(-5, 400).map(str) | st.text("0123456789-x", max_size=4),
)
@settings(max_examples=40)
def test_any_tensor_of_the_open_inference_protocol(protocol, rows, shape, datatype, length):
    output = {"name": "label", "datatype": datatype, "shape": shape, "data": rows}
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    right = rows if shape == [4] and datatype == "INT64" and length is None else None
    protocol.check({"outputs": [output]}, right, headers)


@given(body=st.binary(max_size=40) | VALUES)
@settings(max_examples=25)
def test_any_body_of_the_open_inference_protocol(protocol, body):
    protocol.check(body, None)


def test_a_correct_answer_is_read(rest, protocol):
    right = [3, 0, 9, 1]
    output = {"name": "label", "datatype": "INT64", "shape": [4], "data": right}
    for served, content in ((rest, {"y": right}), (protocol, {"outputs": [output]})):
        served.body, served.headers = json.dumps(content).encode(), {}
        assert decide_checked(served.teacher, IMAGES).tolist() == right
