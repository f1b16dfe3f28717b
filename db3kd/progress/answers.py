"""Progress of computations that query a teacher, which tells new answers from known ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from db3kd.progress import Progress, ProgressListener, adding_up, listening


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
    title: str, total: int, unit: str, progress: ProgressListener | bool = True
) -> Iterator[AnswerCounter]:
    """Reports how many answers there are, for computations that need one answer for each unit.

    Example:
        >>> with show_answers("asking", len(images), "images") as on_answers:
        ...     decide_all(teacher, images.read, rows, on_answers=on_answers)

    Yields:
        What counts the answers.
    """
    with listening(progress, lambda: Progress(total, title=title, unit=unit)) as listener:
        yield count_answers_in(listener)


def count_answers_in(listener: ProgressListener) -> AnswerCounter:
    """Returns what counts answers for a listener, of units that need one answer each.

    A display counts known answers apart, and queries only if it has a budget of them.
    """
    counts = ["samples", "queries"]
    if isinstance(listener, Progress) and listener.queries is None:
        counts = ["samples"]
    new = adding_up(lambda done: listener.update(**dict.fromkeys(counts, done)))
    if not isinstance(listener, Progress):
        return AnswerCounter(new, new)
    return AnswerCounter(new, lambda known: listener.add_known(**dict.fromkeys(counts, known)))
