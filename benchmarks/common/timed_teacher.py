"""A teacher whose calls are timed."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from db3kd.teachers import Teacher


class WrappedCalls:
    """Wraps a teacher and passes each of its calls through `around`."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        if hasattr(teacher, "decide_async"):
            self.decide_async = lambda images: self.around(teacher.decide_async, images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._teacher, name)

    def decide(self, images: Tensor) -> Tensor:
        """Answers by `around`."""
        return self.around(self._teacher.decide, images)

    def around(self, ask: Callable[[Tensor], Any], images: Tensor) -> Any:
        """Calls `ask(images)`; subclasses add to it."""
        raise NotImplementedError


class TimedTeacher(WrappedCalls):
    """Times the calls of a teacher.

    On CUDA, events on the stream of a call are timed. They leave out earlier work on the stream,
    but not the gaps in which the device waits for the host to launch the teacher's kernels; see
    `benchmarks.gpu.activity` for the time without them. Otherwise the wall clock is used.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__(teacher)
        self._spans: list[tuple[Any, Any]] = []
        self._origin = self._now()
        self.batches: list[int] = []

    def seconds(self) -> float:
        """Seconds in which at least one call was running; concurrent calls count once."""
        return union_of((self._since(start), self._since(end)) for start, end in self._spans)

    def around(self, ask: Callable[[Tensor], Any], images: Tensor) -> Any:
        """Answers and times a call."""
        start = self._now()
        answers = ask(images)
        self._spans.append((start, self._now()))
        self.batches.append(len(images))
        return answers

    def _now(self) -> Any:
        if self._teacher.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _since(self, moment: Any) -> float:
        """Seconds from the origin to a moment of `_now`."""
        if self._teacher.device.type != "cuda":
            return moment - self._origin
        moment.synchronize()
        return self._origin.elapsed_time(moment) / 1000


def union_of(spans: Iterable[tuple[float, float]]) -> float:
    """Returns the total length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
