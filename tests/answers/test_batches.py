"""Batches of answers, and of images that proxies answer, against references."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from db3kd.answers.answers import CLEAN_SHARE, NUMBERS, Answers, augmentable_images, no_answers
from db3kd.answers.batches import (
    AnsweredBatches,
    ProxyTaughtBatches,
    TaughtLoss,
    answered_probabilities,
    mean_probabilities,
)
from db3kd.training.process import TrainingProcess

SAMPLES, HELD_OUT, CLASSES = 20, 5, 3
PROCESS = TrainingProcess(torch.device("cpu"), "no")


def answers(augmented: int = 60) -> Answers:
    """All samples and some augmented images; the class is in proportion to the brightness."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(SAMPLES, 1, 4, 4, generator=generator)
    images = augmentable_images(pixels, torch.arange(SAMPLES), HELD_OUT, seed=1)
    samples = torch.randint(SAMPLES - HELD_OUT, (augmented,), generator=generator)
    numbers = torch.randperm(NUMBERS - 1, generator=generator)[:augmented] + 1
    rows = torch.cat([torch.arange(SAMPLES) * NUMBERS, samples * NUMBERS + numbers])
    brightness = images.read(rows).mean((1, 2, 3))
    return no_answers(images).add(rows, (brightness * CLASSES).long().clamp(0, CLASSES - 1))


def row_of(image: Tensor, known: Answers) -> int:
    """Returns the place of an image among the answers, or -1."""
    same = (known.images.read(known.rows) == image).flatten(1).all(1).nonzero()
    return int(same[0]) if len(same) else -1


def proxies() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).eval() for _ in range(2)]


