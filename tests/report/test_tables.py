"""Reports: the table says what was measured, and pictures appear for any number of classes."""

import io

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from matplotlib.image import imread
from rich.console import Console

from db3kd.distillation.strategies import StrategyResult
from db3kd.report.tables import (
    ClassDistances,
    Samples,
    class_distance_matrix,
    comparison_table,
    distance_curve,
    mean_class_distances,
    sample_grid,
    write_report,
)

ROWS = [
    StrategyResult("BD, margin", [0.80, 0.82, 0.84], [0.9, 0.9, 0.9], 1486.3),
    StrategyResult("white-box KD", [0.861, 0.862, 0.863], [0.88, 0.89, 0.9], None),
]


def is_drawn(path) -> bool:
    picture = imread(path)
    return min(picture.shape[:2]) > 200 and picture[..., :3].std() > 0.01


def some_samples(n: int, classes: int, channels: int = 1) -> Samples:
    random = np.random.default_rng(classes)
    return Samples(
        images=random.random((n, channels, 8, 8)),
        soft_labels=random.dirichlet(np.ones(classes), n),
        decisions=random.integers(0, classes, n),
    )


def some_distances(n: int, classes: int) -> ClassDistances:
    random = np.random.default_rng(classes)
    distances = random.gamma(9, 0.2, (n, classes))
    distances[random.random((n, classes)) < 0.1] = np.inf
    return ClassDistances(distances, random.integers(0, classes, n))


def test_the_table_gives_means_and_sample_deviations_in_percent():
    markdown, _ = comparison_table(ROWS)
    assert "| BD, margin | 82.0 ± 2.0 | 90.0 ± 0.0 | 1,486 |\n" in markdown


def test_a_white_box_has_no_queries():
    markdown, _ = comparison_table(ROWS)
    assert "| white-box KD | 86.2 ± 0.1 | 89.0 ± 1.0 | \N{EN DASH} |\n" in markdown


def test_one_seed_has_no_deviation_and_none_no_mean():
    markdown, _ = comparison_table([StrategyResult("CE", [0.5], [], 1)])
    assert "| CE | 50.0 | \N{EN DASH} | 1 |\n" in markdown


def test_a_bar_in_a_name_does_not_break_the_table():
    markdown, _ = comparison_table([StrategyResult("KL(q|p)", [0.5], [0.5], 1)])
    assert r"KL(q\|p)" in markdown


def test_the_screen_shows_the_same_cells():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(comparison_table(ROWS)[1])
    text = console.export_text()
    assert all(cell in text for cell in ("82.0 ± 2.0", "1,486", "\N{EN DASH}"))


def test_class_distances_are_means_over_what_was_reached():
    inf = np.inf
    distances = [[0, 1, inf], [9, 3, 4], [5, 9, inf], [1, 7, inf]]
    means, unreached, pairs = mean_class_distances(distances, [0, 1, 1, 1])
    np.testing.assert_array_equal(
        means, [[np.nan, 1, np.nan], [5, np.nan, 4], [np.nan, np.nan, np.nan]]
    )
    assert (unreached, pairs) == (3, 8)


def test_the_own_column_is_not_read():
    for own in (0.0, np.inf, np.nan):
        means, unreached, _ = mean_class_distances([[own, 2.0]], [0])
        assert means[0, 1] == 2.0
        assert np.isnan(means[0, 0])
        assert unreached == 0


@pytest.mark.parametrize("made", [np.ones, torch.ones])
def test_class_distances_leave_their_input_alone(made):
    distances = made((2, 2))
    mean_class_distances(distances, [0, 1])
    assert (distances == 1).all()


def test_tensors_are_taken_as_arrays_are():
    drawn = some_distances(20, 4)
    from_arrays = mean_class_distances(drawn.distances, drawn.decisions)
    from_tensors = mean_class_distances(
        torch.tensor(drawn.distances), torch.tensor(drawn.decisions)
    )
    np.testing.assert_equal(from_tensors, from_arrays)


@pytest.mark.parametrize("classes", [2, 10, 25, 100])
def test_a_matrix_is_drawn_for_any_number_of_classes(tmp_path, classes):
    drawn = some_distances(4 * classes, classes)
    class_distance_matrix(drawn.distances, drawn.decisions, tmp_path / "matrix.png")
    assert is_drawn(tmp_path / "matrix.png")


def test_a_matrix_is_drawn_where_nothing_was_reached(tmp_path):
    class_distance_matrix(np.full((3, 3), np.inf), [0, 1, 2], tmp_path / "matrix.png")
    assert is_drawn(tmp_path / "matrix.png")


@pytest.mark.parametrize(("n", "classes", "channels"), [(1, 2, 1), (7, 10, 3), (3, 100, 3)])
def test_a_grid_is_drawn_for_any_number_of_classes(tmp_path, n, classes, channels):
    drawn = some_samples(n, classes, channels)
    names = [f"class {number}" for number in range(classes)]
    sample_grid(
        drawn.images,
        drawn.soft_labels,
        drawn.decisions,
        tmp_path / "grid.png",
        class_names=names,
    )
    assert is_drawn(tmp_path / "grid.png")


def test_a_curve_is_drawn_from_what_is_finite(tmp_path):
    curves = {
        "BD": ([0, 50, 100], [np.inf, 2.0, np.nan]),
        "MBD": ([100, 1000], [1.9, 1.2]),
        "nothing": ([], []),
    }
    distance_curve(curves, tmp_path / "curve.png", "ratio to the optimum")
    assert is_drawn(tmp_path / "curve.png")


def test_a_report_has_the_table_and_every_picture_it_shows(tmp_path):
    report = write_report(
        tmp_path / "new" / "report",
        ROWS,
        title="A run",
        notes=["Twelve samples were put in another class."],
        samples=some_samples(3, 3),
        curves={"BD": ([10, 100], [2.0, 1.5])},
        class_distances=some_distances(12, 3),
        class_names=["a", "b", "c"],
    )
    text = report.read_text(encoding="utf-8")
    assert text.startswith("# A run\n\n| method |")
    assert "over 3 seeds" in text
    assert "Twelve samples" in text
    for picture in ("samples.png", "distance_curve.png", "class_distances.png"):
        assert f"]({picture})" in text
        assert is_drawn(report.parent / picture)


def test_a_report_names_no_picture_it_does_not_have(tmp_path):
    report = write_report(tmp_path, ROWS)
    assert "![" not in report.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.ones((3, 8, 8))}, r"images: expected \[n, 1 or 3"),
        ({"images": np.ones((3, 2, 8, 8))}, r"got \[3, 2, 8, 8\]"),
        ({"images": np.ones((0, 1, 8, 8))}, "n > 0"),
        ({"soft_labels": np.ones((2, 4))}, r"expected \[3, C\]"),
        ({"class_names": ["one"]}, "class_names: expected 4 names, got 1"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(tmp_path, change, message):
    arguments = vars(some_samples(3, 4)) | {"path": tmp_path / "grid.png"} | change
    with pytest.raises(ValueError, match=message):
        sample_grid(**arguments)


def test_distances_without_their_decisions_are_refused():
    with pytest.raises(ValueError, match=r"distances, decisions: expected \[n, C\] and \[n\]"):
        mean_class_distances(np.ones((2, 3)), [0])
