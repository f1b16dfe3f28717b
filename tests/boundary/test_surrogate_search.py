"""Searches with a surrogate, against teachers whose boundary is known in closed form."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from label_runs import write_run
from teachers_analytic import BallTeacher, CountingTeacher, LinearTeacher, RaisingTeacher
from torch import nn

from db3kd.boundary import (
    Boundary,
    Pairs,
    Rays,
    SignOptSettings,
    StartingPoints,
    Surrogate,
    boundary_distance,
    minimal_boundary_distance,
)
from db3kd.boundary.cached_normals import CachedNormals
from db3kd.boundary.surrogate import batch_size
from db3kd.data.image_source import TensorImages
from db3kd.data.source import Source
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.label_files import load_labels
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.teachers import ModuleTeacher, TeacherError

WIDE = (-100.0, 100.0)
SIDE = 40
POOL = 200


def gaussian(n, dimensions=SIDE, seed=0):
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed))


def linear_teacher(classes=4):
    return LinearTeacher(gaussian(classes, seed=7), gaussian(classes, 1, seed=8)[:, 0], bounds=WIDE)


def network_of(teacher, gain=1.0, shift=0.0):
    """A network with the teacher's boundaries, moved if there is a shift."""
    layer = nn.Linear(SIDE, teacher.classes)
    with torch.no_grad():
        layer.weight.copy_(teacher.weights * gain)
        layer.bias.copy_(teacher.bias * gain + shift * torch.arange(teacher.classes))
    return layer


def pairs_of(teacher, count=6, seed=1):
    """Each sample with the class after its predicted one."""
    samples = gaussian(count, seed=seed)
    number = torch.arange(count)
    target = (teacher.decide(samples) + 1) % teacher.classes
    return Pairs(samples, number, number, target, bounds=teacher.bounds)


def search(teacher, pairs, limit, surrogate=None, spread=1.0, query_batch_size=512):
    """MBD of the pairs, with starting points at this spread, and the ledger."""
    ledger = Ledger(torch.full((len(pairs),), limit))
    candidate_pool = gaussian(POOL, seed=2) * spread
    rays = StartingPoints(TensorImages(candidate_pool), teacher.decide(candidate_pool), 5).rays(
        pairs
    )

    def searches():
        boundary = yield from boundary_distance(
            pairs, rays, relative=1e-2, budget=ledger, surrogate=surrogate
        )
        yield from minimal_boundary_distance(
            pairs,
            boundary,
            (SIDE,),
            SignOptSettings(),
            seed=0,
            query_batch_size=query_batch_size,
            budget=ledger,
            surrogate=surrogate,
        )
        return boundary

    return run(searches(), teacher, ledger), ledger


def optimum(teacher, pairs):
    """The true distances: to the nearest point at which the target class wins."""
    return torch.stack(
        [
            teacher.distance(pairs.samples[[number]], int(target))[0]
            for number, target in enumerate(pairs.criterion_class.tolist())
        ]
    )


def test_a_surrogate_with_the_teachers_boundaries_leads_to_the_optimum_without_probes():
    teacher = linear_teacher(classes=2)
    pairs = pairs_of(teacher)
    followed, _ = search(teacher, pairs, 80, Surrogate(network_of(teacher), (SIDE,), 2))
    probed, _ = search(teacher, pairs, 80)
    assert float((followed.distance / optimum(teacher, pairs)).max()) < 1.01
    assert float((probed.distance / optimum(teacher, pairs)).min()) > 1.1


def test_a_surrogate_with_parallel_boundaries_leads_to_the_optimum_too():
    teacher = linear_teacher(classes=2)
    pairs = pairs_of(teacher)
    surrogate = Surrogate(network_of(teacher, gain=0.1, shift=3.0), (SIDE,), 2)
    boundary, _ = search(teacher, pairs, 80, surrogate)
    assert float((boundary.distance / optimum(teacher, pairs)).max()) < 1.01


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), limit=st.integers(0, 150))
def test_no_surrogate_makes_a_distance_wrong_or_exceeds_a_budget(seed, limit):
    teacher, other = linear_teacher(), LinearTeacher(gaussian(4, seed=seed), torch.zeros(4))
    pairs = pairs_of(teacher)
    counting = CountingTeacher(teacher)
    boundary, ledger = search(counting, pairs, limit, Surrogate(network_of(other), (SIDE,), 4))
    reached = boundary.distance.isfinite()
    length = (boundary.points - pairs.samples)[reached].norm(dim=1)
    torch.testing.assert_close(boundary.distance[reached], length, rtol=1e-4, atol=1e-5)
    if limit > 0:
        confirmed = teacher.decide(boundary.points[reached]) == pairs.criterion_class[reached]
        started = ledger.spent[reached] > 0
        assert bool(confirmed[started].all())
    assert int(ledger.spent.max()) <= limit
    assert counting.total - POOL == int(ledger.spent.sum())


