"""Small results of a run, which a resumed run reads instead of recomputing them."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from db3kd.errors import InputError
from db3kd.storage.filesystem import json_bytes, write_atomically
from db3kd.storage.manifest import plain
from db3kd.storage.run_folder import RunFolder

_FILE = "_notes.json"
_PRICE = "price_per_1000"

_T = TypeVar("_T")
_Notes = TypeVar("_Notes", bound="RunNotes")


class RunNotes:
    """Named plain values in a file of a run folder, each written before it is used.

    Example:
        >>> notes = RunNotes(folder)
        >>> steps = notes.once("steps", {"time limit": limit}, measure_steps)

    Raises:
        ValueError: If the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / _FILE
        self._values: dict[str, Any] = {}
        if self._file.is_file():
            try:
                self._values = dict(json.loads(self._file.read_bytes()))
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"{self._file}: expected JSON, got a damaged file; remove it to repeat the "
                    "choices of the run"
                ) from error

    def get(self, name: str) -> Any:
        """Returns the value of a name; None if there is none."""
        return self._values.get(name)

    def put(self, name: str, value: Any) -> Any:
        """Writes a value, and returns it."""
        self._values[name] = value
        write_atomically(self._file, json_bytes(self._values))
        return value

    def holds(self, name: str, depends_on: Mapping[str, Any]) -> bool:
        """Returns whether `once` would return a known value."""
        known = self.get(name)
        return known is not None and bool(known["depends_on"] == plain(depends_on))

    def once(self, name: str, depends_on: Mapping[str, Any], compute: Callable[[], _T]) -> _T:
        """Returns a plain value, recomputed only if the plain values it depends on have changed."""
        if not self.holds(name, depends_on):
            self.put(name, {"depends_on": plain(depends_on), "value": plain(compute())})
        value: _T = self.get(name)["value"]
        return value

    def rare_classes(self, given: bool) -> bool:
        """Returns whether the user says, or said at an earlier start, that classes are rare."""
        if given:
            self.put("rare_classes", True)
        return bool(self.get("rare_classes"))

    def keep_price(self, price_per_1000: float | None) -> None:
        """Writes the price of 1,000 queries, if there is one, for `price_of_run`."""
        if price_per_1000 is not None:
            self.put(_PRICE, price_per_1000)

    @contextmanager
    def timed(self, name: str, apart_from: str = "") -> Iterator[None]:
        """Adds the seconds that a block takes to a number, even if it is interrupted.

        What the block adds to the number `apart_from` is left out.
        """
        started, before = time.monotonic(), self.get(apart_from) or 0
        try:
            yield
        finally:
            others = (self.get(apart_from) or 0) - before
            taken = time.monotonic() - started - others
            self.put(name, (self.get(name) or 0) + taken)

    def remove(self) -> None:
        """Removes all values."""
        self._values = {}
        self._file.unlink(missing_ok=True)


def price_of_run(given: float | None, out: str | Path | None, resume: bool) -> float | None:
    """Returns the price of 1,000 queries: the one that is given, or else that of a resumed run.

    So a look at a finished run does not remove the price from its report.
    """
    if given is not None or out is None or not resume:
        return None if given is None else float(given)
    price = RunNotes(Path(out)).get(_PRICE)
    if price is None:
        return None
    if type(price) not in (int, float) or not 0 <= price < math.inf:
        raise InputError(
            f"the notes of the run in {out}: entry {_PRICE}: expected a number, at least 0, got "
            f"{price!r}"
        )
    return float(price)


@contextmanager
def notes_of(folder: RunFolder, kind: type[_Notes]) -> Iterator[_Notes]:
    """Opens the notes of a run, and removes them on an error if nothing in it was paid for.

    Such a run leaves no files, so that another one can be started in its folder.
    """
    notes = kind(folder.path)
    try:
        yield notes
    except BaseException:
        if not folder.holds_anything:
            notes.remove()
        raise
