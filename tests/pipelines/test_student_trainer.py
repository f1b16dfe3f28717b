"""Choices by held-out agreement are not made by chance."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from db3kd.answers.answers import NUMBERS, augmentable_images, no_answers
from db3kd.pipelines.student_training.rules import (
    answered_share,
    learns_from_new_mixtures,
    proxies_usually_help,
)
from db3kd.pipelines.student_training.student_trainer import standard_errors_above


@pytest.mark.parametrize(
    ("gained", "lost", "errors"), [(0, 0, 0.0), (9, 0, 3.0), (0, 4, -2.0), (10, 6, 1.0)]
)
def test_only_images_on_which_two_networks_differ_count(gained, lost, errors):
    agrees = torch.tensor([True] * gained + [False] * lost + [True] * 50 + [False] * 5)
    others = torch.tensor([False] * gained + [True] * lost + [True] * 50 + [False] * 5)

    assert standard_errors_above(agrees, others) == pytest.approx(errors)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_the_difference_is_antisymmetric(pairs):
    agrees, others = torch.tensor(pairs, dtype=torch.bool).reshape(-1, 2).unbind(1)

    assert standard_errors_above(agrees, others) == -standard_errors_above(others, agrees)


def with_normalisation() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))


def plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("each", "steps", "new_mixtures", "usually"),
    [
        (1, 100, True, True),
        (4, 100, False, True),
        (5, 5_999, True, False),
        (5, 6_000, True, True),
        (20, 12_000, True, True),
        (20, 12_000, False, False),
    ],
)
def test_proxies_help_with_few_answers_or_long_training(each, steps, new_mixtures, usually):
    assert proxies_usually_help(4 * each, 4, steps, new_mixtures) is usually


@pytest.mark.parametrize(
    ("make", "shape", "learns"),
    [(plain, (1, 2, 2), True), (plain, (4,), False), (with_normalisation, (1, 2, 2), False)],
)
def test_new_mixtures_are_for_images_and_students_without_normalisation(make, shape, learns):
    assert learns_from_new_mixtures(make, make, shape) is learns


@pytest.mark.parametrize(("hidden", "learns"), [(100, True), (12, True), (7, False)])
def test_new_mixtures_are_for_students_that_are_not_much_smaller_than_proxies(hidden, learns):
    def network(width: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, 3))

    small, large = partial(network, hidden), partial(network, 100)
    assert learns_from_new_mixtures(small, large, (1, 2, 2)) is learns


@pytest.mark.parametrize(
    ("make", "asked", "share"),
    [
        (with_normalisation, 8, 1.0),
        (with_normalisation, 7, 0.5),  # it sees the eighth image only in new mixtures
        (plain, 8, 0.5),
    ],
)
def test_batch_normalisation_sees_no_new_mixtures_of_answered_images(make, asked, share):
    samples = torch.arange(asked)
    rows = torch.cat([samples * NUMBERS, samples * NUMBERS + 1])
    images = augmentable_images(torch.rand(10, 1, 2, 2), torch.arange(10), 2, seed=0)
    known = no_answers(images).add(rows, rows % 3)

    before = torch.get_rng_state()
    assert answered_share(make, known.training) == share
    assert torch.get_rng_state().equal(before)
