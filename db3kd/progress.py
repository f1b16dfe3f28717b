"""How far long work has come: a live line on a terminal, plain lines anywhere else."""

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO


class Progress:
    """Shows samples done, queries spent, queries per second, mean distance and time left.

    On a terminal, and with rich installed, one line is redrawn in place. Elsewhere plain lines are
    written, at most one every `interval` seconds, and one at the end. Use as a context manager:

        with Progress(samples=len(images), queries=budget) as progress:
            progress.update(samples=512, queries=40_960, mean_distance=1.8)

    Args:
        samples: how many samples there are to do.
        queries: the query budget of the whole work; None where it has none.
        title: what the work is called, at the start of each line.
        stream: where the lines go; standard error by default.
        clock: seconds since any fixed moment.
        interval: least seconds between two plain lines.
    """

    def __init__(
        self,
        samples: int,
        queries: int | None = None,
        *,
        title: str = "labelling",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        interval: float = 5.0,
    ) -> None:
        self.samples = samples
        self.queries = queries
        self.title = title
        self._clock = clock
        self._samples_done = 0
        self._queries_spent: int | None = None
        self._mean_distance: float | None = None
        self._started = clock()
        stream = sys.stderr if stream is None else stream
        self._display = _live_display(title, samples, stream, clock) or _PlainLines(
            stream, clock, interval
        )

    def __enter__(self) -> Self:
        self._started = self._clock()
        self._display.start()
        return self

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
        """Tells what has been reached since the start; what is left out stays as it was.

        Args:
            samples: samples done so far.
            queries: queries spent so far.
            mean_distance: mean of the finite distances so far, L2 in input units.
        """
        if samples is not None:
            self._samples_done = samples
        if queries is not None:
            self._queries_spent = queries
        if mean_distance is not None:
            self._mean_distance = mean_distance
        self._display.show(self.title, self._status(final=False), self._samples_done)

    def _status(self, *, final: bool) -> str:
        elapsed = self._clock() - self._started
        parts = [f"{self._samples_done:,}/{self.samples:,} samples"]
        if self._queries_spent is not None:
            budget = "" if self.queries is None else f" of {self.queries:,}"
            parts.append(f"{self._queries_spent:,}{budget} queries")
            if elapsed > 0:
                parts.append(f"{self._queries_spent / elapsed:,.0f} queries/s")
        if self._mean_distance is not None and math.isfinite(self._mean_distance):
            parts.append(f"mean distance {self._mean_distance:.3g}")
        if final:
            parts.append(f"{_duration(elapsed)} taken")
        elif (fraction := self._fraction_done()) > 0:
            parts.append(f"{_duration(elapsed * (1 - fraction) / fraction)} left")
        return " · ".join(parts)

    def _fraction_done(self) -> float:
        """By samples, and by queries as long as no sample is done: the budget may stay unspent."""
        if self._samples_done:
            return min(1.0, self._samples_done / max(1, self.samples))
        if self._queries_spent and self.queries:
            return min(1.0, self._queries_spent / self.queries)
        return 0.0


class _PlainLines:
    """One line now and then, for log files and pipes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float], interval: float) -> None:
        self._stream = stream
        self._clock = clock
        self._interval = interval
        self._last = -math.inf

    def start(self) -> None:
        self._last = self._clock()

    def show(self, title: str, status: str, samples_done: int) -> None:
        if self._clock() - self._last >= self._interval:
            self._last = self._clock()
            self._write(f"{title}: {status}")

    def finish(self, line: str) -> None:
        self._write(line)

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _live_display(
    title: str, samples: int, stream: TextIO, clock: Callable[[], float]
) -> "_LiveLine | None":
    """None where a line cannot be redrawn: no terminal, or rich is not installed."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(file=stream)
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    return _LiveLine(title, samples, console, clock)


class _LiveLine:
    """A bar and the status behind it, redrawn in place; the last status stays on the screen."""

    def __init__(self, title: str, samples: int, console, clock: Callable[[], float]) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[status]}"),
            console=console,
            get_time=clock,
            transient=True,
        )
        self._task = self._bar.add_task(title, total=samples, status="")

    def start(self) -> None:
        self._bar.start()

    def show(self, title: str, status: str, samples_done: int) -> None:
        self._bar.update(self._task, description=title, completed=samples_done, status=status)

    def finish(self, line: str) -> None:
        self._bar.stop()
        self._bar.console.print(line, highlight=False, markup=False)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
