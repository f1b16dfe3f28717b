"""Stops runs whose teacher puts all images in one class, before they spend more queries."""

from torch import Tensor

from db3kd.arguments.images import are_equal
from db3kd.teachers.base import SingleClassError, Teacher, class_names_of, describe

IF_RARE = "If the other classes are rare, continue with resume=True and rare_classes=True"
"""Advice for a run that can be resumed with `rare_classes`."""

IF_RARE_IN_MEMORY = "If the other classes are rare, pass rare_classes=True"
"""Advice for a call without a run folder."""


def check_classes_differ(teacher: Teacher, decisions: Tensor, inputs: str, advice: str) -> None:
    """Checks that two or more decisions are not all one class.

    Example:
        >>> check_classes_differ(teacher, torch.tensor([0, 1]), "images", "nothing to learn")

    Args:
        teacher: The teacher that decided.
        decisions: [n] int64, classes.
        inputs: What was decided, for the message.
        advice: What is impossible with a single class, or what to do, for the message.

    Raises:
        SingleClassError: If they are.
    """
    if len(decisions) < 2 or not are_equal(decisions):
        return
    number = int(decisions[0])
    if not 0 <= number < teacher.classes:  # the check of decisions reports it
        return
    names = class_names_of(teacher)
    name = f"class {number}" if names is None else f"class {names[number]!r}"
    raise SingleClassError(
        f"teacher {describe(teacher)}: expected at least two classes for {len(decisions):,} "
        f"{inputs}, got {name} for all; {advice}"
    )
