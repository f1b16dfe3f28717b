"""The Open Inference Protocol v2 over gRPC."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from db3kd.errors import ArgumentError
from db3kd.extras import import_extra
from db3kd.teachers.base import TeacherError
from db3kd.teachers.remote.http import max_answer_bytes, no_connection
from db3kd.teachers.remote.open_inference_tensors import ModelAddress, input_tensor, output_array
from db3kd.teachers.remote.request_settings import RequestSettings
from db3kd.teachers.remote.retry import RetryableError
from db3kd.teachers.remote.secret_header import SecretHeader
from db3kd.teachers.signature import ModelSignature

_FAILED = ("ABORTED", "CANCELLED", "INTERNAL", "UNKNOWN")
"""Statuses of failures on the server that may be over when the request is repeated."""

_MANY_CLASSES = 10_000
"""The limit on answers allows for so many classes, because it is set before they are known."""


class GrpcTransport:
    """Sends tensors over gRPC. The client blocks, so each concurrent request has a thread.

    Args:
        address: The address of the model.
        requests: How requests are sent.
        binary: Must not be False, because gRPC always sends bytes.
        secret: A header to send with every request.

    Raises:
        ValueError: If `binary` is False.
    """

    def __init__(
        self,
        address: ModelAddress,
        requests: RequestSettings,
        binary: bool | None,
        secret: SecretHeader | None,
    ) -> None:
        if binary is False:
            raise ArgumentError(
                "binary", "expected true, because gRPC always sends bytes; use http:// for JSON"
            )
        self._triton = import_extra("tritonclient.grpc", "remote")
        self._address = address
        self._timeout = requests.timeout
        self._secret = secret
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", max_answer_bytes(requests.batch, _MANY_CLASSES)),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", 0),  # otherwise gRPC uses the environment's proxies
        ]
        self._client = self._triton.InferenceServerClient(
            address.host, ssl=address.secure, channel_args=options
        )
        self._threads = ThreadPoolExecutor(requests.in_flight, "db3kd-grpc")

    async def metadata(self, who: str) -> dict[str, Any]:
        """Returns the model's metadata."""
        return await self._call(
            who,
            self._client.get_model_metadata,
            self._address.model,
            self._address.version,
            as_json=True,
        )

    async def infer(
        self, array: np.ndarray, signature: ModelSignature, request_id: str, who: str
    ) -> Any:
        """Returns the model's output for an input array."""
        name = signature.output.name
        answer = await self._call(
            who,
            self._client.infer,
            self._address.model,
            [input_tensor(self._triton, array, signature)],
            self._address.version,
            [self._triton.InferRequestedOutput(name)],
            request_id=request_id,
        )
        return output_array(answer, name, who)

    async def close(self) -> None:
        """Closes the connections."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        self._client.close()

    def details(self) -> Iterator[tuple[str, str]]:
        """Yields names and values for `db3kd info`."""
        yield "tensors", "bytes, over gRPC"

    async def _call(self, who: str, function: Any, *arguments: Any, **options: Any) -> Any:
        secret = self._secret.read() if self._secret else {}
        headers = {key.lower(): value for key, value in secret.items()}
        error_type = import_extra("tritonclient.utils", "remote").InferenceServerException

        def call() -> Any:
            return function(*arguments, **options, headers=headers, client_timeout=self._timeout)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except error_type as error:
            raise self._translate(error, who) from None

    def _translate(self, error: Any, who: str) -> Exception:
        """Returns the RetryableError or TeacherError that stands for a gRPC error."""
        status = str(error.status()).removeprefix("StatusCode.")
        quotation = "" if self._secret else f": {' '.join(str(error.message()).split())[:200]}"
        if status == "UNAVAILABLE" and "failed to connect" in str(error.message()):
            return RetryableError(no_connection(), maybe_paid=False)
        if status == "DEADLINE_EXCEEDED":
            return RetryableError(f"no complete answer within {self._timeout:g} s", maybe_paid=True)
        answered = f"the server answered with status {status}{quotation}"
        # The client itself reports this status if an answer is too long; a retry cannot help.
        if status == "RESOURCE_EXHAUSTED" and "larger than max" not in str(error.message()):
            return RetryableError(answered, maybe_paid=False)
        if status == "UNAVAILABLE":
            return RetryableError(f"connection lost, or {answered}", maybe_paid=True)
        if status in _FAILED:
            return RetryableError(answered, maybe_paid=True)
        may_be_paid = status in ("RESOURCE_EXHAUSTED", "DATA_LOSS")  # the model has answered
        return TeacherError(f"{who}: {answered}", maybe_paid=None if may_be_paid else 0)
