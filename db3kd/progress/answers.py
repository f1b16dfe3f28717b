"""Progress of computations that query a teacher, which tells new answers from known ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from db3kd.progress import Progress, adding_up


@dataclass(frozen=True)
class AnswerCounter:
    """Counts answers, those from a journal apart: they arrive faster than a teacher's.

    Attributes:
        new: Called with the number of new answers.
        known: Called with the number of answers that an earlier process has paid for.
    """

    new: Callable[[int], object]
    known: Callable[[int], object]

    def __call__(self, answers: int) -> None:
        """Counts new answers."""
        self.new(answers)


@contextmanager
def show_answers(
    title: str, total: int, unit: str, shown: bool = True
) -> Iterator[AnswerCounter | None]:
    """Shows how many answers there are, for computations that need one answer for each unit.

    Example:
        >>> with show_answers("asking", len(images), "images") as on_answers:
        ...     decide_all(teacher, images.read, rows, on_answers=on_answers)

    Yields:
        What counts the answers; None if they are not shown.
    """
    if not shown:
        yield None
        return
    with Progress(total, title=title, unit=unit) as progress:
        yield AnswerCounter(
            adding_up(lambda done: progress.update(samples=done)),
            lambda known: progress.add_known(samples=known),
        )


def count_answers_in(progress: Progress) -> AnswerCounter:
    """Returns what counts answers in a display whose units need one answer each."""
    return AnswerCounter(
        adding_up(lambda done: progress.update(samples=done, queries=done)),
        lambda known: progress.add_known(samples=known, queries=known),
    )
