"""A label run that is resumed repeats known decisions, if asked to, and notices another teacher."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TEACHERS, CountingTeacher, Result, fail, label_arguments, succeed
from replaceable_service import BATCH, SHAPE, Service

import db3kd
from db3kd import TeacherChangedError
from db3kd.labels.labels import Labels
from db3kd.querying.consistency import queries_of_checks
from db3kd.storage.manifest import read_manifest

pytest.importorskip("pyarrow")

IMAGES = torch.rand(120, *SHAPE, generator=torch.Generator().manual_seed(0))
SETTINGS = db3kd.LabelSettings("bd", queries_per_pair=12, starting_points=4)


def label(service: Service, out: Path, checks: int = 0, **options: Any) -> Labels:
    return db3kd.label(
        service.teacher(), IMAGES, out=out, consistency_checks=checks,
        **{"settings": SETTINGS} | options,
    )  # fmt: skip


def stop(service: Service, out: Path, answers: int, **options: Any) -> int:
    """Runs until so many queries are answered, and returns the number that are in the folder."""
    return service.stop_at(answers, lambda: label(service, out, **options))


STOPS = (7 * BATCH, 15 * BATCH, 60 * BATCH)
"""While the images are decided, after the last decision, and while distances are searched."""


@pytest.mark.parametrize("answers", STOPS)
@pytest.mark.parametrize("settings", [SETTINGS, db3kd.LabelSettings("bd", queries=900)])
def test_a_teacher_that_repeats_its_answers_continues_with_the_same_labels(
    tmp_path, answers, settings
):
    undisturbed, service = Service(), Service()
    whole = label(undisturbed, tmp_path / "whole", settings=settings)
    paid = stop(service, tmp_path / "run", answers, settings=settings)

    labels = label(service, tmp_path / "run", 16, settings=settings, resume=True)

    assert service.answers == undisturbed.answers + 16
    assert set(service.asked[paid : paid + 16]) <= set(service.asked[: min(paid, len(IMAGES))])
    assert labels.distances.equal(whole.distances) and labels.queries.equal(whole.queries)
    manifest = read_manifest(tmp_path / "run")
    assert manifest["consistency"] == [{"asked": 16, "changed": 0}]
    assert manifest["totals"]["check_queries"] == 16
    assert manifest["totals"]["queries"] == undisturbed.answers
    label(service, tmp_path / "run", 16, settings=settings, resume=True)
    assert service.answers == undisturbed.answers + 16, "a finished run asks nothing"


@pytest.mark.parametrize("answers", STOPS)
def test_a_replaced_teacher_is_refused_before_it_is_asked_anything_new(tmp_path, answers):
    whole, service = label(Service(), tmp_path / "whole"), Service()
    paid = stop(service, tmp_path / "run", answers)
    service.model = 1

    message = r"changed \d+ of 20 answers.*another folder.*accept_changed_teacher=True"
    for _ in range(2):
        with pytest.raises(TeacherChangedError, match=message):
            label(service, tmp_path / "run", 20, resume=True)
    assert service.answers == paid + 40
    accepted, service.model = service.model, 0

    labels = label(service, tmp_path / "run", 20, resume=True)

    assert labels.distances.equal(whole.distances), "it continues with the teacher that it had"
    stop(service := Service(), tmp_path / "mixed", answers)
    service.model = accepted
    label(service, tmp_path / "mixed", 20, resume=True, accept_changed_teacher=True)
    (check,) = read_manifest(tmp_path / "mixed")["consistency"]
    assert check["asked"] == 20 and check["changed"] > 0


def test_no_query_is_repeated_unless_asked_for(tmp_path):
    service, undisturbed = Service(), Service()
    label(undisturbed, tmp_path / "whole")
    stop(service, tmp_path / "run", 60 * BATCH)
    label(service, tmp_path / "run", resume=True)
    assert service.answers == undisturbed.answers


def test_a_run_without_known_decisions_repeats_none(tmp_path):
    service, undisturbed = Service(), Service()
    label(undisturbed, tmp_path / "whole")
    (tmp_path / "run").mkdir()
    label(service, tmp_path / "run", 20, resume=True)
    assert service.answers == undisturbed.answers
    assert "consistency" not in read_manifest(tmp_path / "run")


def test_a_finished_run_says_that_it_repeats_nothing(tmp_path, caplog):
    service = Service()
    label(service, tmp_path / "run")
    paid = service.answers

    label(service, tmp_path / "run", resume=True)
    assert not caplog.records
    label(service, tmp_path / "run", 20, resume=True)

    assert "consistency_checks: none, because no new query is left" in caplog.text
    assert service.answers == paid


def test_nothing_is_repeated_if_no_query_is_left(tmp_path):
    service, settings = Service(), db3kd.LabelSettings("sd")
    label(service, tmp_path, settings=settings)
    next(tmp_path.glob("*.parquet")).unlink()

    label(service, tmp_path, 20, settings=settings, resume=True)

    assert service.answers == len(IMAGES)


def test_checks_need_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"^consistency_checks: needs resume=True"):
        label(Service(), tmp_path / "run", 5)
    with pytest.raises(ValueError, match=r"^consistency_checks: needs resume=True"):
        db3kd.label(Service().teacher(), IMAGES, consistency_checks=5)
    assert "--consistency-checks: needs --resume" in fail(
        *label_arguments(f"{TEACHERS}:CountingTeacher", tmp_path / "run"),
        "--consistency-checks", 5,
    )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_the_decisions_of_a_few_images_cost_one_query_each(tmp_path):
    asked = CountingTeacher.asked
    where = ("--teacher", f"{TEACHERS}:CountingTeacher", "--data", "digits", "--out", tmp_path)

    succeed("label", *where, "--measure", "sd", "--limit", 30, "--device", "cpu")

    assert CountingTeacher.asked - asked == 30


def test_the_command_line_shows_what_checks_cost(tmp_path, monkeypatch):
    options = (
        *label_arguments(f"{TEACHERS}:CountingTeacher", tmp_path),
        *("--queries-per-pair", 10, "--max-batch", BATCH, "--price-per-1000", 2),
    )
    resumed = (*options, "--resume", "--consistency-checks", 10)
    asked, original = CountingTeacher.asked, CountingTeacher.decide

    def tired(self: CountingTeacher, images: torch.Tensor) -> torch.Tensor:
        if CountingTeacher.asked > asked + 60:
            raise ConnectionError("out of service")
        return original(self, images)

    with monkeypatch.context() as patched:
        patched.setattr(CountingTeacher, "decide", tired)
        fail(*options)
    paid = CountingTeacher.asked - asked
    plan = succeed(*resumed, "--dry-run")
    assert "checks         10 more queries to repeat known answers, price 0.02 at 2.00 per" in plan
    assert "; with them at most 3,650, price 7.30" in plan
    assert f"answered       {paid:,} of these queries" in plan
    assert f"at most {3_640 - paid:,} are left" in plan
    assert CountingTeacher.asked == asked + paid

    with monkeypatch.context() as patched:
        patched.setattr(CountingTeacher, "decide", lambda self, images: 9 - original(self, images))
        refused = fail(*resumed)
        assert "changed 10 of 10 answers" in refused
        assert refused.endswith("or keep the old answers with --accept-changed-teacher")
    summary = succeed(*resumed)

    total = CountingTeacher.asked - asked
    assert f"queries        {total:,}, " in summary and f"price {total / 500:g}" in summary
    assert "checks         20 of these queries; answers that changed: 10 of 10, " in (summary)
    assert queries_of_checks(read_manifest(tmp_path)) == 20
    assert "checks         none, because no new query is left" in succeed(*resumed, "--dry-run")
    page = Path(succeed("report", "--labels", tmp_path).strip()).read_text()
    assert "Consistency checks: 20 more queries; answers that changed" in page


class Forgetful(CountingTeacher):
    """Puts each image in another class than the last one."""

    def decide(self, images: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(images)) % 2


def test_the_exit_status_reports_a_teacher_that_puts_equal_images_in_different_classes(tmp_path):
    np.save(tmp_path / "equal.npy", np.full((20, 1, 8, 8), 0.5, np.float32))
    where = ("--teacher", f"{__name__}:Forgetful", "--data", tmp_path / "equal.npy")

    result = Result("label", *where, "--measure", "sd", "--out", tmp_path / "run")

    assert result.code == 3
    assert "contradictory  20 samples: the teacher put equal images in different" in result.out
    assert "error: the teacher gave different answers to the same images" in result.err
    assert read_manifest(tmp_path / "run")["state"] == "finished"
