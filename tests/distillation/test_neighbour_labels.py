"""Soft labels of answered images from their distances to each other."""

import torch
from torch import Tensor

from db3kd.distillation import neighbour_labels as module
from db3kd.distillation.answer_batches import AnsweredBatches
from db3kd.distillation.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.distillation.neighbour_labels import NEIGHBOUR_TEMPERATURE, neighbour_labels
from db3kd.distillation.training_process import TrainingProcess

CLASSES = 4


def answers(decisions: Tensor) -> Answers:
    """Samples with these decisions, in another order, and an augmented image after each."""
    count = len(decisions)
    pixels = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    samples = torch.arange(count)
    rows = torch.stack([samples * NUMBERS, samples * NUMBERS + 1], 1).flatten()
    known = no_answers(augmentable_images(pixels, order, 0, seed=1))
    return known.add(rows, decisions[order].repeat_interleave(2))


def some() -> Answers:
    """Thirty samples in three of the four classes."""
    return answers(torch.arange(30) % 3)


def distances_of(known: Answers) -> Tensor:
    """The distance of each sample to the nearest sample of each class."""
    clean = known.clean
    pixels = clean.as_source().read(torch.arange(len(clean))).flatten(1).double()
    every = torch.cdist(pixels, pixels)
    columns = []
    for number in range(CLASSES):
        members = every[:, clean.decisions == number]
        empty = torch.full((len(clean),), torch.inf, dtype=torch.float64)
        columns.append(members.amin(1) if members.shape[1] else empty)
    return torch.stack(columns, 1)


def test_samples_get_the_margins_of_the_nearest_samples_and_others_nothing():
    known = some()
    soft = neighbour_labels(known, CLASSES)
    distances = distances_of(known)
    own = known.clean.decisions
    rows = torch.arange(len(own))
    distances[rows, own] = torch.inf
    scale = 12.0 / distances.amin(1).median()
    logits = -scale * distances / NEIGHBOUR_TEMPERATURE
    logits[rows, own] = 0.0
    torch.testing.assert_close(soft[known.is_clean], logits.softmax(1).float())
    assert not soft[~known.is_clean].any()


def test_without_a_second_class_there_is_no_soft_label():
    assert not neighbour_labels(answers(torch.ones(9, dtype=torch.int64)), CLASSES).any()


def test_equal_images_in_two_classes_share_their_label():
    pixels = torch.full((3, 1, 4, 4), 0.5)
    known = no_answers(augmentable_images(pixels, torch.arange(3), 0, seed=1))
    known = known.add(torch.arange(3) * NUMBERS, torch.tensor([0, 2, 2]))
    expected = torch.tensor([0.5, 0.0, 0.5, 0.0]).expand(3, -1)
    torch.testing.assert_close(neighbour_labels(known, CLASSES), expected)


def test_only_so_many_samples_get_labels_and_parts_do_not_matter(monkeypatch):
    whole = neighbour_labels(some(), CLASSES)
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    assert torch.equal(neighbour_labels(some(), CLASSES), whole)
    monkeypatch.setattr(module, "MOST_IMAGES", 10)
    assert int(neighbour_labels(some(), CLASSES).any(1).sum()) == 10


def test_batches_hold_the_soft_label_of_each_image():
    known = some()
    soft = neighbour_labels(known, CLASSES)
    source = AnsweredBatches(known, 16, 0, soft_labels=soft)
    images, decisions, labels = source.open(TrainingProcess(torch.device("cpu"), "no"))(3)
    plain = AnsweredBatches(known, 16, 0).open(TrainingProcess(torch.device("cpu"), "no"))(3)
    assert torch.equal(images, plain[0])
    assert torch.equal(decisions, plain[1])
    every = known.as_source().read(torch.arange(len(known)))
    for image, label in zip(images, labels, strict=True):
        same = (every == image).flatten(1).all(1).nonzero()[0, 0]
        assert torch.equal(label, soft[same])
