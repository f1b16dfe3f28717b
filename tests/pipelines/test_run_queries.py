"""What a resumed run says about its queries: answered, not needed, and left."""

from pathlib import Path
from typing import Any

import pytest
from distill_cases import QUICK, images, teacher
from teachers_analytic import CountingTeacher

import db3kd
from db3kd.pipelines.comparison.prepared import PreparedComparison, prepare_comparison
from db3kd.pipelines.distillation.prepared import prepare_distillation
from db3kd.storage.run_queries import RunQueries
from db3kd.training.callbacks import TrainingCallback, TrainingState

AMPLE: dict[str, Any] = {"budget": 20_000, "student": "linear", "settings": QUICK}
"""More queries than the searches need for 10 images, which are too few to choose a scale."""


class Stop(TrainingCallback):
    def on_start(self, state: TrainingState) -> None:
        raise KeyboardInterrupt


def test_queries_that_the_searches_of_a_run_did_not_need_are_not_left(tmp_path: Path) -> None:
    counting = CountingTeacher(teacher())

    def queries() -> tuple[RunQueries, int, int]:
        prepared = prepare_distillation(
            counting, images(10), strategy="bd", out=tmp_path / "run", resume=True, **AMPLE
        )
        found, most = prepared.count_queries(), prepared.plan.queries
        return found, found.left(most), most

    with pytest.raises(KeyboardInterrupt):
        db3kd.distill(
            counting, images(10), strategy="bd", out=tmp_path / "run", callbacks=[Stop()], **AMPLE
        )
    found, left, most = queries()
    assert counting.total < most
    assert found == RunQueries(counting.total, unused=most - counting.total) and left == 0
    asked = counting.total
    db3kd.distill(counting, images(10), strategy="bd", out=tmp_path / "run", resume=True, **AMPLE)
    assert counting.total == asked
    assert queries() == (RunQueries(asked, unused=most - asked, finished=True), 0, most)
    next((tmp_path / "run" / "labels").glob("*.parquet")).unlink()
    found, left, _ = queries()
    assert not found.finished and left > 0, "lost labels are paid for again"


def test_queries_that_finished_students_did_not_need_are_not_left(tmp_path: Path) -> None:
    counting = CountingTeacher(teacher())

    def prepared(seeds: int) -> PreparedComparison:
        return prepare_comparison(
            counting, images(10), strategies=("bd", "decisions"), seeds=seeds, out=tmp_path / "c",
            resume=True, test=images(5), ask_about_test=True, **AMPLE,
        )  # fmt: skip

    db3kd.compare(
        counting, images(10), strategies=("bd", "decisions"), seeds=1, out=tmp_path / "c",
        test=images(5), **AMPLE,
    )  # fmt: skip

    plan, found = prepared(1).plan, prepared(1).count_queries()
    unused = plan.queries - counting.total
    assert found == RunQueries(counting.total, unused, finished=True) and unused > 0
    more = prepared(2)
    found = more.count_queries()
    assert found == RunQueries(counting.total, unused)
    students = sum(each.queries for each in plan.plans.values())
    assert found.left(more.plan.queries) == students
