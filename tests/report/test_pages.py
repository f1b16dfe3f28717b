"""The page of labels."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from report_cases import is_drawn, random_distances, random_samples

from db3kd.report import ClassDistances, Samples, write_report


def test_a_report_has_its_title_notes_and_figures(tmp_path):
    report = write_report(
        tmp_path / "new" / "report",
        "A run",
        notes=["The teacher puts twelve samples in another class."],
        samples=random_samples(3, 3),
        curves={"BD": ([10, 100], [2.0, 1.5])},
        class_distances=random_distances(12, 3),
        class_names=["a", "b", "c"],
    )
    text = report.read_text(encoding="utf-8")
    assert text.startswith("# A run\n\nThe teacher puts twelve samples")
    for picture in ("samples.png", "distance_curve.png", "class_distances.png"):
        assert f"]({picture})" in text
        assert is_drawn(report.parent / picture)


def test_samples_are_listed_with_their_nearest_classes(tmp_path):
    distances = np.array([[0.0, 2.5, np.inf], [np.inf, 0, np.inf], [0.25, 1 / 3, 0]])
    samples = Samples(np.ones((3, 4)), distances, np.array([0, 1, 2]), ["row 3", "row 5", "row 8"])
    text = write_report(tmp_path, "Rows", samples=samples, class_names=["a", "b", "c"]).read_text()
    assert text.endswith(
        "## Samples\n\n"
        "| sample | teacher's class | nearest classes and their distances (L2) |\n"
        "| --- | --- | --- |\n"
        "| row 3 | a | b 2.5 |\n"
        "| row 5 | b | none was reached |\n"
        "| row 8 | c | a 0.25, b 0.333 |\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"], "rows have no picture"


def test_a_report_shows_only_the_figures_that_it_has(tmp_path):
    report = write_report(tmp_path, "A run")
    assert "![" not in report.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]


def test_a_run_without_a_decision_has_a_report_without_samples(tmp_path):
    undecided = ClassDistances(np.full((3, 2), np.inf), np.full(3, -1))
    none = random_samples(0, 2)
    text = write_report(tmp_path, "A run", samples=none, class_distances=undecided).read_text()
    assert "## Samples" not in text and "## Distances between classes" in text
    assert is_drawn(tmp_path / "class_distances.png")


def test_samples_and_distances_are_represented_by_their_shapes():
    assert repr(random_samples(3, 4)) == "Samples(images [3, 1, 8, 8])"
    assert repr(random_distances(12, 3)) == "ClassDistances(distances [12, 3])"
