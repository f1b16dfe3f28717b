"""A labelling stops early if the first images, spread over the set, are all in one class."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from label_runs import write_run
from teachers_analytic import ConstantTeacher, CountingTeacher, RaisingTeacher, RareTeacher

import db3kd
from db3kd.data.image_set import ImageSet
from db3kd.data.source import Source
from db3kd.labelling.image_decisions import decision_order
from db3kd.querying.driver import FIRST_CHECKED
from db3kd.storage.manifest import read_manifest
from db3kd.teachers.base import SingleClassError

SHAPE, COUNT = (1, 2, 2), 3_000
SETTINGS = db3kd.LabelSettings("sd")


def pixels(rare: list[int] | range) -> torch.Tensor:
    """Images that `RareTeacher` puts in class 0, except for these."""
    images = torch.rand(COUNT, *SHAPE, generator=torch.Generator().manual_seed(0)) / 2
    images[list(rare), 0, 0, 0] = 1
    return images


def few() -> tuple[CountingTeacher, torch.Tensor]:
    """A teacher, and images of which only two are in its second class."""
    return CountingTeacher(RareTeacher(SHAPE)), pixels([1, 2])


def assert_same(labels, expected):
    assert labels.decision.equal(expected.decision)
    assert labels.distances.equal(expected.distances)
    assert labels.queries.equal(expected.queries)


@given(st.lists(st.booleans(), min_size=1, max_size=4 * FIRST_CHECKED))
def test_each_image_with_a_budget_is_decided_once(budgets):
    limits = torch.tensor(budgets).long()

    order = decision_order(limits)

    assert order.sort().values.equal(limits.nonzero()[:, 0])


def test_the_first_images_are_spread_over_the_set():
    order = decision_order(torch.ones(10 * FIRST_CHECKED))

    assert order[:FIRST_CHECKED].tolist() == list(range(0, 10 * FIRST_CHECKED, 10))
    assert order[FIRST_CHECKED : FIRST_CHECKED + 3].tolist() == [1, 2, 3]


def test_images_sorted_by_class_are_labelled():
    teacher = CountingTeacher(RareTeacher(SHAPE))

    labels = db3kd.label(teacher, pixels(range(2_500, COUNT)), SETTINGS)

    assert labels.decision.tolist() == [0] * 2_500 + [1] * 500
    assert teacher.total == COUNT


def test_rare_classes_continue_a_labelling_in_memory():
    teacher, images = few()
    with pytest.raises(SingleClassError, match="for 1,000 images") as caught:
        db3kd.label(teacher, images, SETTINGS)
    assert teacher.total == FIRST_CHECKED
    assert str(caught.value).endswith("pass rare_classes=True")

    labels = db3kd.label(
        teacher, images, SETTINGS, recovered=caught.value.recovered, rare_classes=True
    )

    assert teacher.total == COUNT
    assert_same(labels, db3kd.label(teacher, images, SETTINGS, rare_classes=True))


def test_rare_classes_continue_a_run(tmp_path):
    teacher, images = few()
    for resume in (False, True, True):
        with pytest.raises(SingleClassError, match="with resume=True and rare_classes=True"):
            db3kd.label(teacher, images, SETTINGS, out=tmp_path, resume=resume)
        assert teacher.total == FIRST_CHECKED

    labels = db3kd.label(teacher, images, SETTINGS, out=tmp_path, resume=True, rare_classes=True)

    assert teacher.total == COUNT
    assert_same(labels, db3kd.label(RareTeacher(SHAPE), images, SETTINGS, rare_classes=True))
    finished = db3kd.label(teacher, images, SETTINGS, out=tmp_path, resume=True)
    assert teacher.total == COUNT and finished.decision.equal(labels.decision)


def test_the_chunks_of_images_with_rare_classes_are_labelled():
    teacher, images = few()
    with pytest.raises(SingleClassError, match="for 1,000 images"):
        next(db3kd.label_chunks(teacher, images, SETTINGS))

    chunks = list(db3kd.label_chunks(teacher, images, SETTINGS, rare_classes=True))

    assert torch.cat([chunk.decision for chunk in chunks]).bincount().tolist() == [2_998, 2]


def test_a_single_class_ends_with_an_error_after_all_images():
    teacher = CountingTeacher(ConstantTeacher(1, SHAPE, 2))

    with pytest.raises(SingleClassError, match=r"for 3,000 images.*got class 1") as caught:
        db3kd.label(teacher, pixels([]), SETTINGS, rare_classes=True)

    assert teacher.total == COUNT and "rare_classes" not in str(caught.value)


def test_a_flag_is_expected():
    teacher, images = few()
    with pytest.raises(TypeError, match="rare_classes: expected True or False, got 1"):
        db3kd.label(teacher, images, rare_classes=1)
    with pytest.raises(TypeError, match="rare_classes: expected True or False, got 1"):
        db3kd.label_chunks(teacher, images, rare_classes=1)
    with pytest.raises(TypeError, match="rare_classes: expected True or False, got 1"):
        write_run("run", teacher, Source("digits"), SETTINGS, rare_classes=1)
    assert teacher.total == 0


def test_the_answers_of_a_resumed_run_are_compared_with_those_of_the_same_images(tmp_path):
    """The teacher is asked again about images of both classes, in the order of the run."""
    images = ImageSet.from_arrays(pixels(range(0, COUNT, 2)), name="even")
    teacher = RareTeacher(SHAPE, max_batch=50)
    with pytest.raises(RuntimeError, match="out of service"):
        db3kd.label(
            RaisingTeacher(teacher, 1_500, RuntimeError("out of service")),
            images,
            SETTINGS,
            out=tmp_path,
        )

    db3kd.label(teacher, images, SETTINGS, out=tmp_path, resume=True, consistency_checks=32)

    assert read_manifest(tmp_path)["consistency"] == [{"asked": 32, "changed": 0}]


def test_a_run_that_continued_is_resumed_without_the_option(tmp_path):
    teacher, images = few()
    failing = RaisingTeacher(
        RareTeacher(SHAPE, max_batch=50), 2_000, RuntimeError("out of service")
    )
    with pytest.raises(RuntimeError, match="out of service"):
        db3kd.label(failing, images, SETTINGS, out=tmp_path, rare_classes=True)

    labels = db3kd.label(teacher, images, SETTINGS, out=tmp_path, resume=True)

    assert teacher.total == 1_000 and labels.decision.bincount().tolist() == [2_998, 2]
