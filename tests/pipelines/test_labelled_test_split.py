"""Students of a label run are measured on the test split of its data set, if it is usable."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from teachers_analytic import LinearTeacher

import db3kd
from db3kd.labelling.runs.label_run import LabelRun, open_run
from db3kd.pipelines.label_distillation import labelled_test_split


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Image folders with two training images and two test images of each class."""
    draw = np.random.default_rng(0)
    for split, name in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")):
        folder = tmp_path / "images" / split / name
        folder.mkdir(parents=True)
        for number in range(2):
            pixels = draw.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture
def run(images: Path, tmp_path: Path) -> LabelRun:
    weights = torch.stack([torch.linspace(-1, 1, 16), torch.linspace(1, -1, 16)])
    teacher = LinearTeacher(weights, torch.zeros(2), (1, 4, 4))
    data = db3kd.load_data(images)
    db3kd.label(teacher, data, db3kd.LabelSettings(measure="sd"), out=tmp_path / "run")
    return open_run(tmp_path / "run", str(images))


def test_the_test_split_is_measured(run):
    found = labelled_test_split(run)
    assert found is not None and found.labels is not None
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_a_broken_test_image_is_warned_of_before_the_training(run, images, caplog):
    (images / "test" / "b" / "1.png").write_bytes(b"<html>")

    assert labelled_test_split(run) is None

    assert "no accuracy is measured, because the test split is unusable: images" in caplog.text
    assert "test/b/1.png: expected an image" in caplog.text


def test_a_test_split_of_other_classes_is_passed_over(run, images, caplog):
    (images / "test" / "b").rename(images / "test" / "c")

    assert labelled_test_split(run) is None

    assert not caplog.records
