"""Random draws of samples, and samples of each class."""

import pytest
import torch

from db3kd.data.sample_choice import draw_samples, spread_over_classes


def test_samples_are_spread_over_the_classes():
    rows = spread_over_classes(torch.tensor([1, 1, 1, -1, 0, 2, 2]), 4)

    assert rows.tolist() == [4, 0, 1, 5]


def test_a_limit_draws_different_images_by_seed_in_ascending_order():
    first, second = (draw_samples(1000, 10, seed) for seed in (0, 1))

    assert first.tolist() == sorted(set(first.tolist())) and len(first) == 10
    assert first.tolist() != second.tolist()
    assert draw_samples(5, 10, 0).tolist() == draw_samples(5, None, 0).tolist() == [0, 1, 2, 3, 4]


def test_a_limit_of_zero_is_refused():
    with pytest.raises(ValueError, match="limit: expected at least 1"):
        draw_samples(5, 0, 0)
