"""A teacher whose calls are timed."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from db3kd.teachers import Teacher


class TimedTeacher:
    """Wraps a teacher and times its calls.

    On CUDA, events on the stream of a call are timed, which leaves out earlier work on the stream.
    Otherwise the wall clock is used.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._spans: list[tuple[Any, Any]] = []
        self._origin = self._now()
        self.batches: list[int] = []
        if hasattr(teacher, "decide_async"):
            self.decide_async = lambda images: self._timed(teacher.decide_async, images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._teacher, name)

    def decide(self, images: Tensor) -> Tensor:
        """Answers and times a call."""
        return self._timed(self._teacher.decide, images)

    def seconds(self) -> float:
        """Seconds in which at least one call was running; concurrent calls count once."""
        busy, reached = 0.0, 0.0
        for start, end in sorted(
            (self._since(start), self._since(end)) for start, end in self._spans
        ):
            busy += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return busy

    def _timed(self, ask: Callable[[Tensor], Any], images: Tensor) -> Any:
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
