"""The first stage of a labelling: one query for each image of the set."""

from collections.abc import Callable

import torch
from torch import Tensor

from db3kd.data.image_source import NamedImages
from db3kd.labelling.contradictions import EqualImages
from db3kd.querying.driver import decide_all
from db3kd.querying.search import UNANSWERED
from db3kd.querying.session import AnswerJournal
from db3kd.teachers.base import Teacher
from db3kd.teachers.single_class import check_classes_differ
from db3kd.validation import check_images


def decide_images(
    teacher: Teacher,
    images: NamedImages,
    limits: Tensor,
    query_batch_size: int,
    on_answers: Callable[[int], None] | None = None,
    journal: AnswerJournal | None = None,
) -> tuple[Tensor, Tensor]:
    """Asks for the class of each image, and finds equal images in different classes.

    Args:
        teacher: The teacher that decides.
        images: The N images of the set.
        limits: `[N] int64`; an image with limit 0 is not queried.
        query_batch_size: Maximum number of images in a batch.
        on_answers: A function that is called with the number of answers, batch by batch.
        journal: A journal that keeps the answers.

    Returns:
        The decisions, `[N] int64`, -1 for images that were not queried; and the contradictions,
        `[K, 2] int64`, as from `EqualImages.contradictions`.

    Raises:
        TeacherError: If the teacher fails, or puts all images in one class, so that there is no
            boundary to measure.
        ValueError: If an image is invalid for the teacher.
    """
    equal = EqualImages(len(images))

    def read(index: Tensor) -> Tensor:
        batch = images.read(index)
        check_images(batch, teacher.image_shape, teacher.bounds, images.name)
        equal.add(index, batch)
        return batch

    decisions = torch.full((len(images),), UNANSWERED)
    asked = (limits > 0).nonzero()[:, 0]
    decisions[asked] = decide_all(
        teacher, read, asked, query_batch_size, on_answers=on_answers, journal=journal
    )
    check_classes_differ(
        teacher,
        decisions[asked],
        f"images ({images.name})",
        "there is no boundary to measure. Do the images have the range and the colour order that "
        "the teacher expects?",
    )
    return decisions, equal.contradictions(images, decisions)
