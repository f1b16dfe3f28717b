"""The requests of one call of a served teacher, and the event loop in which they are sent."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from torch import Tensor

from db3kd.teachers.base import UNANSWERED, TeacherError

Result = TypeVar("Result")


_SILENT_SECONDS = 1.0
"""A stopped call waits so long for what is in flight before it says that it waits."""

_LOOK_SECONDS = 0.5

_log = logging.getLogger("db3kd")


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
        """What the coroutine returns; if the caller is interrupted, it is cancelled."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        """Runs the coroutine while the caller goes on."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Calls a function in the event loop's thread, soon."""
        self._loop.call_soon_threadsafe(function, *arguments)

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


class RequestStream:
    """A `db3kd.teachers.base.DecisionStream` of requests, several of them in flight.

    ask        the decisions of one request's images, int64 [n]; raises TeacherError alone, also
               when the event that it is given was set before it sent anything
    images     [N, *image_shape]
    known      int64 [N], the decisions that need not be asked for, UNANSWERED elsewhere
    batch      most images of one request
    in_flight  most requests at once
    window     see `DecisionStream`, at least `batch`; None for no limit
    keep       called with images and their decisions, if any lie behind a gap at the end

    The caller waits in `next_part` and `stop`; all else runs in the event loop's thread. An
    interrupt may end a wait anywhere, so the threads share no lock: the event loop writes
    decisions, then `_first_gap`, then a token into `_changed`, for which the caller waits.
    """

    def __init__(
        self,
        background: Background,
        ask: Callable[[Tensor, asyncio.Event], Awaitable[Tensor]],
        images: Tensor,
        *,
        known: Tensor,
        batch: int,
        in_flight: int,
        window: int | None,
        keep: Callable[[Tensor, Tensor], None],
    ) -> None:
        self.window = len(images) if window is None else window
        self._background = background
        self._ask: Callable[[Tensor, asyncio.Event], Awaitable[Tensor]] | None = ask
        self._images = images
        self._decisions = known
        self._requests = _split(known, batch)
        self._in_flight = in_flight
        self._keep: Callable[[Tensor, Tensor], None] | None = keep
        self._work: Future[None] | None = None
        self._given_up = asyncio.Event()
        self._wake = asyncio.Event()
        self._next = self._oldest = 0
        self._may_send = 0
        self._unsure: set[int] = set()
        self._failure: TeacherError | None = None
        self._changed: SimpleQueue[None] = SimpleQueue()
        self._first_gap = self._gap()
        self._taken = 0

    @property
    def maybe_paid(self) -> int:
        """Images from the first gap to the last that was, or may have been, answered."""
        behind = (self._decisions != UNANSWERED).nonzero()[:, 0].tolist()
        last = max((*behind, *(self._requests[i].stop - 1 for i in self._unsure)), default=-1)
        return max(0, last + 1 - self._first_gap)

    def next_part(self) -> Tensor:
        """As `DecisionStream.next_part`."""
        if self._taken < len(self._decisions):
            self._widen(self._taken + self.window)
            self._wait_until(lambda: self._first_gap > self._taken or self._ended)
            if self._first_gap == self._taken:
                raise self._failed()
        elif self._work is not None:
            self._wait_for_end()
        taken, self._taken = self._taken, self._first_gap
        return self._decisions[taken : self._taken].clone()

    def stop(self) -> Tensor:
        """As `DecisionStream.stop`."""
        if self._work is None:
            self._keep_behind_gap()
            return self._decisions[: self._first_gap].clone()
        try:
            self._background.call(self._give_up)
            if not self._wait_until(lambda: self._ended, _SILENT_SECONDS):
                _log.warning(
                    "stopping: waiting for the answers to the requests in flight; interrupt again "
                    "to give them up"
                )
        except BaseException:
            self._work.cancel()
            raise
        self._wait_for_end()
        return self._decisions[: self._first_gap].clone()

    @property
    def _ended(self) -> bool:
        return self._work is not None and self._work.done()

    def _failed(self) -> TeacherError:
        self._wait_for_end()
        failure = self._failure
        if failure is None:
            self._work.result()  # raises what no request is expected to raise
            failure = TeacherError("requests: were stopped before all were answered")
        failure.answered = self._decisions[: self._first_gap].clone()
        failure.maybe_paid = self.maybe_paid
        return failure

    def _wait_for_end(self) -> None:
        try:
            self._wait_until(lambda: self._ended)
        except BaseException:
            self._work.cancel()
            raise
        # The teacher must not be kept alive, nor be deleted in the event loop's thread.
        self._ask = self._keep = None

    def _wait_until(self, reached: Callable[[], bool], seconds: float = math.inf) -> bool:
        """Whether it was reached within that time."""
        deadline = time.monotonic() + seconds
        while not reached():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with suppress(Empty):  # and look again now and then: an interrupt may lose a token
                self._changed.get(timeout=min(left, _LOOK_SECONDS))
        return True

    def _widen(self, limit: int) -> None:
        """Lets images before `limit` be sent."""
        if self._work is None:
            self._may_send = limit
            self._work = self._background.start(self._run())
            self._work.add_done_callback(self._tell_end)
        else:
            self._background.call(self._set_limit, limit)

    def _set_limit(self, limit: int) -> None:
        self._may_send = limit
        self._wake.set()

    def _give_up(self) -> None:
        self._given_up.set()
        self._wake.set()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._in_flight):
                    tasks.create_task(self._send_some())
        finally:
            self._keep_behind_gap()

    def _keep_behind_gap(self) -> None:
        gap = self._first_gap
        answered = self._decisions[gap:] != UNANSWERED
        if bool(answered.any()):
            self._keep(self._images[gap:][answered], self._decisions[gap:][answered])

    async def _send_some(self) -> None:
        while self._next < len(self._requests) and not self._given_up.is_set():
            number = self._next
            rows = self._requests[number]
            if rows.stop > self._may_send:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._next += 1
            self._unsure.add(number)
            try:
                decisions = await self._ask(self._images[rows], self._given_up)
            except TeacherError as error:
                if not error.maybe_paid:
                    self._unsure.discard(number)
                self._failure = self._failure or error
                self._give_up()
                continue
            self._unsure.discard(number)
            self._decisions[rows] = decisions
            before, self._first_gap = self._first_gap, self._gap()
            if self._first_gap > before:
                self._changed.put(None)

    def _gap(self) -> int:
        """The first image without a decision, or how many images there are."""
        while self._oldest < len(self._requests):
            first = self._requests[self._oldest].start
            if self._decisions[first] == UNANSWERED:
                return first
            self._oldest += 1
        return len(self._decisions)

    def _tell_end(self, _: "Future[None]") -> None:
        self._changed.put(None)


def _split(known: Tensor, batch: int) -> list[slice]:
    """The images without a decision, in requests of neighbours."""
    missing = (known == UNANSWERED).nonzero()[:, 0].tolist()
    requests: list[slice] = []
    for row in missing:
        last = requests[-1] if requests else None
        if last is not None and last.stop == row and row - last.start < batch:
            requests[-1] = slice(last.start, row + 1)
        else:
            requests.append(slice(row, row + 1))
    return requests
