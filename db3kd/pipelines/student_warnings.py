"""Says plainly what makes a student useless, or worse than its answers allow."""

from collections.abc import Sequence

import torch
from torch import Tensor

from db3kd.distillation.answers import Answers
from db3kd.validation import are_equal

_FEW = 10
"""With fewer held-out images, a share of them says nothing about the student."""

FEW_HELD_OUT = 100
"""With fewer held-out images, the interval of the agreement is wide: 8 percentage points and more
on both sides of 80 %."""

_SMALL_SHARE = 0.2
"""Share of the steps of full training below which a time limit is worth a warning."""


def likely_causes(inputs: str = "images") -> str:
    """Returns the likely causes of answers that hardly differ.

    Args:
        inputs: What the teacher takes.
    """
    return (
        f"{inputs} that are unlike those that the teacher was trained on; preprocessing that "
        "differs from the teacher's own (scale, mean and std, channel order, layout); wrong bounds "
        "of the values; or a teacher that gives this answer for every input"
    )


def student_warnings(
    answers: Answers,
    predicted: Tensor,
    class_names: Sequence[str] | None,
    inputs: str = "images",
    decisions: Tensor | None = None,
) -> list[str]:
    """Returns warnings about a student that has learned nothing, or had nothing to learn.

    Always answering the class that is most frequent among the held-out images is at least as good
    as chance, so a student must be better than that.

    Args:
        answers: All answers, those for held-out images included.
        predicted: [n] int64, the student's classes of the held-out images, in their order.
        class_names: Names of the classes, or None.
        inputs: What the teacher takes.
        decisions: [m] int64, the classes of all images; those of the answers if None.
    """
    found = []
    causes = likely_causes(inputs)
    decisions = answers.clean.decisions if decisions is None else decisions
    if are_equal(decisions):
        found.append(
            f"The teacher put all {len(decisions):,} {inputs} in class "
            f"{_name(int(decisions[0]), class_names)}, so a student can learn nothing useful from "
            f"them. Likely causes: {causes}."
        )
    held_out = answers.held_out.clean.decisions
    counts = torch.bincount(held_out)
    most, matches = int(counts.max()), int((predicted == held_out).sum())
    usual = _name(int(counts.argmax()), class_names)
    if not found and len(held_out) >= _FEW and matches <= most:
        found.append(
            f"The student agrees with the teacher on {matches:,} of {len(held_out):,} held-out "
            f"{inputs}. Always answering with class {usual} would agree on {most:,} of "
            f"them, so the student has learned nothing useful. Likely causes: {causes}; "
            "or too few queries or training steps."
        )
    return found


LONGER_RUN = (
    "It costs no query: resume the run in its folder with a longer time limit, or with none."
)
"""How to train the student of a run for longer."""


def time_limit_warning(limit: float, steps: int, full: int, advice: str) -> str | None:
    """Returns a warning if a time limit left only a small share of the steps of full training.

    Args:
        limit: The limit, in seconds.
        steps: The steps of the student.
        full: Its steps without a limit.
        advice: A sentence on how to train for longer.
    """
    if steps >= _SMALL_SHARE * full:
        return None
    return (
        f"The time limit of {limit:g} seconds cut training from {full:,} to {steps:,} steps "
        f"({steps / full:.1%}), so a longer training may give a much better student of the same "
        f"answers. {advice}"
    )


def few_held_out(held_out: int, tested: bool, is_tabular: bool = False) -> str:
    """Returns what to know about an agreement on few held-out images.

    Args:
        held_out: Number of held-out images.
        tested: Whether the student was measured on labelled test images too.
        is_tabular: Whether the images are rows of a table.
    """
    inputs = "rows" if is_tabular else "images"
    found = f"The agreement rests on only {held_out:,} held-out {inputs}, so it is a rough value."
    if not tested:
        found += (
            f" Labelled test {inputs} (--test, or test= in Python) measure accuracy too, and "
            "cost no query."
        )
    return found


def _name(number: int, class_names: Sequence[str] | None) -> str:
    return str(number) if class_names is None else repr(class_names[number])