SOURCES = {
    "answered": lambda known, seed: AnsweredBatches(known, 24, seed),
    "taught": lambda known, seed: ProxyTaughtBatches(known, proxies(), 24, seed),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_batch_depends_on_its_step_and_the_arguments_alone(source):
    known = answers().training
    first = SOURCES[source](known, 5).open(PROCESS)
    batches = [first(step) for step in range(4)]
    torch.manual_seed(99)
    second = SOURCES[source](known, 5).open(PROCESS)

    for step in (3, 0, 2):
        assert all(a.equal(b) for a, b in zip(second(step), batches[step], strict=True))
    assert not batches[0][0].equal(batches[1][0])
    assert not SOURCES[source](known, 6).open(PROCESS)(0)[0].equal(batches[0][0])


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("count", [2, 3])
def test_the_parts_of_several_processes_are_the_batch_of_one(source, count):
    known = answers().training
    whole = SOURCES[source](known, 0).open(PROCESS)(7)
    parts = [
        SOURCES[source](known, 0).open(TrainingProcess(torch.device("cpu"), "no", index, count))(7)
        for index in range(count)
    ]

    def keys(images: Tensor) -> list[bytes]:
        return sorted(image.numpy().tobytes() for image in images)

    assert keys(torch.cat([part[0] for part in parts])) == keys(whole[0])
    assert max(len(part[0]) for part in parts) - min(len(part[0]) for part in parts) <= 2


def test_answered_batches_hold_training_images_with_their_decisions():
    known = answers()
    batch = AnsweredBatches(known.training, 24, 0).open(PROCESS)
    for step in range(10):
        images, decisions = batch(step)
        assert images.shape == (24, 1, 4, 4) and decisions.dtype == torch.int64
        rows = [row_of(image, known) for image in images]
        assert min(rows) >= 0
        assert not known.is_held_out[rows].any()
        assert known.decisions[rows].equal(decisions)


ANSWERS = answers().training


@given(size=st.integers(1, 40))
def test_at_least_the_clean_share_of_a_batch_are_samples(size):
    images, _ = AnsweredBatches(ANSWERS, size, 0).open(PROCESS)(1)
    clean = sum(bool(ANSWERS.is_clean[row_of(image, ANSWERS)]) for image in images)
    assert len(images) == size
    assert clean >= round(CLEAN_SHARE * size)


def test_a_clean_share_needs_both_kinds_of_answers():
    known = answers().training
    for only in (known.clean, answers(0).training):
        images, _ = AnsweredBatches(only, 16, 0).open(PROCESS)(0)
        assert len(images) == 16


def test_balance_draws_rare_classes_as_often_as_common_ones():
    images = augmentable_images(torch.rand(100, 1, 4, 4), torch.arange(100), 1, seed=0)
    decisions = torch.zeros(99, dtype=torch.int64)
    decisions[:11], decisions[11:14] = 1, 2  # 85, 11 and 3 images
    known = no_answers(images).add(torch.arange(99) * NUMBERS, decisions)

    def shares(balance: float) -> Tensor:
        batch = AnsweredBatches(known, 500, 0, balance=balance).open(PROCESS)
        drawn = torch.cat([batch(step)[1] for step in range(10)])
        return torch.bincount(drawn, minlength=3) / len(drawn)

    torch.testing.assert_close(shares(1.0), torch.full((3,), 1 / 3), atol=0.03, rtol=0)
    torch.testing.assert_close(shares(0.0), torch.tensor([85.0, 11.0, 3.0]) / 99, atol=0.03, rtol=0)


def test_proxies_answer_every_image_and_new_ones_have_no_decision():
    known, teachers = answers().training, proxies()
    batch = ProxyTaughtBatches(known, teachers, 25, 0, answered_share=0.4).open(PROCESS)
    asked = set()
    for step in range(5):
        images, decisions, probabilities = batch(step)
        assert (decisions >= 0).tolist() == [True] * 10 + [False] * 15
        torch.testing.assert_close(probabilities, mean_probabilities(teachers, images))
        rows = [row_of(image, known) for image in images]
        assert min(rows[:10]) >= 0 and set(rows[10:]) == {-1}, "new images were never asked about"
        assert known.decisions[rows[:10]].equal(decisions[:10])
        asked |= {image.numpy().tobytes() for image in images[10:]}
    assert len(asked) == 5 * 15, "no new image is repeated"


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_probabilities_that_are_known_are_those_of_each_batch(share):
    known, teachers = answers().training, proxies()
    batches = ProxyTaughtBatches(known, teachers, 25, 0, answered_share=share)
    kept = replace(batches, known=partial(answered_probabilities, teachers, known))
    for step in range(3):
        for one, other in zip(batches.open(PROCESS)(step), kept.open(PROCESS)(step), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_batch_may_be_all_answered_or_all_new(share):
    known = answers().training
    batch = ProxyTaughtBatches(known, proxies(), 8, 0, answered_share=share).open(PROCESS)
    images, decisions, _ = batch(0)
    assert len(images) == 8 and int((decisions >= 0).sum()) == 8 * share


def test_mean_probabilities_are_the_mean_of_softmaxes():
    teachers, images = proxies(), torch.rand(6, 1, 4, 4)
    expected = sum(torch.softmax(each(images), 1) for each in teachers) / 2
    found = mean_probabilities(teachers, images)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


@given(
    alpha=st.floats(0, 1),
    decisions=st.lists(st.integers(-1, CLASSES - 1), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_the_loss_is_that_of_an_eager_reference(alpha, decisions, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(len(decisions), CLASSES, generator=generator)
    probabilities = torch.softmax(torch.randn(len(decisions), CLASSES, generator=generator), 1)
    expected = 0.0
    for scores, decision, soft in zip(logits, decisions, probabilities, strict=True):
        logs = [float(score) - float(torch.logsumexp(scores, 0)) for score in scores]
        of_soft = -sum(float(p) * log for p, log in zip(soft, logs, strict=True))
        if decision < 0:
            expected += of_soft
        else:
            expected += alpha * -logs[decision] + (1 - alpha) * of_soft
    found = TaughtLoss(alpha)(logits, torch.tensor(decisions), probabilities)
    assert math.isclose(float(found), expected / len(decisions), rel_tol=1e-4, abs_tol=1e-5)


def test_a_loss_of_decisions_alone_is_cross_entropy():
    logits, decisions = torch.randn(9, CLASSES), torch.arange(9) % CLASSES
    probabilities = torch.full((9, CLASSES), 1 / CLASSES)
    torch.testing.assert_close(
        TaughtLoss(1.0)(logits, decisions, probabilities), F.cross_entropy(logits, decisions)
    )
