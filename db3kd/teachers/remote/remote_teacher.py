"""A teacher behind a network: several requests in flight, answers in order, none lost."""

import asyncio
import hashlib
import json
import uuid
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import Tensor

from db3kd.teachers.answers import AnswerReader
from db3kd.teachers.base import UNANSWERED, TeacherError, teacher_repr
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.remote.requests import Background, RequestStream
from db3kd.teachers.remote.retry import AbandonedError, RateLimit, RequestSettings, RetryPolicy

_REQUESTS_A_CALL = 64
"""Requests of one `decide` for each that may be under way, so that it seldom waits for its last."""


class Service(Protocol):
    """A model that answers over a network. Used within one event loop.

    name: what errors call it; holds no secret.
    """

    name: str

    async def ask(self, images: Tensor, request: str) -> Any:
        """What the model says of these images, as `AnswerReader.read` takes it.

        request: a name that is the same for all attempts of one request, and for no other. Raises
        Unanswered where the request may be repeated, TeacherError otherwise.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """What tells this model from others, ready for JSON; it is shown to nobody but hashed."""
        ...

    def details(self) -> Iterator[tuple[str, str]]:
        """What `db3kd info` shows of it."""
        ...

    async def close(self) -> None:
        """Closes its connections."""
        ...


class RemoteTeacher:
    """A model behind a network as a teacher.

    A call is divided into requests, of which several are in flight at once; the answers keep the
    order of the images. `stream` hands the answers over as they arrive, and never has more than
    `batch * in_flight` images between the first whose answer is not kept yet and the last that was
    sent: so many answers, at most, are lost when the process is killed.

    If a request fails for good, no more are sent and those in flight are waited for. The error has
    as `answered` the answers before the first gap, and the teacher keeps those behind it in memory:
    the next call that asks for the same images is given them, and the server is not asked again.
    An interrupt (Ctrl-C) is treated alike; a second one gives up what is in flight. What the server
    may charge twice besides is said at `RequestSettings.retry_ambiguous`.

    service        the model
    background     the event loop that the service's connections belong to; the teacher closes both
    image_shape    shape of one image
    reader         what turns the model's answers into classes
    preprocessing  from db3kd's images to the model's input; `service` applies it
    requests        how much at once, how often, how patiently
    fingerprint    any text that changes with the model; by default its address, and what it
                   declares. The weights behind an address cannot be seen.
    """

    def __init__(
        self,
        service: Service,
        background: Background,
        image_shape: tuple[int, ...],
        reader: AnswerReader,
        preprocessing: Preprocessing,
        requests: RequestSettings,
        fingerprint: str | None = None,
    ) -> None:
        self.name = service.name
        self.image_shape = image_shape
        self.classes = reader.classes
        self.class_names = reader.names
        self.preprocessing = preprocessing
        self.bounds = preprocessing.bounds
        self.device = torch.device("cpu")
        self.requests = requests
        self.max_batch = requests.batch * requests.in_flight * _REQUESTS_A_CALL
        self._service = service
        self._reader = reader
        self._fingerprint = fingerprint
        self._patience = RetryPolicy(requests)
        self._rate = RateLimit(requests.queries_per_second)
        self._spare: dict[bytes, int] = {}
        self._background = background
        self._finalizer = weakref.finalize(self, background.close, service.close)

    def __repr__(self) -> str:
        return teacher_repr(self)

    def decide(self, images: Tensor) -> Tensor:
        """images [N, *image_shape] -> int64 [N], same device.

        Raises TeacherError where the server cannot be reached, gives up, or answers anything but
        classes; its `answered` holds the decisions for the first images, as far as there is no gap.
        """
        stream = self._open(images, window=None)
        parts = []
        try:
            while len(part := stream.next_part()):
                parts.append(part)
        except TeacherError:
            raise
        except BaseException:
            answered = stream.stop()  # nobody was handed them
            self._keep_spare(images[: len(answered)], answered)
            raise
        return torch.cat([*parts, torch.empty(0, dtype=torch.int64)]).to(images.device)

    def stream(self, images: Tensor) -> RequestStream:
        """As `decide`, but the decisions are handed over as they arrive."""
        return self._open(images, window=self.requests.batch * self.requests.in_flight)

    def fingerprint(self) -> str:
        """SHA-256 hex of what is known of the model: see `fingerprint` above."""
        known = {
            "model": self._fingerprint or self._service.identity(),
            "image_shape": self.image_shape,
            "preprocessing": asdict(self.preprocessing),
            "classes": self._reader.names or self.classes,
        } | self._reader.identity()
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def details(self) -> Iterator[tuple[str, str]]:
        """What `db3kd info` shows beside what every teacher has."""
        requests = self.requests
        yield from self._service.details()
        yield "requests", f"{requests.batch} images, {requests.in_flight} in flight"
        yield "patience", f"{requests.timeout:g} s, {requests.max_attempts} attempts"
        if requests.queries_per_second is not None:
            yield "rate limit", f"{requests.queries_per_second:g} queries a second"
        yield from self.preprocessing.details()

    def close(self) -> None:
        """Closes all connections; the teacher cannot be asked any more. Also when it is deleted."""
        self._finalizer()

    def _open(self, images: Tensor, window: int | None) -> RequestStream:
        return RequestStream(
            self._background,
            self._ask,
            images,
            known=self._take_spare(images),
            batch=self.requests.batch,
            in_flight=self.requests.in_flight,
            window=window,
            keep=self._keep_spare,
        )

    async def _ask(self, images: Tensor, given_up: asyncio.Event) -> Tensor:
        """The decisions of one request; raises TeacherError alone."""
        request = uuid.uuid4().hex
        who = f"teacher {self.name}"

        async def attempt() -> Any:
            await self._rate.take(len(images), given_up)
            if given_up.is_set():
                raise AbandonedError
            return await self._service.ask(images, request)

        try:
            answers = await self._patience.until_answered(attempt, given_up, who)
            return self._reader.read(answers, len(images), who)
        except TeacherError:
            raise
        except Exception as error:
            # Its kind alone: a library's message could hold what was sent, a secret among it.
            raise TeacherError(f"{who}: failed with {type(error).__name__}") from error

    def _take_spare(self, images: Tensor) -> Tensor:
        decisions = torch.full((len(images),), UNANSWERED)
        if self._spare:
            for row, image in enumerate(images):
                decisions[row] = self._spare.pop(_digest(image), UNANSWERED)
        return decisions

    def _keep_spare(self, images: Tensor, decisions: Tensor) -> None:
        for image, decision in zip(images, decisions.tolist(), strict=True):
            if decision != UNANSWERED:
                self._spare[_digest(image)] = decision


def _digest(image: Tensor) -> bytes:
    content = image.detach().cpu().contiguous().numpy().tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()
