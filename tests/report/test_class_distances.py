"""Mean distances between classes, and their heat map."""

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from report_cases import is_drawn, random_distances

from db3kd.report import class_distance_matrix, mean_class_distances


def test_class_distances_are_means_over_the_reached_pairs():
    inf = np.inf
    distances = [[0, 1, inf], [9, 3, 4], [5, 9, inf], [1, 7, inf]]
    means, unreached, pairs = mean_class_distances(distances, [0, 1, 1, 1])
    np.testing.assert_array_equal(
        means, [[np.nan, 1, np.nan], [5, np.nan, 4], [np.nan, np.nan, np.nan]]
    )
    assert (unreached, pairs) == (3, 8)


def test_pairs_that_were_not_searched_are_not_called_unreached():
    inf = np.inf
    distances = [[0, 1, inf, inf], [inf, 0, inf, 2], [inf, inf, inf, inf]]
    searched = [[0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 1, 1]]
    _, unreached, pairs = mean_class_distances(distances, [0, 1, -1], np.array(searched, bool))
    assert (unreached, pairs) == (2, 4)

    _, unreached, pairs = mean_class_distances(distances, [0, 1, -1])
    assert (unreached, pairs) == (4, 6), "undecided samples have no pairs"


@pytest.mark.parametrize("value", [0.0, np.inf, np.nan])
def test_the_column_of_the_predicted_class_is_not_read(value):
    means, unreached, _ = mean_class_distances([[value, 2.0]], [0])
    assert means[0, 1] == 2.0
    assert np.isnan(means[0, 0])
    assert unreached == 0


@pytest.mark.parametrize("ones", [np.ones, torch.ones])
def test_the_input_is_not_changed(ones):
    distances = ones((2, 2))
    mean_class_distances(distances, [0, 1])
    assert (distances == 1).all()


def test_tensors_and_arrays_give_equal_means():
    random = random_distances(20, 4)
    from_arrays = mean_class_distances(random.distances, random.decisions)
    from_tensors = mean_class_distances(
        torch.tensor(random.distances), torch.tensor(random.decisions)
    )
    np.testing.assert_equal(from_tensors, from_arrays)


@pytest.mark.parametrize("classes", [2, 10, 25, 100])
def test_the_heat_map_is_drawn_for_any_number_of_classes(tmp_path, classes):
    random = random_distances(4 * classes, classes)
    class_distance_matrix(random.distances, random.decisions, tmp_path / "matrix.png")
    assert is_drawn(tmp_path / "matrix.png")


def test_the_heat_map_is_drawn_if_no_class_was_reached(tmp_path):
    class_distance_matrix(np.full((3, 3), np.inf), [0, 1, 2], tmp_path / "matrix.png")
    assert is_drawn(tmp_path / "matrix.png")


def test_distances_and_decisions_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"expected the shapes \[N, C\] and \[N\], got \[2, 3\]"):
        mean_class_distances(np.ones((2, 3)), [0])
