"""The settings of the requests to a teacher behind a network."""

import dataclasses
from dataclasses import dataclass

from db3kd.arguments.plain import (
    check_count_fields,
    check_fields,
    check_flag,
    check_positive,
    suggests_arguments,
)


@suggests_arguments
@dataclass(frozen=True)
class RequestSettings:
    """How requests to a remote teacher are sent. No setting changes a decision.

    Example:
        >>> settings = RequestSettings(batch=32, in_flight=8, queries_per_second=100)
        >>> teacher = open_inference_teacher(url, requests=settings)

    Attributes:
        batch: Maximum number of images per request.
        in_flight: Maximum number of concurrent requests. A process that is killed loses the answers
            to at most `batch * in_flight` images, because no image further ahead of the first
            unanswered one is sent.
        timeout: Seconds from sending a request to receiving all of its answer.
        max_attempts: Maximum number of times that one request is sent.
        initial_backoff: Maximum seconds before the second attempt. The maximum doubles with every
            further attempt, and the wait is random, so that clients do not all return at once.
        max_backoff: Maximum seconds between two attempts. A request fails if the server asks for a
            longer wait.
        queries_per_second: Maximum average number of images per second. None: no limit.
        retry_ambiguous: Also repeat requests that the server may have answered: after a lost
            connection, a timeout or a failure of the server or its gateway (408, and 5xx other
            than 501, 503, 505 and 511; INTERNAL, UNKNOWN, UNAVAILABLE and so on over gRPC). The
            server may then charge up to `max_attempts` times for one request; the run counts each
            repeat as possibly paid twice. If False, only requests that were surely not answered
            are repeated (no connection, 425, 429, 503, RESOURCE_EXHAUSTED).

    Raises:
        ValueError: If any of the values is invalid.
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
        check_count_fields(self, "batch", "in_flight", "max_attempts")
        check_fields(self, check_positive, "timeout", "initial_backoff", "max_backoff")
        if self.queries_per_second is not None:
            check_fields(self, check_positive, "queries_per_second")
        check_flag(self.retry_ambiguous, "retry_ambiguous")

    def with_batch(self, batch: int) -> "RequestSettings":
        """Returns the same settings with another number of images per request."""
        return dataclasses.replace(self, batch=batch)
