"""Pseudo samples: what they are, and what they may cost."""

import dataclasses
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthesis_cases import CLASSES, SHAPE, UNIT, WALK, linear, moved, plan, same
from teachers_analytic import (
    AnalyticTeacher,
    ConstantTeacher,
    CountingTeacher,
    LinearTeacher,
    WrongTeacher,
    beyond_range,
    image_key,
)
from torch import Tensor

from db3kd.boundary import SignOptSettings
from db3kd.data.pseudo_samples import PseudoSamples
from db3kd.synthesis import collection, proposals
from db3kd.synthesis import settings as module
from db3kd.synthesis.acquisition_settings import AcquisitionSettings
from db3kd.synthesis.sample_run import write_samples
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.synthesis.synthesize_images import synthesize
from db3kd.teachers import TeacherError


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
    assert torch.equal(samples.snapshots[0][0], synthesize(linear(), plan()).pixels)


@pytest.mark.parametrize(
    ("starts", "shape"), [("paper", (7,)), ("paper", (2, 5)), ("blends", (3, 8, 8))]
)
def test_teachers_of_any_shape_have_pseudo_samples(starts, shape):
    size = int(torch.tensor(shape).prod())
    weights = torch.ones(2, size, dtype=torch.float64)
    teacher = LinearTeacher(weights, torch.tensor([0, -0.6 * size]), shape)
    teacher.weights[0] = 0

    samples = synthesize(teacher, moved(starts=starts, samples=12))

    assert samples.pixels.shape == (12, *shape)


@pytest.mark.parametrize("share", ["effort", "mixtures"])
def test_an_effort_may_be_any_number(share):
    # Every class is found often, so neither needs more than a few starts.
    few = synthesize(linear(), plan(**{share: 50.0}))
    assert same(synthesize(linear(), plan(**{share: 1e30})), few)


def test_all_samples_are_made_again_alike():
    assert same(synthesize(linear(), moved()), synthesize(linear(), moved()))


def test_the_seed_changes_them():
    one, other = (synthesize(linear(), moved(seed=seed)) for seed in (0, 1))

    assert not torch.equal(one.pixels, other.pixels)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("query_batch_size", "max_batch", "together"), [(1, 3, 7), (7, 5, 256), (2048, 512, 40)]
)
def test_neither_batches_nor_chunks_nor_threads_matter(
    monkeypatch, threads, query_batch_size, max_batch, together
):
    expected = synthesize(linear(), moved())
    monkeypatch.setattr(module, "MOVED_SHARD", together)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        samples = synthesize(linear(max_batch=max_batch), moved(query_batch_size=query_batch_size))
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

    with pytest.raises(TeacherError, match=r"two classes for .* starts, got class 3"):
        synthesize(teacher, plan())
    assert teacher.total <= 40 * 1.1


def test_a_class_that_is_never_reached_holds_up_no_other(tmp_path):
    teacher = linear()
    teacher.classes = 6

    totals = write_samples(teacher, moved(), tmp_path / "run")

    assert totals.unreached == [4, 5] and totals.kept[4:] == [0, 0]
    assert totals.samples == 40 and min(totals.kept[:4]) > 0


def test_a_teacher_with_more_classes_than_it_says_is_named():
    with pytest.raises(TeacherError, match=r"returned class 100\d, expected \[0, 4\)"):
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


def test_moves_of_more_classes_than_directions_are_drawn_for_are_refused_before_a_query():
    teacher = CountingTeacher(ConstantTeacher(0, SHAPE, 65_537))
    with pytest.raises(ValueError, match=r"^moves: expected .* at most 65,536 classes"):
        synthesize(teacher, moved())
    assert teacher.total == 0


