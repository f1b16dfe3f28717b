"""The lines that show progress: redrawn on a terminal, written one after another elsewhere."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live


class PlainLines:
    """Writes a line at most every `interval` seconds, for log files and pipes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float], interval: float) -> None:
        self._stream = stream
        self._clock = clock
        self._interval = interval
        self._last = -math.inf

    def start(self) -> None:
        """Prepares the display."""
        self._last = self._clock()

    def hide(self) -> None:
        """Hides the display until it is started again; the lines stay."""

    def show(self, title: str, status: str, samples_done: int, samples: int) -> None:
        """Shows how far a computation is."""
        if self._clock() - self._last >= self._interval:
            self._last = self._clock()
            self._write(f"{title}: {status}")

    def finish(self, line: str) -> None:
        """Ends the display with a line."""
        self._write(line)

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class LiveLines:
    """Redraws a bar and the status below it; at the end one line stays on the screen."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._live = self._new_live()

    def start(self) -> None:
        """Prepares the display."""
        # One that is started again would erase what was written below it in the meantime.
        self._live = self._new_live()
        self._live.start()

    def _new_live(self) -> "Live":
        from rich.live import Live

        return Live(console=self._console, transient=True)

    def hide(self) -> None:
        """Hides the display until it is started again."""
        self._live.stop()

    def show(self, title: str, status: str, samples_done: int, samples: int) -> None:
        """Shows how far a computation is."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        bar = Table.grid(padding=(0, 1))
        bar.add_row(title, ProgressBar(max(1, samples), samples_done, width=40))
        self._live.update(Group(bar, status))

    def finish(self, line: str) -> None:
        """Ends the display with a line."""
        self._live.stop()
        self._console.print(line, highlight=False, markup=False)


def live_lines(stream: TextIO) -> LiveLines | None:
    """Returns lines that are redrawn; None without a terminal, or without rich."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(file=stream)
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    return LiveLines(console)
