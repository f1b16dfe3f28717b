"""Asks a teacher about many images, and commits the answers a shard at a time."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from db3kd.querying.driver import decide_all
from db3kd.querying.sent_queries import SentQueries, counting
from db3kd.querying.session import open_journal
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers import Teacher

if TYPE_CHECKING:
    import pyarrow

SHARD_ROWS = 2**16
"""Maximum number of answers in a shard."""

_BATCH_ROWS = 2048


def shard_sizes(count: int) -> dict[int, int]:
    """Returns the number of rows of each shard of `count` rows, keyed by its first row."""
    return {start: min(SHARD_ROWS, count - start) for start in range(0, count, SHARD_ROWS)}


def decide_in_shards(
    teacher: Teacher,
    read: Callable[[Tensor], Tensor],
    rows: Tensor,
    folder: RunFolder | None,
    *,
    first: int = 0,
    stored: Callable[[int, Tensor], Tensor | None],
    to_table: Callable[[Tensor, Tensor], "pyarrow.Table"],
    on_answers: Callable[[int], None] | None = None,
    check: Callable[[Tensor], None] | None = None,
    check_all_shards: bool = True,
    sent: SentQueries | None = None,
) -> Tensor:
    """Returns the teacher's classes of images, and asks only about those without a shard.

    Args:
        teacher: The teacher to query.
        read: See `decide_all`.
        rows: [n] int64, the numbers of the images.
        folder: A run folder, which keeps each answer before the next call of the teacher; None to
            keep nothing.
        first: The position of the first shard.
        stored: Returns the decisions of the shard at a position, one for each of its rows; None
            without one.
        to_table: Makes a shard of rows and their decisions.
        on_answers: Called with the number of new answers after each batch.
        check: Called with all decisions so far after the first 1,000 answers of a shard that has
            more; see `decide_all`. It may raise an error, so that no more queries are spent.
        check_all_shards: Whether `check` is called for each shard, or for the first one only. A
            shard without a check has other calls of the teacher, so a stored run is continued with
            the value that it was started with.
        sent: See `decide_all`; it counts the answers of all shards.

    Returns:
        [n] int64.

    Raises:
        TeacherError: If the teacher fails. The journal of the folder keeps the answers so far.
    """
    decided = [rows.new_empty(0)]
    with counting(sent) as counter:
        for start, size in shard_sizes(len(rows)).items():
            part, position = rows[start : start + size], first + start
            decisions = stored(position, part)
            if decisions is None:
                checked = check_all_shards or start == 0
                with open_journal(folder, position, teacher) as journal:
                    decisions = decide_all(
                        teacher,
                        read,
                        part,
                        _BATCH_ROWS,
                        on_answers=on_answers,
                        journal=journal,
                        check_first=_with_earlier(check, decided) if checked else None,
                        sent=counter,
                    )
                if folder is not None:
                    folder.write_shard(position, to_table(part, decisions))
            assert len(decisions) == size
            decided.append(decisions)
    return torch.cat(decided)


def _with_earlier(
    check: Callable[[Tensor], None] | None, earlier: list[Tensor]
) -> Callable[[Tensor], None] | None:
    """Returns a check of the decisions so far together with new ones."""
    if check is None:
        return None
    return lambda decisions: check(torch.cat([*earlier, decisions]))
