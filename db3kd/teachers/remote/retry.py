"""How a teacher behind a network is asked: how much at once, how often, how patiently."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from db3kd.teachers.base import TeacherError
from db3kd.teachers.extras import import_extra
from db3kd.validation import check_count


@dataclass(frozen=True)
class RequestSettings:
    """How a served teacher is asked. None of it changes an answer.

    batch               most images of one request
    in_flight           most requests under way at once. `batch * in_flight` images are also the
                        most that a kill loses; none is sent further ahead of an unanswered one, so
                        if the server's times vary much, more in flight are faster
    timeout             seconds from sending a request to having read all of its answer
    max_attempts        how often a request is sent at most
    initial_backoff          seconds before the second attempt, at most; doubled for each one after
                        it, and shortened at random, so that clients do not return all at once
    max_backoff        most seconds between two attempts; a server that asks for more is not asked
                        again
    queries_per_second  most images sent in a second, over time; None: as many as it takes
    retry_ambiguous          also repeat what may have been answered: after a lost connection, a
                        timeout or a failing gateway (502, 504). The server may then charge for a
                        request again, at most `max_attempts` times. Without it, only what was
                        surely not answered is repeated (no connection, 429, 503), and nothing is
                        paid twice.
    """

    batch: int = 64
    in_flight: int = 4
    timeout: float = 30.0
    max_attempts: int = 8
    initial_backoff: float = 0.25
    max_backoff: float = 30.0
    queries_per_second: float | None = None
    retry_ambiguous: bool = True

    def __post_init__(self) -> None:
        for name in ("batch", "in_flight", "max_attempts"):
            check_count(getattr(self, name), name)
        for name in ("timeout", "initial_backoff", "max_backoff", "queries_per_second"):
            value = getattr(self, name)
            if name == "queries_per_second" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{name}: expected a positive number, got {value!r}")
        if not isinstance(self.retry_ambiguous, bool):
            raise ValueError(
                f"retry_ambiguous: expected true or false, got {self.retry_ambiguous!r}"
            )

    def with_batch(self, batch: int) -> "RequestSettings":
        """The same with other batches."""
        return dataclasses.replace(self, batch=batch)


class AbandonedError(Exception):
    """An attempt that was not made, because all has been given up."""


class RetryableError(Exception):
    """An attempt that brought no answer, and may be repeated.

    maybe_paid: whether the server may have answered nevertheless. wait: seconds that the server
    asks to wait.
    """

    def __init__(self, message: str, *, maybe_paid: bool, wait: float = 0.0) -> None:
        super().__init__(message)
        self.maybe_paid = maybe_paid
        self.wait = wait


class RateLimit:
    """Lets at most so many queries a second pass, over time. For one event loop."""

    def __init__(self, per_second: float | None) -> None:
        self._seconds = 0.0 if per_second is None else 1 / per_second
        self._free = 0.0

    async def take(self, queries: int, given_up: asyncio.Event) -> None:
        """Returns when this many more may be sent, or at once when `given_up` is set."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._free)
        self._free = start + queries * self._seconds
        if start > now:
            await _sleep(start - now, given_up)


class RetryPolicy:
    """Repeats an attempt that brought no answer, as `RequestSettings` says."""

    def __init__(self, requests: RequestSettings) -> None:
        self._requests = requests
        self._tenacity = import_extra("tenacity", "remote")
        self._backoff = self._tenacity.wait_random_exponential(
            multiplier=requests.initial_backoff, max=requests.max_backoff
        )

    async def until_answered(
        self, attempt: Callable[[], Awaitable[Any]], given_up: asyncio.Event, who: str
    ) -> Any:
        """What `attempt` returns, the first time that it does not raise Unanswered.

        given_up: once set, nothing is repeated any more.

        Raises:
            TeacherError: no attempt is left; the message begins with `who`, and `maybe_paid` is 1
                if the server may have answered any of them.
        """
        maybe_paid = False
        retrying = self._tenacity.AsyncRetrying(
            retry=self._tenacity.retry_if_exception(self._repeatable),
            wait=self._wait,
            stop=self._tenacity.stop_any(
                self._tenacity.stop_after_attempt(self._requests.max_attempts),
                lambda state: given_up.is_set(),
            ),
            sleep=lambda seconds: _sleep(seconds, given_up),
            reraise=True,
        )

        async def once() -> Any:  # tenacity awaits only what it sees to be a coroutine function
            nonlocal maybe_paid
            try:
                return await attempt()
            except RetryableError as error:
                maybe_paid |= error.maybe_paid
                raise

        try:
            return await retrying(once)
        except RetryableError as error:
            count = retrying.statistics["attempt_number"]
            times = "1 attempt" if count == 1 else f"{count} attempts"
            message = f"{who}: no answer in {times}; {error}"
            raise TeacherError(message, maybe_paid=int(maybe_paid)) from None
        except AbandonedError:
            raise TeacherError(f"{who}: was given up", maybe_paid=int(maybe_paid)) from None

    def _repeatable(self, error: BaseException) -> bool:
        return (
            isinstance(error, RetryableError)
            and (self._requests.retry_ambiguous or not error.maybe_paid)
            and error.wait <= self._requests.max_backoff
        )

    def _wait(self, state: Any) -> float:
        return max(self._backoff(state), state.outcome.exception().wait)


async def _sleep(seconds: float, given_up: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await given_up.wait()
    except TimeoutError:
        pass
