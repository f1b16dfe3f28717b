"""Soft labels of answered images from their distances to each other."""

import pytest
import torch
from torch import Tensor

from db3kd.answers import neighbour_labels as module
from db3kd.answers.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.answers.batches import AnsweredBatches
from db3kd.answers.neighbour_labels import NEIGHBOUR_TEMPERATURE, neighbour_labels
from db3kd.training.process import TrainingProcess

CLASSES = 4


def answers(decisions: Tensor, contrast: float = 1.0, size: int = 4) -> Answers:
    """Samples with these decisions, in another order, and an augmented image after each."""
    count = len(decisions)
    pixels = torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))
    pixels = 0.9 + contrast * (pixels - 0.5) if contrast < 1 else pixels
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    samples = torch.arange(count)
    rows = torch.stack([samples * NUMBERS, samples * NUMBERS + 1], 1).flatten()
    known = no_answers(augmentable_images(pixels, order, 0, seed=1))
    return known.add(rows, decisions[order].repeat_interleave(2))


def some() -> Answers:
    """Thirty samples in three of the four classes."""
    return answers(torch.arange(30) % 3)


def expected_labels(known: Answers) -> Tensor:
    """The margins of the distances of each sample to the nearest sample of each class."""
    known = known.clean
    pixels = known.as_source().read(torch.arange(len(known))).flatten(1).double()
    every = torch.cdist(pixels, pixels)
    columns = []
    for number in range(CLASSES):
        members = every[:, known.decisions == number]
        empty = torch.full((len(known),), torch.inf, dtype=torch.float64)
        columns.append(members.amin(1) if members.shape[1] else empty)
    distances = torch.stack(columns, 1)
    rows = torch.arange(len(known))
    distances[rows, known.decisions] = torch.inf
    scale = 12.0 / distances.amin(1).median()
    logits = -scale * distances / NEIGHBOUR_TEMPERATURE
    logits[rows, known.decisions] = 0.0
    return logits.softmax(1).float()


def test_samples_get_the_margins_of_the_nearest_samples_and_others_nothing():
    known = some()
    soft = neighbour_labels(known, CLASSES)
    torch.testing.assert_close(soft[known.is_clean], expected_labels(known), atol=1e-4, rtol=1e-4)
    assert not soft[~known.is_clean].any()


def test_labels_of_images_of_low_contrast_are_those_of_their_exact_distances():
    known = answers(torch.arange(30) % 3, contrast=1e-3, size=32)
    soft = neighbour_labels(known, CLASSES)
    torch.testing.assert_close(soft[known.is_clean], expected_labels(known), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("block", [1, 7, 29])
def test_the_size_of_blocks_does_not_matter(block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    known = some()
    soft = neighbour_labels(known, CLASSES)
    torch.testing.assert_close(soft[known.is_clean], expected_labels(known), atol=1e-4, rtol=1e-4)


def test_without_a_second_class_there_is_no_soft_label():
    assert not neighbour_labels(answers(torch.ones(9, dtype=torch.int64)), CLASSES).any()


def test_equal_images_in_two_classes_share_their_label():
    pixels = torch.full((3, 1, 4, 4), 0.5)
    known = no_answers(augmentable_images(pixels, torch.arange(3), 0, seed=1))
    known = known.add(torch.arange(3) * NUMBERS, torch.tensor([0, 2, 2]))
    expected = torch.tensor([0.5, 0.0, 0.5, 0.0]).expand(3, -1)
    torch.testing.assert_close(neighbour_labels(known, CLASSES), expected, atol=1e-3, rtol=0)


def test_only_so_many_samples_get_labels(monkeypatch):
    monkeypatch.setattr(module, "MOST_IMAGES", 10)
    known = some()
    soft = neighbour_labels(known, CLASSES)
    first = known.select(torch.arange(20))
    torch.testing.assert_close(
        soft[:20][first.is_clean], expected_labels(first), atol=1e-4, rtol=1e-4
    )
    assert not soft[20:].any()


def test_batches_hold_the_soft_label_of_each_image():
    known = some()
    soft = neighbour_labels(known, CLASSES)
    source = AnsweredBatches(known, 16, 0, soft_labels=lambda: soft)
    images, decisions, labels = source.open(TrainingProcess(torch.device("cpu"), "no"))(3)
    plain = AnsweredBatches(known, 16, 0).open(TrainingProcess(torch.device("cpu"), "no"))(3)
    assert torch.equal(images, plain[0])
    assert torch.equal(decisions, plain[1])
    every = known.as_source().read(torch.arange(len(known)))
    for image, label in zip(images, labels, strict=True):
        same = (every == image).flatten(1).all(1).nonzero()[0, 0]
        assert torch.equal(label, soft[same])
