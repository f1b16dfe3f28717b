"""The splits of data sets: their names in folders and files."""

from collections.abc import Iterable
from pathlib import Path

from db3kd.errors import ArgumentError, InputError
from db3kd.wording import did_you_mean

_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}


class MissingSplitError(ArgumentError):
    """A data set lacks a split.

    Attributes:
        splits: The splits that it has.
    """

    splits: tuple[str, ...] = ()


def split_named(name: str) -> str | None:
    """Returns the split that a folder or file of this name holds, or None if it names no split."""
    return _SPLIT_OF.get(name.lower())


def require_split(split: str, splits: Iterable[str], name: str | Path) -> None:
    """Raises MissingSplitError unless `split` is one of the splits of the data set `name`."""
    found = tuple(splits)
    if split not in found:
        error = MissingSplitError(
            "split",
            f"{name} has {', '.join(map(repr, found))}, got {split!r}{did_you_mean(split, found)}",
        )
        error.splits = found
        raise error


def split_set_name(name: str, split: str, splits: Iterable[str]) -> str:
    """Returns what messages call a split: the name of its set, and its own if there are others."""
    return name if set(splits) <= {split} else f"{name}, split {split}"


def group_by_split(root: Path, files: Iterable[Path]) -> dict[str, list[Path]]:
    """Groups files by their first folder below `root`, or by the first word of their names.

    If no name is a split's, all files are "train".

    Raises:
        ValueError: If some files are named for a split and others are not.
    """
    splits: dict[str | None, list[Path]] = {}
    for path in sorted(files, key=Path.as_posix):
        inside = path.relative_to(root)
        first = inside.parts[0] if len(inside.parts) > 1 else ""
        word = inside.stem.replace("_", "-").replace(".", "-").partition("-")[0]
        splits.setdefault(split_named(first) or split_named(word), []).append(path)
    if None in splits and len(splits) > 1:
        named = next(paths[0] for split, paths in splits.items() if split is not None)
        raise InputError(
            f"{root}: expected every file or none to be named for a split, got "
            f"{named.relative_to(root)} and {splits[None][0].relative_to(root)}"
        )
    return {split or "train": paths for split, paths in splits.items()}
