"""Paid answers survive errors and interrupts, in memory or in a folder."""

from contextlib import nullcontext

import pytest
import torch
from teachers_analytic import CountingTeacher, LateTeacher, NearestCentroidTeacher, RaisingTeacher

import db3kd
from db3kd.labelling.label_images import label
from db3kd.labelling.recovered import Recovered
from db3kd.labelling.runs.label_run import open_run
from db3kd.labelling.settings import LabelSettings
from db3kd.storage.manifest import queries_in_flight, read_manifest
from db3kd.teachers import TeacherError

SHAPE, CLASSES = (1, 4, 4), 4
SETTINGS = LabelSettings("mbd", queries_per_pair=30, query_batch_size=64)


def a_teacher(max_batch=16):
    generator = torch.Generator().manual_seed(0)
    return NearestCentroidTeacher(
        torch.rand(CLASSES, *SHAPE, generator=generator), SHAPE, max_batch=max_batch
    )


@pytest.fixture
def images(limit_chunks):
    limit_chunks(5)  # several chunks
    return torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(1))


def assert_same(one, other):
    assert one.distances.equal(other.distances) and one.decision.equal(other.decision)
    assert one.queries.equal(other.queries) and one.status == other.status
    assert one.index.equal(other.index)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("calls", [0, 1, 9, 30])
@pytest.mark.parametrize("kind", [lambda teacher: teacher, LateTeacher])
def test_recovered_answers_are_not_paid_for_again(images, error, calls, kind):
    whole_teacher = CountingTeacher(a_teacher())
    whole = label(whole_teacher, images, SETTINGS)

    teacher = CountingTeacher(a_teacher())
    failing = kind(RaisingTeacher(teacher, calls * 16, error("out of service")))
    with pytest.raises((TeacherError, KeyboardInterrupt, SystemExit)) as raised:
        label(failing, images, SETTINGS)
    recovered = getattr(raised.value, "recovered", None)
    assert (recovered.queries if recovered else 0) == teacher.total
    if calls:
        note = raised.value.__notes__[0]
        assert "label(…, recovered=error.recovered) continues" in note
        assert 0 < recovered.maybe_paid <= 16
        assert f"up to {recovered.maybe_paid} more may have been paid without an answer" in note
    finished = recovered.labels if recovered else None
    if finished is not None:
        assert finished.distances.equal(whole.distances[: len(finished)])

    assert_same(label(teacher, images, SETTINGS, recovered=recovered), whole)
    assert teacher.per_image == whole_teacher.per_image


def test_a_second_error_recovers_more(images):
    teacher = CountingTeacher(a_teacher())
    recovered, held = None, []
    for _ in range(3):
        with pytest.raises(TeacherError) as raised:
            label(RaisingTeacher(teacher, 64), images, SETTINGS, recovered=recovered)
        recovered = raised.value.recovered
        held.append(recovered.queries)
    assert held[0] < held[1] < held[2] == teacher.total


class StoppingListener:
    """Interrupts a labelling when this many samples are labelled."""

    def __init__(self, samples):
        self._samples = samples

    def update(self, *, samples=None, **_):
        if samples is not None and samples >= self._samples:
            raise KeyboardInterrupt


def test_samples_that_the_budget_refused_are_no_recovered_queries(images):
    teacher = CountingTeacher(a_teacher())
    settings = LabelSettings("bd", queries=3)
    with pytest.raises(KeyboardInterrupt) as raised:
        label(teacher, images, settings, progress=StoppingListener(10))
    assert len(raised.value.recovered.labels) == 5
    assert raised.value.recovered.queries == teacher.total == 3


@pytest.mark.parametrize("measure", ["sd", "bd"])
def test_finished_labels_are_recovered_without_journals(images, measure, monkeypatch):
    monkeypatch.setattr(Recovered, "journal", lambda *_: nullcontext())  # as on a GPU
    settings = LabelSettings(measure, queries_per_pair=30)
    with pytest.raises(KeyboardInterrupt) as raised:
        label(a_teacher(), images, settings, progress=StoppingListener(10))
    recovered = raised.value.recovered
    assert recovered.queries == int(recovered.labels.queries.sum()) >= 5
    whole = label(a_teacher(), images, settings)
    assert_same(label(a_teacher(), images, settings, recovered=recovered), whole)


