"""Figures of labelled samples."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from report_cases import is_drawn, random_samples

from db3kd.report import distance_curve, sample_grid
from db3kd.report.label_figures import nearest_classes


@pytest.mark.parametrize(
    ("count", "classes", "channels"), [(1, 2, 1), (7, 10, 3), (3, 100, 3), (2, 3, 5)]
)
def test_samples_are_drawn_for_any_number_of_classes(tmp_path, count, classes, channels):
    random = random_samples(count, classes, channels)
    names = [f"class {number}" for number in range(classes)]
    sample_grid(
        random.images,
        random.distances,
        random.decisions,
        tmp_path / "grid.png",
        class_names=names,
    )
    assert is_drawn(tmp_path / "grid.png")


def test_the_nearest_classes_leave_out_the_own_class_and_those_not_reached():
    distances = [3.0, 0.0, np.inf, 1.0, 2.0, 7.0, 6.0, 5.0]
    assert nearest_classes(distances, 1) == [(3, 1.0), (4, 2.0), (0, 3.0), (7, 5.0), (6, 6.0)]
    assert nearest_classes([np.inf, 0.0, np.inf], 1) == []


def test_a_sample_that_reached_no_class_is_drawn_too(tmp_path):
    distances, path = np.array([[0, np.inf], [1.5, 0]]), tmp_path / "grid.png"
    sample_grid(np.zeros((2, 1, 8, 8)), distances, [0, 1], path)
    assert is_drawn(path)


def test_a_curve_is_drawn_from_its_finite_points(tmp_path):
    curves = {
        "BD": ([0, 50, 100], [np.inf, 2.0, np.nan]),
        "MBD": ([100, 1000], [1.9, 1.2]),
        "empty": ([], []),
    }
    distance_curve(curves, tmp_path / "curve.png", "ratio to the optimum")
    assert is_drawn(tmp_path / "curve.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.ones((3, 8, 8))}, r"images: expected the shape \[N, channels"),
        ({"images": np.ones((3, 0, 8, 8))}, r"got \[3, 0, 8, 8\]"),
        ({"images": np.ones((0, 1, 8, 8))}, "N > 0"),
        ({"distances": np.ones((2, 4))}, r"expected the shapes \[3, C\]"),
        ({"class_names": ["one"]}, "class_names: expected 4 names, got 1"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, change, message):
    samples = random_samples(3, 4)
    given = {name: getattr(samples, name) for name in ("images", "distances", "decisions")}
    arguments = given | {"path": tmp_path / "grid.png"} | change
    with pytest.raises(ValueError, match=message):
        sample_grid(**arguments)
