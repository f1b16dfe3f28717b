"""Draws docs/method.png, which explains the method, by `python docs/figures/method.py`.

docs/method-narrow.png is the same for phones. Everything in it is computed: the queries, the
distances, the soft label and the student are those of db3kd for a teacher of
images with two pixels.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

import db3kd
from db3kd.report.plot_style import COLOURS, MARKERS

NAMES = ("A", "B", "C")
SCALE = 12.0
SAMPLE = torch.tensor([[0.34, 0.47]])
FONT_SIZE = 12
PALE = ListedColormap(["#CCE3F0", "#F7DFCC", "#CCECE3"])


class Teacher:
    """Three curved regions of the unit square; keeps the queries that it is asked."""

    image_shape, classes, bounds = (1, 1, 2), 3, (0.0, 1.0)
    max_batch, device = 4096, torch.device("cpu")

    def __init__(self) -> None:
        self.asked: list[Tensor] = []

    def decide(self, images: Tensor) -> Tensor:
        """Returns the region of each image [N, 1, 1, 2]."""
        points = images.reshape(-1, 2)
        self.asked.append(points)
        x, y = points.T
        upper = y > 0.62 + 0.16 * torch.sin(5 * x)
        right = x > 0.62 + 0.10 * torch.cos(6 * y)
        return torch.where(right, 1, torch.where(upper, 2, 0))

    def fingerprint(self) -> str:
        """Returns a text that changes with the regions."""
        return "three curved regions, version 1"


def main() -> None:
    """Computes and draws the picture."""
    matplotlib.rcParams.update({"font.size": FONT_SIZE})
    images = torch.rand(120, 2, generator=torch.Generator().manual_seed(3))
    images = torch.cat([SAMPLE, images]).reshape(-1, 1, 1, 2)
    teacher = Teacher()
    settings = db3kd.LabelSettings(measure="mbd", queries_per_pair=120)
    labels = db3kd.label(teacher, images, settings, progress=False)
    labels = db3kd.with_soft_labels(labels, scale=SCALE, temperature=1.0)
    student = db3kd.train_student(
        lambda: torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3)
        ),
        images,
        labels,
        settings=db3kd.TrainSettings(steps=1500, learning_rate=1e-2, batch_size=32),
    )

    for name, size, rows in (("method", (9.6, 3.2), 1), ("method-narrow", (5.0, 6.0), 2)):
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, 4 // rows).flat
        draw_decisions(panels[0], images, labels.decision)
        draw_distances(panels[1], labels.distances[0], int(labels.decision[0]))
        draw_soft_label(panels[2], labels.soft_labels[0])
        draw_student(panels[3], student)
        figure.savefig(Path(__file__).parents[1] / f"{name}.png", dpi=175)


def grid() -> tuple[np.ndarray, Tensor]:
    """Returns 201 coordinates and the images of all pairs of them, [201², 1, 1, 2]."""
    side = np.linspace(0, 1, 201)
    x, y = np.meshgrid(side, side)
    points = torch.from_numpy(np.stack([x, y], -1).reshape(-1, 1, 1, 2)).float()
    return side, points


def draw_regions(axes: Axes, decisions: Tensor) -> None:
    """Fills the region of each class; `decisions` are those of `grid`."""
    side, _ = grid()
    regions = decisions.reshape(len(side), -1).numpy()
    axes.contourf(side, side, regions, levels=[-0.5, 0.5, 1.5, 2.5], cmap=PALE)


def draw_decisions(axes: Axes, images: Tensor, decisions: Tensor) -> None:
    """Draws each image with the class that the teacher answered."""
    square(axes, "1  The teacher answers\nwith a class only")
    for number, name in enumerate(NAMES):
        x, y = images[decisions == number].reshape(-1, 2).T
        axes.scatter(x, y, s=22, color=COLOURS[number], marker=MARKERS[number], label=name)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=3,
        frameon=False,
        handletextpad=0.1,
        columnspacing=1,
    )


def draw_distances(axes: Axes, distances: Tensor, own: int) -> None:
    """Draws the way from one image to the nearest point of each other class."""
    square(axes, "2  Searches measure how\nfar other classes are")
    _, points = grid()
    decisions = Teacher().decide(points)
    draw_regions(axes, decisions)
    for other in set(range(len(NAMES))) - {own}:
        inside = points[decisions == other].reshape(-1, 2)
        nearest = inside[(inside - SAMPLE).norm(dim=1).argmin()]
        found = float(distances[other])
        gap = abs(float((nearest - SAMPLE).norm()) - found)
        if gap > 0.02:
            raise ValueError(f"class {NAMES[other]}: expected the measured distance, off by {gap}")
        axes.annotate(
            "",
            nearest,
            SAMPLE[0],
            arrowprops={"arrowstyle": "->", "lw": 2, "shrinkA": 0, "shrinkB": 0},
        )
        middle = (SAMPLE[0] + nearest) / 2
        side = (0, -18) if other == 1 else (-52, 3)
        axes.annotate(
            f"$d_{NAMES[other]}$={found:.2f}",
            middle,
            side,
            textcoords="offset points",
            fontsize=FONT_SIZE - 1,
        )
    axes.scatter(*SAMPLE[0], s=60, color=COLOURS[own], marker=MARKERS[own], zorder=3)
    name_regions(axes)


def name_regions(axes: Axes) -> None:
    """Writes the name of each class into its region."""
    for number, place in enumerate([(0.12, 0.08), (0.86, 0.08), (0.12, 0.9)]):
        axes.text(
            *place, NAMES[number], ha="center", va="center", weight="bold", color=COLOURS[number]
        )


def draw_soft_label(axes: Axes, soft_label: Tensor) -> None:
    """Draws the soft label of the image."""
    axes.set_title("3  Near classes weigh\nmore in the soft label", fontsize=FONT_SIZE)
    bars = axes.bar(NAMES, soft_label, color=COLOURS[: len(NAMES)], width=0.6)
    axes.bar_label(bars, [f"{share:.0%}" for share in soft_label])
    axes.set_ylim(0, 1.08)
    axes.set_xlabel("class")
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_student(axes: Axes, student: torch.nn.Module) -> None:
    """Draws the regions of the student, and the boundaries of the teacher."""
    square(axes, "4  The student learns\nthe boundaries")
    side, points = grid()
    with torch.inference_mode():
        learned = student(points).argmax(1)
    truth = Teacher().decide(points)
    draw_regions(axes, learned)
    regions = truth.reshape(len(side), -1).numpy()
    for number in range(len(NAMES)):
        axes.contour(
            side,
            side,
            regions == number,
            levels=[0.5],
            colors="black",
            linewidths=1,
        )
    name_regions(axes)
    share = float((learned == truth).float().mean())
    axes.text(
        0.5,
        -0.03,
        f"agreement {share:.0%}\nlines: the teacher",
        ha="center",
        va="top",
    )


def square(axes: Axes, title: str) -> None:
    """Shows the unit square without ticks."""
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], aspect="equal")
    axes.set_title(title, fontsize=FONT_SIZE)


if __name__ == "__main__":
    main()
