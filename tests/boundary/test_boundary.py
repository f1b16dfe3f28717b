"""The searches, against teachers whose boundary is known in closed form."""

import pytest
import torch
from boundary_cases import WIDE, gaussian, plane, starting_points, targeted_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from teachers_analytic import BallTeacher, CountingTeacher, NearestCentroidTeacher

from db3kd.boundary import (
    Pairs,
    SignOptSettings,
    boundary_distance,
    minimal_boundary_distance,
    sample_distance,
)
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger


def search_bd(teacher, pairs, rays, limit=10_000, **options):
    ledger = Ledger(torch.full((len(pairs),), limit))
    return run(boundary_distance(pairs, rays, budget=ledger, **options), teacher, ledger), ledger


def search_mbd(
    teacher, pairs, rays, limit, sign_opt=None, image_shape=None, query_batch_size=2048, seed=0
):
    ledger = Ledger(torch.full((len(pairs),), limit))
    shape = image_shape or tuple(pairs.samples.shape[1:])

    def search():
        boundary = yield from boundary_distance(
            pairs,
            rays,
            relative=1e-2,
            budget=ledger,
            query_batch_size=query_batch_size,
            snapshots=(50, limit),
        )
        yield from minimal_boundary_distance(
            pairs,
            boundary,
            shape,
            sign_opt or SignOptSettings(),
            seed=seed,
            query_batch_size=query_batch_size,
            budget=ledger,
        )
        return boundary

    return run(search(), teacher, ledger), ledger


def crossing_on_a_plane(teacher, pairs, rays):
    """[R] float64: the radius at which each ray crosses the plane through the origin."""
    normal = teacher.weights[0] / teacher.weights[0].norm()
    start = pairs.samples[pairs.sample_of[rays.pair_of]].double()
    direction = rays.ends[rays.end_of].double() - start
    direction = direction / direction.norm(dim=1, keepdim=True)
    return -(start @ normal) / (direction @ normal)


def smallest_of_each_pair(values, pair_of, pairs):
    smallest = torch.full((pairs,), torch.inf, dtype=torch.float64)
    return smallest.scatter_reduce(0, pair_of, values, "amin")


def test_sample_distance_is_the_distance_to_the_nearest_image_of_the_class():
    teacher, candidate_pool = plane(12), gaussian(60, 12, seed=2)
    samples = gaussian(8, 12, seed=1)
    pairs = targeted_pairs(teacher, samples)
    boundary = sample_distance(pairs, starting_points(teacher, candidate_pool).rays(pairs))
    classes = teacher.decide(candidate_pool)
    for sample, target, distance in zip(
        samples, pairs.criterion_class, boundary.distance, strict=True
    ):
        expected = (candidate_pool[classes == target] - sample).norm(dim=1).min()
        assert distance == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("dimensions", [2, 64])
def test_boundary_distance_to_a_plane_is_exact_to_tolerance(dimensions):
    teacher = plane(dimensions)
    pairs = targeted_pairs(teacher, gaussian(20, dimensions, seed=1))
    rays = starting_points(teacher, gaussian(100, dimensions, seed=2), count=8).rays(pairs)
    boundary, _ = search_bd(teacher, pairs, rays, relative=1e-4)
    expected = smallest_of_each_pair(
        crossing_on_a_plane(teacher, pairs, rays), rays.pair_of, len(pairs)
    )
    torch.testing.assert_close(boundary.distance.double(), expected, rtol=2e-4, atol=1e-5)
    assert bool((teacher.decide(boundary.points) == pairs.criterion_class).all())


def test_boundary_distance_into_a_ball_is_exact_along_a_ray_to_its_centre():
    teacher = BallTeacher(torch.zeros(10), 2.0, bounds=WIDE)
    samples = gaussian(12, 10, seed=1) * 3 + 4
    pairs = targeted_pairs(teacher, samples)
    rays = starting_points(teacher, torch.zeros(1, 10)).rays(pairs)
    boundary, _ = search_bd(teacher, pairs, rays, relative=1e-4)
    torch.testing.assert_close(
        boundary.distance.double(), teacher.distance(samples), rtol=2e-4, atol=1e-5
    )


