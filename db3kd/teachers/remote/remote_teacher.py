"""A teacher behind a network: several requests in flight, answers in order, none lost."""

import asyncio
import hashlib
import json
import uuid
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from db3kd.teachers.answers import AnswerReader
from db3kd.teachers.base import UNANSWERED, TeacherError, teacher_repr
from db3kd.teachers.given_images import as_images
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.remote.event_loop import EventLoopThread
from db3kd.teachers.remote.request_settings import RequestSettings
from db3kd.teachers.remote.request_stream import OnLost, RequestStream
from db3kd.teachers.remote.retry import RateLimit, RequestCancelledError, RetryPolicy
from db3kd.wording import counted

_REQUESTS_PER_SLOT = 64
"""Maximum number of requests per call and concurrent request: many, so that calls rarely end."""


class Service(Protocol):
    """A model behind a network. All coroutines run in one event loop."""

    @property
    def name(self) -> str:
        """The name in errors. It holds no secret."""
        ...

    async def ask(self, images: Tensor, request_id: str) -> Any:
        """Returns the model's answers for some images, as `AnswerReader.read` accepts them.

        Args:
            images: [n, *image_shape] float32.
            request_id: Stays the same for all attempts of one request and differs between requests.

        Raises:
            RetryableError: If the request may be repeated.
            TeacherError: If repeating the request cannot help.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Returns JSON values that distinguish this model from others. Only their hash is shown."""
        ...

    def details(self) -> Iterator[tuple[str, str]]:
        """Yields names and values for `db3kd info`."""
        ...

    async def close(self) -> None:
        """Closes the connections."""
        ...


