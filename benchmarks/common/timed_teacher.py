"""A teacher whose calls are timed where they run."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from db3kd.teachers import Teacher


class TimedTeacher:
    """A teacher that times its calls where they run; else as the one it is made of.

    On CUDA by events on the streams they are queued on, which leave out what was queued before
    them; else by the wall clock.
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
        return self._timed(self._teacher.decide, images)

    def seconds(self) -> float:
        """How long at least one call was under way; of several at once, time counts once."""
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
        """Seconds from the origin to a moment that `_now` gave."""
        if self._teacher.device.type != "cuda":
            return moment - self._origin
        moment.synchronize()
        return self._origin.elapsed_time(moment) / 1000
