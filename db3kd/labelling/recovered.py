"""What a labelling without a folder had paid for when an error or an interrupt ended it."""

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from torch import Tensor, nn

from db3kd.labelling.labels import Labels
from db3kd.labelling.settings import LabelSettings
from db3kd.storage.journal import Call, digest_of, take_answers
from db3kd.teachers.base import Teacher
from db3kd.teachers.module import module_fingerprint


class MemoryJournal:
    """A `Journal` in memory: the answers to one search, to be taken and added to."""

    def __init__(self, classes: int) -> None:
        self._dtype = np.min_scalar_type(classes)
        self._calls: list[tuple[Call, int]] = []  # with the answers up to the end of each
        self._asked: tuple[int, int] = (0, 0)
        self.open()

    def open(self) -> Self:
        """From the start again."""
        self._waiting = deque(call for call, _ in self._calls)
        self._known = self.answers
        return self

    @property
    def answers(self) -> int:
        """How many it holds."""
        return self._calls[-1][1] if self._calls else 0

    @property
    def written(self) -> int:
        """As `Journal.written`."""
        return self.answers - self._known

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def take(self, accounts: Tensor) -> Tensor:
        """As `Journal.take`."""
        return take_answers(self._waiting, accounts, "recovered")

    def ask(self, accounts: Tensor) -> None:
        """As `Journal.ask`."""
        self._asked = len(accounts), digest_of(accounts.cpu())

    def answer(self, answers: Tensor, asked: Tensor | None = None) -> None:
        """As `Journal.answer`."""
        if len(answers):
            call = Call(*self._asked, answers.cpu().numpy().astype(self._dtype))
            self._calls.append((call, self.answers + len(answers)))
        if asked is not None:
            self.ask(asked)

    def sync(self) -> None:
        """As `Journal.sync`; there is nothing to do."""


@dataclass(eq=False)
class Recovered:
    """The finished labels and the answers of a labelling, to go on from without paying again.

        try:
            labels = db3kd.label(teacher, images, settings)
        except db3kd.TeacherError as error:
            labels = db3kd.label(teacher, images, settings, recovered=error.recovered)

    It lives in memory: give `out=` for a folder that outlives the process. The answers of a module
    on a GPU, which cost time alone, are not kept, only finished labels.

    teacher, images, settings, index, surrogate: what was labelled, and how.
    """

    teacher: Teacher
    images: Any
    settings: LabelSettings
    index: Tensor
    surrogate: nn.Module | None = None
    _chunks: dict[int, Labels] = field(default_factory=dict, repr=False)
    _journals: dict[int | str, MemoryJournal] = field(default_factory=dict, repr=False)

    @property
    def queries(self) -> int:
        """Answered queries that it holds."""
        decided = self._journals.get("decisions")
        journals = sum(journal.answers for journal in self._journals.values())
        rows = sum(int(chunk.queries.sum()) - len(chunk) for chunk in self._chunks.values())
        return journals + rows if decided is not None else rows

    @property
    def labels(self) -> Labels | None:
        """Those of the samples that are finished; None if none is."""
        chunks = [self._chunks[position] for position in sorted(self._chunks)]
        return Labels.concat(chunks) if chunks else None

    def has_shard(self, position: int) -> bool:
        """Whether the chunk that begins at this place of `index` is finished."""
        return position in self._chunks

    def journal(self, of: int | str, classes: int) -> AbstractContextManager[Any]:
        """The answers towards the chunk at a position, or of a stage that all chunks rest on."""
        if self.teacher.device.type == "cuda":
            return nullcontext()
        return self._journals.setdefault(of, MemoryJournal(classes)).open()

    def add(self, position: int, chunk: Labels) -> None:
        """Keeps a finished chunk; its answers are in it."""
        self._chunks[position] = chunk
        self._journals.pop(position, None)

    def check(self, other: "Recovered") -> None:
        """Raises ValueError if `other` labels something else, or otherwise."""
        wrong = [
            name
            for name, same in {
                "teacher": self.teacher is other.teacher
                or self.teacher.fingerprint() == other.teacher.fingerprint(),
                "images": self.images is other.images
                or self.images.fingerprint() == other.images.fingerprint(),
                "settings": self.settings == other.settings,
                "index": self.index.equal(other.index),
                "surrogate": _digest(self.surrogate) == _digest(other.surrogate),
            }.items()
            if not same
        ]
        if wrong:
            raise ValueError(
                f"recovered: expected the {' and '.join(wrong)} that it was left by, got other "
                "ones; give the same, or leave it out to begin anew"
            )

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hands itself over with whatever error or interrupt ends the block, as `.recovered`."""
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            if self.queries:
                error.recovered = self
                error.add_note(
                    f"{self.queries:,} answered queries are kept in this error: "
                    "db3kd.label(…, recovered=error.recovered) goes on without asking them again; "
                    "out=FOLDER keeps them on disk"
                )
            raise


def _digest(network: nn.Module | None) -> str | None:
    return None if network is None else module_fingerprint(network)
