"""The first stage of a labelling: one query for each image of the set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from db3kd.arguments.images import check_images
from db3kd.data.image_source import NamedImages
from db3kd.labelling.contradictions import EqualImages
from db3kd.labels.labels import LABELS
from db3kd.querying.driver import FIRST_CHECKED, decide_all
from db3kd.querying.search import UNANSWERED
from db3kd.querying.sent_queries import SentQueries
from db3kd.querying.session import AnswerJournal
from db3kd.storage.run_journals import answers_in_stage
from db3kd.teachers.base import Teacher
from db3kd.teachers.single_class import IF_RARE, check_classes_differ
from db3kd.wording import input_noun

DECISIONS = "decisions"
"""The stage in which all images are decided, and the name of its journal."""


@dataclass(frozen=True, kw_only=True)
class SingleClassCheck:
    """Whether a run stops if its first decisions are all one class.

    Attributes:
        rare_classes: Whether to continue even then.
        advice: What to do if the other classes are rare, for the error.
    """

    rare_classes: bool = False
    advice: str = IF_RARE

    def check_first(self, teacher: Teacher, images: NamedImages, decisions: Tensor) -> None:
        """Checks the decisions of the first images, [FIRST_CHECKED] int64.

        Raises:
            SingleClassError: If they are all one class and `rare_classes` is not set.
        """
        if not self.rare_classes:
            _check_classes_differ(teacher, images, decisions, f" {self.advice}")


def decision_order(limits: Tensor) -> Tensor:
    """Returns the images that a run decides, [n] int64, in the order in which it does.

    `FIRST_CHECKED` images, spread evenly over the set, are decided and checked before the others.
    Files are often sorted by class, so the first ones in the order of their numbers could all be in
    one class although the teacher is right.

    Args:
        limits: [N] int64; an image with limit 0 is not decided.
    """
    decided = (limits > 0).nonzero()[:, 0]
    if len(decided) <= FIRST_CHECKED:
        return decided
    first = torch.arange(FIRST_CHECKED) * len(decided) // FIRST_CHECKED
    later = torch.ones(len(decided), dtype=torch.bool)
    later[first] = False
    return torch.cat([decided[first], decided[later]])


def decisions_in(folder: Path, limits: Tensor) -> tuple[Tensor, Tensor]:
    """Returns which images the label run in a folder has decided, and their classes.

    Args:
        folder: The run folder.
        limits: [N] int64, the limits of the run; see `decision_order`.

    Returns:
        [n] int64, the images, and [n] int64, their classes; none without a run.
    """
    classes = torch.from_numpy(answers_in_stage(folder, LABELS, DECISIONS))
    return decision_order(limits)[: len(classes)], classes


def decide_images(
    teacher: Teacher,
    images: NamedImages,
    limits: Tensor,
    query_batch_size: int,
    on_answers: Callable[[int], None] | None = None,
    journal: AnswerJournal | None = None,
    *,
    check: SingleClassCheck,
    sent: SentQueries | None = None,
) -> tuple[Tensor, Tensor]:
    """Asks for the class of each image, and finds equal images in different classes.

    Args:
        teacher: The teacher that decides.
        images: The N images of the set.
        limits: [N] int64; an image with limit 0 is not queried.
        query_batch_size: Maximum number of images in a batch.
        on_answers: A function that is called with the number of answers, batch by batch.
        journal: A journal that keeps the answers.
        check: Whether a single class of the first images stops the run.
        sent: See `decide_all`.

    Returns:
        The decisions, [N] int64, -1 for images that were not queried; and the contradictions,
        [K, 2] int64, as from `EqualImages.contradictions`.

    Raises:
        TeacherError: If the teacher fails, or puts all images, or the first ones, in one
            class, so that there are no distances to measure.
        ValueError: If an image is invalid for the teacher.
    """
    equal = EqualImages(len(images))

    def read(index: Tensor) -> Tensor:
        batch = images.read(index)
        check_images(batch, teacher.image_shape, teacher.bounds, images.name)
        equal.add(index, batch)
        return batch

    decisions = torch.full((len(images),), UNANSWERED)
    asked = decision_order(limits)
    decisions[asked] = decide_all(
        teacher,
        read,
        asked,
        query_batch_size,
        on_answers=on_answers,
        journal=journal,
        check_first=partial(check.check_first, teacher, images),
        sent=sent,
    )
    _check_classes_differ(teacher, images, decisions[asked])
    return decisions, equal.contradictions(images, decisions)


def _check_classes_differ(
    teacher: Teacher, images: NamedImages, decisions: Tensor, advice: str = ""
) -> None:
    noun = input_noun(teacher.image_shape)
    expected = "range" if noun == "row" else "range and the colour order"
    check_classes_differ(
        teacher,
        decisions,
        f"{noun}s ({images.name})",
        f"without a second class, there are no distances to measure. Do the {noun}s have the "
        f"{expected} that the teacher expects?{advice}",
    )
