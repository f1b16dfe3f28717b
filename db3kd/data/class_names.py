"""Classes of data and classes of a teacher, matched by their names."""

import difflib
import json
import logging
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import NamedImages
from db3kd.errors import ArgumentError
from db3kd.teachers.base import Teacher, class_names_of, describe
from db3kd.wording import shortened

_LOG = logging.getLogger(__name__)
_logged: set[str] = set()
_MAX_LISTED = 10

Names = Sequence[str] | None
"""Class names in the order of the class numbers, or None."""


class OtherClassesError(ArgumentError):
    """Labels are of classes that a teacher does not have."""


def match_classes(images: ImageSet, names: Names, classes: int, who: str) -> ImageSet:
    """Renumbers the labels of images as a teacher numbers its classes.

    If both sides name their classes, each label becomes the teacher's number for that name; data
    may lack classes of the teacher. If only one side does, the numbers are taken to mean the same,
    and a warning is logged once. Class names that are all numbers, such as folders called 0 to 11,
    are ordered by these numbers for a teacher without class names.

    Args:
        images: With or without labels.
        names: The teacher's class names, or None.
        classes: The teacher's number of classes.
        who: What messages call the teacher.

    Returns:
        A view of the images, with the teacher's class names if anything is named.

    Raises:
        OtherClassesError: If images are in classes that the teacher does not name; the message
            lists the names that only one side has.
    """
    if images.labels is None or (images.class_names is None and names is None):
        return images
    if images.class_names is None:
        if int(images.labels.max()) >= classes:
            return images  # `check_labels_of` refuses this label, and names it.
        _warn_once(
            f"its classes are numbers, taken to be those of {who}: "
            f"{_listed_by_number(names or ())}",
            images.name,
        )
        return images.with_labels(images.labels, names)
    if names is None:
        return _match_unnamed(images, images.labels, images.class_names, classes, who)
    table = class_table(images.class_names, names, images.labels, f"data {images.name}", who)
    return images.with_labels(table[images.labels], names)


def matched(images: ImageSet, teacher: Teacher) -> ImageSet:
    """Renumbers the labels of images as `match_classes`, with the classes of this teacher."""
    who = f"teacher {describe(teacher)}"
    return match_classes(images, class_names_of(teacher), teacher.classes, who)


def check_labels_of(images: NamedImages, teacher: Teacher, name: str = "images") -> None:
    """Checks that the labels of images from `matched` are classes of a teacher.

    Args:
        images: With or without labels.
        teacher: The teacher.
        name: The name of the argument in errors.

    Raises:
        OtherClassesError: If a label is too large for the teacher's number of classes.
    """
    highest = -1 if images.labels is None else int(images.labels.max())
    if highest >= teacher.classes:
        raise OtherClassesError(
            name,
            f"expected labels in [0, {teacher.classes}), because teacher "
            f"{describe(teacher)} has {teacher.classes} classes, got {highest} in {images.name}",
        )


def run_class_names(teacher: Teacher, images: NamedImages) -> Names:
    """Returns the class names of a run: the teacher's, or else those of images from `matched`."""
    names = class_names_of(teacher)
    if names is None and getattr(images, "labels", None) is not None:
        names = getattr(images, "class_names", None)
    return names


def class_table(
    names: Sequence[str], others: Sequence[str], numbers: Tensor, who: str, other: str
) -> Tensor:
    """Returns the place of each name among other names.

    Args:
        names: The class names that `numbers` refer to.
        others: The names to look among.
        numbers: [n] int64, the classes that occur: only these must have a place.
        who: What messages call the owner of `names`.
        other: What messages call the owner of `others`.

    Returns:
        [len(names)] int64, -1 for a name without a place.

    Raises:
        OtherClassesError: If a class that occurs has no place.
    """
    place = {name.strip(): number for number, name in enumerate(others)}
    table = torch.tensor([place.get(name.strip(), -1) for name in names])
    used = numbers[numbers >= 0].unique()
    if bool((table[used] < 0).any()):
        raise OtherClassesError("class names", _difference(names, others, who, other))
    return table


