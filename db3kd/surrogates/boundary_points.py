"""Points near the boundaries of a surrogate, which show it where the teacher's boundaries lie.

A search follows a surrogate to the surrogate's own nearest boundary points. Augmented images rarely
lie there, so a surrogate that learned only from them is often wrong at these points. The teacher is
therefore queried in rounds, and the surrogate is trained again. Papernot et al. (ASIA CCS
2017) also train a substitute on points that it chooses.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from db3kd.boundary.pairs import Pairs
from db3kd.boundary.surrogate import Surrogate
from db3kd.data.image_source import ImageSource
from db3kd.errors import InputError
from db3kd.storage.choice_log import ChoiceLog

ROUNDS = 4
"""Rounds of points. A surrogate is trained before each of them."""

MAX_BYTES = 2**28
"""Maximum size of the points of a run. They are kept as float32, because a point may differ from
its image by less than half a step of 8-bit pixels."""

_LEAST_REACH, _MOST_REACH = 1.0, 1.5
"""The distance of a point from its image, as a multiple of that of the surrogate's nearest point.
The teacher's boundary is usually farther away than the surrogate's."""

_BATCHES_AT_ONCE = 16
"""Forward passes of a surrogate whose points are in memory at a time."""


@dataclass(frozen=True)
class BoundaryPoints:
    """Points near boundaries, and the teacher's decisions for them.

    Attributes:
        images: [n, *image_shape] float32 in [0, 1].
        decisions: [n] int64.
    """

    images: Tensor
    decisions: Tensor

    def __len__(self) -> int:
        return len(self.decisions)


def collect_boundary_points(
    count: int,
    image_shape: tuple[int, ...],
    propose: Callable[[BoundaryPoints, int, int], Tensor],
    decide: Callable[[Tensor], Tensor],
    log: ChoiceLog,
) -> BoundaryPoints:
    """Asks the teacher about points near the boundaries of networks, in `ROUNDS` rounds.

    Args:
        count: The number of points, and queries.
        image_shape: The shape of a point.
        propose: Takes the points so far, the number of new points n and the number of the round;
            returns the new points, [n, *image_shape] float32.
        decide: Asks the teacher: from points to classes.
        log: Keeps the points of each round before the first of them is queried, so that a
            resumed run queries the same ones.

    Returns:
        All points.

    Raises:
        TeacherError: If the teacher fails.
        ValueError: If the stored points are damaged.
    """
    points = BoundaryPoints(
        torch.empty(0, *image_shape, dtype=torch.float32), torch.empty(0, dtype=torch.int64)
    )
    for number in range(ROUNDS):
        size = count * (number + 1) // ROUNDS - len(points)
        if not size:
            continue
        stored = log.load(number)
        if stored is None:
            images = propose(points, size, number)
            log.save(number, {"points": images.numpy()})
        else:
            images = _stored_points(stored, (size, *image_shape), number)
        decisions = decide(images)
        points = BoundaryPoints(
            torch.cat([points.images, images]), torch.cat([points.decisions, decisions])
        )
    return points


def propose_boundary_points(
    network: nn.Module,
    images: ImageSource,
    decisions: Tensor,
    count: int,
    classes: int,
    seed: tuple[int, ...],
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Returns points near the network's nearest boundaries of random pairs, without a query.

    A pair consists of a random image and a random other class of the decisions. The network's
    nearest point of that class is found, and the returned point lies on the ray from the image
    through it, at 1 to 1.5 times its distance.

    Example:
        >>> propose_boundary_points(network, images, decisions, 100, classes=10, seed=(0, 1))

    Args:
        network: Maps images [n, *image_shape] in [0, 1] to scores [n, classes].
        images: N images in [0, 1].
        decisions: [N] int64, their classes.
        count: The number of points.
        classes: The teacher's number of classes.
        seed: The seed of the pairs and of the distances.
        progress: Called with the number of points that were found, batch by batch.

    Returns:
        [count, *image_shape] float32 in [0, 1], on the CPU.
    """
    random = np.random.default_rng(seed)
    chosen, target, starting_image = _random_pairs(decisions, classes, count, random)
    reach = torch.from_numpy(random.uniform(_LEAST_REACH, _MOST_REACH, (count, 1))).float()
    shape = tuple(images.read(chosen[:1]).shape[1:])
    device = next(network.parameters()).device
    surrogate = Surrogate(network, shape, classes, device)
    points = []
    for part in torch.arange(count).split(surrogate.batch_size * _BATCHES_AT_ONCE):
        samples = images.read(chosen[part]).flatten(1).to(device)
        numbers = torch.arange(len(part), device=device)
        pairs = Pairs(samples, numbers, numbers, target[part].to(device))
        crossing = surrogate.crossings(
            pairs, images.read(starting_image[part]).flatten(1).to(device)
        )
        near, _ = surrogate.approach(pairs, crossing, numbers)
        nearest, _ = surrogate.nearest(pairs, (near - samples).norm(dim=1), numbers)
        moved = samples + reach[part].to(device) * (nearest - samples)
        points.append(moved.clamp_(0, 1).cpu())
        if progress is not None:
            progress(len(part))
    return torch.cat(points).view(count, *shape)


def max_boundary_points(image_shape: tuple[int, ...]) -> int:
    """Returns the largest number of points that a run can keep: at most `MAX_BYTES` in float32.

    Args:
        image_shape: The shape of a point. Rows of tables have no points, because their features
            need not be continuous.
    """
    return MAX_BYTES // (4 * math.prod(image_shape)) if len(image_shape) == 3 else 0


def _stored_points(stored: Mapping[str, Any], shape: tuple[int, ...], number: int) -> Tensor:
    """Returns the points of a round from its file."""
    points = stored.get("points")
    found = None if points is None else (points.shape, points.dtype)
    if found != (shape, np.dtype(np.float32)):
        came = "no points" if points is None else f"{list(points.shape)} {points.dtype}"
        raise InputError(
            f"round {number} of the surrogate: expected stored points {list(shape)} float32, got "
            f"{came}; restore the file from a copy, or start another run in another folder"
        )
    return torch.from_numpy(points)


def _random_pairs(
    decisions: Tensor, classes: int, count: int, random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns images, other classes, and images that lead to these classes; each [count] int64.

    If all images are in one class, the others are any classes, and any images lead to them.
    """
    chosen = torch.from_numpy(random.integers(len(decisions), size=count))
    found = decisions.unique()
    if len(found) < 2:
        found = torch.arange(classes)
    other = torch.from_numpy(random.integers(len(found) - 1, size=count))
    target = found[other + (other >= torch.searchsorted(found, decisions[chosen]))]
    end = torch.from_numpy(random.integers(len(decisions), size=count))
    for number in decisions.unique().tolist():
        rows, members = target == number, (decisions == number).nonzero()[:, 0]
        end[rows] = members[torch.from_numpy(random.integers(len(members), size=int(rows.sum())))]
    return chosen, target, end
