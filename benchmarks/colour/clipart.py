"""Clip art of many subjects: a class for each folder, a fifth of each class as test split."""

import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.colour.arrays import SIDE, Split

GROUND = (255, 255, 255)
"""What shows through transparent pixels and beside pictures that are not square: white."""

_UNREADABLE = (
    OSError,
    SyntaxError,  # Pillow raises both for broken files.
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

MIXED_FOLDERS = ("special", "unsorted")
"""Folders without a subject of their own."""


def thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """Shrinks or enlarges a picture to fit SIDE x SIDE, in the middle of the ground.

    Args:
        picture: A picture of any mode; transparent pixels show the ground.

    Returns:
        [SIDE, SIDE, 3] uint8.
    """
    scale = SIDE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    # Pillow weights the colours of RGBA by their opacity, so transparent pixels have no colour.
    small = picture.convert("RGBA").resize((width, height), Image.Resampling.BOX, reducing_gap=3)
    image = Image.new("RGBA", (SIDE, SIDE), (*GROUND, 255))
    image.alpha_composite(small, ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.asarray(image.convert("RGB"))


def read_folders(root: Path) -> dict[str, NDArray[np.uint8]]:
    """Reads the pictures of each folder below `root`, in the order of their paths.

    Links are left out, as are pictures of one colour, broken pictures, those beyond Pillow's limit
    of pixels, and all but the first of pictures that are equal as thumbnails, also of pictures in
    different folders.

    Args:
        root: Holds class/…/picture.png.

    Returns:
        By class, [n, SIDE, SIDE, 3] uint8.
    """
    seen: set[bytes] = set()
    found: dict[str, list[NDArray[np.uint8]]] = defaultdict(list)
    for path in sorted(root.rglob("*.png"), key=Path.as_posix):
        if path.is_symlink():
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                warnings.filterwarnings("ignore", "Palette images with Transparency")
                with Image.open(path) as picture:
                    image = thumbnail(picture)
        except _UNREADABLE:
            continue
        content = image.tobytes()
        if content in seen or (image == image[0, 0]).all():
            continue
        seen.add(content)
        found[path.relative_to(root).parts[0]].append(image)
    return {name: np.stack(images) for name, images in found.items()}


def split_clipart(
    classes: dict[str, NDArray[np.uint8]], least: int = 80, most: int = 400
) -> tuple[Split, Split]:
    """Divides clip art into a train and a test split.

    Args:
        classes: By class, [n, SIDE, SIDE, 3] uint8.
        least: Classes with fewer pictures are left out, as are `MIXED_FOLDERS`.
        most: Pictures of a class that are kept; which ones is fixed.

    Returns:
        The train and the test split; a fifth of each class is "test".

    Raises:
        ValueError: If fewer than two classes have enough pictures.
    """
    train: list[Split] = []
    test: list[Split] = []
    for name, images in sorted(classes.items()):
        if len(images) < least or name in MIXED_FOLDERS:
            continue
        chosen = images[np.random.RandomState(0).permutation(len(images))[:most]]
        held_out = round(len(chosen) / 5)
        for split, part in ((test, chosen[:held_out]), (train, chosen[held_out:])):
            split.append(Split(part, np.full(len(part), name)))
    if len(train) < 2:
        counts = {name: len(images) for name, images in classes.items()}
        raise ValueError(
            f"classes: expected at least two with {least} pictures or more, got {counts}"
        )
    return _joined(train), _joined(test)


def _joined(parts: list[Split]) -> Split:
    images = np.concatenate([part.images for part in parts])
    return Split(images, np.concatenate([part.labels for part in parts])).shuffled()