def test_a_surrogate_selects_a_ray_that_crosses_early():
    teacher = linear_teacher(classes=2)
    pairs, candidate_pool = pairs_of(teacher), gaussian(POOL, seed=2)
    rays = StartingPoints(TensorImages(candidate_pool), teacher.decide(candidate_pool), 8).rays(
        pairs
    )
    nearest = rays.lengths.view(6, 8)[:, 0]
    surrogate = Surrogate(network_of(teacher), (SIDE,), 2)
    best = surrogate.best_rays(pairs, rays, nearest)

    # With two classes the margin is linear along a ray, so its ends give the crossing.
    margin = network_of(teacher)(torch.cat([pairs.samples, rays.ends])).diff(dim=1)[:, 0]
    margin = margin * torch.where(pairs.criterion_class == 1, 1.0, -1.0)[rays.pair_of[0]]
    here, there = margin[: len(pairs)][rays.pair_of], margin[len(pairs) :][rays.end_of]
    crossing = (rays.lengths * here / (here - there)).view(6, 8)
    assert best.pair_of.tolist() == list(range(6))
    of_best = (best.lengths * here.view(6, 8)[:, 0] / (
        here.view(6, 8)[:, 0] - margin[len(pairs) :][best.end_of]
    ))  # fmt: skip
    assert bool((of_best <= crossing.quantile(0.3, dim=1)).all())


def test_rays_are_compared_without_a_query_and_one_of_each_pair_is_queried():
    teacher = linear_teacher(classes=2)
    pairs, candidate_pool = pairs_of(teacher), gaussian(POOL, seed=2)
    rays = StartingPoints(TensorImages(candidate_pool), teacher.decide(candidate_pool), 8).rays(
        pairs
    )
    ledger = Ledger(torch.full((6,), 100))
    surrogate = Surrogate(network_of(teacher), (SIDE,), 2)
    search = boundary_distance(pairs, rays, relative=1e-2, budget=ledger, surrogate=surrogate)
    assert next(search).accounts.tolist() == list(range(6))


def test_a_surrogate_saves_queries_when_there_are_few():
    teacher = linear_teacher(classes=2)
    pairs = pairs_of(teacher)
    followed, ledger = search(teacher, pairs, 20, Surrogate(network_of(teacher), (SIDE,), 2))
    probed, _ = search(teacher, pairs, 20)
    assert float(followed.distance.sum() / probed.distance.sum()) < 0.7
    assert int(ledger.spent.min()) > 20 - 4


def test_the_sample_distance_is_kept_if_the_surrogate_selects_another_ray():
    teacher = linear_teacher(classes=2)
    pairs = pairs_of(teacher)
    wrong = Surrogate(network_of(teacher, gain=-1.0), (SIDE,), 2)
    boundary, _ = search(teacher, pairs, 1, wrong)
    candidate_pool = gaussian(POOL, seed=2)
    rays = StartingPoints(TensorImages(candidate_pool), teacher.decide(candidate_pool), 1).rays(
        pairs
    )
    assert bool((boundary.distance <= rays.lengths).all())


def test_a_normal_is_computed_once_while_the_point_stays(monkeypatch):
    teacher = linear_teacher(classes=2)
    pairs, chosen = pairs_of(teacher), torch.arange(6)
    surrogate = Surrogate(network_of(teacher), (SIDE,), 2)
    boundary = Boundary(torch.ones(6), pairs.samples + 1, {})
    expected, computed = surrogate.normals(pairs, boundary.points, chosen), []
    normals = surrogate.normals
    monkeypatch.setattr(
        surrogate,
        "normals",
        lambda *given: (computed.append(given[2].tolist()), normals(*given))[1],
    )
    cached = CachedNormals(surrogate, pairs)
    first = cached.at(boundary, chosen)
    cached.moved[2] = True
    assert torch.equal(cached.at(boundary, chosen), first)
    assert computed == [[0, 1, 2, 3, 4, 5], [2]]
    torch.testing.assert_close(first, expected)


@pytest.mark.parametrize(
    ("shape", "device", "batch"),
    [
        ((1, 28, 28), "cpu", 64),
        ((1, 28, 28), "cuda", 1024),
        ((3, 32, 32), "cuda", 1024),
        ((3, 224, 224), "cpu", 8),
        ((3, 224, 224), "cuda", 55),
    ],
)
def test_a_gpu_gets_larger_batches(shape, device, batch):
    assert batch_size(shape, device) == batch