def test_answers_of_another_labelling_are_refused(images):
    with pytest.raises(TeacherError) as raised:
        label(RaisingTeacher(a_teacher(), 64), images, SETTINGS)
    recovered = raised.value.recovered
    changed = LabelSettings("bd", queries_per_pair=30, query_batch_size=64)
    for what, arguments in {
        "settings": (a_teacher(), images, changed),
        "images": (a_teacher(), images.flip(0), SETTINGS),
        "teacher": (NearestCentroidTeacher(torch.rand(CLASSES, 16), SHAPE), images, SETTINGS),
    }.items():
        with pytest.raises(ValueError, match=f"recovered: expected the {what} of the interrupted"):
            label(*arguments, recovered=recovered)
    assert label(a_teacher(), images.clone(), SETTINGS, recovered=recovered)


def test_an_interrupt_before_or_after_the_search_keeps_what_was_recovered(images, monkeypatch):
    with pytest.raises(TeacherError) as raised:
        label(RaisingTeacher(a_teacher(), 64), images, SETTINGS)
    recovered = raised.value.recovered

    def stop(*_):
        raise KeyboardInterrupt

    for method in ("check", "warn_of_lost"):  # before the search, and after it
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as raised:
            patch.setattr(Recovered, method, stop)
            label(a_teacher(), images, SETTINGS, recovered=recovered)
        assert raised.value.recovered is recovered and len(raised.value.__notes__) == 1
    with pytest.raises(ValueError, match="index: expected") as raised:
        label(a_teacher(), images, SETTINGS, index=[0, 0], recovered=recovered)
    assert raised.value.recovered is recovered


def test_an_error_before_any_answer_recovers_nothing(images):
    with pytest.raises(TeacherError) as raised:
        label(RaisingTeacher(a_teacher(), 0), images, SETTINGS)
    assert not hasattr(raised.value, "recovered")


@pytest.mark.parametrize("index", [None, torch.tensor([7, 2, 9, 11, 0, 5, 3])])
def test_a_folder_keeps_paid_answers(images, tmp_path, index):
    whole_teacher = CountingTeacher(a_teacher())
    whole = label(whole_teacher, images, SETTINGS, index=index)

    teacher, out = CountingTeacher(a_teacher()), tmp_path / "run"
    out.mkdir()
    lost = 0
    for _ in range(3):
        with pytest.raises(TeacherError) as raised:
            failing = RaisingTeacher(teacher, 80)
            label(failing, images, SETTINGS, index=index, out=out, resume=True)
        lost += raised.value.maybe_paid
    assert_same(label(teacher, images, SETTINGS, index=index, out=out, resume=True), whole)
    assert teacher.per_image == whole_teacher.per_image
    made = read_manifest(out)
    assert (made["state"], queries_in_flight(made)) == ("finished", lost) and lost > 0
    totals = made["totals"]
    assert totals["queries"] == int(whole.queries.sum())
    assert totals["queries"] + totals["unlabelled_queries"] == whole_teacher.total
    assert totals["unlabelled_queries"] == (0 if index is None else len(images) - len(index))
    paid = teacher.total
    assert_same(label(teacher, images, SETTINGS, index=index, out=out, resume=True), whole)
    assert teacher.total == paid, "nothing is asked of a finished run"
    with pytest.raises(FileExistsError, match="already holds a run"):
        label(teacher, images, SETTINGS, out=out)


def test_a_folder_of_other_samples_is_refused(images, tmp_path):
    label(a_teacher(), images, SETTINGS, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds a different run.*settings\.index"):
        some = torch.tensor([1, 2])
        label(a_teacher(), images, SETTINGS, index=some, out=tmp_path / "run", resume=True)


def test_a_run_of_an_image_set_is_read_back_with_its_images(images, tmp_path):
    images = db3kd.ImageSet.from_arrays(images.numpy(), name="mine")
    label(a_teacher(), images, SETTINGS, out=tmp_path / "run")
    with pytest.raises(ValueError, match="pass their location as data="):
        open_run(tmp_path / "run")


def test_conflicting_arguments_are_named(images, tmp_path):
    with pytest.raises(ValueError, match="resume: needs out="):
        label(a_teacher(), images, resume=True)
    with pytest.raises(TeacherError) as raised:
        label(RaisingTeacher(a_teacher(), 64), images, SETTINGS)
    with pytest.raises(ValueError, match="recovered: expected None with out="):
        label(a_teacher(), images, out=tmp_path / "run", recovered=raised.value.recovered)
