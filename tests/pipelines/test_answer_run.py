"""Rounds of answers on disk: each is asked once, whatever stops it, about the same images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_cases import SAMPLES, images, teacher
from teachers_analytic import CountingTeacher, RaisingTeacher
from torch import Tensor

from db3kd.answers.answers import NUMBERS, Answers, augmentable_images
from db3kd.pipelines.query_rounds.answer_run import ANSWERS, HELD_OUT, AnswerRun
from db3kd.querying import sharded_decisions
from db3kd.storage.manifest import make_manifest
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.shards import read_shards
from db3kd.teachers import TeacherError

ORDER = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(3))
MANIFEST = make_manifest({}, seed=0, teacher_fingerprint="t", classes=None, data_fingerprint="d")


def opened(path: Path, asked: Any = None, counted: list[int] | None = None) -> AnswerRun:
    folder = RunFolder.open(path, ANSWERS, MANIFEST, resume=True)
    known = augmentable_images(images(), ORDER, 10, seed=0)
    note = None if counted is None else counted.append
    run = AnswerRun(folder, asked or teacher(max_batch=16), known, ORDER)
    run.on_answers = note
    return run


def choosing(rows: Tensor) -> Callable[[Answers], Tensor]:
    return lambda answers: rows


def no_choice(answers: Answers) -> Tensor:
    raise AssertionError("these images were chosen before")


HELD = torch.arange(110, 120) * NUMBERS
FIRST, SECOND = torch.arange(0, 60) * NUMBERS, torch.arange(20, 90) * NUMBERS + 7


@pytest.fixture(params=[2**16, 32])
def shard_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sharded_decisions, "SHARD_ROWS", request.param)
    return request.param


def test_answers_are_those_of_the_teacher_and_stored_by_image(tmp_path, shard_rows):
    counted: list[int] = []
    run = opened(tmp_path / "run", counted=counted)
    run.ask(HELD_OUT, 10, choosing(HELD))
    run.ask(0, 60, choosing(FIRST))
    second = run.ask(1, 70, choosing(SECOND))

    rows = torch.cat([HELD, FIRST, SECOND])
    assert run.answers.rows.equal(rows) and second.rows.equal(SECOND)
    assert run.answers.decisions.equal(teacher().decide(run.answers.images.read(rows)))
    assert sum(counted) == 140 and run.stored == 0
    run.folder.close()
    table = {"image": [], "number": [], "round": []}
    for _, shard in read_shards(tmp_path / "run", ANSWERS):
        assert len(shard) <= shard_rows
        for name, values in table.items():
            values += shard[name].to_pylist()
    assert table["image"] == ORDER[rows // NUMBERS].tolist()
    assert table["number"] == (rows % NUMBERS).tolist()
    assert table["round"] == [-1] * 10 + [0] * 60 + [1] * 70


@pytest.mark.parametrize("queries", [0, 5, 40, 50, 75, 100, 139])
def test_a_stopped_run_asks_only_what_is_left(tmp_path, shard_rows, queries):
    failing = RaisingTeacher(teacher(max_batch=16), queries)
    run = opened(tmp_path / "run", failing)
    with pytest.raises(TeacherError):
        ask_all(run, choosing(SECOND))
    run.folder.close()
    counting = CountingTeacher(teacher(max_batch=16))

    again = opened(tmp_path / "run", counting)
    ask_all(again, no_choice if queries > 80 else choosing(SECOND))

    assert counting.total == 140 - (queries - failing.left)
    assert again.answers.rows.equal(torch.cat([HELD, FIRST, SECOND]))
    again.folder.close()
    finished = opened(tmp_path / "run", RaisingTeacher(teacher(), 0))
    assert finished.stored == 140
    ask_all(finished, no_choice)
    assert finished.answers.decisions.equal(again.answers.decisions)
    finished.folder.close()


def test_each_shard_of_a_round_is_checked_with_all_earlier_decisions(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_decisions, "SHARD_ROWS", 1_200)
    monkeypatch.setattr(sharded_decisions, "_BATCH_ROWS", 512)
    counting, checked = CountingTeacher(teacher(max_batch=4_096)), []
    numbers = torch.arange(20 * SAMPLES)
    rows = numbers % SAMPLES * NUMBERS + 1 + numbers // SAMPLES
    run = opened(tmp_path / "run", counting)
    run.ask(HELD_OUT, 10, choosing(HELD), checked.append)

    run.ask(0, len(rows), choosing(rows), checked.append)
    run.folder.close()

    assert counting.calls == [1, 9, 512, 488, 200, 512, 488, 200]
    assert [len(found) for found in checked] == [1_010, 2_210]
    assert all(found.equal(run.answers.decisions[: len(found)]) for found in checked)


def ask_all(run: AnswerRun, second: Callable[[Answers], Tensor]) -> None:
    run.ask(HELD_OUT, 10, choosing(HELD))
    run.ask(0, 60, choosing(FIRST))
    run.ask(1, 70, second)


def test_other_images_than_those_that_were_asked_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_decisions, "SHARD_ROWS", 32)
    run = opened(tmp_path / "run", RaisingTeacher(teacher(max_batch=16), 58))
    with pytest.raises(TeacherError):
        ask_all(run, no_choice)
    run.folder.close()

    again = opened(tmp_path / "run")
    again.ask(HELD_OUT, 10, choosing(HELD))
    with pytest.raises(ValueError, match="from row 10 on to be those of round 0, got answers for"):
        again.ask(0, 60, choosing(FIRST + 1))
    with pytest.raises(ValueError, match="expected 61 images in round 0, got 60"):
        again.ask(0, 61, choosing(FIRST))
    again.folder.close()


def test_rounds_in_another_order_are_an_error(tmp_path):
    run = opened(tmp_path / "run")
    ask_all(run, choosing(SECOND))
    run.folder.close()
    again = opened(tmp_path / "run")
    with pytest.raises(ValueError, match="expected the 10 answers of round 0 from row 0 on"):
        again.ask(0, 10, choosing(HELD))
    again.folder.close()
