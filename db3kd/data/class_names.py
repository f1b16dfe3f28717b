"""Classes of data and classes of a teacher, matched by their names."""

import difflib
import json
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import NamedImages
from db3kd.teachers.base import Teacher, class_names_of, describe

_LOG = logging.getLogger(__name__)
_said: set[str] = set()
_SHOWN = 10

Names = Sequence[str] | None


def match_classes(images: ImageSet, names: Names, classes: int, who: str) -> ImageSet:
    """`images` with their labels in the numbering of a teacher, whatever theirs is.

    If both sides name their classes, each label becomes the number of the class of its name; data
    may lack classes of the teacher. If only one does, the numbers are taken to mean the same, and
    that is said once in the log. Names that are all numbers, as those of folders `0` to `11`, stand
    in the order of these numbers for a teacher without names.

    Args:
        images: with or without labels.
        names: of the teacher's classes, in the order of their numbers, or None.
        classes: how many classes the teacher has.
        who: what messages call the teacher.

    Returns:
        A view of the images. It is named after the teacher's classes if anything is.

    Raises:
        ValueError: images are in classes whose names the teacher does not have; the message lists
            what is missing on both sides.
    """
    if images.labels is None or (images.class_names is None and names is None):
        return images
    if images.class_names is None:
        if int(images.labels.max()) >= classes:
            return images  # refused by whoever compares, with the number
        _say_once(
            f"{images.name}: its classes are numbers, taken to be those of {who}: "
            f"{_numbered(names)}"
        )
        return images.with_labels(images.labels, names)
    if names is None:
        return _without_names(images, classes, who)
    table = class_table(images.class_names, names, images.labels, f"data {images.name}", who)
    return images.with_labels(table[images.labels], names)


def matched(images: ImageSet, teacher: Teacher) -> ImageSet:
    """As `match_classes`, with the classes of this teacher."""
    who = f"teacher {describe(teacher)}"
    return match_classes(images, class_names_of(teacher), teacher.classes, who)


def run_class_names(teacher: Teacher, images: NamedImages) -> Names:
    """The names of a run's classes: the teacher's, else those of images that `matched` made."""
    names = class_names_of(teacher)
    if names is None and getattr(images, "labels", None) is not None:
        names = getattr(images, "class_names", None)
    return names


def class_table(
    names: Sequence[str], others: Sequence[str], numbers: Tensor, who: str, other: str
) -> Tensor:
    """int64 [len(names)]: the place of each name among the others, -1 if it has none.

    Args:
        names: of the classes that `numbers` count.
        others: the names to look among.
        numbers: int64 [n], the classes that occur: only these need a place.
        who, other: what messages call the two.

    Raises:
        ValueError: a class that occurs has no place.
    """
    place = {name.strip(): number for number, name in enumerate(others)}
    table = torch.tensor([place.get(name.strip(), -1) for name in names])
    used = numbers[numbers >= 0].unique()
    if bool((table[used] < 0).any()):
        raise ValueError(_difference(names, others, who, other))
    return table


def renumbered(decisions: Tensor, names: Names, others: Names, who: str, other: str) -> Tensor:
    """Decisions of one teacher in the numbering of another; -1 stays.

    If only one of them names its classes, they stay as they are, and that is said once in the log.
    """
    if names is None and others is None:
        return decisions
    if names is None or others is None:
        known, unknown = (who, other) if others is None else (other, who)
        _say_once(
            f"{unknown} does not name its classes; its numbers are taken to be those of {known}: "
            f"{_numbered(names or others)}"
        )
        return decisions
    table = class_table(names, others, decisions, who, other)
    return torch.where(decisions < 0, decisions, table[decisions.clamp_min(0)])


def _without_names(images: ImageSet, classes: int, who: str) -> ImageSet:
    """The images for a teacher that has no names: in the order of the data's."""
    labels, names = images.labels, list(images.class_names)
    numbers = [int(name) if name.isascii() and name.isdecimal() else None for name in names]
    how = "in their order"
    if None not in numbers and len(set(numbers)) == len(numbers):
        if max(numbers) < classes:
            how, place = "by these numbers", dict(enumerate(numbers))
        else:
            how = "in the order of these numbers"
            by_number = sorted(range(len(numbers)), key=numbers.__getitem__)
            place = {old: new for new, old in enumerate(by_number)}
        labels = torch.tensor([place[number] for number in range(len(names))])[labels]
        by_place = {place[number]: name for number, name in enumerate(names)}
        names = [by_place.get(number, str(number)) for number in range(max(by_place) + 1)]
    if int(labels.max()) >= classes:
        return images  # refused by whoever compares, with the number
    names = names[:classes] + [f"class {number}" for number in range(len(names), classes)]
    if len(set(names)) < classes:  # a class of the data is itself called "class 7"
        names = [f"{number}: {name}" for number, name in enumerate(names)]
    _say_once(
        f"{images.name}: {who} does not name its classes; the data's are taken to be its classes "
        f"{how}: {_numbered(names)}"
    )
    return images.with_labels(labels, names)


def _difference(names: Sequence[str], others: Sequence[str], who: str, other: str) -> str:
    ours, theirs = [each.strip() for each in names], [each.strip() for each in others]
    left, right = (
        [name for name in these if name not in those]
        for these, those in ((ours, set(theirs)), (theirs, set(ours)))
    )
    text = (
        f"class names: expected those of {who} among those of {other}, got others. Only in {who}: "
        f"{_listed(left)}. Only in {other}: {_listed(right)}"
    )
    near = [(name, like) for name in left if (like := _like(name, right)) is not None]
    if near:
        pairs = ", ".join(f"{_quoted(name)} is {_quoted(like)}" for name, like in near[:_SHOWN])
        text += f". Perhaps {pairs}: names must be equal, case and spelling included"
    return text + ". Rename the classes of the data, or correct the names that the teacher is given"


def _like(name: str, others: Sequence[str]) -> str | None:
    """Another name that is likely to mean the same, if there is one."""
    plain = {_plain(other): other for other in others}
    found = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.8)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(map(_quoted, names[:_SHOWN]))
    return f"{shown} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else shown


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _numbered(names: Sequence[str]) -> str:
    shown = ", ".join(f"{number} = {name}" for number, name in enumerate(names[:_SHOWN]))
    return f"{shown}, …" if len(names) > _SHOWN else shown


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        _LOG.warning("%s", text)
