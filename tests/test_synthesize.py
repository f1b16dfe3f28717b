"""Pseudo samples, and their runs on disk."""

import dataclasses
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teachers_analytic import (
    AnalyticTeacher,
    ConstantTeacher,
    CountingTeacher,
    LinearTeacher,
    RaisingTeacher,
    WrappedTeacher,
    WrongTeacher,
    beyond_range,
    image_key,
)
from torch import Tensor

from db3kd.folder import queries_in_flight
from db3kd.manifest import read_manifest
from db3kd.synthesis import synthesize as module
from db3kd.synthesis.moves import Moves
from db3kd.synthesis.pseudo import PseudoSamples, load_pseudo_samples
from db3kd.synthesis.runs import SynthesisTotals, write_pseudo_samples
from db3kd.synthesis.synthesize import SynthesisSettings, synthesize
from db3kd.teachers import TeacherError

SHAPE = (1, 6, 6)
CLASSES = 4
UNIT = (0.0, 1.0)
WALK = Moves(count=2, length=0.2, queries_per_move=40, queries_per_sample=200)


def linear(bounds: tuple[float, float] = UNIT, max_batch: int = 512) -> LinearTeacher:
    """Four classes, for which smooth images are no rare thing."""
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(CLASSES, 36, generator=generator, dtype=torch.float64)
    weights -= weights.mean(1, keepdim=True)
    return LinearTeacher(weights, torch.zeros(4), SHAPE, bounds=bounds, max_batch=max_batch)


def plan(**changes: object) -> SynthesisSettings:
    return SynthesisSettings(**{"samples": 40, "rows": 64, "candidates": 5} | changes)


def moved(**changes: object) -> SynthesisSettings:
    return plan(**{"moves": WALK, "snapshots": (0, 1)} | changes)


