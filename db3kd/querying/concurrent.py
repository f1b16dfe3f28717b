"""Runs several searches in turns, so that a GPU need not wait for Python.

While the teacher answers one search, Python builds the next batch of another. Each search has its
own CUDA stream, ledger and journal, so its result does not depend on the others.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Generic

import torch

from db3kd.querying.search import Result
from db3kd.querying.session import SearchTask


def default_concurrency(device: torch.device) -> int:
    """Returns how many searches to run in turns on a device: 2 on CUDA, 1 on a CPU.

    On a CPU the searches and the teacher compete for the same cores.
    """
    return 2 if device.type == "cuda" else 1


def run_concurrently(
    tasks: Iterator[SearchTask[Result]], max_tasks: int, device: torch.device
) -> Iterator[Result]:
    """Runs tasks in turns, and yields their results in the order of the tasks.

    If a task fails, earlier tasks finish first, later ones are closed, and no new one starts. If
    the caller stops, all tasks are closed. A closed task keeps the answers that are in flight.

    Args:
        tasks: The searches to run. A task is taken when there is room for it.
        max_tasks: Maximum number of tasks that run at once.
        device: The teacher's device.

    Raises:
        Exception: If a task fails, in place of its result.
    """
    streams = deque(_streams(max_tasks, device))
    running: deque[_RunningTask[Result]] = deque()
    try:
        while True:
            while streams and (task := next(tasks, None)) is not None:
                running.append(_RunningTask(task, streams.popleft()))
            if not running:
                return
            for place, current in enumerate(running):
                if current.outcome.done():
                    continue
                current.step()
                if not current.outcome.done():
                    continue
                streams.append(current.stream)
                if current.outcome.exception() is not None:
                    _close_from(place + 1, running)
                    tasks = iter(())
                    break
            while running and running[0].outcome.done():
                yield running.popleft().outcome.result()
    finally:
        _close_from(0, running)


class _RunningTask(Generic[Result]):
    """A task, its CUDA stream, and its outcome: a result or an error."""

    def __init__(self, task: SearchTask[Result], stream: torch.cuda.Stream | None) -> None:
        self.stream = stream
        self.outcome: Future[Result] = Future()
        self._task = task
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(stream.device))

    def step(self) -> None:
        """Runs the task to its next pause or to its end."""
        try:
            with self._on_stream():
                next(self._task)
        except StopIteration as finished:
            self.outcome.set_result(finished.value)
        except Exception as error:
            self.outcome.set_exception(error)

    def close(self) -> None:
        """Ends the task at its pause."""
        with self._on_stream():
            self._task.close()

    def _on_stream(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)


def _streams(count: int, device: torch.device) -> list[torch.cuda.Stream | None]:
    """Returns a stream for each task; None, the current stream, for a single task or a CPU."""
    if device.type != "cuda" or count == 1:
        return [None] * count
    return [torch.cuda.Stream(device) for _ in range(count)]


def _close_from(start: int, running: deque[_RunningTask[Any]]) -> None:
    """Closes the tasks from position `start` on."""
    while len(running) > start:
        # Raise the error that ended the run, not errors from closing the other tasks.
        with suppress(Exception):
            running.pop().close()