def test_a_poor_surrogate_is_overruled_by_probes():
    teacher = BallTeacher(torch.zeros(SIDE), 4.0, bounds=WIDE)
    samples = gaussian(8, seed=1) * 2
    samples = samples[teacher.decide(samples) == 0]
    number = torch.arange(len(samples))
    pairs = Pairs(samples, number, number, torch.ones_like(number), bounds=WIDE)
    surrogate = Surrogate(nn.Linear(SIDE, 2), (SIDE,), 2)
    boundary, _ = search(teacher, pairs, 4000, surrogate, spread=0.3)
    assert float((boundary.distance / teacher.distance(samples)).max()) < 1.1


def test_normals_point_to_the_target_class_or_away_from_the_class_to_leave():
    teacher = linear_teacher(classes=2)
    pairs, chosen = pairs_of(teacher), torch.arange(6)
    surrogate = Surrogate(network_of(teacher), (SIDE,), 2)
    normal = teacher.weights[1] - teacher.weights[0]
    sign = torch.where(pairs.criterion_class == 1, 1.0, -1.0)[:, None]
    expected = (normal / normal.norm() * sign).float()
    torch.testing.assert_close(surrogate.normals(pairs, pairs.samples, chosen), expected)

    leave = Pairs(
        pairs.samples, chosen, chosen, 1 - pairs.criterion_class, targeted=False, bounds=WIDE
    )
    torch.testing.assert_close(surrogate.normals(leave, pairs.samples, chosen), expected)


def test_a_surrogate_may_compute_in_double_precision():
    teacher = linear_teacher(classes=2)
    pairs, chosen = pairs_of(teacher), torch.arange(6)
    network = network_of(teacher)
    double = Surrogate(copy.deepcopy(network).double(), (SIDE,), 2)
    found = double.normals(pairs, pairs.samples, chosen)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, Surrogate(network, (SIDE,), 2).normals(pairs, pairs.samples, chosen)
    )


class TwoSides(nn.Module):
    """Class 1 on both sides of a slab, further away on the right; class 0 inside it."""

    def __init__(self, left=-1.0, right=5.0):
        super().__init__()
        self.left, self.right = left, right

    def forward(self, images):
        first = images[:, 0]
        margin = torch.maximum(self.left - first, first - self.right)
        return torch.stack([torch.zeros_like(margin), margin], 1)


@pytest.mark.parametrize("targeted", [True, False])
def test_the_nearest_point_meets_the_criterion_at_the_true_distance(targeted):
    teacher, chosen = linear_teacher(classes=2), torch.arange(6)
    pairs = pairs_of(teacher)
    criterion = pairs.criterion_class if targeted else 1 - pairs.criterion_class
    pairs = Pairs(pairs.samples, chosen, chosen, criterion, targeted=targeted, bounds=WIDE)
    true = optimum(teacher, pairs_of(teacher))
    surrogate = Surrogate(network_of(teacher), (SIDE,), 2)
    points, found = surrogate.nearest(pairs, 2 * true, chosen)
    assert bool(found.all())
    assert bool((teacher.decide(points) != teacher.decide(pairs.samples)).all())
    assert float(((points - pairs.samples).norm(dim=1) / true).max()) < 1.05


def test_the_nearest_point_stays_inside_the_bounds():
    chosen = torch.arange(2)
    pairs = Pairs(torch.zeros(2, SIDE), chosen, chosen, torch.ones(2).long(), bounds=(-0.5, 6.0))
    points, found = Surrogate(TwoSides(), (SIDE,), 2).nearest(pairs, torch.full((2,), 8.0), chosen)
    assert float(points.min()) >= -0.5
    assert not bool(found.any())
    assert torch.equal(points, pairs.samples)


def test_the_nearest_point_does_not_depend_on_other_pairs():
    number = torch.arange(150)
    pairs = Pairs(gaussian(150), number, number, number % 3, bounds=WIDE)
    torch.manual_seed(0)
    surrogate = Surrogate(nn.Sequential(nn.Linear(SIDE, 8), nn.ReLU(), nn.Linear(8, 3)), (SIDE,), 3)
    distance = torch.linspace(1, 9, 150)
    together, found = surrogate.nearest(pairs, distance, number)
    assert bool(found.any())
    for one in (0, 63, 64, 149):
        alone, met = surrogate.nearest(pairs, distance, number[[one]])
        assert torch.equal(alone, together[[one]])
        assert torch.equal(met, found[[one]])