def same(one: PseudoSamples, other: PseudoSamples) -> bool:
    """To the bit."""
    names = ("levels", "decision", "start", "moves", "distance", "queries")
    tensors = [(getattr(one, name), getattr(other, name)) for name in names]
    for count, noted in one.snapshots.items():
        tensors += zip(noted, other.snapshots[count], strict=True)
    return one.status == other.status and all(torch.equal(a, b) for a, b in tensors)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen samples a shard."""
    monkeypatch.setattr(module, "_MOVED", 15)


# Samples


@pytest.mark.parametrize("bounds", [UNIT, (-1.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize("make", [plan, moved])
def test_samples_are_what_the_teacher_was_asked_and_what_it_says(bounds, make):
    teacher = CountingTeacher(linear(bounds))

    samples = synthesize(teacher, make())

    images = samples.images()
    assert images.shape == (40, *SHAPE) and images.dtype == torch.float32
    assert bounds[0] <= images.min() and images.max() <= bounds[1]
    assert torch.equal(teacher.inner.decide(images), samples.decision)
    assert all(image_key(image) in teacher.per_image for image in images)
    assert (samples.bounds, samples.classes) == (bounds, CLASSES)


def test_samples_that_are_not_moved_cost_a_query_each():
    teacher = CountingTeacher(linear())

    samples = synthesize(teacher, plan())

    assert teacher.total == 40 and set(teacher.per_image.values()) == {1}
    assert samples.start.tolist() == list(range(40))
    assert samples.status == ["ok"] * 40
    assert not samples.moves.any() and samples.distance.isinf().all()


def test_moved_samples_say_how_far_they_came():
    samples = synthesize(linear(), moved())

    assert samples.moves.max() == 2 and samples.status.count("ok") > 30
    assert all(
        (count == 2) == (status == "ok")
        for count, status in zip(samples.moves.tolist(), samples.status, strict=True)
    )
    before, after = (samples.snapshots[count][1].mean() for count in (0, 1))
    assert before < after < samples.distance.mean()
    assert torch.equal(samples.snapshots[0][0], synthesize(linear(), plan()).levels)


@pytest.mark.parametrize(
    ("starts", "shape"), [("published", (7,)), ("published", (2, 5)), ("blends", (3, 8, 8))]
)
def test_teachers_of_any_shape_have_pseudo_samples(starts, shape):
    size = int(torch.tensor(shape).prod())
    weights = torch.ones(2, size, dtype=torch.float64)
    teacher = LinearTeacher(weights, torch.tensor([0, -0.6 * size]), shape)
    teacher.weights[0] = 0

    samples = synthesize(teacher, moved(starts=starts, samples=12))

    assert samples.levels.shape == (12, *shape)


def test_all_samples_are_made_again_alike():
    assert same(synthesize(linear(), moved()), synthesize(linear(), moved()))


def test_the_seed_changes_them():
    one, other = (synthesize(linear(), moved(seed=seed)) for seed in (0, 1))

    assert not torch.equal(one.levels, other.levels)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("rows", "max_batch", "together"), [(1, 3, 7), (7, 5, 256), (2048, 512, 40)]
)
def test_neither_batches_nor_chunks_nor_threads_matter(
    monkeypatch, threads, rows, max_batch, together
):
    expected = synthesize(linear(), moved())
    monkeypatch.setattr(module, "_MOVED", together)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        samples = synthesize(linear(max_batch=max_batch), moved(rows=rows))
    finally:
        torch.set_num_threads(before)

    assert same(samples, expected)


def test_parts_are_joined_in_their_order():
    whole = synthesize(linear(), moved())

    joined = PseudoSamples.concat([whole, whole])

    assert len(joined) == 80 and joined.status == whole.status * 2
    assert torch.equal(joined.snapshots[1][1][40:], whole.snapshots[1][1])
    with pytest.raises(ValueError, match="parts: expected at least one PseudoSamples"):
        PseudoSamples.concat([])


# Bad input


def test_a_teacher_that_is_constant_on_noise_has_no_boundary():
    teacher = CountingTeacher(ConstantTeacher(3, SHAPE, 10))

    with pytest.raises(TeacherError, match=r"put all .* in class 3: expected at least two classes"):
        synthesize(teacher, plan())
    assert teacher.total <= 40 * 1.1


def test_a_class_that_is_never_reached_holds_up_no_other(tmp_path):
    teacher = linear()
    teacher.classes = 6

    totals = write_pseudo_samples(tmp_path / "run", teacher, moved())

    assert totals.unreached == [4, 5] and totals.kept[4:] == [0, 0]
    assert totals.samples == 40 and min(totals.kept[:4]) > 0


def test_a_teacher_with_more_classes_than_it_says_is_named():
    with pytest.raises(TeacherError, match=r"answered class 100\d, expected \[0, 4\)"):
        synthesize(WrongTeacher(linear(), beyond_range), plan())


class NarrowTeacher(AnalyticTeacher):
    """Takes images of 8x8, whatever it says."""

    def decide(self, images: Tensor) -> Tensor:
        return images.reshape(len(images), 64).sum(1).long() % 2


def test_a_teacher_of_another_image_shape_is_named():
    with pytest.raises(TeacherError, match=r"NarrowTeacher raised RuntimeError .*shape"):
        synthesize(NarrowTeacher(SHAPE, 2), plan())


def test_starts_that_need_rows_and_columns_are_refused_before_a_query():
    teacher = CountingTeacher(ConstantTeacher(0, (36,), 2))

    with pytest.raises(ValueError, match=r"image_shape: expected .* for the starts 'mixed'"):
        synthesize(teacher, plan())
    assert teacher.total == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": 0}, "samples: expected an integer of at least 1, got 0"),
        ({"starts": "noise"}, "starts: expected one of published"),
        ({"effort": 0.5}, "effort: expected a number of at least 1, got 0.5"),
        ({"effort": float("inf")}, "effort: expected a number of at least 1"),
        ({"crossings": -0.1}, "crossings: expected a number of at least 0"),
        ({"queries": -1}, "queries: expected an integer of at least 0"),
        ({"snapshots": (0, -5)}, "snapshots: expected an integer of at least 0"),
        ({"candidates": 0}, "candidates: expected"),
        ({"rows": 0}, "rows: expected"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        synthesize(linear(), plan(**changes))


def test_the_published_settings_are_the_papers():
    published = SynthesisSettings.published()

    assert (published.samples, published.starts) == (80_000, "published")
    assert (published.moves.count, published.moves.queries_per_move) == (40, 5000)
    assert SynthesisSettings.published(samples=10).samples == 10


# Budgets


@given(budget=st.integers(1, 3000))
@settings(max_examples=15)
def test_no_query_is_spent_beyond_the_budget(budget):
    teacher = CountingTeacher(linear())

    samples = synthesize(teacher, moved(queries=budget, crossings=0.0))

    assert len(samples) == min(budget, 40), "what is finished is kept"
    assert teacher.total == len(samples) + int(samples.queries.sum()) <= budget
    assert torch.equal(teacher.inner.decide(samples.images()), samples.decision)


def test_samples_whose_budget_ran_out_are_labelled_so():
    free = synthesize(linear(), moved())
    poor = synthesize(linear(), moved(queries=40 + 40 * 60, crossings=0.0))

    ended = torch.tensor([status == "budget" for status in poor.status])
    assert ended.any() and set(poor.status) <= {"ok", "stuck", "budget"}
    assert (poor.queries[ended] == 60).all() and (poor.moves[ended] < 2).all()
    assert free.status.count("budget") == 0


def test_a_budget_that_the_starts_use_up_leaves_them_unmoved():
    teacher = CountingTeacher(linear())

    samples = synthesize(teacher, moved(queries=40, crossings=0.0))

    assert teacher.total == 40 and samples.status == ["budget"] * 40
    assert not samples.moves.any() and not samples.queries.any()


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="queries: expected at least 1"):
        synthesize(linear(), plan(queries=0))


# Runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped, in three shards."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOVED", 15)
        write_pseudo_samples(folder, linear(max_batch=16), moved())
    return folder


def same_shards(one: Path, other: Path) -> bool:
    """The names of shards hold their checksums."""
    return sorted(file.name for file in one.glob("*.parquet")) == sorted(
        file.name for file in other.glob("*.parquet")
    )


def test_a_run_holds_the_samples_to_the_bit(whole):
    assert same(load_pseudo_samples(whole), synthesize(linear(), moved()))
    assert len(list(whole.glob("*.parquet"))) == 3


def test_bounds_outlive_a_run(tmp_path):
    write_pseudo_samples(tmp_path, linear((-1.0, 1.0)), moved())

    expected = synthesize(linear((-1.0, 1.0)), moved())
    assert torch.equal(load_pseudo_samples(tmp_path).images(), expected.images())


def test_the_totals_count_what_the_teacher_saw(tmp_path):
    teacher = CountingTeacher(linear())

    totals = write_pseudo_samples(tmp_path, teacher, moved())

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
    with pytest.raises(TeacherError, match="the line is dead"):
        write_pseudo_samples(tmp_path / "run", RaisingTeacher(paid, answered), moved())
    assert (tmp_path / "run").exists() == (paid.total > 0)

    totals = write_pseudo_samples(tmp_path / "run", paid, moved(), resume=True)

    assert same_shards(tmp_path / "run", whole)
    assert totals == SynthesisTotals(**read_manifest(whole)["totals"])
    assert paid.total == totals.queries
    assert queries_in_flight(read_manifest(tmp_path / "run")) == 0


def test_a_finished_run_is_left_as_it_is(tmp_path, small_shards):
    totals = write_pseudo_samples(tmp_path, linear(), moved())
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    again = write_pseudo_samples(tmp_path, RaisingTeacher(linear(), 0), moved(), resume=True)

    assert again == totals
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_shard_that_was_lost_is_made_again(tmp_path, whole, small_shards, capsys):
    write_pseudo_samples(tmp_path, linear(), moved())
    lost = min(tmp_path.glob("*.parquet"))
    lost.unlink()

    write_pseudo_samples(tmp_path, linear(), moved(), resume=True)

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
    write_pseudo_samples(tmp_path, linear(), moved())

    with pytest.raises(ValueError, match=f"holds another run.*{words}"):
        write_pseudo_samples(tmp_path, linear(), moved(**changes), resume=True)


def test_a_run_of_another_teacher_is_not_resumed(tmp_path):
    write_pseudo_samples(tmp_path, linear(), moved())
    other = LinearTeacher(-linear().weights, torch.zeros(4), SHAPE)

    with pytest.raises(ValueError, match=r"holds another run.*teacher: was"):
        write_pseudo_samples(tmp_path, other, moved(), resume=True)


def test_a_run_is_not_continued_unless_that_is_asked_for(tmp_path):
    write_pseudo_samples(tmp_path, linear(), plan())

    with pytest.raises(FileExistsError, match="holds a run already; continue it with --resume"):
        write_pseudo_samples(tmp_path, linear(), plan())


# Kills


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
    module._MOVED = 15
    teacher = KilledTeacher(linear(max_batch=16), notes, calls)
    write_pseudo_samples(folder, teacher, moved(), resume=True)


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_run_that_is_killed_and_resumed_is_the_run_without_a_stop(tmp_path, whole, small_shards):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["db3kd.synthesis.runs", "hypothesis", "pyarrow.parquet"])
    folder, notes = tmp_path / "run", tmp_path / "notes"
    for calls in (2, 60, 80):  # among the starts, in the first shard, and beyond it
        process = processes.Process(target=write_until_killed, args=(folder, notes, calls))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    shards = list(folder.glob("*.parquet"))

    survivor = KilledTeacher(linear(max_batch=16), notes, 10**6)
    totals = write_pseudo_samples(folder, survivor, moved(), resume=True)

    assert 1 <= len(shards) < 3
    assert same_shards(folder, whole)
    assert totals == SynthesisTotals(**read_manifest(whole)["totals"])
    asked = sum(map(int, notes.read_text().split()))
    assert asked - totals.queries == queries_in_flight(read_manifest(folder)) <= 3 * 16
