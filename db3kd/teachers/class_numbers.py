"""How a model names and numbers its classes."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from db3kd.arguments.plain import check_count, check_counts
from db3kd.errors import ArgumentError, InputError
from db3kd.teachers.base import TeacherError, UnknownClassError
from db3kd.wording import InputNoun, counted, shortened

NEXT_BEST = "next best"
"""The background rule that ignores the scores of other classes."""

_MAX_NUMBER = 1_000_000


@dataclass(frozen=True)
class Numbering:
    """The numbers that a model gives its classes, if they are not 0 to C - 1.

    Attributes:
        offset: The model's number of class 0; the other classes follow. 1 for a model that numbers
            its classes from 1 or has a background class in front.
        numbers: The model's number of each class, instead of `offset`.
        background: What to do with an answer that is none of the classes. None: an error. "next
            best": only the scores of the classes count.
    """

    offset: int = 0
    numbers: tuple[int, ...] | None = None
    background: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset", check_count(self.offset, "class_offset", least=0))
        if self.offset >= _MAX_NUMBER:
            raise ArgumentError(
                "class_offset", f"expected a number below {_MAX_NUMBER:,}, got {self.offset}"
            )
        if self.background not in (None, NEXT_BEST):
            raise ArgumentError(
                "background",
                f"expected {NEXT_BEST!r}, or no value to get an error, got {self.background!r}",
            )
        if self.numbers is None:
            return
        if self.offset:
            raise ArgumentError(
                "class_offset", "cannot be combined with class_numbers; pass only one"
            )
        numbers = check_counts(self.numbers, "class_numbers", least=0)
        object.__setattr__(self, "numbers", numbers)
        if len(set(self.numbers)) < len(self.numbers) or len(self.numbers) < 2:
            raise ArgumentError(
                "class_numbers", f"expected two or more different numbers, got {list(self.numbers)}"
            )
        if max(self.numbers) >= _MAX_NUMBER:
            raise ArgumentError(
                "class_numbers", f"expected numbers below {_MAX_NUMBER:,}, got {max(self.numbers)}"
            )

    def class_table(self, classes: int) -> np.ndarray:
        """Returns the class of each of the model's numbers.

        Returns:
            [highest number + 1] int64, -1 for numbers that are none of the classes.
        """
        numbers = self.numbers or range(self.offset, self.offset + classes)
        if len(numbers) != classes:
            raise ArgumentError(
                "class_numbers", f"expected {counted(classes, 'number')}, got {len(numbers)}"
            )
        table = np.full(max(numbers) + 1, -1, np.int64)
        table[list(numbers)] = np.arange(classes)
        return table


class ClassNames:
    """Converts class names to class numbers.

    Args:
        names: Class names in the order of the class numbers, or None if they are unknown.
        source: Where the user declares the names, for errors.
        quote: Whether errors may repeat an unknown name. A server that received a secret may send
            it back.
        noun: What errors call an image.
    """

    def __init__(
        self,
        names: Sequence[str] | None,
        source: str,
        *,
        quote: bool,
        noun: InputNoun = "image",
    ) -> None:
        self._numbers = {name: number for number, name in enumerate(names or ())}
        self._source = source
        self._quote, self._noun = quote, noun

    def number(self, answer: object, image: int, expected: str) -> int:
        """Returns the class number of a name.

        Args:
            answer: Text or UTF-8 bytes; spaces around the name are ignored.
            image: The image's row, for errors.
            expected: How errors begin.

        Raises:
            UnknownClassError: If the answer is not one of the names.
            TeacherError: If it is not a text.
        """
        whose = f"{self._noun} {image}"
        text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
        if not isinstance(text, str):
            raise TeacherError(f"{expected}, got {type(answer).__name__} for {whose}")
        name = "a class name (withheld: the server received a secret)"
        if self._quote:
            name = f"the class name {textwrap.shorten(text, 100, placeholder='…')!r}"
        if not self._numbers:
            raise TeacherError(f"{expected}, got {name} for {whose}; pass {self._source}")
        number = self._numbers.get(text.strip())
        if number is None:
            raise UnknownClassError(
                f"{expected}, got {name} for {whose}, which is not one of the known class "
                f"names, {shortened(map(repr, self._numbers))}; correct {self._source}. If a name "
                "was misspelt, resume the run with the corrected list and "
                "accept_changed_teacher=True; if a class is missing from the list, start another "
                "run"
            )
        return number


def read_names(path: str | Path) -> tuple[str, ...]:
    """Reads a label file: one class name per line, numbered from 0.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it does not hold two or more different names.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected UTF-8 text with one class name per line") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return checked_names(lines, str(path), "one per line, and no empty line")


def checked_names(names: Sequence[object], place: str, form: str) -> tuple[str, ...]:
    """Returns class names without the spaces around them.

    Args:
        names: The names.
        place: Where they come from; errors begin with it.
        form: How they must be stated, for errors.

    Raises:
        ValueError: If they are not two or more different names.
    """
    stripped = tuple(name.strip() if isinstance(name, str) else "" for name in names)
    if len(stripped) < 2 or not all(stripped):
        raise InputError(f"{place}: expected two or more class names, {form}")
    if len(set(stripped)) < len(stripped):
        repeated = next(name for name, count in Counter(stripped).items() if count > 1)
        raise InputError(f"{place}: expected each class name once, got {repeated!r} again")
    return stripped
