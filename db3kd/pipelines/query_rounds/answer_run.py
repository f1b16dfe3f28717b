"""The run folder of a distillation: which images were queried, and the teacher's decisions."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from db3kd.answers.answers import NUMBERS, Answers, no_answers
from db3kd.data.augmented_images import AugmentedImages
from db3kd.errors import InputError
from db3kd.querying.consistency import ConsistencyCheck
from db3kd.querying.sharded_decisions import decide_in_shards, shard_sizes
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.column_values import check_range, invalid_shard, read_column
from db3kd.storage.kinds import DifferenceRules, Kind
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.shards import import_pyarrow, read_shards
from db3kd.storage.source_numbers import positions_of, stored_numbers
from db3kd.teachers import Teacher
from db3kd.wording import counted, input_noun

if TYPE_CHECKING:
    import pyarrow

LARGER_BUDGETS = "larger_budgets"
"""Entry that lists the larger budgets with which a distillation was continued: the budget of each,
and the queries that it added to the plan (pipelines/distillation/larger_budget.py)."""

ANSWERS = Kind(
    "answers",
    2,
    lists={LARGER_BUDGETS: ("budget", "held_out_augmented")},
    differences=DifferenceRules(
        causes=("settings.plan.strategy", "settings.plan.budget", "settings.plan.images"),
        later_causes=("settings.plan.held_out", "settings.plan.pseudo_held_out"),
        following=("settings.plan.", "settings.choosing", "settings.labelling"),
        budget="settings.plan.budget",
        larger_budgets=True,
        other_arguments={"pseudo_held_out": "held_out"},
        no_arguments=("settings.plan.images", "settings.choosing", "settings.labelling"),
    ),
)
"""The kind of run folder that a distillation writes.

