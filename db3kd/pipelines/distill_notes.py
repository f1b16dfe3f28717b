"""What a distillation notes in its run folder: choices, times, agreement, and training lengths."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, get_args

from db3kd.pipelines.run_layout import NETWORKS_FOLDER
from db3kd.pipelines.run_notes import RunNotes

TimedPart = Literal["asking", "choosing", "training"]
"""A part of a run whose time is noted: querying the teacher, choosing images with proxies, and
training on the answers."""

_TRAINED = "student"


class DistillNotes(RunNotes):
    """The notes of a distillation, which a resumed run reads.

    Example:
        >>> notes = DistillNotes(folder)
        >>> with notes.timed_part("training"):
        ...     train()
        >>> notes.seconds["training"]
    """

    def timed_part(
        self, part: TimedPart, *, apart_from: TimedPart | None = None
    ) -> AbstractContextManager[None]:
        """Adds the seconds that a block takes to a part, without those that it adds to another."""
        others = "" if apart_from is None else _seconds_of(apart_from)
        return self.timed(_seconds_of(part), others)

    @property
    def seconds(self) -> dict[TimedPart, float]:
        """The seconds of each part, in all processes that worked on the run."""
        return {part: self.get(_seconds_of(part)) or 0.0 for part in get_args(TimedPart)}

    def seconds_of_choosing(self, budgets: int) -> float:
        """Returns the seconds in which proxies chose images for the current budget.

        Call it first before any image is chosen for the budget: it then notes the seconds of the
        earlier ones.

        Args:
            budgets: How many larger budgets the run was continued with.
        """
        total = self.seconds["choosing"]
        if not budgets:
            return total
        before = self.once(f"seconds_choosing_before_{budgets}", {}, lambda: total)
        return total - float(before)

    @property
    def curve(self) -> list[tuple[int, float]]:
        """Numbers of answers in ascending order, and the agreement of proxies trained on them."""
        return [(int(queries), float(share)) for queries, share in self.get("curve") or []]

    def add_agreement(self, queries: int, share: float) -> None:
        """Adds the agreement, in [0, 1], of proxies that were trained on this many answers.

        It replaces an agreement with the same number of answers.
        """
        others = [point for point in self.curve if point[0] != queries]
        self.put("curve", sorted([*others, (queries, share)]))

    def keep_training(self, depends_on: Mapping[str, Any]) -> None:
        """Notes what the student of the finished run depends on; see `is_trained`."""
        self.once(_TRAINED, depends_on, lambda: True)


def is_trained(folder: Path, depends_on: Mapping[str, Any]) -> bool:
    """Returns whether the student of a run is trained, and depends on these plain values."""
    network = folder / NETWORKS_FOLDER / f"{_TRAINED}.safetensors"
    return network.is_file() and RunNotes(folder).holds(_TRAINED, depends_on)


def _seconds_of(part: TimedPart) -> str:
    return f"seconds_{part}"
