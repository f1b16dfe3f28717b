"""The Open Inference Protocol v2: model declarations and the encoding of tensors."""

import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import torch
from served_doubles import ModelServer
from teachers_analytic import LinearTeacher
from tritonclient.grpc import service_pb2, service_pb2_grpc

from db3kd.teachers import (
    ModelOverrides,
    Preprocessing,
    RequestSettings,
    SecretHeader,
    TeacherError,
    load_teacher,
    open_inference_teacher,
)
from db3kd.teachers.remote.open_inference_tensors import ModelAddress

SHAPE = (1, 8, 8)
BRISK = RequestSettings(batch=8, in_flight=3, timeout=5.0, max_attempts=3, initial_backoff=0.001)


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The double over gRPC. failures: status codes to abort with, one a question."""

    def __init__(self, teacher: LinearTeacher, failures: list | None = None) -> None:
        self.teacher = teacher
        self.failures = failures or []
        self.asked: list[dict[str, str]] = []
        self.answered = 0
        self.metadata = [("images", "FP32", [-1, *SHAPE]), ("label", "INT64", [-1, 1])]

    def ModelMetadata(self, request, context):
        kind = service_pb2.ModelMetadataResponse.TensorMetadata
        described = [kind(name=n, datatype=d, shape=s) for n, d, s in self.metadata]
        return service_pb2.ModelMetadataResponse(
            name=request.name, inputs=described[:1], outputs=described[1:]
        )

    def ModelInfer(self, request, context):
        self.asked.append(dict(context.invocation_metadata()))
        if self.failures:
            context.abort(self.failures.pop(0), self.asked[-1].get("authorization", "no secret"))
        array = np.frombuffer(request.raw_input_contents[0], np.float32)
        decisions = self.teacher.decide(torch.tensor(array.reshape(*request.inputs[0].shape)))
        self.answered += len(decisions)
        return self.respond(decisions.numpy()[:, None])

    def respond(self, labels: np.ndarray):
        output = service_pb2.ModelInferResponse.InferOutputTensor(
            name="label", datatype="INT64", shape=labels.shape
        )
        return service_pb2.ModelInferResponse(
            outputs=[output], raw_output_contents=[labels.astype(np.int64).tobytes()]
        )


@pytest.fixture
def serve():
    """Starts a service over gRPC and returns its address."""
    servers = []

    def start(service: Service) -> str:
        server = grpc.server(ThreadPoolExecutor(4))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"grpc://127.0.0.1:{port}/digits"

    yield start
    for server in servers:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("url", "model", "version"),
    [
        ("http://h:8000/v2/models/digits", "digits", ""),
        ("https://h/gate/v2/models/digits/versions/2/", "digits", "2"),
        ("grpc://h:8001/digits", "digits", ""),
        ("grpcs://h:8001/a%20b/3", "a b", "3"),
    ],
)
def test_an_address_names_host_model_and_version(url, model, version):
    address = ModelAddress.parse(url)

    assert (address.model, address.version) == (model, version)
    assert address.secure == url.partition(":")[0].endswith("s")
    assert address.base.startswith(url.partition("://")[0])


@pytest.mark.parametrize(
    "url",
    [
        "http://h/models/digits",
        "http://h/v2/models/",
        "grpc://h:8001",
        "grpc://h/a/b/c",
        "ftp://h/m",
        "http:///v2/models/m",
        "http://h:port/v2/models/m",
        "http://h/v2/models/m?key=1",
    ],
)
def test_an_invalid_address_is_rejected(url):
    with pytest.raises(ValueError, match="url: expected"):
        ModelAddress.parse(url)


@pytest.mark.parametrize("binary", [True, False, None])
@pytest.mark.parametrize("extensions", [(), ("binary_tensor_data",)])
def test_tensors_are_encoded_as_requested_or_as_the_server_supports(
    truth, images, binary, extensions
):
    with ModelServer(truth, extensions) as server:
        teacher = open_inference_teacher(server.model, ModelOverrides(classes=10), binary=binary)
        assert teacher.decide(images).equal(truth.decide(images))
        as_bytes = bool(extensions) if binary is None else binary
        assert ("Inference-Header-Content-Length" in server.asked[-1].headers) == as_bytes
        assert dict(teacher.details())["tensors"] == f"{'bytes' if as_bytes else 'JSON'}, over HTTP"
        teacher.close()


def test_tensors_as_json_are_those_of_the_protocol_and_keep_their_bits(truth, images):
    with ModelServer(truth, ()) as server:
        requests = dataclasses.replace(BRISK, in_flight=1)
        teacher = open_inference_teacher(
            server.model, ModelOverrides(classes=10), requests=requests
        )
        teacher.decide(images[:8])
        teacher.close()
    body = server.asked[-1].body
    sent = json.loads(body)
    (tensor,), (output,) = sent["inputs"], sent["outputs"]
    assert np.array(tensor.pop("data"), np.float32).tobytes() == images[:8].numpy().tobytes()
    assert tensor == {"name": "images", "shape": [8, *SHAPE], "datatype": "FP32"}
    assert output == {"name": "label", "parameters": {"binary_data": False}}
    assert len(body) < 13 * images[:8].numel() and sent["id"]


def test_the_metadata_declares_shape_and_classes(truth):
    scores = {"outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}]}
    with ModelServer(truth, metadata=scores) as server:
        teacher = load_teacher(server.model, max_batch=16)
        assert (teacher.image_shape, teacher.classes) == (SHAPE, 10)
        assert teacher.requests.batch == 16
        with pytest.raises(
            ValueError, match=r"image_shape: expected \[1, 8, 8\] per image for .*digits"
        ):
            load_teacher(server.model, image_shape=(8, 8, 1))
        with pytest.raises(ValueError, match="got 10 from the model's scores, 7 from classes="):
            load_teacher(server.model, classes=7)
        teacher.close()


def test_missing_declarations_are_reported(truth):
    silent = {"inputs": [], "outputs": []}
    with ModelServer(truth, metadata=silent) as server:
        with pytest.raises(ValueError, match="does not declare the name of its input; pass input="):
            open_inference_teacher(server.model)
        with pytest.raises(
            ValueError, match="does not declare the shape of its images; pass image_shape="
        ):
            open_inference_teacher(server.model, ModelOverrides(input="images", output="label"))
        said = ModelOverrides("images", "label", image_shape=SHAPE, assumed_classes=10)
        open_inference_teacher(server.model, said).close()


def test_a_model_for_one_image_receives_one_image_per_request(truth, images):
    single = {"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, *SHAPE]}]}
    with ModelServer(truth, metadata=single) as server:
        teacher = open_inference_teacher(server.model, ModelOverrides(classes=10), requests=BRISK)
        assert teacher.decide(images).equal(truth.decide(images))
        assert len(server.requests) == len(images)
        teacher.close()
    single["inputs"][0]["shape"][0] = 8
    with (
        ModelServer(truth, metadata=single) as server,
        pytest.raises(ValueError, match="got batches of 8; serve it with a free"),
    ):
        open_inference_teacher(server.model, ModelOverrides(classes=10))


def test_a_flat_model_receives_flat_images(truth, images):
    flat = {"inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 64]}]}
    with ModelServer(truth, metadata=flat) as server:
        said = ModelOverrides(classes=10, assumed_shape=SHAPE)
        with pytest.raises(ValueError, match="correct image_shape, layout or resize"):
            open_inference_teacher(server.model, said)
        teacher = open_inference_teacher(server.model, said, Preprocessing(layout="flat"))
        assert teacher.decide(images).equal(truth.decide(images))
        teacher.close()


@pytest.mark.parametrize(
    "metadata",
    [
        {"inputs": [{"name": "images"}]},
        {"inputs": [{"name": "images", "datatype": "BF16", "shape": [-1]}]},
        {"inputs": [{"name": "images", "datatype": "FP32", "shape": ["many"]}]},
        {"inputs": 3},
    ],
)
def test_invalid_metadata_is_a_teacher_error(truth, metadata):
    with (
        ModelServer(truth, metadata=metadata) as server,
        pytest.raises(TeacherError, match="a known datatype and a shape in the model's metadata"),
    ):
        open_inference_teacher(server.model)


def test_a_missing_model_is_reported_by_name(truth):
    with (
        ModelServer(truth) as server,
        pytest.raises(TeacherError, match=r"teacher other at http://127.*: .* status 404"),
    ):
        open_inference_teacher(server.model.replace("digits", "other"))


def test_the_fingerprint_is_of_the_model_not_of_the_request_settings(truth):
    with ModelServer(truth) as server:

        def of(**options) -> str:
            said = ModelOverrides(classes=options.pop("classes", 10))
            teacher = open_inference_teacher(server.model, said, **options)
            teacher.close()
            return teacher.fingerprint()

        assert of() == of(requests=BRISK) == of(binary=False)
        server.metadata["versions"] = ["2"]
        second = of()
        others = [of(classes=9), of(preprocessing=Preprocessing(scale=(0, 2))), of(fingerprint="x")]
        server.metadata["versions"] = ["3"]
        assert len({second, of(), *others}) == 5
        assert of(fingerprint="x") == others[-1], "a fingerprint that is given stands for the model"


def test_over_grpc_answers_are_the_same(truth, images, serve, monkeypatch):
    monkeypatch.setenv("DB3KD_TEST_SECRET", "Bearer hush-hush")
    service = Service(truth)
    secret = SecretHeader("DB3KD_TEST_SECRET")
    url = serve(service)
    teacher = open_inference_teacher(url, ModelOverrides(classes=10), requests=BRISK, secret=secret)
    assert (teacher.image_shape, teacher.classes) == (SHAPE, 10)
    assert teacher.decide(images).equal(truth.decide(images))
    assert service.answered == len(images) and len(service.asked) == 3
    assert {asked["authorization"] for asked in service.asked} == {"Bearer hush-hush"}
    teacher.close()


@pytest.mark.parametrize(
    "code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN", "ABORTED", "CANCELLED"]
)
def test_over_grpc_a_busy_or_failing_server_is_retried(truth, images, serve, code):
    service = Service(truth, [grpc.StatusCode[code]] * 2)
    teacher = open_inference_teacher(serve(service), ModelOverrides(classes=10), requests=BRISK)
    assert teacher.decide(images).equal(truth.decide(images))
    assert service.answered == len(images)
    teacher.close()


@pytest.mark.parametrize(
    ("code", "lost"), [("INTERNAL", [4, 4]), ("UNKNOWN", [4, 4]), ("RESOURCE_EXHAUSTED", [])]
)
def test_over_grpc_repeats_that_may_be_charged_are_counted(truth, images, serve, code, lost):
    service = Service(truth, [grpc.StatusCode[code]] * 2)
    teacher = open_inference_teacher(serve(service), ModelOverrides(classes=10), requests=BRISK)
    counted, stream = [], teacher.stream(images[:4])
    stream.on_lost = counted.append
    assert stream.next_part().equal(truth.decide(images[:4]))
    assert not len(stream.next_part())
    assert counted == lost
    teacher.close()


@pytest.mark.parametrize(("code", "attempts"), [("INTERNAL", 1), ("RESOURCE_EXHAUSTED", 3)])
def test_over_grpc_a_failure_that_may_be_charged_is_not_retried_without_ambiguous_retries(
    truth, images, serve, code, attempts
):
    service = Service(truth, [grpc.StatusCode[code]] * 9)
    requests = dataclasses.replace(BRISK, max_attempts=3, retry_ambiguous=False)
    teacher = open_inference_teacher(serve(service), ModelOverrides(classes=10), requests=requests)
    words = f"no answer in {attempts} attempts?; the server answered with status {code}: "
    with pytest.raises(TeacherError, match=words) as raised:
        teacher.decide(images[:8])
    assert len(service.failures) == 9 - attempts
    assert raised.value.maybe_paid == (8 if attempts == 1 else 0)
    teacher.close()


def test_over_grpc_a_rejection_is_a_teacher_error_without_the_secret(
    truth, images, serve, monkeypatch
):
    monkeypatch.setenv("DB3KD_TEST_SECRET", "Bearer hush-hush")
    service = Service(truth, [grpc.StatusCode.INVALID_ARGUMENT])
    secret = SecretHeader("DB3KD_TEST_SECRET")
    teacher = open_inference_teacher(
        serve(service), ModelOverrides(classes=10), requests=BRISK, secret=secret
    )
    with pytest.raises(TeacherError, match=r"answered with status INVALID_ARGUMENT$") as raised:
        teacher.decide(images[:8])
    assert "hush" not in repr(raised.value)
    assert raised.value.maybe_paid == 0
    teacher.close()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.full((8, 1), 10), "got class 10 for image 0"),
        (np.zeros((7, 1)), r"got an answer of shape \[7, 1\]"),
        (np.zeros((2_000_000, 1)), "larger than max"),
    ],
)
def test_over_grpc_a_hostile_answer_is_a_teacher_error(truth, images, serve, labels, words):
    service = Service(truth)
    honest = service.respond
    service.respond = lambda _: honest(labels)
    teacher = open_inference_teacher(serve(service), ModelOverrides(classes=10), requests=BRISK)
    with pytest.raises(TeacherError, match=words):
        teacher.decide(images[:8])
    assert len(service.asked) == 1, "paid for once"
    teacher.close()


def test_over_grpc_a_missing_server_is_reported():
    with pytest.raises(TeacherError, match="no answer in 3 attempts; no connection"):
        open_inference_teacher("grpc://127.0.0.1:1/digits", requests=BRISK)


def test_grpc_rejects_json():
    with pytest.raises(ValueError, match=r"binary: .*gRPC always sends bytes"):
        open_inference_teacher("grpc://127.0.0.1:1/digits", binary=False)


@pytest.mark.parametrize("module", ["tenacity", "tritonclient.http", "aiohttp", "orjson"])
def test_a_missing_package_is_reported_with_its_extra(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "db3kd\[remote\]"'):
        open_inference_teacher("http://127.0.0.1:1/v2/models/m")