The columns are `image` (its number, see `keep_numbers`), `number` (0 for the image itself,
otherwise the number of an augmented image of it), `round` (-1 if held out) and `decision`.
"""

HELD_OUT = -1
"""The round of held-out images."""


def clean_answers(path: Path) -> tuple[Tensor, Tensor]:
    """Returns the images in the shards of a stored run, and their classes.

    Augmented images are left out.

    Args:
        path: The run folder; one without a run has none.

    Returns:
        [n] int64, the positions of the images among those of the run, and [n] int64, their classes.
    """
    images, decisions = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    for _, table in read_shards(path, ANSWERS, missing_ok=True):
        clean = read_column(table, "number", torch.int64) == 0
        images.append(read_column(table, "image", torch.int64)[clean])
        decisions.append(read_column(table, "decision", torch.int64)[clean])
    positions, numbers = torch.cat(images), stored_numbers(path)
    if numbers is not None:
        positions = torch.from_numpy(positions_of(positions.numpy(), numbers))
    return positions, torch.cat(decisions)


class AnswerRun:
    """Asks a teacher about images in rounds, and keeps every answer.

    The images that networks choose for a round are stored before the first of them
    is queried, so that a resumed run queries the same ones. The first round and the held-out
    images depend only on the seed.

    Args:
        folder: The run folder, opened for writing.
        teacher: The teacher to query.
        images: All images that may be queried.
        numbers: [N] int64, the number by which the folder stores the image of each sample.
        consistency_check: Repeats known answers before the first new query; None for no check.

    Attributes:
        on_answers: Called with the number of new answers after each batch; None by default.
        while_choosing: Makes the context in which the images of a round are chosen; `nullcontext`
            by default.

    Raises:
        ValueError: If a shard of the folder holds values that no run writes.
    """

    def __init__(
        self,
        folder: RunFolder,
        teacher: Teacher,
        images: AugmentedImages,
        numbers: Tensor,
        *,
        consistency_check: ConsistencyCheck | None = None,
    ) -> None:
        self.folder = folder
        self.teacher = teacher
        self.answers = no_answers(images)
        self._numbers = numbers
        self.on_answers: Callable[[int], None] | None = None
        self.while_choosing: Callable[[], AbstractContextManager[object]] = nullcontext
        self._check = consistency_check
        self._log = ChoiceLog(folder.path)
        self._stored: dict[int, Answers] = {}
        self._stored_rounds: dict[int, int] = {}
        self._read_shards()

    @property
    def unchecked(self) -> bool:
        """Whether there is a consistency check that has not been made yet."""
        return self._check is not None

    @property
    def stored(self) -> int:
        """Number of answers in the shards of earlier processes."""
        return sum(map(len, self._stored.values()))

    def holds_next(self, round_number: int, count: int) -> bool:
        """Returns whether an earlier process has all answers of the next round.

        Args:
            round_number: The number of the round, or `HELD_OUT`.
            count: How many images the round queries.

        Raises:
            ValueError: If the answers are those of another round.
        """
        return self._stored_rows(round_number, len(self.answers), count) is not None

    def take_over(self, round_number: int, first: int, rows: Tensor, decisions: Tensor) -> None:
        """Stores answers that were paid for in another folder as those of a round.

        Args:
            round_number: The number of the round, which `ask` has not asked yet.
            first: Number of answers before the round.
            rows: [n] int64, the images of the round.
            decisions: [n] int64, the teacher's classes.
        """
        for start, size in shard_sizes(len(rows)).items():
            position, part = first + start, slice(start, start + size)
            if position not in self._stored:
                table = self._to_table(round_number, rows[part], decisions[part])
                self.folder.write_shard(position, table)
                self._stored[position] = Answers(self.answers.images, rows[part], decisions[part])
                self._stored_rounds[position] = round_number

    def ask(
        self,
        round_number: int,
        count: int,
        choose: Callable[[Answers], Tensor],
        check: Callable[[Tensor], None] | None = None,
    ) -> Answers:
        """Asks about the images of a round, and adds their answers to `answers`.

        Rounds are queried in the same order in every process.

        Args:
            round_number: The number of the round, or `HELD_OUT`.
            count: How many images the round queries.
            choose: Chooses the images: called with the answers so far, unless an earlier process
                has chosen; returns [count] int64, rows of the images.
            check: Called with all decisions so far after the first 1,000 answers of each shard
                that has more; it may raise an error, so that no more queries are spent.

        Returns:
            The answers of the round.

        Raises:
            ValueError: If a damaged or foreign file holds images that are not those of the round.
            TeacherError: If the teacher fails.
        """
        first = len(self.answers)
        rows = self._stored_rows(round_number, first, count)
        if rows is None:
            start, journaled = self._journaled(first, count)
            if not len(journaled):
                self.check_known()  # before training the networks that choose images
            with self.while_choosing():
                rows = self._chosen_rows(round_number, count, choose)
            if len(journaled):
                self.check_known(rows[start : start + len(journaled)], journaled)
        earlier = self.answers.decisions
        decisions = decide_in_shards(
            self.teacher,
            self.answers.images.read,
            rows,
            self.folder,
            first=first,
            stored=partial(self._stored_decisions, round_number),
            to_table=partial(self._to_table, round_number),
            on_answers=self.on_answers,
            check=None if check is None else lambda found: check(torch.cat([earlier, found])),
        )
        answers = no_answers(self.answers.images).add(rows, decisions)
        self.answers = self.answers.add(answers.rows, answers.decisions)
        return answers

    def check_known(self, rows: Tensor | None = None, decisions: Tensor | None = None) -> None:
        """Repeats known answers, if there is a consistency check that has not been made yet.

        Args:
            rows: [n] int64, images whose answers are not in shards, but elsewhere in the folder.
            decisions: [n] int64, these answers.

        Raises:
            TeacherError: See `ConsistencyCheck.repeat`.
        """
        check, self._check = self._check, None
        if check is None:
            return
        known = no_answers(self.answers.images)
        for shard in self._stored.values():
            known = known.add(shard.rows, shard.decisions)
        if rows is not None and decisions is not None:
            known = known.add(rows, decisions)
        check.repeat(self.folder, self.teacher, known.images.read, known.rows, known.decisions)

    def _journaled(self, first: int, count: int) -> tuple[int, Tensor]:
        """Returns the place of the first missing shard in a round, and its answers in a journal."""
        for start in shard_sizes(count):
            if first + start not in self._stored:
                journals = self.folder.journals
                answers = journals.answers_in(journals.file(first + start))
                return start, torch.from_numpy(answers)
        return count, torch.empty(0, dtype=torch.int64)

    def _stored_decisions(self, round_number: int, position: int, rows: Tensor) -> Tensor | None:
        """Returns the decisions of an earlier process for a shard of a round; None without one."""
        stored = self._stored.get(position)
        if stored is None:
            return None
        if not stored.rows.equal(rows):
            noun = input_noun(self.teacher.image_shape)
            raise InputError(
                f"{self.folder.path}: expected the answers from row {position} on to be those of "
                f"round {round_number}, got answers for other {noun}s; restore the missing shards, "
                "or start another run in another folder"
            )
        return stored.decisions

    def _chosen_rows(
        self, round_number: int, count: int, choose: Callable[[Answers], Tensor]
    ) -> Tensor:
        stored = self._log.load(round_number) if round_number > 0 else None
        rows = choose(self.answers) if stored is None else torch.from_numpy(stored["rows"])
        if stored is None and round_number > 0:
            self._log.save(round_number, {"rows": rows.numpy()})
        if len(rows) != count:
            noun = input_noun(self.teacher.image_shape)
            raise InputError(
                f"{self.folder.path}: expected {counted(count, noun)} in round {round_number}, "
                f"got {len(rows):,}; start another run in another folder"
            )
        return rows

    def _stored_rows(self, round_number: int, first: int, count: int) -> Tensor | None:
        """Returns the rows of a round if all of its shards exist."""
        positions = [first + start for start in shard_sizes(count)]
        if any(position not in self._stored for position in positions):
            return None
        sizes = shard_sizes(count).values()
        if any(
            self._stored_rounds[position] != round_number or len(self._stored[position]) != size
            for position, size in zip(positions, sizes, strict=True)
        ):
            raise InputError(
                f"{self.folder.path}: expected the {count:,} answers of round {round_number} from "
                f"row {first} on, got others; restore the missing shards"
            )
        return torch.cat([self._stored[position].rows for position in positions])

    def _read_shards(self) -> None:
        if not self.folder.has_shards:
            return
        images = self.answers.images
        for position, table in read_shards(self.folder.path, ANSWERS):
            try:
                columns = {
                    name: read_column(table, name, torch.int64)
                    for name in ("image", "number", "round", "decision")
                }
                samples = positions_of(columns["image"].numpy(), self._numbers.numpy())
                check_range("number", columns["number"], 0, NUMBERS, "an augmented image")
                check_range("decision", columns["decision"], 0, self.teacher.classes, "a class")
                if not bool((columns["round"] == columns["round"][0]).all()):
                    raise InputError("column round: expected a single round")
            except (KeyError, ValueError, IndexError) as error:
                raise invalid_shard(self.folder.path, ANSWERS, position, error) from error
            rows = torch.from_numpy(samples) * NUMBERS + columns["number"]
            self._stored[position] = Answers(images, rows, columns["decision"])
            self._stored_rounds[position] = int(columns["round"][0])

    def _to_table(self, round_number: int, rows: Tensor, decisions: Tensor) -> "pyarrow.Table":
        arrow, _ = import_pyarrow()
        columns = {
            "image": self._numbers[rows // NUMBERS],
            "number": rows % NUMBERS,
            "round": torch.full_like(rows, round_number),
            "decision": decisions,
        }
        return arrow.table({name: column.numpy() for name, column in columns.items()})
