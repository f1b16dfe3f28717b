"""Moves away from boundaries that are known in closed form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teachers_analytic import (
    AnalyticTeacher,
    BallTeacher,
    ConstantTeacher,
    CountingTeacher,
    LinearTeacher,
    NearestCentroidTeacher,
    image_key,
)
from torch import Tensor

from db3kd.boundary import SignOptSettings, StartingPoints
from db3kd.data.files.uint8_pixels import to_float, to_uint8
from db3kd.data.image_source import TensorImages
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import Search
from db3kd.synthesis.moves import Moved, Moves, move_away

SHAPE = (1, 8, 8)
UNIT = (0.0, 1.0)
BOUNDS = [UNIT, (-1.0, 1.0), (0.0, 255.0)]
PLENTY = 100_000


def plane(bounds: tuple[float, float] = UNIT) -> LinearTeacher:
    """Class 0 where the left half is brighter than the right, else class 1."""
    left = torch.zeros(SHAPE)
    left[..., :4] = 1
    weights = torch.stack([left.flatten(), 1 - left.flatten()])
    return LinearTeacher(weights, torch.zeros(2), SHAPE, bounds=bounds)


def centroids(bounds: tuple[float, float] = UNIT) -> NearestCentroidTeacher:
    lower, upper = bounds
    spots = torch.rand(4, 64, generator=torch.Generator().manual_seed(3))
    return NearestCentroidTeacher(lower + (upper - lower) * spots, SHAPE, bounds=bounds)


def grey(count: int = 24, low: int = 90, high: int = 166) -> Tensor:
    """Levels around the middle, with room to move both ways."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(low, high, (count, *SHAPE), generator=generator, dtype=torch.uint8)


class Walk:
    """Samples moved, what they were, and what the teacher was asked."""

    def __init__(
        self,
        teacher: AnalyticTeacher,
        pixels: Tensor,
        *,
        budget: int | Tensor = PLENTY,
        query_batch_size: int = 64,
        seed: int = 0,
        index: Tensor | None = None,
        starting_points: bool = True,
        snapshots: tuple[int, ...] = (),
        **changes: object,
    ) -> None:
        self.teacher = CountingTeacher(teacher)
        self.before = pixels
        images = to_float(pixels, teacher.bounds)
        self.own = teacher.decide(images)
        everything = pixels if index is None else grey()
        pool = to_float(everything, teacher.bounds)
        ends = StartingPoints(TensorImages(pool), teacher.decide(pool), 5)
        self.ledger = Ledger(torch.as_tensor(budget).expand(len(pixels)).clone())
        search = move_away(
            pixels,
            torch.arange(len(pixels)) if index is None else index,
            self.own,
            Moves(**{"count": 1, "sign_opt": SignOptSettings(frequencies=None)} | changes),
            starting_points=ends if starting_points else None,
            bounds=teacher.bounds,
            seed=seed,
            query_batch_size=query_batch_size,
            budget=self.ledger,
            snapshots=snapshots,
        )
        self.queries: list[Tensor] = []
        self.moved: Moved = run(self._noted(search), self.teacher, self.ledger)

    def distances(self, pixels: Tensor) -> Tensor:
        """To the teacher's true boundary."""
        images = to_float(pixels, self.teacher.bounds)
        if isinstance(self.teacher.inner, BallTeacher):
            return self.teacher.inner.distance(images)
        classes = range(self.teacher.classes)
        return torch.stack(
            [
                self.teacher.inner.distance(images, target).masked_fill(self.own == target, 1e9)
                for target in classes
            ]
        ).amin(0)

    def _noted(self, search: Search[Moved]) -> Search[Moved]:
        """The search; the images of each of its queries are kept."""
        decisions = None
        while True:
            try:
                query = search.send(decisions)
            except StopIteration as finished:
                return finished.value
            self.queries.append(query.images)
            decisions = yield query


def same(one: Moved, other: Moved) -> bool:
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.distance, other.distance)


def halves(*heights: int) -> Tensor:
    """One sample a height: the left half so many levels above the middle, the right half below."""
    pixels = torch.full((len(heights), *SHAPE), 128)
    for sample, height in zip(pixels, heights, strict=True):
        sample[..., :4] += height
        sample[..., 4:] -= height
    return pixels.to(torch.uint8)


def ball(radius: float) -> BallTeacher:
    """Class 1 around the grey image of level 127.5."""
    return BallTeacher(torch.full((64,), 0.5), radius, SHAPE)


@pytest.mark.parametrize("bounds", BOUNDS)
def test_levels_outlive_the_way_to_images_and_back(bounds):
    pixels = torch.arange(256, dtype=torch.uint8)

    images = to_float(pixels, bounds)

    assert (images.min(), images.max()) == bounds
    assert torch.equal(to_uint8(images, bounds), pixels)


