"""Servers on loopback for tests and benchmarks: honest, faulty, or hostile on purpose."""

import itertools
import json
import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from db3kd.teachers import Teacher


@dataclass
class Asked:
    """A request that the server received."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    client: socket.socket

    def is_gone(self) -> bool:
        """Returns whether the client has closed the connection."""
        readable, _, _ = select.select([self.client], [], [], 0)
        return bool(readable) and self.client.recv(1, socket.MSG_PEEK) == b""


@dataclass
class Answer:
    """An answer to send. A body of several parts is sent part by part, without its length."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200) -> "Answer":
        """Returns an answer with a JSON value."""
        return cls(status, json.dumps(value).encode())


class Loopback:
    """An HTTP server whose answers are chosen by a function.

    Args:
        answer: Returns the answer to a request, or None to drop the connection. Subclasses may
            override the method `answer` instead.
    """

    def __init__(self, answer: Callable[[Asked], Answer | None] | None = None) -> None:
        self._answer = answer
        self._clients: set[socket.socket] = set()
        self._port = 0
        self.asked: list[Asked] = []

    def answer(self, asked: Asked) -> Answer | None:
        """Returns the answer to a request, or None to drop the connection."""
        if self._answer is None:
            raise NotImplementedError("pass answer=, or override the method answer")
        return self._answer(asked)

    def sent(self, answer: Answer) -> None:
        """Is called when all of an answer has been sent."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        for client in list(self._clients):
            _disconnect(client)
        self._server.server_close()

    def restart(self, pause: float) -> None:
        """Drops all connections and accepts no new ones for `pause` seconds."""
        self.__exit__()
        time.sleep(pause)
        self.__enter__()


class ModelServer(Loopback):
    """A teacher behind the Open Inference Protocol v2, with and without the binary extension.

    Args:
        teacher: Decides the images.
        extensions: The protocol extensions that the server declares.
        metadata: Replaces parts of the model's metadata.

    Attributes:
        paid: Number of images that the server decided.
        answered: Number of images whose answers were sent to a client that was still connected.
        requests: How often each request was computed, by its id.
        max_in_flight: Maximum number of concurrent requests so far.
    """

    def __init__(
        self,
        teacher: Teacher,
        extensions: tuple[str, ...] = ("binary_tensor_data",),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._teacher = teacher
        self._extensions = extensions
        self._lock = threading.Lock()
        self._in_flight = 0
        self.max_in_flight = 0
        self.paid = self.answered = 0
        self.requests: Counter[str] = Counter()
        self.metadata = {
            "name": "digits",
            "versions": ["1"],
            "platform": "double",
            "inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, *teacher.image_shape]}],
            "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1, 1]}],
            **(metadata or {}),
        }

    @property
    def model(self) -> str:
        return f"{self.url}/v2/models/digits"

    def answer(self, asked: Asked) -> Answer | None:
        if asked.path == "/v2":
            return Answer.of({"name": "double", "extensions": list(self._extensions)})
        if asked.path == "/v2/models/digits":
            return Answer.of(self.metadata)
        if asked.path != "/v2/models/digits/infer":
            return Answer.of({"error": f"there is no {asked.path}"}, 404)
        with self._lock:
            self._in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            return self.infer(asked)
        finally:
            with self._lock:
                self._in_flight -= 1

    def infer(self, asked: Asked) -> Answer | None:
        """Decides the images of a request. Subclasses override this to fail."""
        header_length = asked.headers.get("Inference-Header-Content-Length")
        head = json.loads(asked.body if header_length is None else asked.body[: int(header_length)])
        images = _tensor(head["inputs"][0], asked.body, header_length)
        with self._lock:
            decisions = self._teacher.decide(images)
            self.paid += len(images)
            self.requests[head["id"]] += 1
        return _labels(decisions, head, binary=header_length is not None)

    def sent(self, answer: Answer) -> None:
        with self._lock:
            self.answered += int(answer.headers.get("X-Images", 0))


class FaultyServer(ModelServer):
    """Drops connections, is busy or is slow for random shares of the requests.

    A slow answer is computed after `delay` seconds, if the client is still connected then.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        drop: float = 0.05,
        busy: float = 0.05,
        slow: float = 0.01,
        delay: float = 10.0,
        seed: int = 0,
    ) -> None:
        super().__init__(teacher)
        self._shares = {"drop": drop, "busy": busy, "slow": slow}
        self._delay = delay
        self._random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.stopping = threading.Event()

    def infer(self, asked: Asked) -> Answer | None:
        fault = self._draw()
        if fault == "drop":
            return None
        if fault == "busy":
            return Answer.of({"error": "busy"}, 503)
        if fault == "slow":
            self.stopping.wait(self._delay)
            if asked.is_gone():
                return None
        return super().infer(asked)

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        super().__exit__()
        self.stopping.clear()

    def _draw(self) -> str | None:
        with self._lock:
            drawn = self._random.random()
            for fault, share in self._shares.items():
                if drawn < share:
                    self.faults[fault] += 1
                    return fault
                drawn -= share
            return None


Script = Callable[[int, Asked, Callable[[Asked], Answer | None]], Answer | None]


class Scripted(ModelServer):
    """Answers as a script chooses.

    Args:
        teacher: Decides the images.
        script: Receives the number of the request, the request, and a function that answers it
            correctly.
    """

    def __init__(
        self,
        teacher: Teacher,
        script: Script,
        extensions: tuple[str, ...] = ("binary_tensor_data",),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(teacher, extensions, metadata)
        self.script = script
        self.number = itertools.count()

    def infer(self, asked: Asked) -> Answer | None:
        return self.script(next(self.number), asked, super().infer)


def _tensor(described: dict[str, Any], body: bytes, header_length: str | None) -> Tensor:
    if header_length is None:
        array = np.array(described["data"], dtype=np.float32)
    else:
        array = np.frombuffer(body[int(header_length) :], dtype=np.float32)
    return torch.tensor(array.reshape(described["shape"]))


def _labels(decisions: Tensor, head: dict[str, Any], binary: bool) -> Answer:
    array = decisions.numpy().astype(np.int64)[:, None]
    output: dict[str, Any] = {"name": "label", "datatype": "INT64", "shape": list(array.shape)}
    headers = {"X-Images": str(len(array))}
    answer = {"model_name": "digits", "id": head["id"], "outputs": [output]}
    if not binary:
        output["data"] = array.flatten().tolist()
        return Answer(200, json.dumps(answer).encode(), headers)
    output["parameters"] = {"binary_data_size": array.nbytes}
    text = json.dumps(answer).encode()
    headers["Inference-Header-Content-Length"] = str(len(text))
    return Answer(200, text + array.tobytes(), headers)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # the server joins them when it closes
    request_queue_size = 64
    allow_reuse_address = True


def _handler(owner: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def setup(self) -> None:
            super().setup()
            owner._clients.add(self.connection)

        def handle(self) -> None:
            with suppress(OSError):  # the client has gone, or the server stops
                super().handle()

        def finish(self) -> None:
            owner._clients.discard(self.connection)
            with suppress(OSError):
                super().finish()

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, dict(self.headers), body, self.connection)
            owner.asked.append(asked)
            try:
                answer = owner.answer(asked)
            except Exception as error:
                answer = Answer.of({"error": repr(error)}, 500)
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if isinstance(answer.body, bytes):
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
            else:
                self.close_connection = True
                self.end_headers()
                for part in answer.body:
                    self.wfile.write(part)
                    self.wfile.flush()
            self.wfile.flush()
            owner.sent(answer)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _disconnect(client: socket.socket) -> None:
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
