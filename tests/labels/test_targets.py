"""The choice of the classes that are searched, and what labels say of the others."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from teachers_analytic import CountingTeacher, NearestCentroidTeacher

from db3kd.data.image_source import TensorImages
from db3kd.labelling.budgets import divide_budget, divide_over_targets
from db3kd.labelling.chunk_search import Labeller, chunk_size, pairs_of
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.soft_labels import with_soft_labels
from db3kd.labels.targets import estimate_unsearched, nearest_classes, other_classes
from db3kd.querying.search import UNANSWERED, fitting_batch_size

SHAPE = (1, 6, 6)
CLASSES = 6
FULL = LabelSettings(starting_points=4, queries_per_pair=60, snapshots=(10, 60))
INF = torch.inf


def nearest(count, **changes):
    return dataclasses.replace(FULL, targets=count, **changes)


def some_images(n=48, seed=0):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def some_teacher(max_batch=512):
    return CountingTeacher(
        NearestCentroidTeacher(some_images(CLASSES, seed=9), SHAPE, max_batch=max_batch)
    )


@pytest.fixture(scope="module")
def full():
    return label(some_teacher(), some_images(), FULL)


@pytest.fixture(scope="module")
def three():
    return label(some_teacher(), some_images(), nearest(3))


def assert_same(first, second):
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, dict):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[count], other[count]) for count in one)
        else:
            same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
            assert same, field.name


def test_the_nearest_classes_are_chosen_and_the_first_of_equals():
    distance = torch.tensor([[0.0, 3, 1, 2], [5, 0, 5, 5], [INF, 4, 0, INF], [1, 1, 1, 1]])
    others = other_classes(torch.tensor([0, 1, 2, UNANSWERED]), 4)

    chosen = nearest_classes(distance, others, 2)

    assert [row.nonzero()[:, 0].tolist() for row in chosen] == [[2, 3], [0, 2], [0, 1], []]


def test_an_estimate_shrinks_the_sample_distance_like_those_of_targets():
    sample_distance = torch.tensor([[0.0, 4, 5, 8, 40]])
    searched = torch.tensor([[False, True, True, False, False]])

    found = estimate_unsearched(torch.tensor([[INF, 1, 2, INF, INF]]), sample_distance, searched)

    assert found[0, 1:].tolist() == [1, 2, 2, 10], "a quarter, the lesser of 1 / 4 and 2 / 5"


def test_a_class_without_images_has_no_estimate():
    sample_distance = torch.tensor([[4.0, INF, 5], [INF, INF, INF]])
    searched = torch.tensor([[True, False, False], [False, False, False]])

    found = estimate_unsearched(
        torch.tensor([[1.0, INF, INF], [INF, INF, INF]]), sample_distance, searched
    )

    assert found.tolist() == [[1, INF, 1.25], [INF, INF, INF]]


def test_searching_every_class_gives_the_labels_of_a_full_run(full):
    assert_same(full, label(some_teacher(), some_images(), nearest(CLASSES - 1)))


def test_only_the_nearest_classes_are_searched_and_measured_as_in_a_full_run(full, three):
    teacher = some_teacher()
    again = label(teacher, some_images(), nearest(3))
    others = other_classes(full.decision, CLASSES)

    assert_same(three, again)
    assert three.searched.sum(1).tolist() == [3] * 48
    assert torch.equal(three.distances[three.searched], full.distances[three.searched])
    assert torch.equal(three.queries[three.searched], full.queries[three.searched])
    assert not bool(three.queries[others & ~three.searched].any())
    assert teacher.total == int(three.queries.sum()) < 0.65 * int(full.queries.sum())


def test_the_searched_classes_have_the_smallest_sample_distances(three):
    sample_distance = label(some_teacher(), some_images(), LabelSettings("sd")).distances
    others = other_classes(three.decision, CLASSES)
    left_out = others & ~three.searched

    furthest = sample_distance.masked_fill(~three.searched, 0).amax(1)
    assert bool((sample_distance.masked_fill(~left_out, INF).amin(1) >= furthest).all())
    assert bool((three.distances <= sample_distance)[left_out].all())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_classes_whose_centroids_are_nearest_are_found(count):
    """Tight clusters around known centres, where the nearest class is known in closed form."""
    draw = torch.Generator().manual_seed(4)
    centres = torch.rand(8, 20, generator=draw)
    images = (centres.repeat(5, 1) + 1e-3 * torch.randn(40, 20, generator=draw)).clamp(0, 1)
    teacher = NearestCentroidTeacher(centres)

    labels = label(teacher, images, LabelSettings("bd", targets=count))

    truth = torch.cdist(centres, centres).fill_diagonal_(INF).argsort(1)[:, :count]
    found = labels.searched.nonzero()[:, 1].view(40, count)
    assert torch.equal(found, truth[labels.decision].sort(1).values)


def test_an_estimate_is_no_less_than_half_of_what_was_found(three):
    left_out = other_classes(three.decision, CLASSES) & ~three.searched

    below = (three.distances[:, None] <= three.distances[..., None]) & three.searched[:, None]
    assert bool((below.sum(2) >= 2)[left_out].all())
    assert set(three.status) == {"ok"}


def test_snapshots_have_estimates_of_their_own(three):
    left_out = other_classes(three.decision, CLASSES) & ~three.searched

    early, late = three.snapshots[10], three.snapshots[60]
    assert bool((late <= early)[left_out].all()) and not torch.equal(
        late[left_out], early[left_out]
    )


def test_soft_labels_give_the_most_weight_to_a_class_that_was_searched(three):
    soft = with_soft_labels(three, scale=4.0).soft_labels

    weights = soft.scatter(1, three.decision[:, None], 0)
    assert bool(three.searched.gather(1, weights.argmax(1, keepdim=True)).all())


@pytest.mark.parametrize("size", [1, 64])
def test_the_choice_does_not_depend_on_batch_sizes(three, size, limit_chunks):
    limit_chunks(size)
    assert_same(
        three, label(some_teacher(16 * size), some_images(), nearest(3, query_batch_size=16 * size))
    )


def test_the_choice_does_not_depend_on_the_order_of_samples(three):
    order = torch.randperm(48, generator=torch.Generator().manual_seed(3))
    shuffled = label(some_teacher(), some_images(), nearest(3), index=order)

    assert torch.equal(shuffled.searched, three.searched[order])
    assert torch.equal(shuffled.distances, three.distances[order])


def test_the_choice_does_not_depend_on_the_starting_points(three):
    at_random = label(some_teacher(), some_images(), nearest(3, order="random"))

    assert torch.equal(at_random.searched, three.searched)


def test_a_class_without_images_is_left_out_while_there_are_others():
    images = some_images(80)
    images = images[some_teacher().decide(images) != 2]
    few, many = (label(some_teacher(), images, nearest(count)) for count in (3, 4))

    for labels in (few, many):
        assert not bool(labels.searched[:, 2].any())
        assert bool(labels.distances[:, 2].isinf().all())
        assert set(labels.status) == {"partly reached"}
        assert not bool(with_soft_labels(labels).soft_labels[:, 2].any())
    assert bool(few.distances[:, [0, 1, 3, 4, 5]].isfinite().all())


def test_a_single_image_is_near_no_class():
    labels = label(some_teacher(), some_images(1), nearest(2))
    assert labels.status == ["unreached"] and int(labels.queries.sum()) == 1


@examples(max_examples=20, deadline=None)
@given(
    measure=st.sampled_from(["bd", "mbd"]),
    targets=st.integers(1, CLASSES - 1),
    per_pair=st.integers(0, 50),
    per_sample=st.none() | st.integers(0, 90),
    whole=st.none() | st.integers(0, 700),
)
def test_no_budget_is_exceeded_for_any_targets(measure, targets, per_pair, per_sample, whole):
    teacher = some_teacher()
    settings = LabelSettings(
        measure,
        starting_points=3,
        targets=targets,
        queries_per_pair=per_pair,
        queries_per_sample=per_sample,
        queries=whole,
    )
    labels = label(teacher, some_images(9), settings)

    spent = labels.queries.sum(1)
    assert int(spent.sum()) == teacher.total
    assert bool((spent <= divide_budget(settings, 9, CLASSES)).all())
    assert bool(((labels.queries > 0).sum(1) <= 1 + targets).all())
    assert whole is None or teacher.total <= whole


def test_a_sample_budget_is_divided_over_its_targets_only():
    searched = torch.tensor([[False, True, False, True, True], [False] * 5])

    limits = divide_over_targets(torch.tensor([12, 0]), searched, max_queries=1000)

    assert limits.tolist() == [[0, 4, 0, 4, 3], [0, 0, 0, 0, 0]]


def test_a_thousand_classes_make_no_more_pairs_than_are_searched():
    draw = torch.Generator().manual_seed(1)
    centres, images = torch.rand(1000, 32, generator=draw), torch.rand(200, 32, generator=draw)
    teacher = CountingTeacher(NearestCentroidTeacher(centres))
    settings = LabelSettings("bd", starting_points=3, targets=5)
    index = torch.arange(5)

    labels = label(teacher, images, settings, index=index)

    searched = labels.searched
    pairs = pairs_of(teacher, images[index], index, searched)
    assert len(pairs) == 5 * 5 == int((labels.queries > 1).sum())
    assert chunk_size(teacher, settings) == 256
    whole = dataclasses.replace(settings, targets=None, starting_points=20)
    assert chunk_size(teacher, whole) < chunk_size(teacher, dataclasses.replace(whole, targets=5))


class CountedImages(TensorImages):
    """Remembers how many images were read at once."""

    def __init__(self, images):
        super().__init__(images)
        self.max_read = 0

    def read(self, indices):
        self.max_read = max(self.max_read, len(indices))
        return super().read(indices)


def test_images_are_compared_in_blocks_and_only_within_the_candidate_pool(monkeypatch):
    monkeypatch.setattr("db3kd.boundary.candidate_pool._BLOCK_BYTES", {"cpu": 7 * 36 * 4})
    teacher, images = some_teacher(), some_images(90)
    counted, decisions = CountedImages(images), teacher.decide(images)
    limits = torch.full((90,), 1000)
    labeller = Labeller(teacher, counted, nearest(2), decisions, limits)

    in_blocks = labeller.targets(images[:4], decisions[:4])

    assert counted.max_read <= 7
    sample_distance = label(teacher, images, LabelSettings("sd")).distances[:4]
    others = other_classes(decisions[:4], CLASSES)
    assert torch.equal(in_blocks.sample_distance[others], sample_distance[others])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (0, "targets: expected .*1.*got 0"),
        (-2, "targets: expected .*1.*got -2"),
        (2.5, "targets: expected .*got 2.5"),
    ],
)
def test_an_invalid_number_of_targets_is_refused(targets, message):
    with pytest.raises((ValueError, TypeError), match=message):
        LabelSettings(targets=targets)


def test_more_targets_than_classes_are_refused_before_any_query():
    teacher = some_teacher()
    with pytest.raises(ValueError, match=r"targets: expected at most 5, .* got 6"):
        label(teacher, some_images(), nearest(6))
    assert teacher.total == 0


def test_targets_are_refused_with_sample_distances():
    with pytest.raises(ValueError, match="targets: expected None with measure 'sd'"):
        LabelSettings("sd", targets=2)


def test_a_batch_of_large_images_is_smaller():
    assert fitting_batch_size(2048, (1, 28, 28)) == 2048
    assert fitting_batch_size(2048, (3, 224, 224)) == 256 * 2**20 // (4 * 150_528)
    assert fitting_batch_size(2048, (10**10,)) == 1


@pytest.mark.parametrize("measure", ["bd", "mbd"])
def test_no_batch_takes_more_memory_than_allowed(measure, monkeypatch):
    monkeypatch.setattr("db3kd.querying.search._BATCH_BYTES", 10 * 36 * 4)
    teacher = some_teacher()
    few = label(teacher, some_images(20), dataclasses.replace(FULL, measure=measure))
    assert max(teacher.calls) <= 10
    monkeypatch.undo()
    assert_same(
        few, label(some_teacher(), some_images(20), dataclasses.replace(FULL, measure=measure))
    )