def test_minimal_boundary_distance_to_a_plane_is_within_two_percent():
    teacher = plane(64)
    samples = gaussian(20, 64, seed=1)
    pairs = targeted_pairs(teacher, samples)
    rays = starting_points(teacher, gaussian(100, 64, seed=2)).rays(pairs)
    boundary, _ = search_mbd(teacher, pairs, rays, limit=3000)
    expected = teacher.distance(samples, 1).where(
        pairs.criterion_class == 1, teacher.distance(samples, 0)
    )
    ratio = boundary.distance / expected
    assert float(ratio.min()) > 1 - 1e-4 and float(ratio.max()) < 1.02


def test_probes_that_grow_without_limit_are_those_that_the_budget_pays_for():
    teacher = plane(64)
    pairs = targeted_pairs(teacher, gaussian(5, 64, seed=1))
    rays = starting_points(teacher, gaussian(100, 64, seed=2)).rays(pairs)
    boundary, ledger = search_mbd(teacher, pairs, rays, 200, SignOptSettings(growth=1e37))
    first, _ = search_mbd(teacher, pairs, rays, 200, SignOptSettings(rounds=1))
    assert bool((boundary.distance < first.distance).any())
    assert bool((boundary.distance <= first.distance).all() and (ledger.spent <= 200).all())


def test_minimal_boundary_distance_into_a_ball_is_within_two_percent():
    teacher = BallTeacher(torch.zeros(48), 4.0, bounds=WIDE)
    samples = gaussian(12, 48, seed=1) * 2
    samples = samples[teacher.decide(samples) == 0]
    pairs = targeted_pairs(teacher, samples)
    rays = starting_points(teacher, gaussian(20, 48, seed=2) * 0.3).rays(pairs)
    boundary, _ = search_mbd(teacher, pairs, rays, limit=3000)
    ratio = boundary.distance / teacher.distance(samples)
    assert float(ratio.min()) > 1 - 1e-4 and float(ratio.max()) < 1.02


def test_minimal_boundary_distance_between_centroids_is_within_two_percent():
    teacher = NearestCentroidTeacher(gaussian(2, 1 * 16 * 16, seed=3), (1, 16, 16), bounds=WIDE)
    samples = gaussian(10, 256, seed=1).view(-1, 1, 16, 16)
    pairs = targeted_pairs(teacher, samples.flatten(1), target=1 - teacher.decide(samples))
    candidate_pool = gaussian(40, 256, seed=2).view(-1, 1, 16, 16)
    rays = starting_points(teacher, candidate_pool).rays(pairs)
    sign_opt = SignOptSettings(frequencies=None, tolerance=1e-3)
    boundary, _ = search_mbd(teacher, pairs, rays, 6000, sign_opt, image_shape=(1, 16, 16))
    expected = teacher.distance(samples, 1).where(
        pairs.criterion_class == 1, teacher.distance(samples, 0)
    )
    assert float((boundary.distance / expected).max()) < 1.02


def test_an_untargeted_search_leaves_the_class_for_the_nearest_other():
    centroids = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 2.0]])
    teacher = NearestCentroidTeacher(centroids, bounds=WIDE)
    pairs = Pairs(
        torch.zeros(1, 2),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
        criterion_class=torch.tensor([0]),
        targeted=False,
        bounds=WIDE,
    )
    rays = starting_points(teacher, centroids).rays(pairs)
    assert len(rays) == 2
    boundary, _ = search_bd(teacher, pairs, rays, relative=1e-4)
    assert float(boundary.distance) == pytest.approx(1.0, rel=1e-3)


def test_a_ray_that_cannot_win_is_dropped():
    """One ray crosses the boundary early and ten late; the late ones are queried once."""
    teacher = plane(2)
    normal = teacher.weights[1].float() / teacher.weights[1].float().norm()
    along = torch.stack([-normal[1], normal[0]])
    samples = (-normal)[None]
    pairs = targeted_pairs(teacher, samples, target=torch.tensor([1]))
    late = samples + 40 * along + torch.linspace(1.05, 1.1, 10)[:, None] * normal
    early = samples + 50 * normal
    rays = starting_points(teacher, torch.cat([late, early]), count=11).rays(pairs)
    counting = CountingTeacher(teacher)
    boundary, ledger = search_bd(counting, pairs, rays, relative=1e-3)
    assert float(boundary.distance) == pytest.approx(1.0, rel=2e-3)
    assert int(ledger.spent) == counting.total <= 11 + 20