class RemoteTeacher:
    """A teacher behind a network. `open_inference_teacher` and `rest_teacher` make one.

    A call is divided into requests, of which several are in flight at once. The decisions keep the
    order of the images.

    After an interrupt (Ctrl-C), no new request starts, and the call waits for those in flight. A
    rejected request is retried only while a later one is still in flight or answered, because the
    later answer would be lost otherwise. A second interrupt discards the requests in flight.

    If a request fails for good, the call ends in the same way. The error holds as `answered` the
    decisions before the first gap. The teacher remembers the decisions behind the gap, so a later
    call with the same images does not pay for them again. For what the server may charge twice, see
    `RequestSettings.retry_ambiguous`.

    Args:
        service: The model.
        event_loop: The event loop of the service's connections. `close` closes both.
        image_shape: Shape of one image.
        reader: Converts the model's answers to decisions.
        preprocessing: The steps from db3kd's images to the model's input. `service` applies them.
        requests: How requests are sent.
        fingerprint: A text that changes with the model. By default it is derived from the address
            and what the model declares, because the weights behind an address cannot be seen.
    """

    def __init__(
        self,
        service: Service,
        event_loop: EventLoopThread,
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
        self.max_batch = requests.batch * requests.in_flight * _REQUESTS_PER_SLOT
        self._service = service
        self._reader = reader
        self._fingerprint = fingerprint
        self._retry_policy = RetryPolicy(requests)
        self._rate_limit = RateLimit(requests.queries_per_second)
        self._kept_decisions: dict[bytes, int] = {}
        self._event_loop = event_loop
        self._finalizer = weakref.finalize(self, event_loop.close, service.close)

    def __repr__(self) -> str:
        return teacher_repr(self)

    def decide(self, images: Tensor) -> Tensor:
        """Returns the class of each image.

        Args:
            images: [N, *image_shape] float32.

        Returns:
            [N] int64, on the device of the images.

        Raises:
            TeacherError: If the server cannot be reached, does not answer in `max_attempts`
                attempts, or answers with anything but classes. `error.answered` holds the
                decisions before the first gap.
        """
        return self.decide_counting_lost(images, None)

    def decide_counting_lost(self, images: Tensor, on_lost: OnLost | None) -> Tensor:
        """Does what `decide` does, and reports repeated requests; see `RepeatingTeacher`."""
        images = as_images(images, self)
        stream = self._open_stream(images, window=None)
        stream.on_lost = on_lost
        parts = []
        try:
            while len(part := stream.next_part()):
                parts.append(part)
        except TeacherError:
            raise
        except BaseException:
            answered = stream.stop()
            # The caller has not received these decisions, so the teacher must remember them.
            self._keep(images[: len(answered)], answered)
            raise
        return torch.cat([*parts, torch.empty(0, dtype=torch.int64)]).to(images.device)

    def stream(self, images: Tensor) -> RequestStream:
        """Opens a stream that returns the decisions as they arrive; see `DecisionStream`.

        At most `batch * in_flight` images are in flight beyond those that the caller recorded.

        Args:
            images: [N, *image_shape] float32.
        """
        return self._open_stream(images, window=self.requests.batch * self.requests.in_flight)

    def fingerprint(self) -> str:
        """Returns the SHA-256 hex digest of what is known of the model and its class names."""
        known = {
            "model": self._fingerprint or self._service.identity(),
            "image_shape": self.image_shape,
            "preprocessing": asdict(self.preprocessing),
            "classes": self.classes,
            "class_names": self._reader.names,
        } | self._reader.identity()
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def details(self) -> Iterator[tuple[str, str]]:
        """Yields what `db3kd info` shows besides what every teacher has."""
        requests = self.requests
        yield from self._service.details()
        yield "requests", f"{counted(requests.batch, 'image')}, {requests.in_flight} in flight"
        yield "timeout", f"{requests.timeout:g} s, {counted(requests.max_attempts, 'attempt')}"
        if requests.queries_per_second is not None:
            yield "rate limit", f"{requests.queries_per_second:g} queries per second"
        yield from self.preprocessing.details()

    def close(self) -> None:
        """Closes all connections. A closed teacher cannot be asked any more.

        Raises:
            Exception: If the connections cannot be closed properly.
        """
        self._finalizer()

    def _open_stream(self, images: Tensor, window: int | None) -> RequestStream:
        return RequestStream(
            self._event_loop,
            self._ask,
            images,
            decided=self._take_kept(images),
            batch=self.requests.batch,
            in_flight=self.requests.in_flight,
            window=window,
            keep=self._keep,
        )

    async def _ask(
        self, images: Tensor, no_repeat: asyncio.Event, on_lost: OnLost | None
    ) -> Tensor:
        """Returns the decisions of one request; raises only TeacherError."""
        request_id = uuid.uuid4().hex
        who = f"teacher {self.name}"

        async def attempt() -> Any:
            await self._rate_limit.take(len(images), no_repeat)
            if no_repeat.is_set():
                raise RequestCancelledError
            return await self._service.ask(images, request_id)

        try:
            lost = None if on_lost is None else partial(_record, on_lost, len(images), who)
            answers = await self._retry_policy.call(attempt, no_repeat, who, lost)
            return self._reader.read(answers, len(images), who)
        except TeacherError:
            raise
        except Exception as error:
            # The message of a library could hold what was sent, for example a secret.
            raise TeacherError(f"{who}: failed with {type(error).__name__}") from error

    def _take_kept(self, images: Tensor) -> Tensor:
        decisions = torch.full((len(images),), UNANSWERED)
        if self._kept_decisions:
            for row, image in enumerate(images):
                decisions[row] = self._kept_decisions.pop(_digest(image), UNANSWERED)
        return decisions

    def _keep(self, images: Tensor, decisions: Tensor) -> None:
        for image, decision in zip(images, decisions.tolist(), strict=True):
            if decision != UNANSWERED:
                self._kept_decisions[_digest(image)] = decision


def _record(on_lost: OnLost, images: int, who: str) -> None:
    try:
        on_lost(images)
    except OSError as error:
        raise TeacherError(f"{who}: cannot record that an answer was lost ({error})") from error


def _digest(image: Tensor) -> bytes:
    content = image.detach().cpu().contiguous().numpy().tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()
