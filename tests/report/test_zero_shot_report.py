"""The report of a zero-shot run, with figures of pseudo samples."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from report_cases import is_drawn

from db3kd.data.pseudo_samples import PseudoSamples
from db3kd.report import (
    ZeroShotRow,
    accuracy_by_queries,
    class_grid,
    move_grid,
    plot_style,
    pseudo_sample_figures,
    write_zero_shot_report,
    zero_shot_table,
)

ROWS = [
    ZeroShotRow("pseudo samples, decisions", 2000, 2_100, (0.80, 0.82, 0.84), (0.9, 0.9, 0.9)),
    ZeroShotRow("plain noise, decisions", 2000, 2000, (0.5,), (0.6,)),
]


def some_samples(
    count: int = 30,
    classes: int = 3,
    shape: tuple[int, ...] = (1, 6, 6),
    snapshots: tuple[int, ...] = (0, 5, 10),
) -> PseudoSamples:
    """Returns pseudo samples whose distance after n moves is n + 1."""
    generator = torch.Generator().manual_seed(0)
    zeros = torch.zeros(count, dtype=torch.int64)

    def images() -> torch.Tensor:
        return torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)

    return PseudoSamples(
        pixels=images(),
        decision=torch.arange(count) % classes,
        start=torch.arange(count),
        moves=zeros + 10,
        distance=torch.full((count,), 11.0),
        queries=zeros,
        status=["ok"] * count,
        bounds=(0.0, 1.0),
        classes=classes,
        snapshots={n: (images(), torch.full((count,), 1.0 + n)) for n in snapshots},
    )


def test_the_table_shows_images_queries_means_and_sample_deviations():
    lines = zero_shot_table(ROWS).splitlines()

    assert lines[0] == "| students of | images | queries in total | accuracy % | agreement % |"
    assert lines[2] == "| pseudo samples, decisions | 2,000 | 2,100 | 82.0 ± 2.0 | 90.0 ± 0.0 |"
    assert lines[3].startswith("| plain noise, decisions | 2,000 | 2,000 | 50.0")


def test_a_zero_shot_report_has_its_table_notes_and_figures(tmp_path):
    report = write_zero_shot_report(
        tmp_path / "new",
        ROWS,
        some_samples(),
        curves={"pseudo samples": ROWS[:1], "plain noise": ROWS[1:]},
        notes=["Every class has samples."],
    )

    page = report.read_text()
    assert zero_shot_table(ROWS) in page and "Every class has samples." in page
    for name in ("classes", "moves", "distance", "accuracy"):
        assert f"({name}.png)" in page and is_drawn(tmp_path / "new" / f"{name}.png", 100)


def test_samples_without_moves_have_no_figures_of_moves(tmp_path):
    samples = dataclasses.replace(some_samples(snapshots=()), distance=torch.full((30,), torch.inf))

    write_zero_shot_report(tmp_path, [], samples)

    assert {file.name for file in tmp_path.iterdir()} == {"report.md", "classes.png"}


@pytest.mark.parametrize("shape", [(7,), (2, 6, 6), (5, 5)])
def test_samples_that_are_not_images_have_a_report_without_images(tmp_path, shape):
    report = write_zero_shot_report(tmp_path, ROWS, some_samples(shape=shape))

    assert {file.name for file in tmp_path.iterdir()} == {"report.md", "distance.png"}
    assert "classes.png" not in report.read_text()


def test_mean_distances_include_only_samples_with_all_their_distances_known(tmp_path, monkeypatch):
    samples = some_samples(4)
    samples.snapshots[0][1][0] = torch.inf
    samples.snapshots[5][1][1] = 100.0
    samples.snapshots[10][1][:] = torch.tensor([1000.0, 3, 3, torch.inf])
    drawn = []
    monkeypatch.setattr(
        "db3kd.report.zero_shot.distance_by_moves", lambda *arguments: drawn.append(arguments)
    )

    write_zero_shot_report(tmp_path, [], samples)

    assert drawn == [([0, 5, 10], [1.0, 53.0, 3.0], tmp_path / "distance.png")]


def test_distances_are_not_drawn_if_no_sample_has_all_of_them(tmp_path):
    samples = some_samples(2)
    samples.snapshots[0][1][0] = torch.inf
    samples.snapshots[5][1][1] = torch.inf

    write_zero_shot_report(tmp_path, [], samples)

    assert not (tmp_path / "distance.png").exists()


def cell(figure: Figure, row: int, column: int) -> np.ndarray:
    """Returns the part of a drawn grid of images of 6x6 pixels that is at a tick of each axis."""
    axes = figure.axes[0]
    top, left = (
        round(tick - 2.5) for tick in (axes.get_yticks()[row], axes.get_xticks()[0] + 7 * column)
    )
    return axes.images[0].get_array()[top : top + 6, left : left + 6]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were written."""
    written: list[Figure] = []

    def save(figure: Figure, path: Path) -> None:
        written.append(figure)
        plot_style.save(figure, path)

    monkeypatch.setattr(pseudo_sample_figures, "save", save)
    return written