def test_a_search_that_runs_out_of_budget_returns_the_best_so_far():
    teacher = plane(16)
    pairs = targeted_pairs(teacher, gaussian(6, 16, seed=1))
    rays = starting_points(teacher, gaussian(60, 16, seed=2)).rays(pairs)
    start = sample_distance(pairs, rays).distance
    last = start
    for limit in (0, 1, 6, 12, 40, 200):
        boundary, ledger = search_mbd(CountingTeacher(teacher), pairs, rays, limit)
        assert int(ledger.spent.max()) <= limit
        assert bool((boundary.distance <= last).all())
        last = boundary.distance
    assert bool((last < start).all())


def test_snapshots_hold_the_distance_at_their_number_of_queries():
    teacher = plane(16)
    pairs = targeted_pairs(teacher, gaussian(6, 16, seed=1))
    rays = starting_points(teacher, gaussian(60, 16, seed=2)).rays(pairs)
    long, _ = search_mbd(teacher, pairs, rays, 400)
    assert torch.equal(long.snapshots[400], long.distance)
    assert bool((long.snapshots[50] >= long.distance).all())
    assert bool((long.snapshots[50] < sample_distance(pairs, rays).distance).all())


def test_a_pair_without_starting_points_is_at_infinity_and_costs_nothing():
    teacher = plane(4)
    candidate_pool = gaussian(30, 4, seed=2)
    candidate_pool = candidate_pool[teacher.decide(candidate_pool) == 0]
    pairs = targeted_pairs(teacher, gaussian(10, 4, seed=1))
    boundary, ledger = search_mbd(
        teacher, pairs, starting_points(teacher, candidate_pool).rays(pairs), 60
    )
    unreachable = pairs.criterion_class == 1
    assert bool(boundary.distance[unreachable].isinf().all())
    assert bool(boundary.distance[~unreachable].isfinite().all())
    assert not bool(ledger.spent[unreachable].any())


def test_a_sample_that_is_in_its_target_class_is_at_distance_zero_and_affects_no_other():
    teacher = plane(16)
    samples, candidate_pool = gaussian(6, 16, seed=1), gaussian(60, 16, seed=2)
    rightly = targeted_pairs(teacher, samples)
    target = rightly.criterion_class.clone()
    target[2] = 1 - target[2]
    pairs = targeted_pairs(teacher, samples, target)
    candidate_pool = torch.cat([candidate_pool, samples])
    boundary, ledger = search_mbd(
        teacher, pairs, starting_points(teacher, candidate_pool).rays(pairs), 300
    )
    expected, _ = search_mbd(
        teacher, rightly, starting_points(teacher, candidate_pool).rays(rightly), 300
    )
    others = torch.arange(6) != 2
    assert float(boundary.distance[2]) == 0 and int(ledger.spent[2]) <= 300
    assert torch.equal(boundary.distance[others], expected.distance[others])


def test_queries_stay_inside_the_bounds():
    teacher = plane(16, bounds=(-1.0, 1.0))
    candidate_pool, samples = (
        gaussian(60, 16, seed=2).clamp(-1, 1),
        gaussian(6, 16, seed=1).clamp(-1, 1),
    )
    counting = CountingTeacher(teacher, keep=True)
    pairs = targeted_pairs(teacher, samples)
    search_mbd(counting, pairs, starting_points(teacher, candidate_pool).rays(pairs), 300)
    assert float(torch.cat(counting.images).abs().max()) <= 1.0


@settings(max_examples=15, deadline=None)
@given(
    limit=st.integers(0, 120),
    max_batch=st.sampled_from([1, 7, 64]),
    query_batch_size=st.sampled_from([1, 5, 64]),
)
def test_a_search_of_a_sample_does_not_depend_on_other_samples(limit, max_batch, query_batch_size):
    teacher = plane(9)
    teacher.max_batch = max_batch
    pairs = targeted_pairs(teacher, gaussian(4, 9, seed=1))
    candidate_pool = starting_points(teacher, gaussian(30, 9, seed=2))
    together, ledger = search_mbd(
        teacher, pairs, candidate_pool.rays(pairs), limit, query_batch_size=query_batch_size
    )
    for number in range(4):
        one = torch.tensor([number])
        alone = Pairs(
            pairs.samples[one], one, torch.tensor([0]), pairs.criterion_class[one], bounds=WIDE
        )
        counting = CountingTeacher(teacher)
        boundary, _ = search_mbd(counting, alone, candidate_pool.rays(alone), limit)
        assert counting.total == int(ledger.spent[number]) <= limit
        assert torch.equal(boundary.distance, together.distance[one])
        assert torch.equal(boundary.points, together.points[one])
