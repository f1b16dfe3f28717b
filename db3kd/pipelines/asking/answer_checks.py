"""Repeats known queries of a resumed distillation, before it sends new ones.

A fingerprint does not notice that a service, or a file behind a function, was replaced. The answers
of two teachers would be mixed, and nothing would show it.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from db3kd.data.image_source import ImageSource
from db3kd.labelling.check_results import CheckRecord
from db3kd.labelling.repeated_queries import ask_again, changed_answers_error, record_check
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers import Teacher, describe
from db3kd.wording import counted

_LOG = logging.getLogger(__name__)


@dataclass
class AnswerChecks:
    """Checks the teacher at most once per process.

    Attributes:
        folder: The folder of the run.
        teacher: The teacher to ask.
        queries: Maximum number of queries; 0 for no check.
        accept_changed_teacher: Whether to resume the run even if answers have changed.
    """

    folder: RunFolder
    teacher: Teacher
    queries: int
    accept_changed_teacher: bool

    def repeat(self, images: ImageSource, rows: Tensor, decisions: Tensor) -> None:
        """Asks about some known answers again, unless this was done before.

        Args:
            images: The images of the run.
            rows: [n] int64, those with an answer; none in a new run.
            decisions: [n] int64, the answers.

        Raises:
            ValueError: If an answer has changed, and `accept_changed_teacher` is False.
            TeacherError: If the teacher fails.
        """
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        chosen = chosen[: self.queries].sort().values
        self.queries = 0
        if not len(chosen):
            return
        answers = ask_again(self.folder, self.teacher, images.read(rows[chosen]))
        changed = int((answers != decisions[chosen]).sum())
        refused = changed > 0 and not self.accept_changed_teacher
        record_check(
            self.folder,
            CheckRecord(
                when="resume",
                asked=len(chosen),
                changed=changed,
                flagged=changed > 0 and not refused,
            ),
        )
        if refused:
            raise changed_answers_error(self.folder, self.teacher, changed, len(chosen))
        if changed:
            _LOG.warning(
                "%s: teacher %s changed %d of %s since the run was stopped; its earlier answers "
                "are kept",
                self.folder.path,
                describe(self.teacher),
                changed,
                counted(len(chosen), "answer"),
            )