def test_a_surrogate_leads_to_a_nearer_part_of_the_boundary_than_any_ray_crosses():
    teacher = ModuleTeacher(TwoSides(), (SIDE,), 2, bounds=WIDE)
    number = torch.arange(4)
    pairs = Pairs(gaussian(4) * 0.1, number, number, torch.ones(4).long(), bounds=WIDE)
    right = gaussian(4, seed=3)
    right[:, 0] = 8.0
    ledger = Ledger(torch.full((4,), 40))
    surrogate = Surrogate(TwoSides(), (SIDE,), 2)

    def searches():
        boundary = yield from boundary_distance(
            pairs, Rays.towards(pairs, right, number, number), relative=1e-2, budget=ledger
        )
        assert float(boundary.distance.min()) > 4
        yield from minimal_boundary_distance(
            pairs,
            boundary,
            (SIDE,),
            SignOptSettings(rounds=0),
            seed=0,
            query_batch_size=512,
            budget=ledger,
            surrogate=surrogate,
        )
        return boundary

    boundary = run(searches(), teacher, ledger)
    true = 1 + pairs.samples[:, 0]
    assert float((boundary.distance / true).max()) < 1.05


def test_an_approach_keeps_the_surrogates_margin_and_the_bounds():
    teacher = linear_teacher(classes=2)
    pairs, chosen = pairs_of(teacher), torch.arange(6)
    surrogate = Surrogate(network_of(teacher), (SIDE,), 2)
    points = pairs.samples + gaussian(6, seed=5)
    nearer = surrogate.approach(pairs, points, chosen)[0]

    difference = (teacher.weights[1] - teacher.weights[0]).float()
    torch.testing.assert_close(nearer @ difference, points @ difference, rtol=1e-3, atol=1e-3)
    assert bool(((nearer - pairs.samples).norm(dim=1) < (points - pairs.samples).norm(dim=1)).all())

    tight = Pairs(
        pairs.samples.clamp(-1, 1), chosen, chosen, pairs.criterion_class, bounds=(-1.0, 1.0)
    )
    within = surrogate.approach(tight, points.clamp(-1, 1), chosen)[0]
    assert float(within.abs().max()) <= 1


def test_a_proposal_does_not_depend_on_other_pairs():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Unflatten(1, (1, 8, 5)), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(),
                            nn.Linear(4 * 6 * 3, 3))  # fmt: skip
    surrogate = Surrogate(network, (SIDE,), 3)
    number = torch.arange(150)
    pairs = Pairs(gaussian(150), number, number, number % 3, bounds=WIDE)
    points = pairs.samples + gaussian(150, seed=3)
    together = surrogate.approach(pairs, points, number)[0]
    for one in (0, 63, 64, 149):
        alone = surrogate.approach(pairs, points[[one]], number[[one]])[0]
        assert torch.equal(alone, together[[one]])


@pytest.mark.parametrize(("more_threads", "query_batch_size"), [(1, 512), (0, 77)])
def test_a_search_does_not_depend_on_threads_or_batches(more_threads, query_batch_size):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(SIDE, 128), nn.ReLU(), nn.Linear(128, 4))
    teacher, threads = linear_teacher(), torch.get_num_threads()
    pairs, surrogate = pairs_of(teacher, count=150), Surrogate(network, (SIDE,), 4)
    one, _ = search(teacher, pairs, 60, surrogate)
    try:
        torch.set_num_threads(threads + more_threads)
        other, _ = search(teacher, pairs, 60, surrogate, query_batch_size=query_batch_size)
        assert torch.get_num_threads() == threads + more_threads
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.points, other.points)


