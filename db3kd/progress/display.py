"""Progress of long computations: live on a terminal, plain lines anywhere else."""

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Protocol, Self, TextIO

from db3kd.arguments.plain import brief
from db3kd.errors import ArgumentTypeError
from db3kd.progress.lines import PlainLines, live_lines

_WINDOW = 60.0
"""Seconds over which a recent rate is measured; longer if a count changes less often."""

_MARKS = 60
"""The most counts that are remembered in a window."""


class ProgressListener(Protocol):
    """Receives the counts of a long computation; `Progress` implements it."""

    def update(
        self,
        *,
        samples: int | None = None,
        queries: int | None = None,
        mean_distance: float | None = None,
    ) -> None:
        """Reports the totals of this process so far; an omitted total has not changed.

        Args:
            samples: Samples done; of a training its steps, and of a choice of a scale its students.
            queries: Queries spent.
            mean_distance: The mean of the finite distances, L2 in input units.
        """
        ...


class RecentRate:
    """Measures how fast a count has grown in the last minute.

    Args:
        now: Seconds since any fixed moment.
        count: The count at that moment.
    """

    def __init__(self, now: float, count: int) -> None:
        self._marks = deque([(now, count)])
        self._last = now, count

    def update(self, now: float, count: int) -> None:
        """Sets the count at a moment that is not before the last one."""
        if count == self._last[1]:
            return
        self._last = now, count
        if now - self._marks[-1][0] >= _WINDOW / _MARKS:
            self._marks.append(self._last)
        while len(self._marks) > 1 and now - self._marks[1][0] >= _WINDOW:
            self._marks.popleft()

    def skip(self, count: int) -> None:
        """Raises the count by a number that does not affect the rate."""
        self._marks = deque((moment, before + count) for moment, before in self._marks)
        self._last = self._last[0], self._last[1] + count

    def per_second(self, now: float) -> float:
        """Returns the recent growth per second, or 0 if no time has passed."""
        since, count = self._marks[0]
        return (self._last[1] - count) / (now - since) if now > since else 0.0


class Progress:
    """Shows samples done, queries spent, queries per second, mean distance and time left.

    Speed and time left follow the last minute, because a teacher may slow down. The time left is
    estimated from queries if there are any: each further sample is expected to cost as many as
    those that are done. Until one is done, the rest of the budget counts. The time of blocks
    `paused` counts for neither of them, and the last line shows it apart.

    On a terminal with rich installed, a bar and a line are redrawn in place. Elsewhere plain lines
    are written, at most one every `interval` seconds, and one at the end.

    Example:
        >>> with Progress(samples=len(images), queries=budget) as progress:
        ...     progress.update(samples=512, queries=40_960, mean_distance=1.8)

    Args:
        samples: How many samples there are.
        queries: The query budget; None if there is none.
        title: The name of the computation, at the start of each line.
        unit: What is counted, if not samples.
        samples_before: Samples that an earlier process has done. They count as done, but not for
            the speed.
        queries_before: Queries that an earlier process has spent, likewise.
        stream: Where the lines go; standard error by default.
        clock: Returns seconds since any fixed moment.
        interval: The least seconds between two plain lines.
    """

    def __init__(
        self,
        samples: int,
        queries: int | None = None,
        *,
        title: str = "labelling",
        unit: str = "samples",
        samples_before: int = 0,
        queries_before: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        interval: float = 5.0,
    ) -> None:
        self.samples = samples
        self.queries = queries
        self.title = title
        self.unit = unit
        self._clock = clock
        self._before = samples_before, queries_before
        self._samples_done = samples_before
        self._queries_spent: int | None = queries_before or None
        self._mean_distance: float | None = None
        self._spent_at_last_sample = queries_before
        self._start()
        stream = sys.stderr if stream is None else stream
        self._display = live_lines(stream) or PlainLines(stream, clock, interval)

    def __enter__(self) -> Self:
        self._start()
        self._display.start()
        return self

    def _start(self) -> None:
        self._started = self._clock()
        self._seconds_paused = 0.0
        self.restart_rates()

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ending = "done" if error_type is None else "stopped"
        self._display.finish(f"{self.title} {ending}: {self._status(final=True)}")

    def update(
        self,
        *,
        samples: int | None = None,
        queries: int | None = None,
        mean_distance: float | None = None,
    ) -> None:
        """Shows the totals of this process so far; see `ProgressListener`."""
        now = self._working_time()
        if queries is not None:
            self._queries_spent = self._before[1] + queries
            self._queries_rate.update(now, self._queries_spent)
        if samples is not None and self._before[0] + samples != self._samples_done:
            self._samples_done = self._before[0] + samples
            self._samples_rate.update(now, self._samples_done)
            self._spent_at_last_sample = self._queries_spent or 0
        if mean_distance is not None:
            self._mean_distance = mean_distance
        status = self._status(final=False)
        self._display.show(self.title, status, self._samples_done, self.samples)

    def add_known(self, *, samples: int = 0, queries: int = 0) -> None:
        """Adds more work of an earlier process, which does not count for the speed."""
        self._before = self._before[0] + samples, self._before[1] + queries
        self._samples_done += samples
        self._queries_spent = ((self._queries_spent or 0) + queries) or None
        self._spent_at_last_sample += queries
        self._samples_rate.skip(samples)
        self._queries_rate.skip(queries)

    def restart_rates(self) -> None:
        """Measures speed and time left from now on.

        The first units often take longer, because they set up what the others use, or they were
        done by an earlier process.
        """
        now = self._working_time()
        self._samples_rate = RecentRate(now, self._samples_done)
        self._queries_rate = RecentRate(now, self._queries_spent or 0)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keeps the time of a block of other work out of the speed and the time left.

        A live display is hidden meanwhile, so that the other work can have one of its own.

        Example:
            >>> with progress.paused():
            ...     train(proxy)  # no query is sent meanwhile
        """
        started = self._clock()
        self._display.hide()
        try:
            yield
        finally:
            self._display.start()
            self._seconds_paused += self._clock() - started

    def _working_time(self) -> float:
        """Returns the clock's time without the pauses."""
        return self._clock() - self._seconds_paused

    def _status(self, *, final: bool) -> str:
        now = self._working_time()
        worked = self._clock() - self._started - self._seconds_paused
        parts = [f"{self._samples_done:,}/{self.samples:,} {self.unit}"]
        if self._queries_spent is not None:
            budget = "" if self.queries is None else f" of {self.queries:,}"
            parts.append(f"{self._queries_spent:,}{budget} queries")
            if worked > 0:
                overall = (self._queries_spent - self._before[1]) / worked
                rate = overall if final else self._queries_rate.per_second(now)
                if rate or not final:
                    parts.append(f"{rate:,.0f} queries/s")
        if self._mean_distance is not None and math.isfinite(self._mean_distance):
            parts.append(f"mean distance {self._mean_distance:.3g}")
        if final:
            parts.append(f"{duration(worked)} taken")
            if round(self._seconds_paused):
                parts.append(f"{duration(self._seconds_paused)} for other work")
        elif (left := self._seconds_left(now)) is not None:
            parts.append(f"{duration(left)} left")
        return " · ".join(parts)

    def _seconds_left(self, now: float) -> float | None:
        """Estimates the time left; None if nothing is known yet."""
        queries, rate = self._queries_left(), self._queries_rate.per_second(now)
        if queries is not None and rate > 0:
            return queries / rate
        rate = self._samples_rate.per_second(now)
        return max(0, self.samples - self._samples_done) / rate if rate > 0 else None

    def _queries_left(self) -> float | None:
        """Estimates the queries left; None if nothing is known yet."""
        if self._queries_spent is None:
            return None
        budget_left = None if self.queries is None else max(0, self.queries - self._queries_spent)
        done = self._samples_done - self._before[0]
        spent = self._spent_at_last_sample - self._before[1]
        if done == 0 or spent == 0:
            return budget_left
        # The queries since the last sample was done belong to the samples that are left.
        since = self._queries_spent - self._spent_at_last_sample
        left = max(0.0, spent / done * (self.samples - self._samples_done) - since)
        return left if budget_left is None else min(left, budget_left)


