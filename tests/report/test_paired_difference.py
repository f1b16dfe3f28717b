"""Paired differences: against exact tests, and against how often chance alone is called a win."""

import math
from fractions import Fraction

import numpy as np
import pytest

from db3kd.report.paired_difference import paired_difference, sign_test


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (6, 0), (1, 8), (40, 60), (3, 3)])
def test_the_sign_test_is_the_exact_binomial_one(gained, lost):
    total = gained + lost
    tail = sum(math.comb(total, each) for each in range(min(gained, lost) + 1))
    exact = min(Fraction(1), Fraction(2 * tail, 2**total))
    assert math.isclose(sign_test(gained, lost), float(exact), rel_tol=1e-9)


def test_the_sign_test_of_many_images_is_finite():
    assert sign_test(300_000, 301_000) < 1 and sign_test(0, 100_000) < 1e-300


def test_the_interval_of_one_seed_is_that_of_paired_shares():
    generator = np.random.default_rng(0)
    first, second = generator.random((1, 2_000)) < 0.8, generator.random((1, 2_000)) < 0.75
    difference = first.astype(float) - second
    error = difference.std() / math.sqrt(2_000)

    found = paired_difference(first, second)

    assert found.difference == pytest.approx(difference.mean())
    low, high = found.interval
    assert low == pytest.approx(difference.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(difference.mean() + 1.96 * error, abs=0.15 * error)


def test_students_that_agree_on_most_images_differ_by_little_that_still_counts():
    first = np.ones((3, 1_000), bool)
    first[:, :200] = False
    second = first.copy()
    second[:, 200:220] = False  # 78 and 80 %, whose own intervals overlap

    found = paired_difference(first, second)

    assert not found.may_be_chance and found.difference == pytest.approx(0.02)
    assert 0.01 < found.interval[0] < 0.02 < found.interval[1] < 0.03
    swapped = paired_difference(second, first)
    assert swapped.difference == pytest.approx(-0.02) and not swapped.may_be_chance


def test_the_luck_of_a_seed_is_counted():
    first, second = np.zeros((3, 10_000), bool), np.zeros((3, 10_000), bool)
    first[0, :6_000], first[1, :5_000], first[2, :4_000] = True, True, True
    second[0, :5_000], second[1, :5_200], second[2, :4_100] = True, True, True

    assert paired_difference(first, second).may_be_chance
    assert not paired_difference(first[:1], second[:1]).may_be_chance


def test_few_images_prove_nothing():
    assert paired_difference(np.ones((1, 5), bool), np.zeros((1, 5), bool)).may_be_chance
    assert not paired_difference(np.ones((1, 6), bool), np.zeros((1, 6), bool)).may_be_chance
    assert paired_difference(np.ones((2, 9), bool), np.ones((2, 9), bool)).may_be_chance


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_students_are_seldom_told_apart(seeds):
    generator = np.random.default_rng(1)
    wrong = 0
    for _ in range(100):
        both = generator.random((2, seeds, 300)) < 0.8
        wrong += not paired_difference(*both).may_be_chance
    assert wrong <= 10


def test_groups_of_other_images_are_refused():
    with pytest.raises(ValueError, match=r"second: expected \[1, 5\], .* got \[1, 6\]"):
        paired_difference(np.ones((1, 5), bool), np.ones((1, 6), bool))
