"""Classes that the teacher chose for no image of a run, so that nothing leads to them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from db3kd.labelling.image_decisions import DECISIONS
from db3kd.labels.labels import LABELS
from db3kd.storage.run_journals import answers_in_stage
from db3kd.wording import InputNoun, counted, shortened


def absent_classes(path: Path, classes: int) -> list[int]:
    """Returns the classes that no decision of a run names, in ascending order.

    A search starts from an image of the target class, so these classes cannot be reached.

    Args:
        path: The run folder, with all decisions of the run.
        classes: The number of classes C.
    """
    decided = np.unique(answers_in_stage(path, LABELS, DECISIONS))
    return np.setdiff1d(np.arange(classes), decided).tolist()


def describe_absent_classes(
    absent: Sequence[int],
    classes: int,
    samples: int,
    *,
    undecided: int,
    class_names: Sequence[str] | None,
    noun: InputNoun,
) -> str:
    """Returns which classes are absent, what follows from it, and what to do.

    Args:
        absent: At least one class, from `absent_classes`.
        classes: The number of classes C.
        samples: The number of decided samples, each of which has a pair with each absent class.
        undecided: The number of samples whose decision the budget did not cover.
        class_names: The names of the C classes; their numbers by default.
        noun: What the text calls an image.
    """
    names = shortened(number if class_names is None else class_names[number] for number in absent)
    pairs = samples * len(absent)
    them, these = ("it", "this class") if len(absent) == 1 else ("them", "these classes")
    budget = ", but a larger budget does not"
    if undecided:
        budget = f", and so may a budget that covers the decisions of all {noun}s"
    return (
        f"{len(absent):,} of {counted(classes, 'class')} ({names}): the teacher put no {noun} in "
        f"{them}, and a search starts from one, so {counted(pairs, 'pair')} with {them} cannot be "
        f"reached. Adding {noun}s of {these} helps{budget}; if the teacher has fewer "
        "classes, start another run with the right number (--classes)"
    )
