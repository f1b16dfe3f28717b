"""Teachers behind the Open Inference Protocol v2: KServe, Triton, MLServer, OVMS.

`tritonclient` serializes requests and parses answers. Over HTTP, `HttpClient` sends them, because
tritonclient's own client limits neither the length nor the duration of an answer.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor

from db3kd.errors import InputError
from db3kd.teachers.base import TeacherError
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.remote.event_loop import EventLoopThread
from db3kd.teachers.remote.open_inference_grpc import GrpcTransport
from db3kd.teachers.remote.open_inference_http import HttpTransport
from db3kd.teachers.remote.open_inference_tensors import DTYPES, ModelAddress
from db3kd.teachers.remote.remote_teacher import RemoteTeacher
from db3kd.teachers.remote.request_settings import RequestSettings
from db3kd.teachers.remote.retry import RetryPolicy
from db3kd.teachers.remote.secret_header import SecretHeader
from db3kd.teachers.signature import ModelOverrides, ModelSignature, TensorSpec, resolve


def open_inference_teacher(
    url: str,
    overrides: ModelOverrides | None = None,
    preprocessing: Preprocessing | None = None,
    requests: RequestSettings | None = None,
    *,
    binary: bool | None = None,
    secret: SecretHeader | None = None,
    fingerprint: str | None = None,
) -> RemoteTeacher:
    """Opens a teacher behind the Open Inference Protocol v2 and reads the model's metadata.

    Example:
        >>> teacher = open_inference_teacher(
        ...     "http://localhost:8000/v2/models/digits", ModelOverrides(classes=10)
        ... )
        >>> labels = db3kd.label(teacher, images)

    Args:
        url: `http://host:8000/v2/models/NAME` or `grpc://host:8001/NAME`; see `ModelAddress.parse`.
        overrides: What the user declares about the model. The metadata declares the rest.
        preprocessing: The steps from db3kd's images to the model's input.
        requests: How requests are sent.
        binary: Whether tensors are sent as bytes (over HTTP a protocol extension) or as JSON.
            None: as bytes if the server has the extension. gRPC always sends bytes.
        secret: A header to send with every request.
        fingerprint: A text that changes with the model. By default it is derived from the address
            and the metadata.

    Raises:
        ValueError: If the overrides contradict the metadata, or if something is not known.
        TeacherError: If the server cannot be reached or does not have the model.
    """
    address = ModelAddress.parse(url)
    preprocessing, requests = preprocessing or Preprocessing(), requests or RequestSettings()
    retry_policy, who = RetryPolicy(requests), f"teacher {address}"
    transport: GrpcTransport | HttpTransport
    if address.scheme.startswith("grpc"):
        transport = GrpcTransport(address, requests, binary, secret)
    else:
        transport = HttpTransport(address, requests, binary, secret)
    event_loop = EventLoopThread()
    try:
        metadata = event_loop.run(
            retry_policy.call(lambda: transport.metadata(who), asyncio.Event(), who)
        )
        inputs = _declared(metadata.get("inputs"), who)
        outputs = _declared(metadata.get("outputs"), who)
        signature = resolve(
            who,
            inputs,
            outputs,
            overrides or ModelOverrides(),
            preprocessing,
            quote=secret is None,
        )
        if signature.batch not in (None, 1):
            raise InputError(
                f"{who}: expected a model with a free batch size or batches of 1, got batches of "
                f"{signature.batch}; serve it with a free batch size"
            )
    except BaseException:
        with suppress(Exception):  # the first error says more than one while closing
            event_loop.close(transport.close)
        raise
    return RemoteTeacher(
        _OpenInferenceService(address, transport, signature, metadata),
        event_loop,
        signature.image_shape,
        signature.reader,
        signature.preprocessing,
        requests if signature.batch is None else requests.with_batch(1),
        fingerprint,
    )


class _OpenInferenceService:
    """A `Service` (see `db3kd.teachers.remote.remote_teacher`)."""

    def __init__(
        self,
        address: ModelAddress,
        transport: GrpcTransport | HttpTransport,
        signature: ModelSignature,
        metadata: Mapping[str, Any],
    ) -> None:
        self.name = str(address)
        self._address = address
        self._transport = transport
        self._signature = signature
        self._metadata = metadata

    async def ask(self, images: Tensor, request_id: str) -> Any:
        array = self._signature.preprocessing(images)
        who = f"teacher {self.name}"
        return await self._transport.infer(array, self._signature, request_id, who)

    def identity(self) -> dict[str, Any]:
        described = {key: self._metadata.get(key) for key in ("platform", "versions")}
        return {"address": str(self._address), **described, "output": self._signature.output.name}

    def details(self) -> Iterator[tuple[str, str]]:
        yield "server", self.name
        yield from self._transport.details()
        yield "input", self._signature.input.name
        yield "output", self._signature.output.name

    async def close(self) -> None:
        await self._transport.close()


def _declared(tensors: Any, who: str) -> list[TensorSpec]:
    """Returns the tensors in a model's metadata. gRPC writes sizes as text."""
    try:
        return [
            TensorSpec(
                str(tensor["name"]),
                DTYPES[tensor["datatype"]],
                tuple(int(size) for size in tensor["shape"]) or None,
            )
            for tensor in tensors or ()
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise TeacherError(
            f"{who}: expected tensors with a name, a known datatype and a shape in the model's "
            f"metadata ({type(error).__name__})"
        ) from None
