"""How many images of a plan are held out, and how well they measure the student."""

import math
from statistics import NormalDist

from db3kd.arguments.plain import check_count
from db3kd.errors import ArgumentError
from db3kd.wording import InputNoun, counted

_SHARE = 0.05
_SMALL_SET = 100
"""If there are fewer images, twice the share is held out, so that agreement can be measured."""
_MOST = 1000
_MOST_CHOSEN = 1_000_000

LEAST_HELD_OUT = 10
"""With fewer held-out images, a share of them says nothing about the student."""

LEAST_ANSWERS_PER_CLASS = 2
"""With fewer answers to train on, a student learns little about most classes."""

LEAST_VALIDATION = 200
"""With fewer validation answers, a difference in agreement between two options would be chance."""

_AUGMENTED_SHARE = 0.04
_MOST_AUGMENTED = 2000


def held_out_images(images: int, budget: int, chosen: int | None) -> int:
    """Returns how many images are held out: the number that the user chose, or a share."""
    if chosen is not None:
        return chosen
    share = _SHARE if images >= _SMALL_SET else 2 * _SHARE
    return max(1, min(round(share * min(images, budget)), _MOST))


def held_out_augmented(held_out: int, training: int, queries: int) -> int:
    """Returns how many augmented versions of held-out images are queried, to compare options.

    There are none if too few answers would be held out for a comparison.

    Args:
        held_out: Number of held-out images.
        training: Number of images that may be trained on.
        queries: The queries for augmented versions of all images, and for those to train on.
    """
    share = min(round(_AUGMENTED_SHARE * max(0, queries - training)), _MOST_AUGMENTED)
    return share if held_out + share >= LEAST_VALIDATION else 0


def held_out_pseudo_samples(samples: int, chosen: int | None = None) -> int:
    """Returns how many pseudo samples are held out: the number that the user chose, or a share."""
    return max(1, min(round(_SHARE * samples), _MOST)) if chosen is None else chosen


def check_held_out(
    held_out: int | None, images: int | None, noun: InputNoun = "image"
) -> int | None:
    """Checks a number of held-out images that the user chose, and returns it.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is less than 1, or leaves no image to train on.
    """
    if held_out is None:
        return None
    held_out = check_count(held_out, "held_out")
    if images is not None and held_out >= images:
        raise ArgumentError(
            "held_out",
            f"expected fewer than the {counted(images, noun)}, so that some are left to train on, "
            f"got {held_out:,}",
        )
    if held_out > _MOST_CHOSEN:
        raise ArgumentError("held_out", f"expected at most {_MOST_CHOSEN:,}, got {held_out:,}")
    return held_out


def precision(images: int) -> float:
    """Returns how far a share of this many images is from the ends of its 95 % interval, at most.

    It is half the width of Wilson's interval of a share of 50 %, the widest one.

    Example:
        >>> f"{precision(50):.3f}, {precision(1_000):.3f}"
        '0.134, 0.031'
    """
    z = NormalDist().inv_cdf(0.975)
    return z / (2 * math.sqrt(images + z * z))


def few_answers_warning(
    images: int, answers: int, classes: int, strategy: str, noun: InputNoun
) -> str | None:
    """Returns a warning if there are too few images or answers for the classes, or else None.

    Args:
        images: Number of images, the held-out ones included.
        answers: Number of answers that the student is trained on.
        classes: Number of classes of the teacher.
        strategy: The strategy.
        noun: What the warning calls an image.
    """
    of_classes = f"for {counted(classes, 'class')}"
    if images < classes:
        instead = (
            f"; without any {noun} (no --data, or no images= in Python), pseudo samples take "
            "their place"
            if noun == "image"
            else ""
        )
        verb = "is" if images == 1 else "are"
        return (
            f"There {verb} only {counted(images, noun)} {of_classes}, so the student cannot learn "
            f"all of them. Pass more {noun}s, several of each class{instead}."
        )
    if answers >= LEAST_ANSWERS_PER_CLASS * classes:
        return None
    return (
        f"The strategy {strategy} trains the student on only {counted(answers, 'answer')} "
        f"{of_classes}, fewer than {LEAST_ANSWERS_PER_CLASS} for each, so it learns little about "
        "most of them. Use a larger budget (--budget, or budget= in Python); if it is enough for "
        f"all {noun}s, pass more {noun}s."
    )


def few_held_out_warning(held_out: int, noun: InputNoun) -> str | None:
    """Returns a warning if so few images are held out that the agreement says nothing, or None."""
    if held_out >= LEAST_HELD_OUT:
        return None
    return (
        f"The agreement is measured on only {counted(held_out, f'held-out {noun}')}, so it says "
        f"almost nothing about the student. Hold out more {noun}s (--held-out, or held_out= of "
        f"DistillSettings in Python) or pass more {noun}s."
    )


def describe_precision(images: int) -> str:
    """Returns how well a number of images measures a share, such as "±13 percentage points"."""
    points = 100 * precision(images)
    return f"±{points:.0f} percentage points" if points >= 2 else f"±{points:.1f} percentage points"
