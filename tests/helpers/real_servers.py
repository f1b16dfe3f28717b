"""Starts third-party servers of the Open Inference Protocol on loopback.

They run in the environment whose Python DB3KD_SERVERS names. `make test-servers` creates one.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

SCRIPTS = Path(__file__).parents[1] / "servers"


def servers_python() -> Path | None:
    """Returns the Python of the servers' environment, or None if DB3KD_SERVERS is not set."""
    named = os.environ.get("DB3KD_SERVERS")
    return Path(named).absolute() if named else None


def servers_bin() -> Path:
    """Returns the folder of the programs of the servers' environment."""
    python = servers_python()
    if python is None:
        raise RuntimeError("DB3KD_SERVERS: expected the Python of an environment with the servers")
    return python.parent


def train_digits(path: Path) -> Path:
    """Trains a linear classifier of digits (64 pixels in [0, 1]) and writes it."""
    images, labels = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=300).fit(images[:1400] / 16, labels[:1400])
    return write_linear(path, model.coef_, model.intercept_, (1, 8, 8))


def write_linear(
    path: Path, weights: np.ndarray, bias: np.ndarray, image_shape: tuple[int, ...]
) -> Path:
    """Writes the model that the servers load: the argmax of weights [C, D] x + bias [C]."""
    np.savez(path, weights=weights, bias=bias, shape=image_shape)
    return path


class RealServer:
    """A server in a process of its own, with a linear model called "digits".

    As a context manager, it starts the server, waits until it is ready, and stops it.

    Args:
        weights: The file of the model; see `write_linear`.
        folder: A folder for the server's files.
    """

    counter: str

    def __init__(self, weights: Path, folder: Path) -> None:
        self.weights = weights.absolute()
        self.folder = folder
        self.http, self.grpc, self.metrics = _free_ports(3)

    def command(self) -> list[str]:
        """Returns the command that starts the server."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Returns environment variables for the server."""
        return {}

    def counted(self) -> int:
        """Returns the number of answered images according to the server's metrics."""
        text = _get(f"http://127.0.0.1:{self.metrics}/metrics").decode()
        pattern = rf"^{self.counter}(?:{{.*}})? ([\d.e+]+)$"
        return int(sum(map(float, re.findall(pattern, text, re.MULTILINE))))

    @property
    def http_model(self) -> str:
        return f"http://127.0.0.1:{self.http}/v2/models/digits"

    @property
    def grpc_model(self) -> str:
        return f"grpc://127.0.0.1:{self.grpc}/digits"

    def __enter__(self) -> "RealServer":
        self.folder.mkdir(parents=True, exist_ok=True)
        inherited = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
        path = f"{servers_bin()}:{os.environ['PATH']}"
        environment = {**inherited, "PATH": path, "PYTHONPATH": str(SCRIPTS)}
        with (self.folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=environment | self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for kind, seconds in ((signal.SIGINT, 15), (signal.SIGKILL, 15)):
            try:
                os.killpg(self._process.pid, kind)
            except ProcessLookupError:
                break
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()

    def _wait(self) -> None:
        for _ in range(600):
            if self._process.poll() is not None:
                break
            try:
                _get(f"{self.http_model}/ready")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log()[-3000:]}")

    def log(self) -> str:
        """Returns the output of the server."""
        return (self.folder / "log").read_text(errors="replace")


class MLServer(RealServer):
    """MLServer, with JSON over HTTP and bytes over gRPC."""

    counter = "images_total"

    def command(self) -> list[str]:
        with np.load(self.weights) as file:
            shape = [-1, *file["shape"].tolist()]
        described = {
            "name": "digits",
            "implementation": "mlserver_digits.Digits",
            "parameters": {"uri": str(self.weights)},
            "inputs": [{"name": "images", "datatype": "FP32", "shape": shape}],
            "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1, 1]}],
        }
        (self.folder / "model-settings.json").write_text(json.dumps(described))
        return [str(servers_bin() / "mlserver"), "start", str(self.folder)]

    def environment(self) -> dict[str, str]:
        return {
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": str(self.http),
            "MLSERVER_GRPC_PORT": str(self.grpc),
            "MLSERVER_METRICS_PORT": str(self.metrics),
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_DEBUG": "false",
        }


class Triton(RealServer):
    """NVIDIA's Triton, with JSON and bytes over HTTP and bytes over gRPC."""

    counter = "nv_inference_count"

    def command(self) -> list[str]:
        ports = (str(self.http), str(self.grpc), str(self.metrics))
        script = str(SCRIPTS / "triton_digits.py")
        workspace = str(self.folder / "workspace")
        return [str(servers_python()), script, str(self.weights), workspace, *ports]

    def environment(self) -> dict[str, str]:
        # Triton loads libpython by name and must not find the system's, which may be another 3.x.y.
        ask = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
        found = subprocess.run(
            [str(servers_python()), "-c", ask], capture_output=True, text=True, check=True
        )
        return {"LD_LIBRARY_PATH": found.stdout.strip()}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.read()
