"""The Open Inference Protocol v2 over gRPC."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from db3kd.teachers.base import TeacherError
from db3kd.teachers.extras import import_extra
from db3kd.teachers.remote.http import SecretHeader, most_bytes
from db3kd.teachers.remote.open_inference_tensors import ModelAddress, input_tensor, output_array
from db3kd.teachers.remote.retry import RequestSettings, RetryableError
from db3kd.teachers.signature import ModelSignature

_MANY_CLASSES = 10_000


class GrpcTransport:
    """The protocol over gRPC. Its client waits in threads, one a request under way."""

    def __init__(
        self,
        address: ModelAddress,
        requests: RequestSettings,
        binary: bool | None,
        secret: SecretHeader | None,
    ) -> None:
        if binary is False:
            raise ValueError("binary: gRPC always carries bytes; use http:// for JSON")
        self._triton = import_extra("tritonclient.grpc", "remote")
        self._address = address
        self._timeout = requests.timeout
        self._secret = secret
        options = [
            ("grpc.max_send_message_length", -1),
            # As most_bytes, for the many classes that a model may turn out to have.
            ("grpc.max_receive_message_length", most_bytes(requests.batch, _MANY_CLASSES)),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", 0),  # else gRPC follows the proxies of the environment
        ]
        self._client = self._triton.InferenceServerClient(
            address.host, ssl=address.secure, channel_args=options
        )
        self._threads = ThreadPoolExecutor(requests.in_flight, "db3kd-grpc")

    async def metadata(self, who: str) -> dict[str, Any]:
        return await self._call(
            who,
            self._client.get_model_metadata,
            self._address.model,
            self._address.version,
            as_json=True,
        )

    async def infer(
        self, array: np.ndarray, contract: ModelSignature, request: str, who: str
    ) -> Any:
        name = contract.output.name
        answer = await self._call(
            who,
            self._client.infer,
            self._address.model,
            [input_tensor(self._triton, array, contract)],
            self._address.version,
            [self._triton.InferRequestedOutput(name)],
            request_id=request,
        )
        return output_array(answer, name, who)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        self._client.close()

    def details(self) -> Iterator[tuple[str, str]]:
        yield "tensors", "bytes, over gRPC"

    async def _call(self, who: str, function: Any, *arguments: Any, **options: Any) -> Any:
        headers = {key.lower(): value for key, value in self._headers().items()}
        error_type = import_extra("tritonclient.utils", "remote").InferenceServerException

        def call() -> Any:
            return function(*arguments, **options, headers=headers, client_timeout=self._timeout)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except error_type as error:
            raise self._meaning(error, who) from None

    def _headers(self) -> dict[str, str]:
        return self._secret.read() if self._secret else {}

    def _meaning(self, error: Any, who: str) -> Exception:
        status = str(error.status()).removeprefix("StatusCode.")
        reported = "" if self._secret else f": {' '.join(str(error.message()).split())[:200]}"
        if status == "UNAVAILABLE" and "failed to connect" in str(error.message()):
            return RetryableError("no connection", maybe_paid=False)
        if status == "UNAVAILABLE":
            return RetryableError("connection lost", maybe_paid=True)
        if status == "DEADLINE_EXCEEDED":
            return RetryableError(f"nothing within {self._timeout:g} s", maybe_paid=True)
        # Of a message that is too long this side says the same, and it would be again.
        if status == "RESOURCE_EXHAUSTED" and "larger than max" not in str(error.message()):
            return RetryableError(f"the server says {status}", maybe_paid=False)
        return TeacherError(f"{who}: the server says {status}{reported}")
