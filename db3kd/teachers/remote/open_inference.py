"""A model behind the Open Inference Protocol v2, over HTTP or gRPC: KServe, Triton, MLServer, OVMS.

Requests and answers are written and read by `tritonclient`. Over HTTP they are sent by `HttpClient`
instead, since tritonclient's own client reads an answer of any length, for any time.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from db3kd.teachers.base import TeacherError
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.remote.http import SecretHeader
from db3kd.teachers.remote.open_inference_grpc import GrpcTransport
from db3kd.teachers.remote.open_inference_http import HttpTransport
from db3kd.teachers.remote.open_inference_tensors import DTYPES, ModelAddress
from db3kd.teachers.remote.remote_teacher import Background, RemoteTeacher
from db3kd.teachers.remote.retry import RequestSettings, RetryPolicy
from db3kd.teachers.signature import ModelOverrides, ModelSignature, TensorSpec, resolve


class _Transport(Protocol):
    """Carries tensors to a model and back. Raises Unanswered and TeacherError as `HttpClient`."""

    async def metadata(self, who: str) -> dict[str, Any]: ...

    async def infer(
        self, array: np.ndarray, contract: ModelSignature, request: str, who: str
    ) -> Any: ...

    async def close(self) -> None: ...

    def details(self) -> Iterator[tuple[str, str]]: ...


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
    """A teacher behind the Open Inference Protocol v2. Asks the server what the model declares.

    url            as `ModelAddress` reads it
    said           what the user says of the model; the rest is read from its metadata
    preprocessing  from db3kd's images to the model's input
    requests        how much at once, how often, how patiently
    binary         tensors as bytes (over HTTP an extension) or as JSON; None: bytes where the
                   server says that it has the extension. gRPC always carries bytes.
    secret         a header to send along
    fingerprint    any text that changes with the model; by default its address and metadata

    Raises ValueError where what is said contradicts the model, or something is not known, and
    TeacherError where the server cannot be reached or does not have the model.
    """
    address = ModelAddress.parse(url)
    preprocessing, requests = preprocessing or Preprocessing(), requests or RequestSettings()
    make = GrpcTransport if address.scheme.startswith("grpc") else HttpTransport
    patience, who = RetryPolicy(requests), f"teacher {address}"
    transport = make(address, requests, binary, secret)
    background = Background()
    try:
        metadata = background.run(
            patience.until_answered(lambda: transport.metadata(who), asyncio.Event(), who)
        )
        declared = [_declared(metadata.get(kind), who) for kind in ("inputs", "outputs")]
        contract = resolve(who, *declared, overrides or ModelOverrides(), preprocessing)
        if contract.batch not in (None, 1):
            raise ValueError(
                f"{who}: takes batches of {contract.batch} alone; serve it with a free batch"
            )
    except BaseException:
        background.close(transport.close)
        raise
    return RemoteTeacher(
        _OpenInference(address, transport, contract, metadata),
        background,
        contract.image_shape,
        contract.reader,
        contract.preprocessing,
        requests if contract.batch is None else requests.with_batch(1),
        fingerprint,
    )


class _OpenInference:
    """The service: `db3kd.teachers.remote.remote_teacher.Service`."""

    def __init__(
        self,
        address: ModelAddress,
        transport: _Transport,
        contract: ModelSignature,
        metadata: Mapping[str, Any],
    ) -> None:
        self.name = str(address)
        self._address = address
        self._transport = transport
        self._contract = contract
        self._metadata = metadata

    async def ask(self, images: Tensor, request: str) -> Any:
        array = self._contract.preprocessing(images)
        return await self._transport.infer(array, self._contract, request, f"teacher {self.name}")

    def identity(self) -> dict[str, Any]:
        described = {key: self._metadata.get(key) for key in ("platform", "versions")}
        return {"address": str(self._address), **described, "output": self._contract.output.name}

    def details(self) -> Iterator[tuple[str, str]]:
        yield "served", self.name
        yield from self._transport.details()
        yield "input", self._contract.input.name
        yield "output", self._contract.output.name

    async def close(self) -> None:
        await self._transport.close()


def _declared(tensors: Any, who: str) -> list[TensorSpec]:
    """The tensors of a model's metadata; gRPC writes sizes as text."""
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
