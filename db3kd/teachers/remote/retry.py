"""Retries with backoff, and a limit on the rate of queries."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from db3kd.extras import import_extra
from db3kd.teachers.base import TeacherError
from db3kd.teachers.remote.request_settings import RequestSettings
from db3kd.wording import counted

Result = TypeVar("Result")


class RequestCancelledError(Exception):
    """The attempt was not sent, because its call has been stopped."""


class RetryableError(Exception):
    """An attempt failed and may be repeated.

    Attributes:
        maybe_paid: Whether the server may have answered all the same.
        wait: Seconds that the server asks the client to wait.
    """

    def __init__(self, message: str, *, maybe_paid: bool, wait: float = 0.0) -> None:
        super().__init__(message)
        self.maybe_paid = maybe_paid
        self.wait = wait


class RateLimit:
    """Limits the average number of queries per second. Belongs to one event loop.

    Args:
        per_second: Maximum average number of queries per second. None: no limit.
    """

    def __init__(self, per_second: float | None) -> None:
        self._seconds_per_query = 0.0 if per_second is None else 1 / per_second
        self._next_start = 0.0

    async def take(self, queries: int, no_repeat: asyncio.Event) -> None:
        """Waits until `queries` more may be sent, or until `no_repeat` is set."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._next_start)
        self._next_start = start + queries * self._seconds_per_query
        if start > now:
            await _sleep(start - now, no_repeat)


class RetryPolicy:
    """Repeats failed attempts according to `RequestSettings`."""

    def __init__(self, requests: RequestSettings) -> None:
        self._requests = requests
        self._tenacity = import_extra("tenacity", "remote")
        self._backoff = self._tenacity.wait_random_exponential(
            multiplier=requests.initial_backoff, max=requests.max_backoff
        )

    async def call(
        self,
        attempt: Callable[[], Awaitable[Result]],
        no_repeat: asyncio.Event,
        who: str,
        on_lost: Callable[[], None] | None = None,
    ) -> Result:
        """Calls `attempt` until it succeeds and returns its result.

        Args:
            attempt: Raises RetryableError if it may be repeated.
            no_repeat: When this event is set, no attempt is repeated any more.
            who: How errors begin.
            on_lost: Called before an attempt is repeated that the server may have answered.

        Raises:
            TeacherError: If no attempt is left, or if `attempt` raises it. `error.maybe_paid` is
                1 or None if the server may have answered an attempt that was not passed to
                `on_lost`, else 0.
        """
        maybe_paid = False
        retrying = self._tenacity.AsyncRetrying(
            retry=self._tenacity.retry_if_exception(self._is_repeatable),
            wait=self._wait,
            stop=self._tenacity.stop_any(
                self._tenacity.stop_after_attempt(self._requests.max_attempts),
                lambda state: no_repeat.is_set(),
            ),
            sleep=lambda seconds: _sleep(seconds, no_repeat),
            reraise=True,
        )

        # tenacity awaits an attempt only if it is a coroutine function.
        async def recorded_attempt() -> Result:
            nonlocal maybe_paid
            if maybe_paid and on_lost is not None:
                on_lost()
                maybe_paid = False
            try:
                return await attempt()
            except RetryableError as error:
                maybe_paid |= error.maybe_paid
                raise
            except TeacherError as error:
                if error.maybe_paid == 0:
                    error.maybe_paid = int(maybe_paid)
                raise

        try:
            result: Result = await retrying(recorded_attempt)
            return result
        except RetryableError as error:
            times = counted(retrying.statistics["attempt_number"], "attempt")
            message = f"{who}: no answer in {times}; {error}"
            if error.maybe_paid and not self._requests.retry_ambiguous:
                message += (
                    "; the request was not repeated, because the server may have answered it and "
                    "retry_ambiguous is false"
                )
            raise TeacherError(message, maybe_paid=int(maybe_paid)) from None
        except RequestCancelledError:
            message = f"{who}: the request was cancelled before it was sent"
            raise TeacherError(message, maybe_paid=int(maybe_paid)) from None

    def _is_repeatable(self, error: BaseException) -> bool:
        return (
            isinstance(error, RetryableError)
            and (self._requests.retry_ambiguous or not error.maybe_paid)
            and error.wait <= self._requests.max_backoff
        )

    def _wait(self, state: Any) -> float:
        return max(self._backoff(state), state.outcome.exception().wait)


async def _sleep(seconds: float, event: asyncio.Event) -> None:
    """Waits for `seconds`, or until the event is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
