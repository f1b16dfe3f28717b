"""Folders of images: which files are images, and what splits and classes their subfolders name."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from db3kd.data.files.image_decoding import DecodeOptions
from db3kd.data.files.image_files import EncodedPixels, ImageFiles
from db3kd.data.files.splits import require_split, split_named, split_set_name
from db3kd.data.image_set import ImageSet
from db3kd.errors import InputError

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


@dataclass(frozen=True)
class ImageFolder:
    """The content of a folder of images.

    Attributes:
        splits: The images of each split, sorted by path.
        classes: The class name of each image, in the same order; None for a split without class
            folders.
        class_names: The names of all classes, sorted: class number c is `class_names[c]`. None if
            no split has classes.
    """

    splits: dict[str, list[Path]]
    classes: dict[str, list[str] | None]
    class_names: tuple[str, ...] | None


def load_image_folder(
    root: Path, split: str, classes: int | None, options: DecodeOptions
) -> ImageSet:
    """Loads one split of an image folder; see `db3kd.load_data`.

    Returns:
        The images. Their labels, if they lie in class folders, number these alphabetically.

    Raises:
        ValueError: If the folder has no such split, or as for `scan_image_folder`.
    """
    folder = scan_image_folder(root)
    require_split(split, folder.splits, root)
    name = root.resolve().name
    labels, names = None, folder.class_names
    if (class_of := folder.classes[split]) is not None and names is not None:
        number_of = {name: number for number, name in enumerate(names)}
        labels = torch.tensor([number_of[label] for label in class_of])
    pixels = EncodedPixels(ImageFiles(root, folder.splits[split]), name, options)
    return ImageSet(
        pixels, labels, classes, split_set_name(name, split, folder.splits), class_names=names
    )


def load_image_file(
    path: Path, split: str, classes: int | None, options: DecodeOptions
) -> ImageSet:
    """Loads a single image file, without a label; see `db3kd.load_data`.

    Raises:
        ValueError: If the image cannot be decoded, or if the split is not "train".
    """
    require_split(split, ("train",), path.name)
    pixels = EncodedPixels(ImageFiles(path.parent, [path]), path.name, options)
    return ImageSet(pixels, None, classes, path.name)


def scan_image_folder(root: Path) -> ImageFolder:
    """Finds the images below `root`, with the splits and classes that folders name.

    If every first-level folder is named like a split (train, test, validation and their usual
    spellings), the folders are splits. Otherwise all images are one split, "train". The folder
    directly under the root, or under the split, is the class; images that lie there directly have
    no class, and if images of a split lie at different depths, none of them has. Hidden files,
    broken links and files without the suffix of an image are left out, and a warning counts them.

    Raises:
        ValueError: If there is no image, if two folders are the same split, or if some folders are
            named like a split and others are not, with images at different depths.
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
        raise InputError(
            f"{root}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}), IDX files or Parquet "
            f"files, got none among {left_out.total()} files"
        )
    parts = _split(root, images)
    classes = {split: _classes(root, paths, depth) for split, (depth, paths) in parts.items()}
    names = {name for labels in classes.values() if labels for name in labels}
    return ImageFolder(
        {split: [root / path for path in paths] for split, (_, paths) in parts.items()},
        classes,
        tuple(sorted(names)) or None,
    )


def _find(root: Path) -> tuple[list[PurePosixPath], Counter[str]]:
    """Returns the images below root, sorted, and how many files were left out for each reason."""
    images: list[PurePosixPath] = []
    left_out: Counter[str] = Counter()
    for path in root.rglob("*"):
        is_broken = path.is_symlink() and not path.exists()
        if not (is_broken or path.is_file()):
            continue
        inside = PurePosixPath(path.relative_to(root).as_posix())
        if is_broken:
            left_out["behind a broken link"] += 1
        elif any(part.startswith((".", "__MACOSX")) for part in inside.parts):
            left_out["hidden"] += 1
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            left_out[f"with the suffix {path.suffix!r}" if path.suffix else "without a suffix"] += 1
        else:
            images.append(inside)
    return sorted(images, key=str), left_out


def _split(
    root: Path, images: Sequence[PurePosixPath]
) -> Mapping[str, tuple[int, list[PurePosixPath]]]:
    """Returns the images of each split, and the number of folders above its class folders."""
    firsts = sorted({path.parts[0] for path in images if len(path.parts) > 1})
    splits = {name: split for name in firsts if (split := split_named(name)) is not None}
    flat = any(len(path.parts) == 1 for path in images)
    if flat or len(splits) < len(firsts):
        return {"train": (0, list(images))}
    folders: dict[str, str] = {}
    for name, split in splits.items():
        if split in folders:
            raise InputError(
                f"{root}: expected one folder per split, got {folders[split]} and {name}, which "
                f"are both {split!r}"
            )
        folders[split] = name
    return {
        split: (1, [path for path in images if path.parts[0] == name])
        for split, name in folders.items()
    }


def _classes(root: Path, paths: Sequence[PurePosixPath], depth: int) -> list[str] | None:
    """Returns the class folder of each image, or None if the images are not in class folders.

    Args:
        root: The folder, for error messages.
        paths: The images of a split.
        depth: The number of folders above the class folders.
    """
    by_depth = {len(path.parts): path for path in reversed(paths)}
    if len(by_depth) > 1:
        shallow, deep = by_depth[min(by_depth)], by_depth[max(by_depth)]
        if depth == 0 and any(split_named(path.parts[0]) for path in paths if len(path.parts) > 1):
            raise InputError(
                f"{root}: expected all images at the same depth, as class/image or "
                f"split/class/image, got {shallow} and {deep}"
            )
        _LOG.warning(
            "%s: the images have no labels, because they lie at different depths (%s, %s); for "
            "labels, put each in class/image or split/class/image",
            root,
            shallow,
            deep,
        )
        return None
    if next(iter(by_depth)) == depth + 1:
        return None
    return [_as_text(path.parts[depth]) for path in paths]


def _as_text(name: str) -> str:
    r"""Returns the name of a folder as text: bytes that are not UTF-8 are shown as \xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
