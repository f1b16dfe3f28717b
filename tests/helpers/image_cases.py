"""Small images and their files, for tests of how they are read."""

import numpy as np
import pytest
import torch

DRAW = np.random.RandomState(0)
GREY = DRAW.randint(0, 256, (6, 5)).astype(np.uint8)
COLOURED = DRAW.randint(0, 256, (6, 6, 5, 3)).astype(np.uint8)


def write_png(path, array):
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(array).save(path)


def as_tensor(arrays):
    return torch.from_numpy(arrays.transpose(0, 3, 1, 2).copy()).float() / 255
