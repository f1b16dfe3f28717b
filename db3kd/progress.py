"""How far long work has come: live on a terminal, plain lines anywhere else."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.console import Console


class Progress:
    """Shows samples done, queries spent, queries per second, mean distance and time left.

    On a terminal, and with rich installed, a bar and a line are redrawn in place. Elsewhere plain
    lines are written, at most one every `interval` seconds, and one at the end:

        with Progress(samples=len(images), queries=budget) as progress:
            progress.update(samples=512, queries=40_960, mean_distance=1.8)

    Args:
        samples: how many samples there are to do.
        queries: the query budget of the whole work; None where it has none.
        title: what the work is called, at the start of each line.
        unit: what is counted, where it is not samples.
        samples_before, queries_before: done and spent by an earlier process, whose work this goes
            on with; they count, but not into the speed.
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
        self._started = clock()
        stream = sys.stderr if stream is None else stream
        self._display = _live_display(samples, stream) or _PlainLines(stream, clock, interval)

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
            self._samples_done = self._before[0] + samples
        if queries is not None:
            self._queries_spent = self._before[1] + queries
        if mean_distance is not None:
            self._mean_distance = mean_distance
        self._display.show(self.title, self._status(final=False), self._samples_done)

    def _status(self, *, final: bool) -> str:
        elapsed = self._clock() - self._started
        parts = [f"{self._samples_done:,}/{self.samples:,} {self.unit}"]
        if self._queries_spent is not None:
            budget = "" if self.queries is None else f" of {self.queries:,}"
            parts.append(f"{self._queries_spent:,}{budget} queries")
            if elapsed > 0:
                parts.append(f"{(self._queries_spent - self._before[1]) / elapsed:,.0f} queries/s")
        if self._mean_distance is not None and math.isfinite(self._mean_distance):
            parts.append(f"mean distance {self._mean_distance:.3g}")
        if final:
            parts.append(f"{duration(elapsed)} taken")
        elif (fraction := self._fraction_done()) > 0:
            parts.append(f"{duration(elapsed * (1 - fraction) / fraction)} left")
        return " · ".join(parts)

    def _fraction_done(self) -> float:
        """Of what was left. By queries as long as no sample is done: a budget may stay unspent."""
        samples, queries = self._before
        if self._samples_done > samples:
            return min(1.0, (self._samples_done - samples) / (self.samples - samples))
        if self.queries and (self._queries_spent or 0) > queries:
            return min(1.0, (self._queries_spent - queries) / (self.queries - queries))
        return 0.0


@contextmanager
def counted(title: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    """Shows work that counts itself: yields a function to call with how many are done.

    Further arguments are left aside, so it fits callers that also tell a total or a loss.
    """
    with Progress(total, title=title, unit=unit) as progress:
        yield lambda done, *_: progress.update(samples=done)


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


def _live_display(samples: int, stream: TextIO) -> "_LiveLines | None":
    """None where lines cannot be redrawn: no terminal, or rich is not installed."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(file=stream)
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    return _LiveLines(samples, console)


class _LiveLines:
    """A bar and the status below it, redrawn in place; at the end one line stays on the screen."""

    def __init__(self, samples: int, console: "Console") -> None:
        from rich.live import Live

        self._samples = samples
        self._live = Live(console=console, transient=True)
        self._console = console

    def start(self) -> None:
        self._live.start()

    def show(self, title: str, status: str, samples_done: int) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        bar = Table.grid(padding=(0, 1))
        bar.add_row(title, ProgressBar(max(1, self._samples), samples_done, width=40))
        self._live.update(Group(bar, status))

    def finish(self, line: str) -> None:
        self._live.stop()
        self._console.print(line, highlight=False, markup=False)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
