"""Noisy teachers, and teachers replaced while a run is stopped, are flagged; others are not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Result

from db3kd import TeacherChangedError
from db3kd.labelling.check_results import (
    checks_of,
    clopper_pearson,
    describe_checks,
    is_inconsistent,
    queries_of_checks,
)
from db3kd.labelling.label_files import load_labels
from db3kd.labelling.planned_run import RunExecution
from db3kd.labelling.run_writer import write_run
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.source import Source
from db3kd.labelling.totals import Totals
from db3kd.storage.manifest import plain, read_manifest
from db3kd.teachers import FunctionTeacher

SETTINGS = LabelSettings("bd", queries_per_pair=12, starting_points=4, query_batch_size=256)


class MeanTeacher(FunctionTeacher):
    """Ten classes by weighted sums of an image's pixels.

    Args:
        noise: The share of random answers.
        seed: The seed of the random answers.
        model: Distinguishes different teachers with the same fingerprint.
        max_queries: The teacher fails after this many queries.
    """

    def __init__(
        self, noise: float = 0, seed: int = 0, model: int = 0, max_queries: int | None = None
    ) -> None:
        super().__init__(self._answer, (1, 8, 8), 10, max_batch=64, fingerprint="served")
        weights = np.random.default_rng(7).normal(size=(10, 64))
        self._weights = weights + 0.2 * model * np.random.default_rng(8).normal(size=(10, 64))
        self._noise, self._random, self._most = noise, np.random.default_rng(seed), max_queries
        self.queries = 0

    def _answer(self, images: np.ndarray) -> np.ndarray:
        if self._most is not None and self.queries >= self._most:
            raise RuntimeError("out of service")
        self.queries += len(images)
        rows = images.reshape(len(images), -1).astype(np.float64)
        classes = (rows[:, None] * self._weights).sum(-1).argmax(1)
        noisy = self._random.random(len(rows)) < self._noise
        return np.where(noisy, self._random.integers(0, 10, len(rows)), classes)


def write(
    folder: Path,
    teacher: FunctionTeacher,
    limit: int = 300,
    *,
    settings: LabelSettings = SETTINGS,
    checks: int = 32,
    accept_changed_teacher: bool = False,
    resume: bool = False,
) -> Totals:
    execution = RunExecution(
        consistency_checks=checks, accept_changed_teacher=accept_changed_teacher
    )
    source = Source("digits")
    return write_run(
        folder, teacher, source, settings, limit=limit, resume=resume, execution=execution
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "uninterrupted"
    teacher = MeanTeacher()
    totals = write(folder, teacher)
    assert teacher.queries == totals.queries + queries_of_checks(read_manifest(folder))
    return folder


def test_a_teacher_that_repeats_its_answers_is_not_flagged(uninterrupted):
    described = read_manifest(uninterrupted)

    assert not is_inconsistent(described)
    assert [check["when"] for check in described["consistency"]] == ["start", "end"]
    assert 0 < queries_of_checks(described) <= 32
    assert "0 of 4 at the start, 0 of 24 at the end" in describe_checks(described)
    assert not list(uninterrupted.glob("_check*"))


def test_entries_of_checks_hold_only_what_applies_and_are_written_as_they_are_read(uninterrupted):
    described = read_manifest(uninterrupted)
    start, end = described["consistency"]

    assert list(start) == ["when", "asked", "changed", "flagged", "images"]
    assert list(end) == ["when", "asked", "changed", "around", "flagged", "rate", "interval"]
    lost = {"when": "lost", "asked": 3, "changed": 0, "flagged": False}
    entries = [start, end, lost]
    written = [check.to_entry() for check in checks_of({"consistency": entries})]
    assert json.dumps(plain(written)) == json.dumps(entries)


@pytest.mark.parametrize("noise", [0.01, 0.05])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_noisy_teacher_is_flagged_with_its_rate(tmp_path, noise, seed):
    teacher = MeanTeacher(noise, seed)

    totals = write(tmp_path / "run", teacher)

    described = read_manifest(tmp_path / "run")
    end = described["consistency"][-1]
    labels = load_labels(tmp_path / "run")
    images = Source("digits").load().read(labels.index)
    wrong = float((MeanTeacher().decide(images) != labels.decision).float().mean())
    assert is_inconsistent(described)
    assert queries_of_checks(described) <= 32
    assert teacher.queries == totals.queries + queries_of_checks(described)
    low, high = end["interval"]
    assert low <= end["rate"] <= high and wrong / 2 < end["rate"] < wrong * 2
    assert f"{end['rate']:.1%}" in describe_checks(described)


@pytest.mark.parametrize("max_queries", [100, 700])
def test_a_replaced_teacher_is_refused_and_mixed_only_on_request(tmp_path, max_queries):
    with pytest.raises(RuntimeError, match="out of service"):
        write(tmp_path, MeanTeacher(max_queries=max_queries))
    other = MeanTeacher(model=1)
    before = {file.name for file in tmp_path.iterdir()}

    with pytest.raises(
        TeacherChangedError, match=r"changed \d of \d answers.*accept_changed_teacher=True"
    ):
        write(tmp_path, other, resume=True)

    assert other.queries <= 8, "nothing but the check was asked"
    assert {file.name for file in tmp_path.iterdir()} == before
    for _ in range(6):  # also when no query is left to check it
        with pytest.raises(TeacherChangedError, match="accept_changed_teacher=True"):
            write(tmp_path, other, resume=True)
    write(tmp_path, other, resume=True, accept_changed_teacher=True)
    described = read_manifest(tmp_path)
    assert is_inconsistent(described) and queries_of_checks(described) <= 32


def test_a_refused_run_resumes_with_its_original_teacher(tmp_path, uninterrupted):
    with pytest.raises(RuntimeError, match="out of service"):
        write(tmp_path, MeanTeacher(max_queries=700))
    with pytest.raises(TeacherChangedError, match="accept_changed_teacher=True"):
        write(tmp_path, MeanTeacher(model=1), resume=True)

    write(tmp_path, MeanTeacher(), resume=True)

    assert not is_inconsistent(read_manifest(tmp_path))
    assert torch.equal(load_labels(tmp_path).distances, load_labels(uninterrupted).distances)


@pytest.mark.parametrize("max_queries", [100, 700, 2000])
def test_checks_change_no_label_and_do_not_flag_a_resumed_run(tmp_path, uninterrupted, max_queries):
    with pytest.raises(RuntimeError, match="out of service"):
        write(tmp_path, MeanTeacher(max_queries=max_queries))
    for more in (500, None):
        try:
            write(tmp_path, MeanTeacher(max_queries=more), resume=True)
        except RuntimeError:
            continue
    labels, expected = load_labels(tmp_path), load_labels(uninterrupted)

    described = read_manifest(tmp_path)
    assert torch.equal(labels.distances, expected.distances)
    assert torch.equal(labels.queries, expected.queries)
    assert not is_inconsistent(described) and queries_of_checks(described) <= 32


def test_a_budget_pays_for_the_checks(tmp_path):
    settings = LabelSettings("bd", queries=2000, queries_per_pair=12, starting_points=4)
    teacher = MeanTeacher()

    totals = write(tmp_path, teacher, settings=settings)

    checks = queries_of_checks(read_manifest(tmp_path))
    assert 0 < checks <= 20 and teacher.queries == totals.queries + checks <= 2000


def test_without_checks_no_extra_query_is_spent(tmp_path):
    teacher = MeanTeacher(0.05)

    totals = write(tmp_path, teacher, limit=40, checks=0)

    assert teacher.queries == totals.queries
    assert not is_inconsistent(read_manifest(tmp_path))


class BoundaryTeacher(MeanTeacher):
    """Every image lies on its boundary: any answer about a sample itself may be either class.

    Its answers change with each call, as rounding changes with the batch.
    """

    def _answer(self, images: np.ndarray) -> np.ndarray:
        self.queries += len(images)
        rows = images.reshape(len(images), -1)
        step = rows - np.round(rows * 16) / 16
        score = (step * self._weights[0]).sum(1)
        undecided = np.arange(len(rows)) + self.queries
        return np.where(np.abs(score) < 1e-4, undecided % 2, score > 0).astype(np.int64)


def test_an_answer_changed_by_rounding_is_not_flagged_as_noise(tmp_path, monkeypatch):
    monkeypatch.setattr("db3kd.labelling.consistency._SUFFICIENT_CHANGES", 99)
    write(tmp_path, BoundaryTeacher(), limit=60)
    end = read_manifest(tmp_path)["consistency"][-1]
    assert end["changed"] > 0 and not end["flagged"]


def noisy() -> FunctionTeacher:
    return MeanTeacher(0.05)


def test_the_exit_status_of_the_command_line_reports_a_noisy_teacher(tmp_path):
    out = tmp_path / "run"
    where = ("label", "--teacher", "test_consistency:noisy", "--data", "digits", "--out", out)
    options = ("--measure", "bd", "--limit", 200, "--queries-per-pair", 12, "--device", "cpu")

    result = Result(*where, *options)

    assert result.code == 3
    assert "decisions are wrong (95 % interval" in result.out
    assert "error: the teacher gave different answers" in result.err
    assert read_manifest(out)["state"] == "finished"


def test_intervals_are_those_of_clopper_and_pearson():
    assert clopper_pearson(0, 10) == pytest.approx((0, 0.3085), abs=1e-4)
    assert clopper_pearson(3, 10) == pytest.approx((0.0667, 0.6525), abs=1e-4)
    assert clopper_pearson(10, 10) == pytest.approx((0.6915, 1), abs=1e-4)


@pytest.mark.parametrize(
    "entry",
    [
        3,
        {},
        {"when": "start", "asked": 3, "changed": 0},
        {"when": "start", "asked": None, "changed": 0, "flagged": False},
        {"when": "start", "asked": 3, "changed": 0, "flagged": False, "images": [1]},
        {"when": "end", "asked": 3, "changed": 0, "flagged": False, "interval": [0.1]},
        {"when": "never", "asked": 3, "changed": 0, "flagged": False},
        {"when": "end", "asked": 3, "changed": 0, "flagged": "no"},
        {"when": "end", "asked": 3, "changed": 0, "flagged": False, "around": "x"},
        {"when": "end", "asked": 3, "changed": 0, "flagged": False, "rate": "x"},
    ],
)
def test_a_damaged_record_of_a_check_is_named(entry):
    with pytest.raises(ValueError, match=r"consistency: expected the record of a check, got .*"):
        queries_of_checks({"consistency": [entry]})


def test_damaged_records_of_checks_are_named():
    with pytest.raises(ValueError, match="consistency: expected a list of checks, got 5"):
        queries_of_checks({"consistency": 5})
