"""A planned run says what a run in its folder has asked, and what it may still ask."""

import pytest
import torch
from label_runs import write_run
from teachers_analytic import CountingTeacher, NearestCentroidTeacher, RaisingTeacher

from db3kd.data.image_set import ImageSet
from db3kd.data.source import Source
from db3kd.labelling.runs.planned_run import plan_source_run
from db3kd.labelling.settings import LabelSettings
from db3kd.storage.run_queries import RunQueries

SHAPE, CLASSES = (1, 4, 4), 4


def centroids_and_images(count):
    generator = torch.Generator().manual_seed(0)
    centroids = torch.rand(CLASSES, *SHAPE, generator=generator)
    images = ImageSet.from_arrays(torch.rand(count, *SHAPE, generator=generator))
    return NearestCentroidTeacher(centroids, SHAPE, max_batch=16), images


@pytest.mark.parametrize(
    ("budgets", "most"),
    [
        ({}, 120 * 3001),
        ({"queries_per_sample": 50}, 120 * 50),
        ({"targets": 2}, 120 * 2001),
        ({"queries": 100}, 100),
        ({"queries": 0}, 0),
        ({"queries_per_pair": 40}, 120 * 121),
        ({"queries": 4_000}, 4_000),
    ],
)
def test_the_bound_of_a_run_follows_from_its_budgets(tmp_path, budgets, most):
    teacher, images = centroids_and_images(120)
    counting, settings = CountingTeacher(teacher), LabelSettings("mbd", **budgets)

    planned = plan_source_run(tmp_path / "run", counting, Source("arrays"), settings, images=images)

    assert planned.max_queries == most
    assert planned.count_queries() == RunQueries()
    assert counting.total == 0 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("queries", [None, 3_000])
def test_what_finished_samples_did_not_use_is_not_left(tmp_path, limit_chunks, queries):
    limit_chunks(5)
    plain, images = centroids_and_images(40)
    settings = LabelSettings("bd", queries=queries, queries_per_pair=200, query_batch_size=64)
    given = {"source": Source("arrays"), "settings": settings, "images": images, "resume": True}
    teacher = CountingTeacher(plain)
    most = 40 * (1 + 200 * (CLASSES - 1)) if queries is None else queries
    with pytest.raises(RuntimeError, match="out of service"):
        write_run(tmp_path, RaisingTeacher(teacher, 1_200, RuntimeError("out of service")), **given)
    paid = teacher.total

    planned = plan_source_run(tmp_path, teacher, **given)
    so_far = planned.count_queries()
    write_run(tmp_path, teacher, **given)

    assert so_far.answered == paid and so_far.unused > 0
    assert teacher.total - paid <= most - so_far.answered - so_far.unused
    assert planned.count_queries().unused == most - teacher.total