def renumbered(decisions: Tensor, names: Names, others: Names, who: str, other: str) -> Tensor:
    """Renumbers the decisions of one model as another one numbers its classes.

    If only one of them names its classes, the decisions are unchanged, and a warning is logged
    once.

    Args:
        decisions: [n] int64; -1 stays -1.
        names: The class names of the model that decided.
        others: The class names of the other model.
        who: What messages call the model that decided.
        other: What messages call the other model.

    Returns:
        [n] int64.

    Raises:
        ValueError: If the other model does not name a class that was decided.
    """
    if names is None and others is None:
        return decisions
    if names is None or others is None:
        known, unknown = (who, other) if others is None else (other, who)
        _warn_once(
            f"{unknown} does not name its classes; its numbers are taken to be those of {known}: "
            f"{_listed_by_number(names or others or ())}",
        )
        return decisions
    table = class_table(names, others, decisions, who, other)
    return torch.where(decisions < 0, decisions, table[decisions.clamp_min(0)])


def _match_unnamed(
    images: ImageSet, labels: Tensor, class_names: Sequence[str], classes: int, who: str
) -> ImageSet:
    """Numbers named classes for a teacher without names: in the order of the data's classes."""
    names = list(class_names)
    numbers = [int(name) for name in names if name.isascii() and name.isdecimal()]
    order = "in their order"
    if len(numbers) == len(names) == len(set(numbers)):
        if max(numbers) < classes:
            order, place = "by these numbers", dict(enumerate(numbers))
        else:
            order = "in the order of these numbers"
            by_number = sorted(range(len(numbers)), key=numbers.__getitem__)
            place = {old: new for new, old in enumerate(by_number)}
        labels = torch.tensor([place[number] for number in range(len(names))])[labels]
        by_place = {place[number]: name for number, name in enumerate(names)}
        names = [by_place.get(number, str(number)) for number in range(max(by_place) + 1)]
    if int(labels.max()) >= classes:
        return images  # `check_labels_of` refuses this label, and names it.
    names = names[:classes] + [f"class {number}" for number in range(len(names), classes)]
    if len(set(names)) < classes:  # A class of the data is itself called "class 7".
        names = [f"{number}: {name}" for number, name in enumerate(names)]
    _warn_once(
        f"{who} does not name its classes; those of the data are taken to be its classes {order}: "
        f"{_listed_by_number(names)}. To name them, pass class_names= to the teacher, or declare "
        "labels in a description file",
        images.name,
    )
    return images.with_labels(labels, names)


def _difference(names: Sequence[str], others: Sequence[str], who: str, other: str) -> str:
    these, those = [name.strip() for name in names], [name.strip() for name in others]
    known, other_known = set(these), set(those)
    left = [name for name in these if name not in other_known]
    right = [name for name in those if name not in known]
    text = (
        f"expected those of {who} among those of {other}, got others. Only in {who}: "
        f"{_listed(left)}. Only in {other}: {_listed(right)}"
    )
    if similar := _similar_names(left, right):
        pairs = (_pair(name, match) for name, match in similar)
        text += (
            f". Perhaps {', '.join(pairs)}: names must be equal, case, spelling and Unicode "
            "characters included"
        )
    return text + ". Rename the classes of the data, or correct the teacher's class names"


def _similar_names(names: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Returns names with other names that are likely to mean the same, at most ten.

    All names are looked up, but only the listed ones are compared with each of the others, because
    that takes half a second per name if there are tens of thousands.
    """
    plain = {_plain(other): other for other in others}
    found = []
    for number, name in enumerate(names):
        near = [_plain(name)] if _plain(name) in plain else []
        if not near and number < _MAX_LISTED:
            near = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.8)
        found += [(name, plain[match]) for match in near]
    return found[:_MAX_LISTED]


def _pair(name: str, match: str) -> str:
    """Shows two names; with escapes if they look alike, such as "é" as one character or as two."""
    look_alike = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", match)
    first, second = (json.dumps(each, ensure_ascii=look_alike) for each in (name, match))
    return f"{first} is {second}"


def _plain(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(map(_quoted, names[:_MAX_LISTED]))
    more = len(names) - _MAX_LISTED
    return f"{shown} and {more:,} more" if more > 0 else shown


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _listed_by_number(names: Sequence[str]) -> str:
    return shortened((f"{number} = {name}" for number, name in enumerate(names)), _MAX_LISTED)


def _warn_once(text: str, data: str = "") -> None:
    """Logs a warning, unless another part of the data, such as the test split, caused it before.

    Args:
        text: The warning.
        data: The name of the data that it is about, if it is about data.
    """
    if text not in _logged:
        _logged.add(text)
        _LOG.warning("%s", f"{data}: {text}" if data else text)
