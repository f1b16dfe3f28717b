"""A teacher behind a network: many requests under way, answers in order, nothing paid for lost."""

import asyncio
import hashlib
import json
import threading
import uuid
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from db3kd.teachers.answers import AnswerReader
from db3kd.teachers.base import TeacherError
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.traffic import Patience, RateLimit, Traffic

Result = TypeVar("Result")

_UNANSWERED = -1
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

    def rows(self) -> Iterator[tuple[str, str]]:
        """What `db3kd info` shows of it."""
        ...

    async def close(self) -> None:
        """Closes its connections."""
        ...


class ServedTeacher:
    """A model behind a network as a teacher.

    A call of `decide` is divided into requests, of which several are under way at once; the answers
    keep the order of the images. Where a request fails for good, those under way are waited for,
    and no more are sent. The error then has as `answered` the answers before the first gap, and the
    teacher keeps those behind it: the next call that asks for the same images is given them, and
    the server is not asked again. They are kept in memory only: a process that ends then loses what
    lies behind the gap, at most the answers of that call. What the server may charge twice besides
    is said at `Traffic.retry_lost`.

    service        the model
    background     the event loop that the service's connections belong to; the teacher closes both
    image_shape    shape of one image
    reader         what turns the model's answers into classes
    preprocessing  from db3kd's images to the model's input; `service` applies it
    traffic        how much at once, how often, how patiently
    fingerprint    any text that changes with the model; by default its address, and what it
                   declares. The weights behind an address cannot be seen.
    """

    def __init__(
        self,
        service: Service,
        background: "Background",
        image_shape: tuple[int, ...],
        reader: AnswerReader,
        preprocessing: Preprocessing,
        traffic: Traffic,
        fingerprint: str | None = None,
    ) -> None:
        self.name = service.name
        self.image_shape = image_shape
        self.classes = reader.classes
        self.preprocessing = preprocessing
        self.bounds = preprocessing.bounds
        self.device = torch.device("cpu")
        self.traffic = traffic
        self.max_batch = traffic.batch * traffic.in_flight * _REQUESTS_A_CALL
        self._service = service
        self._reader = reader
        self._fingerprint = fingerprint
        self._patience = Patience(traffic)
        self._rate = RateLimit(traffic.queries_per_second)
        self._spare: dict[bytes, int] = {}
        self._background = background
        self._finalizer = weakref.finalize(self, background.close, service.close)

    def decide(self, images: Tensor) -> Tensor:
        """images [N, *image_shape] -> int64 [N], same device.

        Raises TeacherError where the server cannot be reached, gives up, or answers anything but
        classes; its `answered` holds the decisions for the first images, as far as there is no gap.
        """
        decisions = self._take_spare(images)
        missing = (decisions == _UNANSWERED).nonzero()[:, 0]
        failure = self._background.run(self._ask_all(images, missing, decisions))
        if failure is None:
            return decisions.to(images.device)
        gap = int((decisions == _UNANSWERED).nonzero()[0])
        self._keep_spare(images[gap:], decisions[gap:])
        failure.answered = decisions[:gap].clone()
        raise failure

    def fingerprint(self) -> str:
        """SHA-256 hex of what is known of the model: see `fingerprint` above."""
        known = {
            "model": self._fingerprint or self._service.identity(),
            "image_shape": self.image_shape,
            "preprocessing": asdict(self.preprocessing),
            "classes": self._reader.names or self.classes,
        }
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def rows(self) -> Iterator[tuple[str, str]]:
        """What `db3kd info` shows beside what every teacher has."""
        traffic = self.traffic
        yield from self._service.rows()
        yield "requests", f"{traffic.batch} images, {traffic.in_flight} in flight"
        yield "patience", f"{traffic.timeout:g} s, {traffic.attempts} attempts"
        if traffic.queries_per_second is not None:
            yield "rate limit", f"{traffic.queries_per_second:g} queries a second"
        yield from self.preprocessing.rows()

    def close(self) -> None:
        """Closes all connections; the teacher cannot be asked any more. Also when it is deleted."""
        self._finalizer()

    async def _ask_all(
        self, images: Tensor, missing: Tensor, decisions: Tensor
    ) -> TeacherError | None:
        """Writes the answers of the missing images; returns what stopped it, if anything did."""
        given_up = asyncio.Event()
        failures: list[TeacherError] = []
        parts = iter(missing.split(self.traffic.batch) if len(missing) else ())

        async def work() -> None:
            for part in parts:
                if given_up.is_set():
                    return
                try:
                    decisions[part] = await self._ask(images[part], given_up)
                except Exception as error:
                    failures.append(self._as_failure(error))
                    given_up.set()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.traffic.in_flight):
                tasks.create_task(work())
        return failures[0] if failures else None

    async def _ask(self, images: Tensor, given_up: asyncio.Event) -> Tensor:
        request = uuid.uuid4().hex
        who = f"teacher {self.name}"

        async def attempt() -> Any:
            await self._rate.take(len(images))
            return await self._service.ask(images, request)

        answers = await self._patience.until_answered(attempt, given_up, who)
        return self._reader.read(answers, len(images), who)

    def _as_failure(self, error: Exception) -> TeacherError:
        if isinstance(error, TeacherError):
            return error
        # Its kind alone: a library's message could hold what was sent, a secret among it.
        failure = TeacherError(f"teacher {self.name}: failed with {type(error).__name__}")
        failure.__cause__ = error
        return failure

    def _take_spare(self, images: Tensor) -> Tensor:
        decisions = torch.full((len(images),), _UNANSWERED)
        if self._spare:
            for row, image in enumerate(images):
                decisions[row] = self._spare.pop(_digest(image), _UNANSWERED)
        return decisions

    def _keep_spare(self, images: Tensor, decisions: Tensor) -> None:
        for image, decision in zip(images, decisions.tolist(), strict=True):
            if decision != _UNANSWERED:
                self._spare[_digest(image)] = decision


class Background:
    """An event loop in a thread of its own, so that callers may have one or none.

    Connections belong to their event loop; one that lasts keeps them open from call to call.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._serve, name="db3kd-served-teacher", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What the coroutine returns; where the caller is interrupted, it is cancelled."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Awaits `last()`, ends the thread, and waits for that unless it is the caller."""

        async def finish() -> None:
            await last()
            await self._loop.shutdown_default_executor()
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(finish(), self._loop)
        if threading.current_thread() is not self._thread:  # else: collected as garbage in there
            self._thread.join()

    def _serve(self) -> None:
        self._loop.run_forever()
        self._loop.close()


def _digest(image: Tensor) -> bytes:
    content = image.detach().cpu().contiguous().numpy().tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()
