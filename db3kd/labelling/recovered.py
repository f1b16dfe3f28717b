"""`Recovered`: the paid answers of an in-memory labelling that was interrupted or failed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from torch import Tensor, nn

from db3kd.data.image_source import NamedImages
from db3kd.errors import ArgumentError
from db3kd.labelling.image_decisions import DECISIONS
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.labels import Labels
from db3kd.querying.sent_queries import SentQueries
from db3kd.querying.session import AnswerJournal
from db3kd.storage.memory_journal import MemoryJournal
from db3kd.teachers.base import Teacher
from db3kd.teachers.fingerprints import weights_fingerprint
from db3kd.wording import counted


@dataclass(eq=False, repr=False)
class Recovered:
    """The finished labels and the answers of a labelling, to continue without paying again.

    It is kept in memory; use `db3kd.label(..., out=)` for a folder that outlives the process.
    Answers of a module on a GPU only cost time and are not kept, but finished labels are.

    Example:
        >>> try:
        ...     labels = db3kd.label(teacher, images, settings)
        ... except db3kd.TeacherError as error:
        ...     labels = db3kd.label(teacher, images, settings, recovered=error.recovered)

    Attributes:
        teacher: The teacher that was queried.
        images: The images that were labelled.
        settings: How they were labelled.
        index: [n] int64, the samples to label.
        surrogate: The surrogate that was used, or None.
    """

    teacher: Teacher
    images: NamedImages
    settings: LabelSettings
    index: Tensor
    surrogate: nn.Module | None = None
    _chunks: dict[int, Labels] = field(default_factory=dict)
    _journals: dict[int | str, MemoryJournal] = field(default_factory=dict)
    _lost: int = 0

    def __repr__(self) -> str:
        samples = sum(map(len, self._chunks.values()))
        return (
            f"Recovered({samples:,} of {counted(len(self.index), 'sample')} labelled, "
            f"{self.queries:,} answered queries)"
        )

    @property
    def queries(self) -> int:
        """The number of answered queries."""
        journals = sum(journal.answers for journal in self._journals.values())
        # The journal of the decisions counts the queries of the images themselves, if there is one.
        chunks = self._chunks.values()
        if DECISIONS in self._journals:
            return journals + sum(chunk.search_queries for chunk in chunks)
        return journals + sum(int(chunk.queries.sum()) for chunk in chunks)

    @property
    def maybe_paid(self) -> int:
        """How many queries beyond `queries` were sent, and may have been paid, at most."""
        return self._lost + sum(journal.maybe_paid for journal in self._journals.values())

    @property
    def labels(self) -> Labels | None:
        """The labels of the finished samples; None if there are none."""
        chunks = [self._chunks[position] for position in sorted(self._chunks)]
        return Labels.concat(chunks) if chunks else None

    def has_shard(self, position: int) -> bool:
        """Whether the chunk that begins at this position of `index` is finished."""
        return position in self._chunks

    def journal(self, of: int | str, classes: int) -> AbstractContextManager[AnswerJournal | None]:
        """The journal of the chunk at a position, or of a stage that all chunks depend on."""
        if self.teacher.device.type == "cuda":
            return nullcontext()
        journal = self._journals.setdefault(of, MemoryJournal(classes)).open()
        journal.begins_run = not self.queries
        return journal

    def add(self, position: int, chunk: Labels) -> None:
        """Adds a finished chunk, which replaces its journal."""
        self._chunks[position] = chunk
        journal = self._journals.pop(position, None)
        self._lost += 0 if journal is None else journal.maybe_paid

    def warn_of_lost(self) -> None:
        """Logs a warning if queries were sent without a usable answer."""
        sent = SentQueries()
        sent.lose(self.maybe_paid)
        sent.warn()

    def check(self, other: "Recovered") -> None:
        """Checks that `other` is the same labelling.

        Raises:
            ValueError: If teacher, number of classes, images, settings, index or surrogate differ.
        """
        same = {
            "teacher": self.teacher is other.teacher
            or self.teacher.fingerprint() == other.teacher.fingerprint(),
            "number of classes": self.teacher.classes == other.teacher.classes,
            "images": self.images is other.images
            or self.images.fingerprint() == other.images.fingerprint(),
            "settings": self.settings == other.settings,
            "index": self.index.equal(other.index),
            "surrogate": _fingerprint(self.surrogate) == _fingerprint(other.surrogate),
        }
        different = [name for name in same if not same[name]]
        if different:
            raise ArgumentError(
                "recovered",
                f"expected the {' and '.join(different)} of the interrupted "
                "labelling, got different ones; pass the same ones, or omit recovered= to start "
                "over",
            )

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Attaches itself as `.recovered` to any error, interrupt or exit that ends the block.

        Blocks may be nested; the innermost one adds the note.
        """
        try:
            yield
        except BaseException as error:
            attached = getattr(error, "recovered", None) is self
            if not attached and (self._chunks or self.queries):
                vars(error)["recovered"] = self
                lost = ""
                if self.maybe_paid:
                    lost = f"; up to {self.maybe_paid:,} more may have been paid without an answer"
                error.add_note(
                    f"{self.queries:,} answered queries are kept in this error{lost}: "
                    "db3kd.label(…, recovered=error.recovered) continues without paying for them "
                    "again; out=FOLDER keeps them on disk"
                )
            raise


def _fingerprint(network: nn.Module | None) -> str | None:
    return None if network is None else weights_fingerprint(network)
