"""Measures the speed of served teachers, and what a failing server costs.

throughput  Images a second through a served teacher and through tritonclient in a bare loop, with
            the same batch size and as many concurrent requests, in turns. The model is one small
            matrix product, so that mainly the transport is timed. Servers and clients share the
            cores of the machine.
faults      A labelling run against a server that drops 5 % of connections, answers 503 to 5 %,
            delays 1 % by 10 s and restarts once. The server counts what it answers.

    make test-servers        # once, to install the servers
    export DB3KD_SERVERS=.venv-servers/bin/python PYTHONPATH=.:tests/helpers
    python -m benchmarks.systems.serving
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tritonclient.grpc
import tritonclient.http
from real_servers import MLServer, RealServer, Triton, train_digits, write_linear
from served_doubles import FaultyServer
from torch import Tensor

from benchmarks.common.record import keep
from benchmarks.common.setting import parser
from db3kd.data.loading import load_data
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.teachers import (
    FunctionTeacher,
    ModelOverrides,
    RequestSettings,
    decide_checked,
    open_inference_teacher,
)

SHAPE = (1, 28, 28)
_JSON_SHARE = 8
"""JSON takes about ten times as long, so it gets fewer images."""

WIRES = {
    MLServer: ("JSON over HTTP", "bytes over gRPC"),
    Triton: ("JSON over HTTP", "bytes over HTTP", "bytes over gRPC"),
}


def main() -> None:
    """Measures the parts and writes the result."""
    options = _options()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"throughput": [], "faults": None}
    if "throughput" in options.parts:
        result["throughput"] = measure_throughput(options)
    if "faults" in options.parts:
        result["faults"] = measure_faults(options)
    keep(options, result)


def measure_throughput(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures a row for each server, transport and batch size."""
    generator = np.random.default_rng(0)
    images = torch.rand(options.images, *SHAPE, generator=torch.Generator().manual_seed(0))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        weights = generator.normal(size=(10, np.prod(SHAPE)))
        weights -= weights.mean(1, keepdims=True)
        file = write_linear(Path(folder) / "weights.npz", weights, np.zeros(10), SHAPE)
        for kind, wires in WIRES.items():
            with kind(file, Path(folder) / kind.__name__) as server:
                for wire in wires:
                    count = options.images // (_JSON_SHARE if "JSON" in wire else 1)
                    for batch in options.batches:
                        rows.append(_compare(server, wire, batch, images[:count], options))
                        print(_described(rows[-1]), flush=True)
    return rows


def _compare(
    server: RealServer, wire: str, batch: int, images: Tensor, options: argparse.Namespace
) -> dict[str, Any]:
    requests = RequestSettings(batch=batch, in_flight=options.in_flight)
    url = server.grpc_model if "gRPC" in wire else server.http_model
    binary = None if "gRPC" in wire else "bytes" in wire
    teacher = open_inference_teacher(
        url, ModelOverrides(classes=10), requests=requests, binary=binary
    )
    bare = BareLoop(server, wire, batch, options.in_flight)
    ways: dict[str, Callable[[], Tensor]] = {
        "db3kd": lambda: decide_checked(teacher, images),
        "bare": lambda: bare.decide(images),
    }
    answers = {name: way() for name, way in ways.items()}  # warm-up
    assert answers["db3kd"].equal(answers["bare"])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    teacher.close()
    bare.close()
    # The best of each: other load makes passes longer, never shorter.
    speed = {name: len(images) / min(each) for name, each in seconds.items()}
    return {
        "server": type(server).__name__,
        "wire": wire,
        "batch": batch,
        "in_flight": options.in_flight,
        "images": len(images),
        "images_per_second": {name: round(value) for name, value in speed.items()},
        "share_of_bare": round(speed["db3kd"] / speed["bare"], 3),
        "seconds": seconds,
    }


