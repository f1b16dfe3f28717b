"""Starting points and the candidate pool that they are chosen from."""

import dataclasses

import pytest
import torch
from boundary_cases import WIDE, gaussian, plane, starting_points, targeted_pairs
from teachers_analytic import NearestCentroidTeacher

from db3kd.boundary import Pairs, StartingPoints
from db3kd.boundary import candidate_pool as pool_module
from db3kd.data.image_source import TensorImages


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


def low_contrast(count: int, mean: float, deviation: float) -> torch.Tensor:
    return mean + deviation * gaussian(count, 30_000, seed=3)


@pytest.mark.parametrize(
    ("images", "bounds"),
    [
        (low_contrast(120, 0.95, 0.005), (0.0, 1.0)),
        (low_contrast(120, 32_768.0, 20.0), (0.0, 65_535.0)),
        # The mean of all images is far from each of them.
        (torch.cat([low_contrast(60, 0.05, 0.002), low_contrast(60, 0.95, 0.002)]), (0.0, 1.0)),
    ],
    ids=["bright", "large values", "two groups"],
)
def test_the_nearest_images_of_low_contrast_equal_those_of_exact_differences(
    device, images, bounds
):
    decisions, number = torch.arange(len(images)) % 2, torch.arange(40)
    pairs = Pairs(
        images[number].to(device),
        number.to(device),
        number.to(device),
        1 - decisions[number].to(device),
        bounds=bounds,
    )
    points = StartingPoints(TensorImages(images), decisions, count=3)
    exact = torch.cdist(
        images[number].double(),
        images.double(),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    exact[decisions[number, None] == decisions] = torch.inf
    expected = exact.sort().values[:, :3].float()

    torch.testing.assert_close(points.nearest_distance(pairs), expected[:, 0], rtol=3e-7, atol=0)
    lengths = points.rays(pairs).lengths.cpu().view(40, 3)
    torch.testing.assert_close(lengths, expected, rtol=3e-7, atol=0)


@pytest.mark.parametrize("block_bytes", [1, 12 * 50 * 4, 8 << 20])
def test_images_at_the_same_distance_are_chosen_by_their_number(block_bytes, monkeypatch):
    monkeypatch.setattr(pool_module, "_BLOCK_BYTES", {"cpu": block_bytes})
    order = torch.randperm(50, generator=torch.Generator().manual_seed(4))
    images = torch.eye(50)[order] / 3
    zero = torch.zeros(1, 50), torch.tensor([0]), torch.tensor([0]), torch.tensor([1])
    points = StartingPoints(TensorImages(images), torch.ones(50, dtype=torch.int64), count=4)
    rays = points.rays(Pairs(*zero))
    assert torch.equal(rays.ends[rays.end_of], images[:4])


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
        ({"count": 0}, "count: expected at least 1 starting point per pair, got 0"),
        ({"order": "far"}, "order: expected one of nearest, random, got 'far'"),
        (
            {"candidate_pool": 0},
            "candidate_pool: expected at least 1 image, or None for all",
        ),
    ],
)
def test_invalid_options_of_starting_points_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        starting_points(plane(2), gaussian(4, 2), **options)
