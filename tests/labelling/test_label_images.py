"""Labelling a set of images: dependencies, budgets, progress, and invalid input."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from teachers_analytic import (
    ConstantTeacher,
    CountingTeacher,
    LinearTeacher,
    NearestCentroidTeacher,
    RaisingTeacher,
    WrongTeacher,
    as_float,
    beyond_range,
    one_short,
)

from db3kd.boundary import SignOptSettings
from db3kd.data.arrays import ArrayPixels
from db3kd.data.image_set import ImageSet
from db3kd.errors import ArgumentTypeError
from db3kd.labelling.budgets import divide_budget
from db3kd.labelling.label_images import label, label_chunks
from db3kd.labelling.label_job import LabelJob
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.labels import LABELS, Labels, to_table
from db3kd.labels.soft_labels import with_soft_labels
from db3kd.querying.search import UNANSWERED
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers import FunctionTeacher
from db3kd.teachers.base import TeacherError

SHAPE = (1, 6, 6)
CLASSES = 4
SMALL = LabelSettings(starting_points=4, queries_per_pair=60, snapshots=(10, 60))


def some_images(n=40, seed=0):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def some_teacher(max_batch=512, classes=CLASSES):
    centroids = some_images(classes, seed=9)
    return NearestCentroidTeacher(centroids, SHAPE, max_batch=max_batch)


@pytest.fixture(scope="module")
def labels():
    return label(some_teacher(), some_images(), SMALL)


def assert_same(first, second):
    for name in ("index", "decision", "distances", "queries", "status"):
        one, other = getattr(first, name), getattr(second, name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, name
    for count, distances in first.snapshots.items():
        assert torch.equal(distances, second.snapshots[count])


@pytest.mark.parametrize("size", [1, 7, 512])
def test_labels_do_not_depend_on_batch_sizes(labels, size, limit_chunks):
    limit_chunks(size)
    again = label(
        some_teacher(size), some_images(), dataclasses.replace(SMALL, query_batch_size=size)
    )
    assert_same(labels, again)


def test_labels_do_not_depend_on_the_order_of_samples(labels):
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    shuffled = label(some_teacher(), some_images(), SMALL, index=order)
    assert torch.equal(shuffled.index, order)
    assert torch.equal(shuffled.distances, labels.distances[order])
    assert torch.equal(shuffled.queries, labels.queries[order])


def test_labels_do_not_depend_on_the_number_of_threads(labels):
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert_same(labels, label(some_teacher(), some_images(), SMALL))
    finally:
        torch.set_num_threads(threads)


def test_another_seed_gives_other_distances(labels):
    again = label(some_teacher(), some_images(), dataclasses.replace(SMALL, seed=1))
    assert not torch.equal(labels.distances, again.distances)


def test_chunks_are_the_labels_in_order(labels, limit_chunks):
    limit_chunks(16)
    chunks = list(label_chunks(some_teacher(), some_images(), SMALL))
    assert [len(chunk) for chunk in chunks] == [16, 16, 8]
    assert torch.equal(torch.cat([chunk.distances for chunk in chunks]), labels.distances)


def test_a_chunk_with_a_shard_is_skipped_and_its_queries_are_not_repeated(
    labels, tmp_path, limit_chunks
):
    limit_chunks(16)
    teacher = CountingTeacher(some_teacher())
    with RunFolder.create(tmp_path / "run", LABELS, {}) as folder:
        job = LabelJob.prepare(teacher, some_images(), SMALL)
        _, first = next(job.run(folder))
        folder.write_shard(0, to_table(first))
        asked = teacher.total
        chunks = [chunk for _, chunk in job.run(folder)]

    assert [chunk.index[0].item() for chunk in chunks] == [16, 32]
    assert_same(labels, Labels.concat([first, *chunks]))
    assert asked + sum(int(chunk.queries.sum()) - len(chunk) for chunk in chunks) == teacher.total
    assert teacher.total == int(labels.queries.sum())


@examples(max_examples=30, deadline=None)
@given(
    measure=st.sampled_from(["sd", "bd", "mbd"]),
    per_pair=st.integers(0, 50),
    per_sample=st.none() | st.integers(0, 90),
    whole=st.none() | st.integers(0, 700),
    classes=st.integers(2, 5),
    max_batch=st.sampled_from([1, 7, 512]),
)
def test_no_budget_is_exceeded_and_the_ledger_equals_the_teachers_count(
    measure, per_pair, per_sample, whole, classes, max_batch
):
    teacher = CountingTeacher(some_teacher(max_batch, classes))
    settings = LabelSettings(
        measure=measure,
        starting_points=3,
        queries_per_pair=per_pair,
        queries_per_sample=per_sample,
        queries=whole,
    )
    labels = label(teacher, some_images(9), settings)
    assert int(labels.queries.sum()) == teacher.total
    other = labels.queries.masked_fill(torch.arange(classes) == labels.decision[:, None], 0)
    assert int(other.max()) <= per_pair
    spent = labels.queries.sum(1)
    assert bool((spent <= divide_budget(settings, 9, classes)).all())
    assert per_sample is None or int(spent.max()) <= per_sample
    assert whole is None or teacher.total <= whole
    assert bool(((labels.decision == UNANSWERED) == (spent == 0)).all())


def test_more_queries_only_shrink_distances():
    results = [
        label(some_teacher(), some_images(), LabelSettings(measure=measure, queries_per_pair=300))
        for measure in ("sd", "bd", "mbd")
    ]
    sd, bd, mbd = (result.distances for result in results)
    assert bool((bd <= sd).all()) and bool((mbd <= bd).all())
    assert float(mbd.sum()) < float(bd.sum()) < float(sd.sum())
    assert int(results[0].queries.sum()) == 40


def test_the_predicted_class_has_distance_zero_and_one_query(labels):
    predicted = labels.decision[:, None]
    assert not bool(labels.distances.gather(1, predicted).any())
    assert bool((labels.queries.gather(1, predicted) == 1).all())


def test_samples_are_labelled_by_the_teachers_decision_not_the_data_sets():
    images = some_images()
    wrong = (some_teacher().decide(images) + 1) % CLASSES
    labels = label(some_teacher(), ImageSet.from_arrays(images, wrong), SMALL)
    assert torch.equal(labels.decision, some_teacher().decide(images))
    assert torch.equal(labels.label, wrong)


def test_the_settings_of_the_paper_run():
    settings = LabelSettings.paper("mbd", queries_per_pair=450, starting_points=5)
    assert settings.order == "random" and settings.sign_opt == SignOptSettings.paper()
    assert set(label(some_teacher(), some_images(), settings).status) == {"ok"}


def test_progress_receives_samples_queries_and_mean_distance():
    reported = {}

    class Listener:
        def update(self, **reached):
            reported.update({name: value for name, value in reached.items() if value is not None})

    labels = label(some_teacher(), some_images(), SMALL, progress=Listener())
    assert reported["samples"] == 40 and reported["queries"] == int(labels.queries.sum())
    assert reported["mean_distance"] == pytest.approx(
        float(labels.distances.sum()) / (40 * 3), rel=1e-4
    )


def test_a_budget_of_one_per_sample_pays_for_its_decision_only():
    labels = label(some_teacher(), some_images(), LabelSettings(queries_per_sample=1))
    assert bool((labels.queries.sum(1) == 1).all())
    assert torch.equal(
        labels.distances, label(some_teacher(), some_images(), LabelSettings("sd")).distances
    )


def test_a_budget_of_zero_spends_nothing_and_marks_the_samples():
    teacher = CountingTeacher(some_teacher())
    labels = label(teacher, some_images(), LabelSettings(queries=0))
    assert teacher.total == 0 and set(labels.status) == {"budget"}
    assert bool(labels.distances.isinf().all())
    soft = with_soft_labels(labels).soft_labels
    torch.testing.assert_close(soft, torch.full_like(soft, 1 / CLASSES))


def test_a_class_without_images_is_unreached_and_gets_no_weight():
    images = some_images(80)
    images = images[some_teacher().decide(images) != 2]
    labels = label(some_teacher(), images, SMALL)
    assert bool(labels.distances[:, 2].isinf().all()) and set(labels.status) == {"partly reached"}
    assert bool(labels.distances[:, [0, 1, 3]].isfinite().all())
    assert not bool(with_soft_labels(labels, scale=2.0).soft_labels[:, 2].any())


def test_a_single_image_has_no_starting_points():
    labels = label(some_teacher(), some_images(1), SMALL)
    assert labels.status == ["unreached"] and int(labels.queries.sum()) == 1


def test_a_teacher_with_one_class_for_all_images_is_refused():
    with pytest.raises(TeacherError, match=r"for 40 images \(images\), got class 2"):
        label(ConstantTeacher(2, SHAPE, CLASSES), some_images(), SMALL)


@pytest.mark.parametrize("queries", [0, 45, 400])
def test_an_error_of_the_teacher_becomes_a_teacher_error(queries):
    with pytest.raises(TeacherError, match=r"raised ConnectionError .* the line is dead"):
        label(RaisingTeacher(some_teacher(16), queries), some_images(), SMALL)


def test_chunks_before_a_failure_are_yielded(labels, limit_chunks):
    limit_chunks(16)
    first = int(labels.queries[:16].sum()) - 16 + 40
    chunks = label_chunks(RaisingTeacher(some_teacher(), first), some_images(), SMALL)
    assert torch.equal(next(chunks).distances, labels.distances[:16])
    with pytest.raises(TeacherError):
        next(chunks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_short, r"expected \d+ class.* got \d+ decisions"),
        (as_float, "got .* float32; return class numbers as integers"),
        (beyond_range, r"returned class 100\d, expected \[0, 4\)"),
    ],
)
def test_invalid_answers_become_a_teacher_error(change, message):
    with pytest.raises(TeacherError, match=message):
        label(WrongTeacher(some_teacher(), change), some_images(), SMALL)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(4, 6, 6), ValueError, r"images: expected \[N, 1, 6, 6\] float32"),
        (torch.zeros(4, *SHAPE, dtype=torch.int32), TypeError, "convert it to uint8"),
        (torch.full((4, *SHAPE), 2.0), ValueError, "finite values in .0, 1., got 2 at row 0"),
        (torch.full((4, *SHAPE), torch.nan), ValueError, "NaN"),
        (torch.rand(0, *SHAPE), ValueError, "images: expected at least one"),
    ],
)
def test_invalid_images_are_refused_before_any_query(images, error, message):
    teacher = CountingTeacher(some_teacher())
    with pytest.raises(error, match=message):
        label(teacher, images, SMALL)
    assert teacher.total == 0


def test_a_set_of_another_shape_or_with_more_classes_is_refused():
    with pytest.raises(ValueError, match=r"images: expected shape \(1, 6, 6\)"):
        label(some_teacher(), ImageSet.from_arrays(torch.rand(4, 5, 5)), SMALL)
    with pytest.raises(ValueError, match=r"images: expected labels in \[0, 4\)"):
        label(some_teacher(), ImageSet.from_arrays(some_images(2), torch.tensor([0, 7])), SMALL)


def test_a_teacher_declared_with_the_channels_last_is_told_how_to_declare_it():
    teacher = FunctionTeacher(lambda images: images.argmax(1), (6, 8, 3), 4, fingerprint="any")
    with pytest.raises(ValueError, match=r"channels last; did you mean \(3, 6, 8\)"):
        label(teacher, ImageSet.from_arrays(torch.rand(4, 3, 6, 8)), SMALL)


def test_images_in_other_bounds_are_labelled():
    teacher = LinearTeacher(
        torch.randn(3, 8, generator=torch.Generator().manual_seed(0)),
        torch.zeros(3),
        bounds=(-3, 3),
    )
    images = torch.randn(30, 8, generator=torch.Generator().manual_seed(1)).clamp(-3, 3)
    labels = label(teacher, images, SMALL)
    assert set(labels.status) == {"ok"}


@pytest.mark.parametrize("measure", ["bd", "mbd"])
def test_distances_in_narrow_bounds_are_those_of_the_unit_range_on_another_scale(measure):
    settings, scale = dataclasses.replace(SMALL, measure=measure), 2.0**-20
    centroids = some_images(CLASSES, seed=9)
    narrow = NearestCentroidTeacher(centroids * scale, SHAPE, bounds=(0.0, scale))

    labels = label(narrow, some_images() * scale, settings)

    expected = label(some_teacher(), some_images(), settings)
    assert torch.equal(labels.distances / scale, expected.distances)
    assert torch.equal(labels.queries, expected.queries)


@pytest.mark.parametrize("change", [{"queries_per_pair": 2**62}, {"starting_points": 2**62}])
def test_limits_that_nothing_reaches_give_the_labels_of_lower_ones(change):
    settings = dataclasses.replace(SMALL, measure="bd", snapshots=(), queries=200)
    lower = dict.fromkeys(change, 10_000)

    labels = label(some_teacher(), some_images(15), dataclasses.replace(settings, **change))

    expected = label(some_teacher(), some_images(15), dataclasses.replace(settings, **lower))
    assert_same(labels, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measure": "gd"}, "measure: expected one of sd, bd, mbd, got 'gd'"),
        ({"starting_points": 0}, "starting_points: expected .*1.*got 0"),
        ({"queries_per_pair": -1}, "queries_per_pair: expected .*0.*got -1"),
        ({"queries": -5}, "queries: expected .*0.*got -5"),
        ({"snapshots": (-1,)}, "snapshots: expected .*0.*got -1"),
        ({"tolerance": 0.0}, r"tolerance: expected a number in \(0, 1\), got 0.0"),
    ],
)
def test_invalid_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LabelSettings(**change)


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (torch.tensor([0.5]), TypeError),
        (3, TypeError),
        ("0", TypeError),
        ([True, False], ValueError),
        (torch.tensor([40]), IndexError),
        ([-1], IndexError),
        (torch.tensor([], dtype=torch.int64), ValueError),
        (np.zeros(40, dtype=bool), ValueError),
    ],
)
def test_an_invalid_index_is_refused(index, error):
    for call in (label, label_chunks):
        with pytest.raises(error, match="index: expected"):
            call(some_teacher(), some_images(), SMALL, index=index)


def test_a_repeated_row_number_is_refused_because_it_would_exceed_the_budget(tmp_path):
    teacher = CountingTeacher(some_teacher())
    expected = "index: expected each row number at most once, got 7 in 3 places"
    with pytest.raises(ValueError, match=expected):
        label(teacher, some_images(), SMALL, index=[7, 1, 7, 1, 7])
    with pytest.raises(ValueError, match=expected):
        label(teacher, some_images(), SMALL, index=[7, 1, 7, 1, 7], out=tmp_path / "run")
    with pytest.raises(ValueError, match=expected):
        label_chunks(teacher, some_images(), SMALL, index=[7, 1, 7, 1, 7])
    assert teacher.total == 0


@pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor, lambda rows: rows])
def test_an_index_may_have_any_form(form):
    expected = label(some_teacher(), some_images(), SMALL, index=torch.arange(4, 9))
    labels = label(some_teacher(), some_images(), SMALL, index=form(range(4, 9)))
    assert torch.equal(labels.index, torch.arange(4, 9))
    assert torch.equal(labels.distances, expected.distances)


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
def test_an_index_may_be_a_mask(form):
    mask = [4 <= row < 9 for row in range(40)]
    chunks = label_chunks(some_teacher(), some_images(), SMALL, index=form(mask))
    assert torch.cat([chunk.index for chunk in chunks]).tolist() == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (label, {"recovered": "x"}, "recovered: expected the attribute recovered .*, got 'x'"),
        (label, {"progress": 3}, "progress: expected True, False or .*, got 3"),
        (label_chunks, {"progress": print}, "progress: expected True, .*, got builtin"),
    ],
)
def test_an_argument_of_another_type_is_refused_before_a_query(call, options, message):
    teacher = CountingTeacher(some_teacher())
    with pytest.raises(ArgumentTypeError, match=message):
        call(teacher, some_images(), SMALL, **options)
    assert teacher.total == 0


@pytest.mark.parametrize("call", [label, lambda *given, **how: list(label_chunks(*given, **how))])
def test_the_progress_of_labels_is_shown_or_not(call, capsys):
    for progress in (True, False):
        call(some_teacher(), some_images(), SMALL, progress=progress)
    assert capsys.readouterr().err.count("labelling (mbd) done: 40/40 samples") == 1


def test_the_progress_of_a_resumed_run_counts_its_shards(tmp_path, capsys, limit_chunks):
    limit_chunks(16)
    run, teacher = tmp_path / "run", CountingTeacher(some_teacher())
    with pytest.raises(TeacherError):
        label(RaisingTeacher(teacher, 5_000), some_images(), SMALL, out=run)
    assert len(LABELS.shards(run)) == 1
    label(teacher, some_images(), SMALL, out=run, resume=True, progress=True)
    assert "labelling (mbd) done: 40/40 samples" in capsys.readouterr().err


def test_a_run_budget_is_divided_evenly_with_the_remainder_first():
    assert divide_budget(LabelSettings(queries=11), 4, 3).tolist() == [3, 3, 3, 2]
    assert divide_budget(LabelSettings("sd", queries=11), 4, 3).tolist() == [1, 1, 1, 1]


def test_soft_labels_favour_near_classes(labels):
    soft = with_soft_labels(labels, scale=3.0, temperature=2.0).soft_labels
    torch.testing.assert_close(soft.sum(1), torch.ones(40))
    assert torch.equal(soft.argmax(1), labels.decision)
    others = labels.distances.masked_fill(labels.distances == 0, torch.inf)
    weights = soft.scatter(1, labels.decision[:, None], 0)
    assert torch.equal(weights.argmax(1), others.argmin(1))


def test_progress_counts_what_an_earlier_call_has_done(limit_chunks, capsys):
    limit_chunks(16)
    whole = label(some_teacher(), some_images(), SMALL)
    with pytest.raises(TeacherError) as raised:
        label(RaisingTeacher(some_teacher(), int(whole.queries[:20].sum())), some_images(), SMALL)
    capsys.readouterr()
    label(some_teacher(), some_images(), SMALL, recovered=raised.value.recovered)
    assert f"40/40 samples · {int(whole.queries.sum()):,} of" in capsys.readouterr().err


def test_a_folder_in_use_is_refused_before_the_images_are_read(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        label(some_teacher(), some_images() * torch.nan, SMALL, out=tmp_path)


def mapped_set(path, images):
    """Returns a set of images in a file, which are checked only when a run reads them."""
    np.save(path, images.numpy())
    return ImageSet.from_arrays(np.load(path, mmap_mode="r"), name="mapped")


def test_an_invalid_image_of_a_set_is_found_before_a_folder_is_made(tmp_path):
    images = some_images()
    images[-1] = torch.nan
    teacher = CountingTeacher(some_teacher(max_batch=8))
    settings = dataclasses.replace(SMALL, query_batch_size=8)
    with pytest.raises(ValueError, match="NaN"):
        label(teacher, mapped_set(tmp_path / "images.npy", images), settings, out=tmp_path / "run")
    assert teacher.total == 0 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("removed", [0, 32])
def test_an_invalid_image_is_found_if_a_shard_of_a_finished_run_was_removed(
    tmp_path, limit_chunks, removed
):
    limit_chunks(16)
    teacher, run = CountingTeacher(some_teacher()), tmp_path / "run"
    label(teacher, mapped_set(tmp_path / "images.npy", some_images()), SMALL, out=run)
    asked = teacher.total
    LABELS.shards(run)[removed].unlink()
    images = some_images()
    images[removed] = torch.nan
    invalid = mapped_set(tmp_path / "invalid.npy", images)
    with pytest.raises(ValueError, match=f"got NaN at row {removed};"):
        label(teacher, invalid, SMALL, out=run, resume=True)
    assert teacher.total == asked


def test_a_set_is_read_once_before_a_run_in_a_folder(tmp_path, monkeypatch):
    images = mapped_set(tmp_path / "images.npy", some_images())
    monkeypatch.setattr(ArrayPixels, "check", lambda *_: pytest.fail("the set is read twice"))
    read, digests = [], ArrayPixels.digests

    def count_digests(pixels, rows, check):
        read.extend(rows.tolist())
        return digests(pixels, rows, check)

    monkeypatch.setattr(ArrayPixels, "digests", count_digests)
    labels = label(some_teacher(), images, SMALL, out=tmp_path / "run")
    assert read == list(range(40))
    assert_same(labels, label(some_teacher(), images, SMALL))


@pytest.mark.parametrize("out", [None, "run"])
@pytest.mark.parametrize("targets", [None, 2])
def test_more_classes_than_directions_are_drawn_for_are_refused_before_a_query(
    tmp_path, monkeypatch, targets, out
):
    monkeypatch.chdir(tmp_path)
    teacher = CountingTeacher(ConstantTeacher(0, SHAPE, 65_537))
    settings = dataclasses.replace(SMALL, targets=targets)
    with pytest.raises(ValueError, match=r"^measure: 'mbd' expects at most 65,536 classes, got 65"):
        label(teacher, some_images(), settings, out=out)
    assert teacher.total == 0 and not list(tmp_path.iterdir())
    assert settings.targets_among(65_536) == (targets or 65_535)
    assert dataclasses.replace(SMALL, measure="bd").targets_among(65_537) == 65_536
