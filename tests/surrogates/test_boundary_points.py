"""Points near the boundaries of a surrogate, against a plane whose distances are known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from db3kd.boundary import Pairs, Surrogate
from db3kd.data.image_source import ImagesWithPoints, TensorImages
from db3kd.storage.choice_log import ChoiceLog
from db3kd.surrogates.boundary_points import (
    MAX_BYTES,
    ROUNDS,
    BoundaryPoints,
    collect_boundary_points,
    max_boundary_points,
    propose_boundary_points,
)

SHAPE, SIZE = (1, 6, 6), 36
NORMAL = torch.linspace(-1, 1, SIZE)


def plane() -> nn.Module:
    """Two classes on both sides of a plane, and a third one that occurs nowhere."""
    layer = nn.Linear(SIZE, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(SIZE), NORMAL, torch.zeros(SIZE)]))
        layer.bias.copy_(torch.tensor([0.0, -NORMAL.sum() / 2, -100.0]))
    return nn.Sequential(nn.Flatten(), layer)


def images(count: int = 40) -> Tensor:
    """Images on both sides of the plane, 0.2 to 0.4 away from it."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.4 + 0.2 * torch.rand(count, SIZE, generator=generator)
    wanted = 0.2 + 0.2 * torch.rand(count, generator=generator)
    wanted[::2] *= -1
    moved = noise + (wanted - signed(noise))[:, None] * NORMAL / NORMAL.norm()
    return moved.view(-1, *SHAPE)


def signed(points: Tensor) -> Tensor:
    """Distances from the plane; positive in class 1."""
    return (points.flatten(1) - 0.5) @ NORMAL / NORMAL.norm()


def propose(
    samples: Tensor,
    count: int = 500,
    seed: tuple[int, ...] = (0, 0),
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    decisions = (signed(samples) > 0).long()
    return propose_boundary_points(
        plane(), TensorImages(samples), decisions, count, 3, seed, progress
    )


def test_the_progress_counts_all_points():
    found: list[int] = []

    points = propose(images(), 2_500, progress=found.append)

    assert len(found) > 1 and sum(found) == len(points) == 2_500
    assert points.equal(propose(images(), 2_500))


def test_points_lie_behind_the_nearest_point_of_a_random_image():
    samples = images()

    points = propose(samples)

    assert points.shape == (500, *SHAPE) and 0 <= points.min() <= points.max() <= 1
    # The nearest point of a plane is along its normal, so the image is the one nearest to the line.
    normal = NORMAL / NORMAL.norm()
    offsets = points.flatten(1)[:, None] - samples.flatten(1)
    away = (offsets - (offsets @ normal)[..., None] * normal).norm(dim=2)
    image = away.argmin(1)
    assert away.min(1).values.max() < 0.02
    share = 1 - signed(points) / signed(samples)[image]  # 0 at the image, 1 on the plane
    assert share.min() > 0.98 and share.max() < 1.6
    assert share.std() == pytest.approx(0.5 / 12**0.5, rel=0.15), "uniform from 1 to 1.5"
    assert len(image.unique()) == 40


def test_images_of_one_class_have_points_too():
    samples = images()[1::2]
    assert (signed(samples) > 0).all()

    points = propose(samples)

    assert 0 <= points.min() <= points.max() <= 1 and points.isfinite().all()
    assert (signed(points) < 0).double().mean() > 0.2, "half of the pairs lead to class 0"


def test_points_depend_on_the_seed_only():
    assert propose(images()).equal(propose(images()))
    assert not propose(images()).equal(propose(images(), seed=(0, 1)))
    assert not propose(images()).equal(propose(images(), seed=(1, 0)))


def test_a_crossing_is_where_the_network_changes_its_class():
    samples = images()
    numbers, target = torch.arange(40), (signed(samples) < 0).long()
    ends = samples.flatten(1) - 3 * signed(samples)[:, None] * NORMAL / NORMAL.norm()
    pairs = Pairs(samples.flatten(1), numbers, numbers, target)
    surrogate = Surrogate(plane(), SHAPE, 3)

    points = surrogate.crossings(pairs, ends)

    distance, expected = (points - samples.flatten(1)).norm(dim=1), signed(samples).abs()
    assert (distance >= expected).all() and (distance <= expected * 1.02 + 1e-6).all()
    assert signed(points).sign().equal(-signed(samples).sign())
    unmet = Pairs(samples.flatten(1), numbers, numbers, torch.full_like(numbers, 2))
    assert surrogate.crossings(unmet, ends).allclose(ends)
    anything_else = Pairs(samples.flatten(1), numbers, numbers, 1 - target, targeted=False)
    assert surrogate.crossings(anything_else, ends).equal(points)


@pytest.mark.parametrize("count", [0, 3, 10, 21])
def test_every_point_is_asked_about_once_and_kept_before(count, tmp_path):
    log, rounds, asked = ChoiceLog(tmp_path), [], []

    def propose_numbers(points: BoundaryPoints, size: int, number: int) -> Tensor:
        assert not log.holds(number)
        rounds.append(number)
        return torch.full((size, *SHAPE), len(points) + 1.0)

    def decide(points: Tensor) -> Tensor:
        stored = log.load(rounds[-1])
        assert stored is not None and torch.from_numpy(stored["points"]).equal(points)
        asked.append(len(points))
        return points[:, 0, 0, 0].long()

    found = collect_boundary_points(count, SHAPE, propose_numbers, decide, log)

    assert sum(asked) == len(found) == count and len(asked) == min(count, ROUNDS)
    assert found.images[:, 0, 0, 0].long().equal(found.decisions)

    def refuse(*_: object) -> Tensor:
        raise AssertionError("the points of a round are chosen once")

    again = collect_boundary_points(count, SHAPE, refuse, lambda p: p[:, 0, 0, 0].long(), log)
    assert again.images.equal(found.images) and again.decisions.equal(found.decisions)


@pytest.mark.parametrize(
    ("stored", "came"),
    [
        ({"others": np.zeros(3, np.float32)}, "got no points"),
        ({"points": np.zeros((2, *SHAPE), np.float32)}, r"got \[2, 1, 6, 6\] float32"),
        ({"points": np.zeros((1, *SHAPE), np.float64)}, r"got \[1, 1, 6, 6\] float64"),
    ],
)
def test_points_of_another_run_are_refused(tmp_path, stored, came):
    log = ChoiceLog(tmp_path)
    log.save(0, stored)

    with pytest.raises(ValueError, match=rf"expected stored points \[1, 1, 6, 6\] float32, {came}"):
        collect_boundary_points(4, SHAPE, lambda *_: images(1), lambda p: p[:, 0, 0, 0].long(), log)


def test_points_take_limited_memory_and_rows_of_tables_have_none():
    assert max_boundary_points((1, 28, 28)) > 20_000
    assert max_boundary_points((3, 224, 224)) == MAX_BYTES // (4 * 3 * 224 * 224) == 445
    assert max_boundary_points((12,)) == 0


def test_images_with_points_are_read_by_one_number():
    first, further = images(5), torch.rand(3, *SHAPE)
    both = ImagesWithPoints(TensorImages(first), further)

    assert len(both) == 8
    for rows in ([0, 7, 4, 5], [6], [1, 1], []):
        index = torch.tensor(rows, dtype=torch.int64)
        assert both.read(index).equal(torch.cat([first, further])[index])
