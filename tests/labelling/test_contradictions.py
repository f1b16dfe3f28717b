"""Equal images that a teacher puts in different classes, and what becomes of their labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import succeed
from label_runs import write_run
from torch import Tensor

from db3kd.data.image_set import ImageSet
from db3kd.data.source import Source
from db3kd.labelling.contradictions import EqualImages, contradicted_classes
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.label_files import load_labels
from db3kd.labels.soft_labels import SoftLabelSettings, make_soft_labels, with_soft_labels
from db3kd.teachers import FunctionTeacher

TWICE = (4, 17)
"""Two images that are equal."""


def some_pictures() -> Tensor:
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images[TWICE[1]] = images[TWICE[0]]
    return images


class ForgetfulTeacher(FunctionTeacher):
    """Three classes by an image's mean; answers 0 and then 1 for the image that is there twice."""

    def __init__(self, images: Tensor) -> None:
        super().__init__(self._decide, (1, 8, 8), 3, fingerprint="forgetful", max_batch=64)
        self._image = images[TWICE[0]].numpy()
        self._asked = 0
        self.queries = 0

    def _decide(self, images: np.ndarray) -> np.ndarray:
        self.queries += len(images)
        classes = np.digitize(images.mean((1, 2, 3)), [0.49, 0.51])
        for row in np.flatnonzero((images == self._image).all((1, 2, 3))):
            classes[row] = min(self._asked, 1)
            self._asked += 1
        return classes


@pytest.mark.parametrize("measure", ["sd", "bd", "mbd"])
@pytest.mark.parametrize("targets", [None, 1])
def test_equal_images_in_two_classes_are_contradictory_and_cost_no_further_query(measure, targets):
    if measure == "sd" and targets:
        return
    images = some_pictures()
    settings = LabelSettings(measure, queries_per_pair=40, targets=targets, snapshots=(10,))
    teacher = ForgetfulTeacher(images)

    labels = label(teacher, images, settings)

    assert [row for row, status in enumerate(labels.status) if status == "contradictory"] == [4, 17]
    assert labels.decision[list(TWICE)].tolist() == [0, 1]
    assert labels.distances[4, 1] == labels.distances[17, 0] == 0
    assert labels.snapshots[10][4, 1] == 0
    assert labels.queries[4, 1] == labels.queries[17, 0] == 0
    assert labels.queries.sum() == teacher.queries
    assert (labels.measured_distances > 0).all()


@pytest.mark.parametrize("normalisation", ["margin", "inverse"])
def test_a_contradictory_sample_counts_as_each_of_its_classes(normalisation):
    images = some_pictures()
    labels = label(ForgetfulTeacher(images), images, LabelSettings("bd", queries_per_pair=40))

    soft = with_soft_labels(labels, normalisation=normalisation, scale=2.0).soft_labels

    assert soft[4].tolist() == soft[17].tolist() == [0.5, 0.5, 0]
    assert torch.allclose(soft.sum(1), torch.ones(20))


def test_distances_that_have_no_inverse_count_as_zero():
    distances = torch.tensor([[0.0, 1e-42, 2.0], [0.0, 1.0, torch.inf]])

    soft = make_soft_labels(
        distances, torch.tensor([0, 0]), normalisation="inverse", scale=1.0, temperature=1.0
    )

    assert soft[0].tolist() == [0.5, 0.5, 0] and soft[1].isfinite().all()


def test_a_run_with_soft_labels_finishes_and_is_reported_and_distilled(tmp_path: Path):
    images = some_pictures()
    np.savez(tmp_path / "images.npz", images=images.numpy(), labels=np.arange(20) % 3)
    settings = LabelSettings("bd", queries_per_pair=40)
    soft = SoftLabelSettings("inverse", 1.0, 20.0)
    run = tmp_path / "run"

    totals = write_run(
        run,
        ForgetfulTeacher(images),
        Source(str(tmp_path / "images.npz")),
        settings,
        soft_labels=soft,
    )

    assert totals.statuses["contradictory"] == 2
    assert load_labels(run).soft_labels.isfinite().all()
    data = ("--data", tmp_path / "images.npz", "--labels", run)
    page = Path(succeed("report", *data, "--out", tmp_path / "page").strip()).read_text()
    assert "Contradictory: 2 samples" in page
    options = ("--model", "linear", "--steps", 2, "--device", "cpu")
    succeed(
        "distill", *data, *options, "--normalisation", "margin", "--out", tmp_path / "a.safetensors"
    )


def test_only_images_that_are_equal_to_the_bit_contradict_each_other():
    images = torch.rand(6, 5, generator=torch.Generator().manual_seed(1))
    images[1], images[3], images[5] = images[0], images[0], images[4]
    images[3, 0] += 1e-6
    images[2] = images[0]
    equal = EqualImages(6)
    equal.add(torch.arange(6), images)
    same = EqualImages(6)
    same.add(torch.arange(6), torch.zeros(6, 5))  # as if all digests were alike

    for found in (equal, same):
        pairs = found.contradictions(
            ImageSet.from_arrays(images), torch.tensor([0, 1, -1, 2, 2, 2])
        )
        assert pairs.tolist() == [[0, 1], [1, 0]]
    mask = contradicted_classes(pairs, torch.tensor([1, 2]), 3)
    assert mask.tolist() == [[True, False, False], [False, False, False]]
