"""Several searches in flight at once, so that a GPU need not wait for Python.

While the teacher answers one search, Python builds the next batch of another. Each search has a
CUDA stream, a ledger and a journal of its own; so what it comes to does not depend on the others.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Generic

import torch

from db3kd.querying.driver import StepwiseSearch
from db3kd.querying.search import Result
from db3kd.teachers.base import TeacherError


def default_concurrency(device: torch.device) -> int:
    """Searches in flight where nobody says: on a CPU they would only take each other's time."""
    return 2 if device.type == "cuda" else 1


def run_concurrently(
    concurrent_chunks: Iterator[StepwiseSearch[Result]], most: int, device: torch.device
) -> Iterator[Result]:
    """What flights return, in their order, with up to `most` of them under way in turns.

    concurrent_chunks: taken one by one, as there is room; see `run_stepwise`. device: the
        teacher's.

    An error in one is raised where its result would come. So those before it are flown to their
    end; those behind it are closed at once, and none is begun any more. Closing keeps what was
    answered, and whatever else ends this closes all.
    """
    streams = deque(_streams(most, device))
    window: deque[_RunningSearch[Result]] = deque()
    try:
        while True:
            while streams and (flight := next(concurrent_chunks, None)) is not None:
                window.append(_RunningSearch(flight, streams.popleft()))
            if not window:
                return
            for place, flown in enumerate(window):
                if flown.under_way and not flown.step():
                    streams.append(flown.stream)
                if flown.error is not None:
                    _close(window, place + 1)
                    concurrent_chunks = iter(())
                    break
            while window and not window[0].under_way:
                yield window.popleft().result()
    finally:
        _close(window, 0)


class _RunningSearch(Generic[Result]):
    """A flight, the stream it is on, and how it ended."""

    def __init__(self, flight: StepwiseSearch[Result], stream: torch.cuda.Stream | None) -> None:
        self.stream = stream
        self.under_way = True
        self.error: Exception | None = None
        self._search_chunk = flight
        self._result: Result | None = None
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(stream.device))

    def step(self) -> bool:
        """Goes on to the next pause; says whether there is one."""
        try:
            with self._on_stream():
                next(self._search_chunk)
        except StopIteration as finished:
            self._result, self.under_way = finished.value, False
        except Exception as error:
            self.error, self.under_way = error, False
        return self.under_way

    def result(self) -> Result:
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]

    def close(self) -> None:
        with self._on_stream():
            self._search_chunk.close()

    def _on_stream(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)


def _streams(most: int, device: torch.device) -> list[torch.cuda.Stream | None]:
    """A stream for each; a single search stays on the current one."""
    if device.type != "cuda" or most == 1:
        return [None] * most
    return [torch.cuda.Stream(device) for _ in range(most)]


def _close(window: deque[_RunningSearch[Any]], start: int) -> None:
    """Closes the flights from `start` on."""
    while len(window) > start:
        with suppress(TeacherError):  # the error that ended all is the one to hear of
            window.pop().close()
