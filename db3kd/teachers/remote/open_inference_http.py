"""The Open Inference Protocol v2 over HTTP, with tensors as JSON or as bytes."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np

from db3kd.extras import import_extra
from db3kd.teachers.base import TeacherError
from db3kd.teachers.remote.http import HttpClient, json_encoder, max_answer_bytes, unreadable
from db3kd.teachers.remote.open_inference_tensors import (
    ModelAddress,
    input_tensor,
    json_request,
    output_array,
)
from db3kd.teachers.remote.request_settings import RequestSettings
from db3kd.teachers.remote.secret_header import SecretHeader
from db3kd.teachers.signature import ModelSignature

_MAX_METADATA_BYTES = 2**20
_BINARY = "binary_tensor_data"
"""The name, in a server's metadata, of the extension that sends tensors as bytes."""

_HEADER_LENGTH = "Inference-Header-Content-Length"


class HttpTransport:
    """Sends tensors over HTTP. Belongs to one event loop.

    Args:
        address: The address of the model.
        requests: How requests are sent.
        binary: Whether tensors are sent as bytes, or None to use bytes if the server can.
        secret: A header to send with every request.
    """

    def __init__(
        self,
        address: ModelAddress,
        requests: RequestSettings,
        binary: bool | None,
        secret: SecretHeader | None,
    ) -> None:
        self._triton = import_extra("tritonclient.http", "remote")
        self._http = HttpClient(requests.in_flight, requests.timeout, secret)
        self._encode = json_encoder()
        self._binary = binary
        self._server = f"{address.base}/v2"
        version = f"/versions/{quote(address.version)}" if address.version else ""
        self._model = f"{self._server}/models/{quote(address.model)}{version}"

    async def metadata(self, who: str) -> dict[str, Any]:
        """Returns the model's metadata."""
        if self._binary is None:
            extensions = (await self._get(self._server, who)).get("extensions") or ()
            self._binary = _BINARY in extensions
        return await self._get(self._model, who)

    async def infer(
        self, array: np.ndarray, signature: ModelSignature, request_id: str, who: str
    ) -> Any:
        """Returns the model's output for an input array."""
        # A thread serializes the request, so that the event loop can serve the other requests.
        content, headers = await asyncio.to_thread(self._serialize, array, signature, request_id)
        max_bytes = max_answer_bytes(len(array), signature.classes)
        sent = f"{list(array.shape)} {array.dtype}, layout {signature.preprocessing.layout}"
        url = f"{self._model}/infer"
        reply = await self._http.send(url, max_bytes, who, content, headers, sent)
        length = reply.headers.get(_HEADER_LENGTH)
        try:
            answer = self._triton.InferenceServerClient.parse_response_body(
                reply.body, header_length=length
            )
        except Exception as error:  # the body may be anything
            raise unreadable(who, error) from None
        return output_array(answer, signature.output.name, who)

    def _serialize(
        self, array: np.ndarray, signature: ModelSignature, request_id: str
    ) -> tuple[bytes, dict[str, str]]:
        """Returns the body and the headers of a request."""
        if not self._binary:
            content = self._encode(json_request(array, signature, request_id))
            return content, {"Content-Type": "application/json"}
        content, header_length = self._triton.InferenceServerClient.generate_request_body(
            [input_tensor(self._triton, array, signature)],
            [self._triton.InferRequestedOutput(signature.output.name)],
            request_id,
        )
        lengths = {_HEADER_LENGTH: str(header_length)}
        return content, {"Content-Type": "application/octet-stream", **lengths}

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.close()

    def details(self) -> Iterator[tuple[str, str]]:
        """Yields names and values for `db3kd info`."""
        yield "tensors", "bytes, over HTTP" if self._binary else "JSON, over HTTP"

    async def _get(self, url: str, who: str) -> dict[str, Any]:
        reply = await self._http.send(url, _MAX_METADATA_BYTES, who)
        try:
            found = json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise unreadable(who, error) from None
        if not isinstance(found, dict):
            raise TeacherError(
                f"{who}: expected a JSON object as metadata, got {type(found).__name__}"
            )
        return found
