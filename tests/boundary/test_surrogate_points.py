"""Searches on a surrogate's margins, whose nearest points are known."""

import torch

from db3kd.boundary.surrogate_points import follow_boundary, nearest_points, unit

BOUNDS = (-10.0, 10.0)


def samples(count=8, dimensions=6):
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(0))


def inside_ball(centre, radius):
    """Margins that are positive inside a ball."""

    def margins(points):
        offset = points - centre
        return radius - offset.norm(dim=1), -unit(offset)

    return margins


def test_the_nearest_points_of_a_ball_are_found():
    start, centre = samples(), torch.full((6,), 4.0)
    gap = (start - centre).norm(dim=1) - 2.0
    points, found = nearest_points(inside_ball(centre, 2.0), start, 1.2 * gap, BOUNDS)
    assert found.all()
    assert ((points - centre).norm(dim=1) <= 2.0).all()
    assert ((points - start).norm(dim=1) < 1.03 * gap).all()


def test_a_sample_without_a_point_of_positive_margin_is_returned_as_it_is():
    start = samples()
    points, found = nearest_points(
        lambda ends: (-torch.ones(len(ends)), torch.zeros_like(ends)), start, torch.ones(8), BOUNDS
    )
    assert not found.any() and torch.equal(points, start)


def test_points_move_along_a_plane_towards_their_samples():
    start, normal = samples(), unit(torch.ones(1, 6))
    old = samples().flip(0) + 3.0
    new, normals = follow_boundary(
        lambda ends: (5 * ends @ normal[0] - 7, 5 * normal.expand_as(ends)), start, old, BOUNDS
    )
    nearest = start + ((old - start) @ normal[0])[:, None] * normal
    torch.testing.assert_close(new, nearest + (1 - 0.45) ** 3 * (old - nearest))
    torch.testing.assert_close(normals, normal.expand_as(old))


def test_points_without_a_gradient_stay():
    old = samples()
    new, normals = follow_boundary(
        lambda ends: (torch.ones(len(ends)), torch.zeros_like(ends)), samples(), old, BOUNDS
    )
    assert torch.equal(new, old) and not normals.any()
