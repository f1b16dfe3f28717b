"""Finds students that are no better than a constant answer on the samples they were trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from db3kd.arguments.arrays import IntegersLike, as_index
from db3kd.arguments.images import are_equal
from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.training.evaluation import predict
from db3kd.wording import class_text, counted, input_noun

MOST_MEASURED = 10_000
"""Training samples that a student is measured on at most, because each costs a forward pass."""


def constant_answer_warning(
    network: nn.Module,
    images: ImagesLike,
    decisions: Tensor,
    *,
    rows: IntegersLike | None = None,
    class_names: Sequence[str] | None = None,
) -> str | None:
    """Returns a warning if a student is no better than always answering the most frequent class.

    The student is measured on the samples that it was trained on, so that no query and no other
    image is needed. One that is not even better there has learned nothing.

    Example:
        >>> constant_answer_warning(student, images, labels.decision) is None
        True

    Args:
        network: The trained student.
        images: N images, as for `train_student`.
        decisions: [N] int64, the teacher's classes; -1 (unanswered) is left out.
        rows: [R] int64, the images that the student was trained on; all by default.
        class_names: The names of the classes; their numbers by default.
    """
    source = as_image_source(images)
    decisions = decisions.cpu()
    trained = torch.arange(len(source)) if rows is None else as_index(rows, len(source), "rows")
    trained = trained[decisions[trained] >= 0]
    if len(trained) < 2:
        return None
    noun = input_noun(source.read(trained[:1]).shape[1:])
    if are_equal(decisions[trained]):
        return (
            f"The teacher put all {counted(len(trained), noun)} in class "
            f"{class_text(int(decisions[trained[0]]), class_names)}, so a student can learn "
            f"nothing useful from them. Train it on {noun}s of other classes too."
        )
    if len(trained) > MOST_MEASURED:
        trained = trained[torch.arange(MOST_MEASURED) * len(trained) // MOST_MEASURED]
    known = decisions[trained]
    counts = torch.bincount(known)
    most, matches = int(counts.max()), int((predict(network, source, rows=trained) == known).sum())
    if matches > most:
        return None
    usual = class_text(int(counts.argmax()), class_names)
    return (
        f"The student agrees with the teacher on {matches:,} of {len(known):,} {noun}s that it was "
        f"trained on. Always answering with class {usual} would "
        f"agree on {most:,} of them, so the student has learned nothing useful. Train it for "
        "longer (--steps, or steps= of TrainSettings in Python), at another learning rate "
        "(--learning-rate, or learning_rate=), or choose another network (--student, or student= "
        "or model=). "
        f"If that does not help, label more {noun}s, or others that are like those that the "
        "teacher was trained on."
    )
