"""Which files of a folder are its images, and what its subfolders say of splits and classes."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_LOG = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    [
        ".bmp",
        ".gif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
"""Suffixes of the files that are read as images, in lower case."""

_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}


@dataclass(frozen=True)
class ImageFolder:
    """What a folder of images holds.

    Attributes:
        splits: the images of each split, sorted by path.
        classes: the name of each image's class, in the same order; None for a split whose images
            lie in no class folders.
        class_names: the names of all classes, sorted: class number c is `class_names[c]`. None if
            no split has classes.
    """

    splits: dict[str, list[Path]]
    classes: dict[str, list[str] | None]
    class_names: tuple[str, ...] | None


def split_named(name: str) -> str | None:
    """The split that a folder or file of this name holds, or None if the name is no split's."""
    return _SPLIT_OF.get(name.lower())


def scan_image_folder(root: Path) -> ImageFolder:
    """Finds the images below `root`, and reads splits and classes off the folders they lie in.

    If every first-level folder is named like a split (train, test, validation and their usual
    spellings), the folders are splits. Otherwise all images are one set, "train". The folder
    directly under the root, or under the split, is the class; images that lie there directly have
    no class. Hidden files and files without the suffix of an image are left out, which is logged.

    Raises:
        ValueError: there is no image, two folders are the same split, or images of one split lie
            at different depths.
    """
    images, left_out = _find(root)
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        _LOG.warning(
            "%s: %d of %d files were left out: %s",
            root,
            left_out.total(),
            left_out.total() + len(images),
            reasons,
        )
    if not images:
        raise ValueError(
            f"{root}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}), IDX files or Parquet "
            f"files, got none among {left_out.total()} files"
        )
    parts = _split(root, images)
    classes = {split: _classes(root, paths, start) for split, (start, paths) in parts.items()}
    names = {name for labels in classes.values() if labels for name in labels}
    return ImageFolder(
        {split: [root / path for path in paths] for split, (_, paths) in parts.items()},
        classes,
        tuple(sorted(names)) or None,
    )


def split_files(root: Path, files: Iterable[Path]) -> dict[str, list[Path]]:
    """The files of each split, by their first folder below `root` or the first word of their name.

    Without any split's name among them, all are "train".

    Raises:
        ValueError: some are named for a split and others are not.
    """
    splits: dict[str | None, list[Path]] = {}
    for path in sorted(files, key=Path.as_posix):
        inside = path.relative_to(root)
        first = inside.parts[0] if len(inside.parts) > 1 else ""
        word = inside.stem.replace("_", "-").replace(".", "-").partition("-")[0]
        splits.setdefault(split_named(first) or split_named(word), []).append(path)
    if None in splits and len(splits) > 1:
        named = next(paths[0] for split, paths in splits.items() if split is not None)
        raise ValueError(
            f"{root}: expected every file or none to be named for a split, got "
            f"{named.relative_to(root)} and {splits[None][0].relative_to(root)}"
        )
    return {split or "train": paths for split, paths in splits.items()}


def _find(root: Path) -> tuple[list[PurePosixPath], Counter[str]]:
    """The images below root, sorted, and how many files were left out for which reason."""
    images, left_out = [], Counter()
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        inside = PurePosixPath(path.relative_to(root).as_posix())
        if any(part.startswith((".", "__MACOSX")) for part in inside.parts):
            left_out["hidden"] += 1
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            left_out[f"with the suffix {path.suffix!r}" if path.suffix else "without a suffix"] += 1
        else:
            images.append(inside)
    return sorted(images, key=str), left_out


def _split(
    root: Path, images: Sequence[PurePosixPath]
) -> Mapping[str, tuple[int, list[PurePosixPath]]]:
    """The images of each split, with the number of folders that lead to it."""
    firsts = {path.parts[0] for path in images if len(path.parts) > 1}
    flat = any(len(path.parts) == 1 for path in images)
    if flat or not all(split_named(name) for name in firsts):
        return {"train": (0, list(images))}
    folders: dict[str, str] = {}
    for name in sorted(firsts):
        split = split_named(name)
        if split in folders:
            raise ValueError(
                f"{root}: expected one folder a split, got {folders[split]} and {name}, which are "
                f"both {split!r}"
            )
        folders[split] = name
    return {
        split: (1, [path for path in images if path.parts[0] == name])
        for split, name in folders.items()
    }


def _classes(root: Path, paths: Sequence[PurePosixPath], start: int) -> list[str] | None:
    """The class folder of each image, or None if the images lie in none.

    start: how many folders lead to the class folders.
    """
    by_depth = {len(path.parts): path for path in reversed(paths)}
    if len(by_depth) > 1:
        shallow, deep = by_depth[min(by_depth)], by_depth[max(by_depth)]
        raise ValueError(
            f"{root}: expected all images at the same depth, as class/image or split/class/image, "
            f"got {shallow} and {deep}"
        )
    if next(iter(by_depth)) == start + 1:
        return None
    return [path.parts[start] for path in paths]
