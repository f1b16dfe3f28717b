"""Runs of pseudo samples on disk: the same after any stop."""

import dataclasses
import os
import signal
from pathlib import Path

import pytest
import torch
from forked import forked_processes
from synthesis_cases import SHAPE, WALK, linear, moved, plan, same
from teachers_analytic import (
    AnalyticTeacher,
    CountingTeacher,
    LinearTeacher,
    RaisingTeacher,
    WrappedTeacher,
)
from torch import Tensor

from db3kd.data.pseudo_samples import load_pseudo_samples
from db3kd.storage.manifest import queries_in_flight, read_manifest
from db3kd.synthesis import settings as module
from db3kd.synthesis.sample_run import SynthesisTotals, write_samples
from db3kd.synthesis.synthesize_images import synthesize
from db3kd.teachers import TeacherError


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen samples a shard."""
    monkeypatch.setattr(module, "MOVED_SHARD", 15)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped, in three shards."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOVED_SHARD", 15)
        write_samples(linear(max_batch=16), moved(), folder)
    return folder


def same_shards(one: Path, other: Path) -> bool:
    """The names of shards hold their checksums."""
    return sorted(file.name for file in one.glob("*.parquet")) == sorted(
        file.name for file in other.glob("*.parquet")
    )


def test_a_run_holds_the_samples_to_the_bit(whole):
    assert same(load_pseudo_samples(whole), synthesize(linear(), moved()))
    assert len(list(whole.glob("*.parquet"))) == 3


def test_samples_with_out_are_those_of_the_folder_and_can_be_resumed(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(TeacherError, match="the line is dead"):
        synthesize(RaisingTeacher(linear(max_batch=8), 30), plan(), out=out)

    samples = synthesize(linear(), plan(), out=out, resume=True)

    assert same(samples, synthesize(linear(), plan()))
    assert same(samples, load_pseudo_samples(out))
    with pytest.raises(ValueError, match="resume: needs out=, the folder to resume"):
        synthesize(linear(), plan(), resume=True)


def test_bounds_outlive_a_run(tmp_path):
    write_samples(linear((-1.0, 1.0)), moved(), tmp_path)

    expected = synthesize(linear((-1.0, 1.0)), moved())
    assert torch.equal(load_pseudo_samples(tmp_path).images(), expected.images())


def test_the_totals_count_what_the_teacher_saw(tmp_path):
    teacher = CountingTeacher(linear())

    totals = write_samples(teacher, moved(), tmp_path)

    samples = load_pseudo_samples(tmp_path)
    assert totals.queries == teacher.total
    assert totals.start_queries == 40 and totals.samples == len(samples)
    assert totals.kept == torch.bincount(samples.decision, minlength=4).tolist()
    assert sum(totals.statuses.values()) == 40
    assert totals.mean_moves == samples.moves.double().mean()
    known = samples.distance[samples.distance.isfinite()].double()
    assert totals.mean_distance == pytest.approx(known.mean().item())
    assert SynthesisTotals(**read_manifest(tmp_path)["totals"]) == totals


@pytest.mark.parametrize("answered", [0, 30, 41, 700, 1500, 2900])
def test_a_run_whose_teacher_failed_is_resumed_without_asking_twice(
    tmp_path, whole, small_shards, answered
):
    paid = CountingTeacher(linear(max_batch=16))
    with pytest.raises(TeacherError, match="the line is dead") as raised:
        write_samples(RaisingTeacher(paid, answered), moved(), tmp_path / "run")
    lost = raised.value.maybe_paid if paid.total else 0  # else no run is kept
    assert (tmp_path / "run").exists() == (paid.total > 0)

    totals = write_samples(paid, moved(), tmp_path / "run", resume=paid.total > 0)

    assert same_shards(tmp_path / "run", whole)
    assert totals == SynthesisTotals(**read_manifest(whole)["totals"])
    assert paid.total == totals.queries
    assert queries_in_flight(read_manifest(tmp_path / "run")) == lost <= 16


def test_a_finished_run_is_left_as_it_is(tmp_path, small_shards):
    totals = write_samples(linear(), moved(), tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    again = write_samples(RaisingTeacher(linear(), 0), moved(), tmp_path, resume=True)

    assert again == totals
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_shard_that_was_lost_is_made_again(tmp_path, whole, small_shards, capsys):
    write_samples(linear(), moved(), tmp_path)
    lost = min(tmp_path.glob("*.parquet"))
    lost.unlink()

    write_samples(linear(), moved(), tmp_path, resume=True)

    assert same_shards(tmp_path, whole)
    totals = read_manifest(tmp_path)["totals"]
    assert totals == read_manifest(whole)["totals"]
    progress = capsys.readouterr().err.splitlines()[-1]
    assert f"done: 40/40 samples · {totals['queries']:,} queries" in progress


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed: was 0, is 1"),
        ({"samples": 41}, "settings.synthesis.samples: was 40, is 41"),
        ({"starts": "shapes"}, 'settings.synthesis.starts: was "mixed", is "shapes"'),
        ({"moves": dataclasses.replace(WALK, length=0.3)}, "moves.length: was 0.2, is 0.3"),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(tmp_path, changes, words):
    write_samples(linear(), moved(), tmp_path)

    with pytest.raises(ValueError, match=f"holds a different run.*{words}"):
        write_samples(linear(), moved(**changes), tmp_path, resume=True)


def test_a_run_of_another_teacher_is_not_resumed(tmp_path):
    write_samples(linear(), moved(), tmp_path)
    other = LinearTeacher(-linear().weights, torch.zeros(4), SHAPE)

    with pytest.raises(ValueError, match=r"holds a different run.*teacher: was"):
        write_samples(other, moved(), tmp_path, resume=True)


def test_a_run_is_not_continued_unless_that_is_asked_for(tmp_path):
    write_samples(linear(), plan(), tmp_path)

    with pytest.raises(FileExistsError, match="already holds a run; continue it with resume=True"):
        write_samples(linear(), plan(), tmp_path)


class KilledTeacher(WrappedTeacher):
    """Notes the size of each call in a file, and kills its process in the middle of one.

    calls: answered before that.
    """

    def __init__(self, inner: AnalyticTeacher, file: Path, calls: int) -> None:
        super().__init__(inner)
        self._file = file
        self._calls = calls

    def decide(self, images: Tensor) -> Tensor:
        with self._file.open("a") as notes:
            notes.write(f"{len(images)}\n")
        self._calls -= 1
        if self._calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decide(images)


def write_until_killed(folder: Path, notes: Path, calls: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    module.MOVED_SHARD = 15
    teacher = KilledTeacher(linear(max_batch=16), notes, calls)
    write_samples(teacher, moved(), folder, resume=folder.exists())


def test_a_run_that_is_killed_and_resumed_is_the_run_without_a_stop(tmp_path, whole, small_shards):
    processes = forked_processes()
    folder, notes = tmp_path / "run", tmp_path / "notes"
    for calls in (2, 60, 80):  # among the starts, in the first shard, and beyond it
        process = processes.Process(target=write_until_killed, args=(folder, notes, calls))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    shards = list(folder.glob("*.parquet"))

    survivor = KilledTeacher(linear(max_batch=16), notes, 10**6)
    totals = write_samples(survivor, moved(), folder, resume=True)

    assert 1 <= len(shards) < 3
    assert same_shards(folder, whole)
    assert totals == SynthesisTotals(**read_manifest(whole)["totals"])
    asked = sum(map(int, notes.read_text().split()))
    assert asked - totals.queries == queries_in_flight(read_manifest(folder)) <= 3 * 16


def test_pandas_reads_a_run_of_pseudo_samples(whole):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(whole)
    assert len(frame) == 40 and {"image", "decision", "distance"} <= set(frame.columns)