@pytest.mark.parametrize(("classes", "channels"), [(2, 1), (23, 3)])
def test_samples_of_any_number_of_classes_are_drawn(
    tmp_path, monkeypatch, figures, classes, channels
):
    monkeypatch.setattr(pseudo_sample_figures, "_COLUMNS", 3)
    samples = some_samples(40, classes, (channels, 6, 6))

    class_grid(samples.pixels, samples.decision, classes, tmp_path / "classes.png")

    assert is_drawn(tmp_path / "classes.png", 100)
    (axes,) = figures[0].axes
    assert [each.get_text() for each in axes.get_xticklabels()] == ["mean"]
    names = [each.get_text() for each in axes.get_yticklabels()]
    assert len(names) == min(classes, 20)
    for row, name in enumerate(names):
        members = samples.pixels[samples.decision == row].permute(0, 2, 3, 1).squeeze(-1).numpy()
        assert name == f"{row}: {len(members)}"
        shown = dict(enumerate([members.mean(0).round(), *members[:3]]))
        for column in range(4):  # the mean is the last column, the one that has a name
            found = cell(figures[0], row, column - 4 if column else 0)
            assert (found == shown.get(column, 255)).all()


def test_a_class_without_samples_has_an_empty_row(tmp_path, figures):
    samples = some_samples(6, 3)
    pixels = {0: samples.pixels, 5: 255 - samples.pixels}

    class_grid(samples.pixels, samples.decision, 5, tmp_path / "classes.png")
    move_grid(pixels, samples.decision, 5, tmp_path / "moves.png", [*"abcde"])

    assert is_drawn(tmp_path / "classes.png", 100) and is_drawn(tmp_path / "moves.png", 100)
    classes, moves = figures
    assert all((cell(classes, 3, column) == 255).all() for column in range(-12, 1))
    assert not (cell(classes, 2, 0) == 255).all()
    axes = moves.axes[0]
    assert [each.get_text() for each in axes.get_xticklabels()] == ["0 moves", "5 moves"]
    assert [each.get_text() for each in axes.get_yticklabels()] == [*"abcde"]
    for column, shown in enumerate(pixels.values()):
        assert (cell(moves, 1, column) == shown[1, 0].numpy()).all()
        assert (cell(moves, 4, column) == 255).all()


def test_the_mean_image_includes_only_the_given_rows():
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 4, 4)

    mean = pseudo_sample_figures._mean_image(pixels, torch.tensor([0, 2]))

    assert mean == pytest.approx(0.1)


def test_accuracies_of_one_and_of_several_seeds_are_drawn(tmp_path):
    accuracy_by_queries(
        {"pseudo samples": ([100, 1000], [[0.5], [0.6, 0.7]])}, tmp_path / "accuracy.png"
    )

    assert is_drawn(tmp_path / "accuracy.png", 100)
