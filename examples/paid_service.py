"""Distils a model behind a REST service that charges for each query.

python examples/paid_service.py --out runs/service

The service runs in this process, on loopback. For your service, only the description file changes.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import typer
from sklearn.datasets import load_digits
from sklearn.svm import SVC

import db3kd

PRICE_PER_1000 = 1.50

DESCRIPTION = """
url = "http://127.0.0.1:{port}/v1/classify"
image_shape = [1, 8, 8]
classes = 10

[preprocessing]
scale = [0, 16]                      # the service takes grey values from 0 to 16
layout = "flat"

[requests]
batch = 64
in_flight = 2
retry_ambiguous = false              # never pay twice for a query

[rest]
request = {{ instances = "$images" }}
answer = "predictions.*.digit"
"""


@contextmanager
def service() -> Iterator[ThreadingHTTPServer]:
    """Runs the service; its attribute `charged` counts the images that it has classified."""
    digits = load_digits()
    model = SVC().fit(digits.data, digits.target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            rows = np.array(json.loads(self.rfile.read(length))["instances"])
            server.charged += len(rows)
            answers = [{"digit": int(digit)} for digit in model.predict(rows)]
            body = json.dumps({"predictions": answers}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Prints nothing for each request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.charged = 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main(out: Path = Path("runs/service"), budget: int = 5_000, steps: int | None = None) -> None:
    """Shows what the budget costs, distils, and compares the bill with db3kd's count."""
    images = db3kd.load_data("digits", "test")
    plan = db3kd.plan_budget(budget, classes=10, images=len(images))
    for stage in plan.stages:
        cost = stage.queries / 1000 * PRICE_PER_1000
        print(f"{stage.queries:>6,} queries  {cost:6.2f}  {stage.name}")

    with service() as server:
        description = out.with_suffix(".toml")
        description.parent.mkdir(parents=True, exist_ok=True)
        description.write_text(DESCRIPTION.format(port=server.server_port))
        teacher = db3kd.load_teacher(description)
        result = db3kd.distill(
            teacher,
            images,
            budget=budget,
            settings=db3kd.DistillSettings(
                training=db3kd.TrainSettings(steps=steps, schedule="cosine")
            ),
            out=out,
            resume=out.exists(),  # after a stop, the same command continues without paying twice
            price_per_1000=PRICE_PER_1000,
        )
        teacher.close()
        print(result)
        print(f"the service charged {server.charged:,} queries, db3kd counted {result.queries:,}")


if __name__ == "__main__":
    typer.run(main)