@pytest.mark.parametrize("bounds", BOUNDS)
def test_a_move_goes_its_length_straight_away_from_a_plane(bounds):
    unit = bounds[1] - bounds[0]
    samples = halves(20, -20, 31, -31)  # each the mirror image of another, behind the plane

    walk = Walk(plane(bounds), samples, length=0.5, queries_per_move=0, tolerance=1e-4)

    gained = (walk.distances(walk.moved.pixels) - walk.distances(samples)) / unit
    grid = 8 * 0.5 / 255  # half a level in each of 64 pixels
    assert walk.moved.moves.tolist() == [1] * 4
    assert gained.tolist() == pytest.approx([0.5] * 4, abs=grid)
    known = walk.moved.distance.double()
    assert known.tolist() == pytest.approx(walk.distances(walk.moved.pixels).tolist(), rel=1e-3)


@pytest.mark.parametrize("bounds", BOUNDS)
def test_a_walk_goes_away_from_whatever_boundary_there_is(bounds):
    walk = Walk(centroids(bounds), grey(), count=5, length=0.1)

    gained = walk.distances(walk.moved.pixels) - walk.distances(walk.before)
    assert gained.mean() > 0.1 * (bounds[1] - bounds[0])
    assert torch.equal(walk.teacher.inner.decide(to_float(walk.moved.pixels, bounds)), walk.own)


def test_what_is_stored_is_to_the_bit_what_the_teacher_was_asked():
    walk = Walk(centroids((-1.0, 1.0)), grey(), count=3, length=0.2)

    asked = walk.teacher.per_image
    assert walk.moved.moves.min() > 0
    assert all(image_key(image) in asked for image in to_float(walk.moved.pixels, (-1.0, 1.0)))


def test_a_warm_walk_spends_no_query_on_first_rays_after_its_first_move():
    samples = halves(20, -20, 31, -31)
    once, often = (Walk(plane(), samples, count=count, queries_per_move=0) for count in (1, 4))

    assert (often.moved.moves == 4).all()
    assert often.teacher.total - once.teacher.total == 3 * 4, "a query a move, for where it leads"


def test_a_cold_walk_looks_in_twenty_random_directions_before_each_move():
    walk = Walk(plane(), grey(1), count=3, warm=False, queries_per_move=0)

    assert [len(images) for images in walk.queries].count(20) == 3


def test_random_directions_are_new_for_each_move():
    walk = Walk(plane(), grey(1), count=2, warm=False, queries_per_move=0)

    first, second = (images.flatten() > 0.5 for images in walk.queries if len(images) == 20)
    # Streams of random numbers that overlap would agree where one is shifted.
    agreement = [(first[k:] == second[: len(second) - k]).float().mean() for k in range(33)]
    assert max(agreement) < 0.6


def test_a_walk_without_candidates_looks_in_random_directions():
    walk = Walk(plane(), grey(), starting_points=False)

    assert (walk.moved.moves == 1).all() and walk.moved.distance.isfinite().all()


def test_a_move_that_leaves_the_class_is_halved():
    sample = torch.full((1, *SHAPE), 128, dtype=torch.uint8)
    sample[0, 0, 0, 0] += 77  # 0.3 off the centre
    other = sample.clone()
    other[0, 0, 0, 0] += 40
    samples = torch.cat([sample, other])  # on one line with the centre, on both sides of the sphere

    walk = Walk(ball(0.4), samples, length=1.0, queries_per_move=0, tolerance=1e-4)

    # 1 would lead through the ball and out of it, to -0.7; 0.5 leads to -0.2.
    assert walk.moved.moves.tolist() == [1, 1]
    assert int(walk.moved.pixels[0, 0, 0, 0]) == pytest.approx(128 + 77 - 127, abs=1)


def test_a_sample_that_no_halving_keeps_is_left_where_it_is_and_holds_up_no_other():
    inside = torch.full((1, *SHAPE), 128, dtype=torch.uint8)
    samples = torch.cat([inside, halves(20, -20)])
    options = {"length": 0.7, "halvings": 1, "queries_per_move": 0}

    once, often = (Walk(ball(0.1), samples, count=count, **options) for count in (1, 4))

    assert often.moved.moves.tolist() == [0, 4, 4]
    assert torch.equal(often.moved.pixels[0], samples[0])
    assert often.ledger.spent[0] == once.ledger.spent[0], "nothing more is spent on it"


def test_a_move_too_short_to_change_a_level_is_neither_asked_nor_counted():
    samples = halves(20, -20)

    walk = Walk(plane(), samples, count=5, length=1e-4, queries_per_move=0)
    none = Walk(plane(), samples, budget=walk.ledger.spent, count=5, queries_per_move=0)

    assert walk.moved.moves.tolist() == [0, 0] and torch.equal(walk.moved.pixels, samples)
    assert none.moved.moves.tolist() == [0, 0], "its budget went to the boundary alone"