class _Silent:
    """A listener that shows nothing."""

    def update(self, **_: object) -> None:
        pass


def check_progress(progress: ProgressListener | bool) -> None:
    """Raises TypeError unless `progress` is a listener, True or False."""
    if not (isinstance(progress, bool) or hasattr(progress, "update")):
        raise ArgumentTypeError(
            "progress",
            f"expected True, False or an object with a method update, got {brief(progress)}",
        )


def listening(
    progress: ProgressListener | bool, make: Callable[[], Progress]
) -> AbstractContextManager[ProgressListener]:
    """Returns the context of a computation whose `progress` may be shown, heard or neither.

    `make` makes the display if `progress` is True. If a launcher started several processes, only
    the first one shows it.

    Raises:
        TypeError: If `progress` is something else.
    """
    check_progress(progress)
    if not isinstance(progress, bool):
        return nullcontext(progress)
    is_first = os.environ.get("RANK", "0") == "0"
    return make() if progress and is_first else nullcontext(_Silent())


def report_units(listener: ProgressListener, done: int, total: int) -> None:
    """Reports how many units are done, such as steps; a display also receives the total."""
    if isinstance(listener, Progress):
        listener.samples = total
    listener.update(samples=done)


@contextmanager
def show_progress(
    title: str, total: int, unit: str, progress: ProgressListener | bool = True
) -> Iterator[Callable[[int], None]]:
    """Reports the progress of a computation that counts itself.

    Example:
        >>> with show_progress("training", steps, "steps") as show:
        ...     for step in range(steps):
        ...         train_one(network, images)
        ...         show(step + 1)

    Yields:
        A function to call with the number of units done.
    """
    with listening(progress, lambda: Progress(total, title=title, unit=unit)) as listener:
        yield lambda done: listener.update(samples=done)


def adding_up(show: Callable[[int], object]) -> Callable[[int], None]:
    """Returns a function that adds up the counts it is called with, and passes on each sum.

    Example:
        >>> with show_progress("training", len(settings), "students") as show:
        ...     done = adding_up(show)
        ...     for each in settings:
        ...         train(each)
        ...         done(1)
    """
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        show(done)

    return count


def duration(seconds: float) -> str:
    """Writes seconds as hours, minutes and seconds: `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
