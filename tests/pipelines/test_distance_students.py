"""The settings with which strategies spend their queries on distances."""

import numpy as np
import pytest
from distill_cases import QUICK

import db3kd
from db3kd.pipelines.student_training.distance_students import label_settings
from db3kd.planning import plan_budget

IMAGES = 1_000


@pytest.mark.parametrize(
    ("per_image", "classes", "targets"),
    [
        (200, 10, None),  # all nine other classes get 20 queries or more
        (100, 10, 5),
        (5, 10, 3),
        (5, 4, None),
        (2_000, 1_000, 105),
        (24, 1_000, 3),
    ],
)
def test_few_queries_go_to_the_nearest_classes(per_image, classes, targets):
    for strategy in ("bd", "mbd"):
        plan = plan_budget(per_image * IMAGES, classes, IMAGES, strategy)
        assert label_settings(plan, seed=0).targets == plan.targets == targets


def test_sd_and_the_paper_measure_every_class():
    for strategy in ("sd", "auto", "db3kd-paper"):
        plan = plan_budget(IMAGES, 100, IMAGES, strategy)
        assert label_settings(plan, seed=0).targets is None


@pytest.mark.parametrize("strategy", ["auto", "sd"])
def test_equal_images_in_two_classes_still_give_a_student(strategy):
    answers = iter(range(10**6))

    def fickle(batch):
        return [next(answers) % 2 for _ in batch]

    teacher = db3kd.FunctionTeacher(fickle, image_shape=(1, 4, 4), classes=2)
    pixels = np.full((30, 1, 4, 4), 0.5, np.float32)

    result = db3kd.distill(
        teacher, pixels, budget=30, student="linear", strategy=strategy, settings=QUICK
    )

    assert result.queries == 30