def test_a_walk_without_a_boundary_leaves_its_samples_alone():
    walk = Walk(ConstantTeacher(2, SHAPE, 4), grey(), count=3, starting_points=False)

    assert torch.equal(walk.moved.pixels, walk.before)
    assert walk.moved.distance.isinf().all() and not walk.moved.moves.any()
    assert walk.teacher.total == 24 * 20, "twenty random directions each, and no more"


def test_no_moves_cost_no_query():
    walk = Walk(plane(), grey(), count=0, snapshots=(0, 5))

    assert walk.teacher.total == 0 and torch.equal(walk.moved.pixels, walk.before)
    assert torch.equal(walk.moved.snapshots[5][0], walk.before)


def test_moves_end_at_the_bounds():
    walk = Walk(plane(), halves(100, -100), count=30, queries_per_move=0)

    assert set(walk.moved.pixels.unique().tolist()) == {0, 255}
    assert (walk.moved.moves < 30).all(), "a sample in its corner is done"


def test_snapshots_show_samples_after_so_many_moves():
    walk = Walk(centroids(), grey(), count=3, length=0.2, snapshots=(0, 2, 3, 9))

    twice = Walk(centroids(), grey(), count=2, length=0.2)
    pixels = {count: noted for count, (noted, _) in walk.moved.snapshots.items()}
    assert torch.equal(pixels[0], walk.before)
    assert torch.equal(pixels[2], twice.moved.pixels)
    assert torch.equal(pixels[3], walk.moved.pixels) and torch.equal(pixels[9], walk.moved.pixels)
    distances = [walk.moved.snapshots[count][1] for count in (0, 2, 3)]
    means = [noted[noted.isfinite()].mean() for noted in distances]
    assert means[0] < means[1] < means[2]
    assert torch.equal(distances[2], walk.moved.distance)


def test_a_snapshot_holds_samples_that_stopped_before_it():
    walk = Walk(plane(), halves(100, -100), count=30, queries_per_move=0, snapshots=(0, 20))

    assert torch.equal(walk.moved.snapshots[20][0], walk.moved.pixels)


@pytest.mark.parametrize("warm", [True, False])
def test_a_sample_moves_alike_whatever_moves_beside_it(warm):
    options = {"count": 2, "length": 0.2, "warm": warm, "queries_per_move": 60}
    whole = Walk(centroids(), grey(), query_batch_size=512, **options).moved
    chosen = torch.tensor([17, 3, 8])

    part = Walk(centroids(), grey()[chosen], index=chosen, query_batch_size=7, **options).moved

    assert torch.equal(part.pixels, whole.pixels[chosen])
    assert torch.equal(part.distance, whole.distance[chosen])


def test_the_seed_names_the_random_directions():
    options = {"warm": False, "queries_per_move": 60}
    one, again, other = (Walk(centroids(), grey(), seed=s, **options).moved for s in (0, 0, 1))

    assert same(one, again) and not same(one, other)


@given(
    budgets=st.lists(st.integers(0, 150), min_size=6, max_size=6),
    warm=st.booleans(),
    query_batch_size=st.sampled_from([1, 5, 64]),
)
@settings(max_examples=25)
def test_no_sample_spends_a_query_beyond_its_budget(budgets, warm, query_batch_size):
    walk = Walk(
        centroids(), grey(6), budget=torch.tensor(budgets),
        query_batch_size=query_batch_size, count=3, length=0.2, warm=warm, queries_per_move=40,
    )  # fmt: skip

    assert (walk.ledger.spent <= torch.tensor(budgets)).all()
    assert walk.teacher.total == int(walk.ledger.spent.sum())
    stays = walk.teacher.inner.decide(to_float(walk.moved.pixels, UNIT)) == walk.own
    assert stays.all(), "whatever the budget, samples keep their class"


def test_a_sample_without_a_budget_stays_and_holds_up_no_other():
    walk = Walk(plane(), grey(6), budget=torch.tensor([0, *[PLENTY] * 5]))

    assert walk.moved.moves.tolist() == [0, 1, 1, 1, 1, 1]
    assert torch.equal(walk.moved.pixels[0], walk.before[0])


def test_the_published_moves_start_anew_each_time():
    published = Moves.paper()

    assert (published.count, published.length, published.warm) == (40, 0.5, False)
    assert published.sign_opt == SignOptSettings.paper()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": -1}, "count: expected an integer of at least 0, got -1"),
        ({"halvings": 1.5}, "halvings: expected an integer"),
        ({"queries_per_sample": -1}, "queries_per_sample: expected"),
        ({"length": 0.0}, "length: expected a finite length above 0, got 0.0"),
        ({"length": float("nan")}, "length: expected a finite length above 0, got nan"),
        ({"length": float("inf")}, "length: expected a finite length above 0, got inf"),
        ({"tolerance": 1.0}, "tolerance: expected a share"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        Moves(**changes)