def test_frequencies_of_rows_are_refused_before_a_query():
    teacher = CountingTeacher(ConstantTeacher(0, (36,), 2))
    moves = dataclasses.replace(WALK, sign_opt=SignOptSettings(frequencies=3))
    with pytest.raises(ValueError, match=r"^frequencies: expected None, as .* shape \[36\]"):
        synthesize(teacher, plan(starts="paper", moves=moves))
    assert teacher.total == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": 0}, "samples: expected an integer of at least 1, got 0"),
        ({"starts": "noise"}, "starts: expected one of paper"),
        ({"effort": 0.5}, "effort: expected a number of at least 1, got 0.5"),
        ({"effort": float("inf")}, "effort: expected a number of at least 1"),
        ({"mixtures": -0.1}, "mixtures: expected a finite number of at least 0"),
        ({"queries": -1}, "queries: expected an integer of at least 0"),
        ({"snapshots": (0, -5)}, "snapshots: expected an integer of at least 0"),
        ({"starting_points": 0}, "starting_points: expected"),
        ({"query_batch_size": 0}, "query_batch_size: expected"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        synthesize(linear(), plan(**changes))


def test_the_published_settings_are_the_papers():
    published = SynthesisSettings.paper()

    assert (published.samples, published.starts) == (80_000, "paper")
    assert (published.moves.count, published.moves.queries_per_move) == (40, 5000)
    assert SynthesisSettings.paper(samples=10).samples == 10


# Budgets


@given(budget=st.integers(1, 3000))
@settings(max_examples=15)
def test_no_query_is_spent_beyond_the_budget(budget):
    teacher = CountingTeacher(linear())

    samples = synthesize(teacher, moved(queries=budget, mixtures=0.0))

    assert len(samples) == min(budget, 40), "what is finished is kept"
    assert teacher.total == len(samples) + int(samples.queries.sum()) <= budget
    assert torch.equal(teacher.inner.decide(samples.images()), samples.decision)


def test_samples_whose_budget_ran_out_are_labelled_so():
    free = synthesize(linear(), moved())
    poor = synthesize(linear(), moved(queries=40 + 40 * 60, mixtures=0.0))

    ended = torch.tensor([status == "budget" for status in poor.status])
    assert ended.any() and set(poor.status) <= {"ok", "stuck", "budget"}
    assert (poor.queries[ended] == 60).all() and (poor.moves[ended] < 2).all()
    assert free.status.count("budget") == 0


def test_a_budget_that_the_starts_use_up_leaves_them_unmoved():
    teacher = CountingTeacher(linear())

    samples = synthesize(teacher, moved(queries=40, mixtures=0.0))

    assert teacher.total == 40 and samples.status == ["budget"] * 40
    assert not samples.moves.any() and not samples.queries.any()


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="queries: expected at least 1"):
        synthesize(linear(), plan(queries=0))


def test_moves_take_the_queries_they_need_unless_told_otherwise():
    unlimited = dataclasses.replace(WALK, count=6, queries_per_sample=None)

    samples = synthesize(linear(), moved(moves=unlimited))

    assert set(samples.status) == {"ok"} and int(samples.moves.max()) == 6
    assert int(samples.queries.max()) > WALK.queries_per_sample


@pytest.mark.parametrize("chosen", [True, False])
def test_large_images_are_made_a_few_at_a_time_and_are_the_same(monkeypatch, chosen):
    chooses = AcquisitionSettings("linear", rounds=3, pool=6, students=1, steps=40, device="cpu")
    made = plan(samples=300, mixtures=1.0, acquisition=chooses if chosen else None)
    teacher = linear()
    teacher.bias[3] -= 2.4
    expected = synthesize(teacher, made)
    converted = []

    def note(convert, images, bounds):
        converted.append(len(images))
        return convert(images, bounds)

    for where in (proposals, collection):
        for name in ("to_float", "to_uint8"):
            monkeypatch.setattr(where, name, partial(note, getattr(where, name)))
    monkeypatch.setattr("db3kd.querying.search._BATCH_BYTES", 7 * 36 * 4)

    few = synthesize(teacher, made)

    assert max(converted) == 7
    assert (few.start < 0).any() and same(few, expected)


def test_no_batch_takes_more_memory_than_allowed(monkeypatch):
    monkeypatch.setattr("db3kd.querying.search._BATCH_BYTES", 10 * 36 * 4)
    teacher = CountingTeacher(linear())

    few = synthesize(teacher, moved())

    assert max(teacher.calls) <= 10
    monkeypatch.undo()
    assert same(few, synthesize(linear(), moved()))


def test_the_reported_mean_distance_is_that_of_all_samples(monkeypatch):
    monkeypatch.setattr(module, "MOVED_SHARD", 15)
    means: list[float | None] = []

    class Listener:
        def update(self, *, mean_distance: float | None, **_: object) -> None:
            means.append(mean_distance)

    samples = synthesize(linear(), moved(), progress=Listener())

    known = samples.distance[samples.distance.isfinite()]
    assert len(samples) == 40 and len(known) > 15, "the last chunk alone has 10 samples"
    assert means[0] is None and means[-1] == pytest.approx(known.mean().item())


def test_samples_without_moves_are_done_as_they_are_found():
    counts: list[tuple[int, int]] = []

    class Listener:
        def update(self, *, samples: int, queries: int, mean_distance: float | None) -> None:
            counts.append((samples, queries))

    settings = SynthesisSettings(samples=1000, query_batch_size=100)
    samples = synthesize(linear(), settings, progress=Listener())
    assert counts[:2] == [(1, 1), (100, 100)], "the first call has one image"
    assert counts[-1] == (len(samples), max(queries for _, queries in counts))
