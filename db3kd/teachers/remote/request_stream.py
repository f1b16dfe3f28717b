"""The requests of one call of a remote teacher, several of them in flight."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue

from torch import Tensor

from db3kd.teachers.base import UNANSWERED, TeacherError
from db3kd.teachers.remote.event_loop import EventLoopThread

_SECONDS_BEFORE_WARNING = 1.0
"""Seconds for which a stopped call waits for requests in flight before it logs a warning."""

_POLL_SECONDS = 0.5

_log = logging.getLogger("db3kd")

OnLost = Callable[[int], None]
Ask = Callable[[Tensor, asyncio.Event, OnLost | None], Awaitable[Tensor]]


class RequestStream:
    """A `DecisionStream` (see `db3kd.teachers.base`) that sends several requests at once.

    Args:
        event_loop: Where the requests are sent.
        ask: Returns the decisions of one request's images as [n] int64. It raises only
            TeacherError, even if the event that it receives is set before it has an answer: then
            it sends no further attempt. Its third argument is `on_lost`.
        images: [N, *image_shape] float32.
        decided: [N] int64; the decisions that are known already, UNANSWERED for the others.
        batch: Maximum number of images per request.
        in_flight: Maximum number of concurrent requests.
        window: See `DecisionStream.window`; at least `batch`. None: no limit.
        keep: Receives the images and decisions that were answered behind the first gap, if there
            are any at the end.

    Attributes:
        on_lost: See `DecisionStream`; None by default. It is called in the event loop's thread.
    """

    # The caller waits in `next_part` and `stop`; everything else runs in the event loop's thread.
    # An interrupt may end a wait anywhere, so the threads share no lock. The event loop writes
    # decisions, then `_first_gap`, then a token into `_changed`, for which the caller waits.
    #
    # A stopped stream still repeats a request if a later one may be answered: callers record
    # decisions up to the first gap, so an answer behind a gap would be paid for and lost.

    def __init__(
        self,
        event_loop: EventLoopThread,
        ask: Ask,
        images: Tensor,
        *,
        decided: Tensor,
        batch: int,
        in_flight: int,
        window: int | None,
        keep: Callable[[Tensor, Tensor], None],
    ) -> None:
        self.window = len(images) if window is None else window
        self._event_loop = event_loop
        self.on_lost: OnLost | None = None
        self._ask: Ask | None = ask
        self._images = images
        self._decisions = decided
        self._requests = _split(decided, batch)
        self._in_flight = in_flight
        self._keep: Callable[[Tensor, Tensor], None] | None = keep
        self._future: Future[None] | None = None
        self._stopped = False
        self._wake = asyncio.Event()
        self._next_request = self._oldest_request = 0
        self._first_failed = len(self._requests)
        self._no_repeat: dict[int, asyncio.Event] = {}
        self._send_limit = 0
        self._maybe_paid_requests: set[int] = set()
        self._failure: TeacherError | None = None
        self._changed: SimpleQueue[None] = SimpleQueue()
        self._first_gap = self._find_gap()
        self._returned = 0

    @property
    def maybe_paid(self) -> int:
        """Number of images from the first gap to the last one that may have been answered."""
        answered = (self._decisions != UNANSWERED).nonzero()[:, 0].tolist()
        unconfirmed = (self._requests[i].stop - 1 for i in self._maybe_paid_requests)
        last = max((*answered, *unconfirmed), default=-1)
        return max(0, last + 1 - self._first_gap)

    def next_part(self) -> Tensor:
        """Returns the next decisions; see `DecisionStream.next_part`."""
        if self._returned < len(self._decisions):
            self._raise_send_limit(self._returned + self.window)
            self._wait_until(lambda: self._first_gap > self._returned or self._ended)
            if self._first_gap == self._returned:
                raise self._failed()
        elif self._future is not None:
            self._wait_for_end(self._future)
        start, self._returned = self._returned, self._first_gap
        return self._decisions[start : self._returned].clone()

    def stop(self) -> Tensor:
        """Stops sending and returns the decisions so far; see `DecisionStream.stop`."""
        if self._future is None:
            self._keep_behind_gap()
            return self._decisions[: self._first_gap].clone()
        try:
            self._event_loop.call_soon(self._stop_sending)
            if not self._wait_until(lambda: self._ended, _SECONDS_BEFORE_WARNING):
                _log.warning(
                    "stopping: waiting for the answers to the requests in flight; interrupt again "
                    "to discard them"
                )
        except BaseException:
            self._future.cancel()
            raise
        self._wait_for_end(self._future)
        return self._decisions[: self._first_gap].clone()

    @property
    def _ended(self) -> bool:
        return self._future is not None and self._future.done()

    def _failed(self) -> TeacherError:
        """Waits for the requests in flight and returns the error to raise."""
        failure = None
        if self._future is not None:
            self._wait_for_end(self._future)
            failure = self._failure
            if failure is None:
                self._future.result()  # Raises the error if a request failed unexpectedly.
        if failure is None:
            failure = TeacherError("requests: stopped before all images were answered")
        failure.answered = self._decisions[: self._first_gap].clone()
        failure.maybe_paid = self.maybe_paid
        return failure

    def _wait_for_end(self, future: "Future[None]") -> None:
        try:
            self._wait_until(future.done)
        except BaseException:
            future.cancel()
            raise
        # These refer to the teacher, which must not be kept alive or deleted in the event loop's
        # thread.
        self._ask = self._keep = None

    def _wait_until(self, reached: Callable[[], bool], seconds: float = math.inf) -> bool:
        """Returns whether the condition was reached within that time."""
        deadline = time.monotonic() + seconds
        while not reached():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with suppress(Empty):  # The wait is short, because an interrupt may lose a token.
                self._changed.get(timeout=min(left, _POLL_SECONDS))
        return True

    def _raise_send_limit(self, limit: int) -> None:
        """Permits sending the images before row `limit`."""
        if self._future is None:
            self._send_limit = limit
            self._future = self._event_loop.start(self._run())
            self._future.add_done_callback(self._signal_end)
        else:
            self._event_loop.call_soon(self._set_send_limit, limit)

    def _set_send_limit(self, limit: int) -> None:
        self._send_limit = limit
        self._wake.set()

    def _stop_sending(self) -> None:
        self._stopped = True
        self._wake.set()
        self._end_needless_repeats()

    def _end_needless_repeats(self) -> None:
        """Ends the repeats of each request behind which no answer can be lost."""
        last = min(self._first_failed, self._next_request) - 1
        for number, no_repeat in self._no_repeat.items():
            if number >= last:
                no_repeat.set()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._in_flight):
                    tasks.create_task(self._send_requests())
        finally:
            self._keep_behind_gap()

    def _keep_behind_gap(self) -> None:
        gap = self._first_gap
        answered = self._decisions[gap:] != UNANSWERED
        if self._keep is not None and bool(answered.any()):
            self._keep(self._images[gap:][answered], self._decisions[gap:][answered])

    async def _send_requests(self) -> None:
        while (
            (ask := self._ask) is not None
            and self._next_request < len(self._requests)
            and not self._stopped
        ):
            number = self._next_request
            rows = self._requests[number]
            if rows.stop > self._send_limit:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._next_request += 1
            self._maybe_paid_requests.add(number)
            no_repeat = self._no_repeat[number] = asyncio.Event()
            try:
                decisions = await ask(self._images[rows], no_repeat, self.on_lost)
            except TeacherError as error:
                if error.maybe_paid == 0:
                    self._maybe_paid_requests.discard(number)
                self._failure = self._failure or error
                self._first_failed = min(self._first_failed, number)
                self._stop_sending()
                continue
            finally:
                del self._no_repeat[number]
            self._maybe_paid_requests.discard(number)
            self._decisions[rows] = decisions
            before, self._first_gap = self._first_gap, self._find_gap()
            if self._first_gap > before:
                self._changed.put(None)

    def _find_gap(self) -> int:
        """Returns the first row without a decision, or the number of images."""
        while self._oldest_request < len(self._requests):
            first = self._requests[self._oldest_request].start
            if self._decisions[first] == UNANSWERED:
                return first
            self._oldest_request += 1
        return len(self._decisions)

    def _signal_end(self, _: "Future[None]") -> None:
        self._changed.put(None)


def _split(decided: Tensor, batch: int) -> list[slice]:
    """Groups neighbouring images without a decision into requests."""
    missing = (decided == UNANSWERED).nonzero()[:, 0].tolist()
    requests: list[slice] = []
    for row in missing:
        last = requests[-1] if requests else None
        if last is not None and last.stop == row and row - last.start < batch:
            requests[-1] = slice(last.start, row + 1)
        else:
            requests.append(slice(row, row + 1))
    return requests
