"""Arrays to draw, and a check that a figure shows something."""

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from db3kd.report import ClassDistances, Samples


def is_drawn(path: Path, smallest_side: int = 200) -> bool:
    """Returns whether a PNG file is large enough and not blank."""
    picture = imread(path)
    return min(picture.shape[:2]) > smallest_side and picture[..., :3].std() > 0.01


def random_samples(count: int, classes: int, channels: int = 1) -> Samples:
    """Returns random 8x8 images with random distances and decisions."""
    random = np.random.default_rng(classes)
    return Samples(
        images=random.random((count, channels, 8, 8)),
        distances=random.gamma(9, 0.2, (count, classes)),
        decisions=random.integers(0, classes, count),
        names=[f"image {number}" for number in range(count)],
    )


def random_distances(count: int, classes: int) -> ClassDistances:
    """Returns random distances, a tenth of them not reached, with random decisions."""
    random = np.random.default_rng(classes)
    distances = random.gamma(9, 0.2, (count, classes))
    distances[random.random((count, classes)) < 0.1] = np.inf
    return ClassDistances(distances, random.integers(0, classes, count))
