"""The searches, against teachers whose boundary is known in closed form."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teachers_analytic import BallTeacher, CountingTeacher, LinearTeacher, NearestCentroidTeacher

from db3kd.boundary import (
    Pairs,
    SignOptSettings,
    StartingPoints,
    boundary_distance,
    minimal_boundary_distance,
    sample_distance,
)
from db3kd.boundary import candidate_pool as pool_module
from db3kd.boundary.probes import dct_basis
from db3kd.data.image_source import TensorImages
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger

WIDE = (-100.0, 100.0)


def gaussian(n, dimensions, seed=0):
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed))


def plane(dimensions, bounds=WIDE):
    """Two classes on the two sides of a plane through the origin."""
    normal = gaussian(1, dimensions, seed=7)
    return LinearTeacher(torch.cat([normal, -normal]), torch.zeros(2), bounds=bounds)


def targeted_pairs(teacher, samples, target=None):
    own = teacher.decide(samples)
    target = 1 - own if target is None else target
    number = torch.arange(len(samples))
    return Pairs(samples, number, number, target, bounds=teacher.bounds)


def starting_points(teacher, images, count=5, **options):
    return StartingPoints(TensorImages(images), teacher.decide(images), count, **options)


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


def test_the_nearest_starting_points_equal_those_of_a_full_search():
    teacher, candidate_pool = plane(20), gaussian(300, 20, seed=2)
    samples = gaussian(15, 20, seed=1)
    pairs = targeted_pairs(teacher, samples)
    rays = starting_points(teacher, candidate_pool, count=7).rays(pairs)
    classes = teacher.decide(candidate_pool)
    for pair in range(len(pairs)):
        mine = rays.lengths[rays.pair_of == pair]
        gaps = (candidate_pool[classes == pairs.criterion_class[pair]] - samples[pair]).norm(dim=1)
        torch.testing.assert_close(mine, gaps.sort().values[:7])


@pytest.mark.parametrize("most_bytes", [0, 640 << 20])
@pytest.mark.parametrize("order", ["nearest", "random"])
def test_starting_points_on_a_device_do_not_depend_on_where_the_pool_is_kept(
    device, order, most_bytes, monkeypatch
):
    monkeypatch.setattr(pool_module, "RESIDENT_BYTES", most_bytes)
    teacher, candidate_pool = plane(12), gaussian(60, 12, seed=2)
    pairs = targeted_pairs(teacher, gaussian(8, 12, seed=1))
    there = dataclasses.replace(
        pairs,
        samples=pairs.samples.to(device),
        sample_index=pairs.sample_index.to(device),
        sample_of=pairs.sample_of.to(device),
        criterion_class=pairs.criterion_class.to(device),
    )
    here = starting_points(teacher, candidate_pool, order=order).rays(pairs)
    rays = starting_points(teacher, candidate_pool, order=order).rays(there)
    assert rays.lengths.device.type == device.type
    assert torch.equal(rays.ends[rays.end_of].cpu(), here.ends[here.end_of])
    assert torch.equal(rays.pair_of.cpu(), here.pair_of)


@pytest.mark.parametrize(("most_bytes", "reads"), [(4 * 12 * 4, 0), (4 * 12 * 4 - 1, 2)])
def test_a_pool_is_copied_to_a_device_once_unless_it_is_too_large(most_bytes, reads, monkeypatch):
    monkeypatch.setattr(pool_module, "_BLOCK_BYTES", {"cpu": 2 * 12 * 4})
    monkeypatch.setattr(pool_module, "RESIDENT_BYTES", most_bytes)
    images = gaussian(7, 12)
    candidate_pool = pool_module.CandidatePool(
        TensorImages(images), torch.tensor([0, 0, 0, 1, 1, 1, -1]), max_images=4
    )
    far = torch.device("meta")
    first = candidate_pool.read(candidate_pool.numbers, far)
    read = []
    monkeypatch.setattr(
        candidate_pool.images, "read", lambda numbers: read.append(numbers) or images[numbers]
    )
    for _ in range(2):
        assert candidate_pool.read(candidate_pool.numbers[:3], far).shape == (3, 12)
    assert first.shape == (4, 12) and len(read) == reads


def test_random_starting_points_depend_on_seed_sample_and_target_only():
    teacher, candidate_pool = plane(5), gaussian(200, 5, seed=2)
    pairs = targeted_pairs(teacher, gaussian(6, 5, seed=1))
    chosen = starting_points(teacher, candidate_pool, order="random").rays(pairs)
    last = torch.tensor([5])
    alone = Pairs(
        pairs.samples[last],
        last,
        torch.tensor([0]),
        pairs.criterion_class[last],
        bounds=pairs.bounds,
    )
    again = starting_points(teacher, candidate_pool, order="random").rays(alone)
    other = starting_points(teacher, candidate_pool, order="random", seed=1).rays(alone)
    assert torch.equal(again.lengths, chosen.lengths[chosen.pair_of == 5])
    assert not torch.equal(again.lengths, other.lengths)


def test_all_images_of_a_class_are_used_if_there_are_too_few():
    teacher = plane(5)
    pairs = targeted_pairs(teacher, gaussian(3, 5, seed=1))
    candidate_pool = gaussian(8, 5, seed=2)
    for order in ("nearest", "random"):
        rays = starting_points(teacher, candidate_pool, count=50, order=order).rays(pairs)
        have = torch.bincount(teacher.decide(candidate_pool), minlength=2)
        assert torch.equal(torch.bincount(rays.pair_of), have[pairs.criterion_class])


def many_classes(dimensions=6, classes=4):
    return NearestCentroidTeacher(gaussian(classes, dimensions, seed=5), bounds=WIDE)


def ends_by_class(teacher, images, **options):
    """How many images of each class are ends of rays, of pairs with every target."""
    target = torch.arange(4).repeat(3)
    samples, sample_of = gaussian(3, 6, seed=1), torch.arange(3).repeat_interleave(4)
    pairs = Pairs(samples, torch.arange(3), sample_of, target, bounds=WIDE)
    rays = starting_points(teacher, images, count=10**6, **options).rays(pairs)
    classes = teacher.decide(rays.ends)
    assert torch.equal(classes[rays.end_of], target[rays.pair_of])
    return torch.bincount(classes, minlength=4).tolist(), rays


@pytest.mark.parametrize("order", ["nearest", "random"])
def test_a_set_that_fits_into_the_pool_is_used_whole(order):
    teacher, images = many_classes(), gaussian(50, 6, seed=2)
    whole, rays = ends_by_class(teacher, images, order=order)
    pooled, same = ends_by_class(teacher, images, order=order, candidate_pool=50)
    assert sum(whole) == 50 and whole == pooled
    assert torch.equal(rays.lengths, same.lengths) and torch.equal(rays.ends, same.ends)


@pytest.mark.parametrize("order", ["nearest", "random"])
def test_each_class_of_a_larger_set_contributes_equally_or_all_its_images(order):
    teacher, images = many_classes(), gaussian(400, 6, seed=2)
    have = torch.bincount(teacher.decide(images)).tolist()
    pooled, _ = ends_by_class(teacher, images, order=order, candidate_pool=200)
    share = max(pooled)
    assert pooled == [min(count, share) for count in have]
    assert sum(pooled) <= 200 < sum(min(count, share + 1) for count in have)


def test_the_smallest_pool_has_an_image_of_each_class():
    assert ends_by_class(many_classes(), gaussian(100, 6, seed=2), candidate_pool=1)[0] == [1] * 4


def test_the_images_of_the_pool_depend_on_the_seed():
    teacher, images = many_classes(), gaussian(100, 6, seed=2)
    first, again, other = (
        ends_by_class(teacher, images, candidate_pool=20, seed=seed)[1].ends for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("order", ["nearest", "random"])
def test_the_rays_of_an_untargeted_pair_lead_to_all_other_classes(order):
    teacher, images = many_classes(), gaussian(100, 6, seed=2)
    samples, number = gaussian(3, 6, seed=1), torch.arange(3)
    pairs = Pairs(samples, number, number, number, targeted=False, bounds=WIDE)
    rays = starting_points(teacher, images, count=100, order=order, candidate_pool=40).rays(pairs)
    classes = teacher.decide(rays.ends)
    assert not bool((classes[rays.end_of] == rays.pair_of).any())
    in_pool = torch.bincount(classes, minlength=4)
    assert torch.equal(torch.bincount(rays.pair_of), in_pool.sum() - in_pool[:3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count: expected at least 1 starting point a pair, got 0"),
        ({"order": "far"}, "order: expected 'nearest' or 'random', got 'far'"),
        (
            {"candidate_pool": 0},
            "candidate_pool: expected at least 1 image, or None for all",
        ),
    ],
)
def test_invalid_options_of_starting_points_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        starting_points(plane(2), gaussian(4, 2), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probes": 0}, "probes: expected an integer of at least 1, got 0"),
        ({"noise": "uniform"}, "noise: expected 'rademacher' or 'gaussian', got 'uniform'"),
        ({"steps": ()}, "steps: expected at least one positive length"),
        ({"momentum": 1.0}, r"momentum.*in \[0, 1\)"),
        ({"trust": 1.5}, "trust: expected 0 < least_gain <= tolerance < trust / 2 < 0.5"),
        (
            {"frequencies": 0},
            "frequencies: expected 'auto', None or an integer of at least 1",
        ),
    ],
)
def test_invalid_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SignOptSettings(**change)


def test_low_frequencies_need_images_with_height_and_width():
    with pytest.raises(ValueError, match="frequencies: expected None, as images of shape"):
        SignOptSettings(frequencies=4).directions((10,), 0)


def test_probes_start_with_low_frequencies_and_end_with_all_pixels():
    drawn = [
        SignOptSettings().directions((3, 224, 112), number).frequencies for number in range(60)
    ]
    assert drawn[0] == 67 and drawn[39] == 223
    assert drawn[:40] == sorted(drawn[:40]) and drawn[40:] == [None] * 20
    constant = SignOptSettings(frequencies=9).directions((3, 32, 32), 30)
    assert constant.frequencies == 9
    assert SignOptSettings().directions((1, 8, 8), 0).frequencies is None


def test_the_dct_basis_is_orthonormal_and_its_first_row_is_constant():
    basis = dct_basis(5, 12)
    torch.testing.assert_close(basis @ basis.T, torch.eye(5), atol=1e-6, rtol=0)
    assert float(basis[0].std()) == pytest.approx(0, abs=1e-7)