class BareLoop:
    """tritonclient alone: a thread and a client for each concurrent request."""

    def __init__(self, server: RealServer, wire: str, batch: int, in_flight: int) -> None:
        self._batch = batch
        self._binary = {} if "gRPC" in wire else {"binary_data": "bytes" in wire}
        self._triton = tritonclient.grpc if "gRPC" in wire else tritonclient.http
        port = server.grpc if "gRPC" in wire else server.http
        self._address = f"127.0.0.1:{port}"
        self._local = threading.local()
        self._clients: list[Any] = []
        self._threads = ThreadPoolExecutor(in_flight, initializer=self._connect)

    def decide(self, images: Tensor) -> Tensor:
        """Asks for the classes of images."""
        return torch.cat(list(self._threads.map(self._ask, images.split(self._batch))))

    def close(self) -> None:
        """Closes the clients."""
        for _ in self._threads.map(lambda _: self._local.client.close(), self._clients):
            pass
        self._threads.shutdown()

    def _connect(self) -> None:
        self._local.client = self._triton.InferenceServerClient(self._address)
        self._clients.append(self._local.client)

    def _ask(self, images: Tensor) -> Tensor:
        tensor = self._triton.InferInput("images", list(images.shape), "FP32")
        tensor.set_data_from_numpy(images.numpy(), **self._binary)
        output = self._triton.InferRequestedOutput("label", **self._binary)
        answer = self._local.client.infer("digits", [tensor], outputs=[output])
        return torch.from_numpy(answer.as_numpy("label").reshape(-1).copy())


def measure_faults(options: argparse.Namespace) -> dict[str, Any]:
    """Compares labels through the failing server with labels through the model itself."""
    images = load_data("digits")
    settings = LabelSettings("bd", queries_per_pair=40)
    index = torch.arange(options.labelled)
    with (
        tempfile.TemporaryDirectory() as folder,
        np.load(train_digits(Path(folder) / "weights.npz")) as file,
    ):
        weights, bias = file["weights"], file["bias"]
    local = FunctionTeacher(
        lambda rows: (rows.astype(np.float64) @ weights.T + bias).argmax(1),
        images.image_shape,
        10,
        flatten=True,
        fingerprint="linear",
    )
    subset = images.subset(index)
    expected = label(local, subset, settings, progress=False)
    with FaultyServer(local, delay=options.delay) as server:
        requests = RequestSettings(batch=8, in_flight=4, timeout=options.timeout)
        teacher = open_inference_teacher(
            server.model, ModelOverrides(classes=10), requests=requests
        )
        restart = threading.Timer(options.restart_after, server.restart, (3.0,))
        restart.start()
        start = time.perf_counter()
        labels = label(teacher, subset, settings, progress=False)
        seconds = time.perf_counter() - start
        restarted = restart.finished.is_set()
        restart.cancel()
        restart.join()
        teacher.close()
    result = {
        "samples": len(index),
        "labels_equal": labels.distances.equal(expected.distances)
        and labels.decision.equal(expected.decision),
        "queries_booked": int(labels.queries.sum()),
        "queries_answered_by_server": server.answered,
        "queries_computed_by_server": server.paid,
        "requests_computed": len(server.requests),
        "requests_computed_twice": sum(count > 1 for count in server.requests.values()),
        "faults": dict(server.faults),
        "restarted": restarted,
        "delay": options.delay,
        "timeout": options.timeout,
        "seconds": seconds,
    }
    print(result)
    return result


def _described(row: dict[str, Any]) -> str:
    speed = row["images_per_second"]
    return (
        f"{row['server']:9} {row['wire']:16} batch {row['batch']:4}: {speed['db3kd']:,} images a "
        f"second, bare {speed['bare']:,}: {row['share_of_bare']:.0%}"
    )


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--parts", nargs="+", default=["throughput", "faults"])
    options.add_argument("--images", type=int, default=16384, help="images of a timed pass")
    options.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256])
    options.add_argument("--in-flight", type=int, default=4)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--labelled", type=int, default=100, help="images to label with faults")
    options.add_argument(
        "--delay", type=float, default=10.0, help="seconds, for the part with faults"
    )
    options.add_argument(
        "--timeout", type=float, default=5.0, help="seconds, for the part with faults"
    )
    options.add_argument(
        "--restart-after", type=float, default=10.0, help="seconds, for the part with faults"
    )
    return options.parse_args()


if __name__ == "__main__":
    main()
