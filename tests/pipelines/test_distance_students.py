"""The settings with which strategies spend their queries on distances."""

import pytest

from db3kd.pipelines.distance_students import label_settings
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
        assert label_settings(plan, classes, seed=0).targets == targets


def test_sd_and_the_paper_measure_every_class():
    for strategy in ("sd", "auto", "db3kd-paper"):
        plan = plan_budget(IMAGES, 100, IMAGES, strategy)
        assert label_settings(plan, 100, seed=0).targets is None
