"""Refuses to query a teacher in several processes of a launcher, each of which would pay."""

import os

from db3kd.errors import InputError


def check_single_process() -> None:
    """Checks that no launcher, such as `torchrun`, started several processes of this program.

    Public functions and commands that query a teacher call this before their first query.

    Example:
        >>> check_single_process()

    Raises:
        ValueError: If there are several processes, each of which would query the teacher.
    """
    count = os.environ.get("WORLD_SIZE") or "1"
    if count.isdecimal() and int(count) > 1:
        raise InputError(
            f"WORLD_SIZE: expected a single process, got {count} from a launcher, each of which "
            "would query the teacher; start the program without the launcher, or train on "
            "existing labels (db3kd.load_labels) with train_student"
        )
