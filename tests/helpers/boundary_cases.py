"""Teachers with a known boundary, and pairs and starting points for them."""

import torch
from teachers_analytic import LinearTeacher

from db3kd.boundary import Pairs, StartingPoints
from db3kd.data.image_source import TensorImages

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
