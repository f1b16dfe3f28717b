"""Labels from third-party servers, end to end. Run by `make test-servers`."""

import numpy as np
import pytest
import torch
from real_servers import MLServer, RealServer, Triton, servers_python, train_digits
from typer.testing import CliRunner

from db3kd.cli.app import app
from db3kd.labels.label_files import load_labels
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import load_teacher

pytestmark = pytest.mark.skipif(
    servers_python() is None, reason="real servers need an environment: make test-servers"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return train_digits(tmp_path_factory.mktemp("digits") / "weights.npz")


@pytest.fixture(scope="module", params=[MLServer, Triton])
def server(request, weights, tmp_path_factory):
    with request.param(weights, tmp_path_factory.mktemp("server")) as server:
        yield server


def label(tmp_path, text: str, name: str):
    """Labels digits by the teacher that `text` describes; the labels and all queries booked."""
    described = tmp_path / f"{name}.toml"
    described.write_text(text)
    options = ("--data", "digits", "--measure", "bd", "--limit", "30", "--queries-per-pair", "40")
    arguments = ["label", "--teacher", str(described), *options, "--out", str(tmp_path / name)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = read_manifest(tmp_path / name)
    queries = found["totals"]["queries"]
    return load_labels(tmp_path / name), queries


def linear(images: np.ndarray) -> np.ndarray:
    """The same classifier in this process; its weights are set by the test."""
    rows = images.reshape(len(images), -1).astype(np.float64)
    return (rows @ linear.weights.T + linear.bias).argmax(1)


@pytest.mark.parametrize("form", ["http", "http, JSON", "grpc"])
def test_a_real_server_gives_the_labels_of_the_model_itself(
    server: RealServer, weights, tmp_path, form
):
    with np.load(weights) as file:
        linear.weights, linear.bias = file["weights"], file["bias"]
    url = server.grpc_model if form == "grpc" else server.http_model
    json_only = "\nbinary = false" if form == "http, JSON" else ""
    before = server.counted()

    labels, queries = label(
        tmp_path, f'url = "{url}"\nclasses = 10{json_only}\n[requests]\nbatch = 32', "served"
    )

    assert server.counted() - before == queries > 1000
    options = ("--data", "digits", "--measure", "bd", "--limit", "30", "--queries-per-pair", "40")
    local = ["label", "--teacher", f"{__name__}:linear", *options, "--out", str(tmp_path / "local")]
    assert CliRunner().invoke(app, local).exit_code == 0
    expected = load_labels(tmp_path / "local")
    assert labels.decision.equal(expected.decision)
    assert torch.equal(labels.distances, expected.distances)
    assert labels.queries.equal(expected.queries)


def test_a_real_server_describes_its_model(server: RealServer):
    for url in (server.http_model, server.grpc_model):
        teacher = load_teacher(url, classes=10)
        rows = dict(teacher.details())
        assert teacher.image_shape == (1, 8, 8)
        assert (rows["input"], rows["output"]) == ("images", "label")
        binary = isinstance(server, Triton) or url == server.grpc_model
        assert rows["tensors"].startswith("bytes" if binary else "JSON")
        teacher.close()
