"""The Open Inference Protocol v2 over HTTP, tensors as JSON or as bytes."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np

from db3kd.teachers.base import TeacherError
from db3kd.teachers.extras import import_extra
from db3kd.teachers.remote.http import HttpClient, SecretHeader, malformed, most_bytes
from db3kd.teachers.remote.open_inference_tensors import ModelAddress, input_tensor, output_array
from db3kd.teachers.remote.retry import RequestSettings
from db3kd.teachers.signature import ModelSignature

_MOST_METADATA = 2**20
_BINARY = "binary_tensor_data"
"""How a server's metadata calls the extension by which tensors travel as bytes."""

_HEADER_LENGTH = "Inference-Header-Content-Length"


class HttpTransport:
    """The protocol over HTTP."""

    def __init__(
        self,
        address: ModelAddress,
        requests: RequestSettings,
        binary: bool | None,
        secret: SecretHeader | None,
    ) -> None:
        self._triton = import_extra("tritonclient.http", "remote")
        self._http = HttpClient(requests.in_flight, requests.timeout, secret)
        self._binary = binary
        self._server = f"{address.base}/v2"
        version = f"/versions/{quote(address.version)}" if address.version else ""
        self._model = f"{self._server}/models/{quote(address.model)}{version}"

    async def metadata(self, who: str) -> dict[str, Any]:
        if self._binary is None:
            extensions = (await self._get(self._server, who)).get("extensions") or ()
            self._binary = _BINARY in extensions
        return await self._get(self._model, who)

    async def infer(
        self, array: np.ndarray, contract: ModelSignature, request: str, who: str
    ) -> Any:
        # In a thread, so that what is under way goes on while a large request is written.
        content, headers = await asyncio.to_thread(self._written, array, contract, request)
        most = most_bytes(len(array), contract.classes)
        reply = await self._http.post(f"{self._model}/infer", content, headers, most, who)
        length = reply.headers.get(_HEADER_LENGTH)
        try:
            answer = self._triton.InferenceServerClient.parse_response_body(
                reply.body, header_length=length
            )
        except Exception as error:  # the body is anything at all
            raise malformed(who, error) from None
        return output_array(answer, contract.output.name, who)

    def _written(
        self, array: np.ndarray, contract: ModelSignature, request: str
    ) -> tuple[bytes, dict[str, str]]:
        """A request's body and headers."""
        name = contract.output.name
        content, header_length = self._triton.InferenceServerClient.generate_request_body(
            [input_tensor(self._triton, array, contract, binary_data=self._binary)],
            [self._triton.InferRequestedOutput(name, binary_data=self._binary)],
            request,
        )
        if header_length is None:
            return content, {"Content-Type": "application/json"}
        lengths = {_HEADER_LENGTH: str(header_length)}
        return content, {"Content-Type": "application/octet-stream", **lengths}

    async def close(self) -> None:
        await self._http.close()

    def details(self) -> Iterator[tuple[str, str]]:
        yield "tensors", "bytes, over HTTP" if self._binary else "JSON, over HTTP"

    async def _get(self, url: str, who: str) -> dict[str, Any]:
        reply = await self._http.get(url, _MOST_METADATA, who)
        try:
            found = json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise malformed(who, error) from None
        if not isinstance(found, dict):
            raise TeacherError(f"{who}: expected metadata as a JSON object")
        return found