def test_the_network_is_not_changed_and_can_be_trained_further():
    network = nn.Sequential(nn.Linear(SIDE, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    before = copy.deepcopy(network.state_dict())
    surrogate = Surrogate(network, (SIDE,), 3)
    pairs, chosen = pairs_of(linear_teacher(3)), torch.arange(6)
    first = surrogate.normals(pairs, pairs.samples, chosen)
    assert network.training and all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with torch.no_grad():
        network[0].weight.zero_()
    with torch.inference_mode():
        assert torch.equal(surrogate.normals(pairs, pairs.samples, chosen), first)


def test_a_surrogate_without_gradients_does_no_harm():
    class WithoutGradients(nn.Module):
        def forward(self, images):
            return (images.sum(1, keepdim=True) * torch.nan).expand(-1, 4)

    teacher = linear_teacher()
    pairs = pairs_of(teacher)
    surrogate = Surrogate(WithoutGradients(), (SIDE,), 4)
    chosen = torch.arange(6)
    assert not bool(surrogate.normals(pairs, pairs.samples, chosen).any())
    assert torch.equal(surrogate.approach(pairs, pairs.samples, chosen)[0], pairs.samples)
    assert not bool(surrogate.nearest(pairs, torch.ones(6), chosen)[1].any())
    boundary, _ = search(teacher, pairs, 400, surrogate)
    without, _ = search(teacher, pairs, 400)
    assert bool((boundary.distance < 1.2 * without.distance).all())


class Changed(nn.Module):
    """A linear network, with the scores that a function makes of its own."""

    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Linear(SIDE, 4), change

    def forward(self, images):
        return self.change(self.layer(images))


def only_one(scores):
    if len(scores) > 1:
        raise RuntimeError("expected one image")
    return scores


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (lambda images: images, TypeError, "surrogate: expected a torch.nn.Module, got function"),
        (nn.Linear(SIDE, 3), ValueError, r"surrogate: expected scores \[64, 4\].*got \[64, 3\]"),
        (
            nn.Identity(),
            ValueError,
            r"for images of shape \[40\], because.*4 classes, got \[64, 40\]",
        ),
        (
            nn.Linear(39, 4),
            ValueError,
            r"surrogate: expected a network for batches of the teacher's images.*\[40\].*64x40",
        ),
        (Changed(only_one), ValueError, "one that fails on 64 of them: expected one image"),
        (Changed(torch.Tensor.detach), ValueError, "expected scores that have a gradient for"),
        (
            Changed(lambda scores: nn.functional.one_hot(scores.argmax(1), 4)),
            ValueError,
            "expected scores that have a gradient for the images, .* got Changed without one",
        ),
    ],
    ids=[
        "no module",
        "other classes",
        "no scores",
        "other images",
        "one image",
        "detached",
        "one-hot",
    ],
)
def test_an_unfit_network_is_refused(network, error, message):
    with pytest.raises(error, match=message):
        Surrogate(network, (SIDE,), 4)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("convert", [torch.jit.script, lambda layer: layer])
def test_torchscript_and_inference_mode_give_the_same_normals(convert):
    teacher = linear_teacher()
    pairs, chosen = pairs_of(teacher), torch.arange(6)
    expected = Surrogate(network_of(teacher), (SIDE,), 4).normals(pairs, pairs.samples, chosen)
    with torch.inference_mode():
        surrogate = Surrogate(convert(network_of(teacher)), (SIDE,), 4)
        normals = surrogate.normals(pairs, pairs.samples, chosen)
    assert torch.allclose(normals, expected, atol=1e-6) and bool(normals.any())


def test_a_surrogate_improves_mbd_labels_and_is_refused_for_other_measures():
    teacher, images = linear_teacher(), gaussian(40, seed=4)
    few = LabelSettings(queries_per_pair=60, starting_points=3)
    plain = label(teacher, images, few)
    followed = label(teacher, images, few, surrogate=network_of(teacher))
    assert followed.distances.mean() < 0.9 * plain.distances.mean()
    assert int(followed.queries.max()) <= 60
    with pytest.raises(ValueError, match=r"surrogate: expected one only .*got measure 'bd'"):
        label(teacher, images, LabelSettings("bd"), surrogate=network_of(teacher))


def digits_network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)).eval()


def write_digits(folder, most, network, resume=False):
    """Labels 30 digits by a teacher that fails after `most` queries."""
    teacher = RaisingTeacher(ModuleTeacher(digits_network(3), (1, 8, 8), 10, max_batch=64), most)
    few = LabelSettings(queries_per_pair=40, starting_points=3)
    return write_run(
        folder, teacher, Source("digits"), few, limit=30, resume=resume, surrogate=network
    )


@pytest.mark.parametrize("answered", [10, 900, 2700])
def test_a_resumed_run_with_a_surrogate_equals_an_uninterrupted_one(tmp_path, answered):
    network = digits_network(3)
    with pytest.raises(TeacherError):
        write_digits(tmp_path / "run", answered, network)
    stopped = write_digits(tmp_path / "run", 10**6, network, resume=True)
    whole = write_digits(tmp_path / "whole", 10**6, network)
    assert vars(stopped) == vars(whole)
    one, other = (load_labels(tmp_path / name) for name in ("run", "whole"))
    assert torch.equal(one.distances, other.distances)


def test_a_run_is_not_resumed_with_another_surrogate_or_without_one(tmp_path):
    write_digits(tmp_path / "run", 10**6, digits_network(3))
    for other in (digits_network(4), None):
        with pytest.raises(ValueError, match=r"settings\.surrogate: was"):
            write_digits(tmp_path / "run", 0, other, resume=True)
