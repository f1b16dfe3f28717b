"""Starting points: known images whose decisions meet a pair's criterion."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from db3kd.arguments.plain import check_choice
from db3kd.boundary.candidate_pool import CandidatePool, draw
from db3kd.boundary.pairs import Pairs, Rays
from db3kd.data.image_source import ImageSource
from db3kd.errors import ArgumentError

Order = Literal["nearest", "random"]
"""Which images of the candidate pool become starting points."""

ORDERS: tuple[Order, ...] = get_args(Order)
"""All orders."""

_SPARE = 4
"""Neighbours kept beyond the requested number.

The first pass ranks them by a matrix product. Its rounding must not lose a neighbour that the
second pass, with the lengths of the rays, would choose.
"""

_NUMBER_BITS = 32
"""The lower bits of a key, which hold the number of an image."""

_NO_IMAGE = torch.iinfo(torch.int64).max
"""A key that is larger than that of any image."""


class StartingPoints:
    """Chooses starting points for pairs; the rays of a pair lead to them.

    Example:
        >>> starting_points = StartingPoints(images, decisions, count=10)
        >>> rays = starting_points.rays(pairs)

    Args:
        images: N images.
        decisions: [N] int64, the teacher's class of each image, or `UNANSWERED`.
        count: Maximum number of starting points per pair.
        order: "nearest" (L2), or "random" as in the paper.
        seed: The seed of the random order, which depends on seed, sample index and class only.
        candidate_pool: Maximum number of images that starting points are chosen from, which keeps
            the cost per sample independent of N; None for all. See `CandidatePool`.

    Attributes:
        candidate_pool: The images that starting points are chosen from.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        images: ImageSource,
        decisions: Tensor,
        count: int,
        order: Order = "nearest",
        seed: int = 0,
        candidate_pool: int | None = None,
    ) -> None:
        if count < 1:
            raise ArgumentError(
                "count", f"expected at least 1 starting point per pair, got {count}"
            )
        check_choice(order, "order", ORDERS)
        self.candidate_pool = CandidatePool(images, decisions, candidate_pool, seed)
        self.count = min(count, max(1, len(self.candidate_pool.numbers)))
        self.order = order
        self.seed = seed

    def rays(self, pairs: Pairs, counts: Tensor | None = None) -> Rays:
        """Returns rays to the starting points of each pair, the shortest of each pair first.

        A pair has fewer rays, or none, if the pool has too few images that meet its criterion.

        Args:
            pairs: The pairs.
            counts: [P] int64, the maximum number of rays of each pair, in addition to the limit
                `count`; None for no further limit.
        """
        is_nearest = self.order == "nearest"
        chosen = self._nearest(pairs, self.count) if is_nearest else self._random(pairs)
        present = chosen >= 0
        pair_of = present.nonzero()[:, 0]
        used, end_of = torch.unique(chosen[present], return_inverse=True)
        device = pairs.samples.device
        ends = self.candidate_pool.read(used, device)
        rays = Rays.towards(pairs, ends, pair_of.to(device), end_of.to(device))
        return self._shortest(rays, used.to(device), counts)

    def nearest_distance(self, pairs: Pairs) -> Tensor:
        """Returns the distance of each pair to the nearest image that meets its criterion.

        `order` does not matter. Unlike for `rays`, the memory does not grow with the number of
        pairs times the size of an image.

        Returns:
            [P] float32 on the CPU, L2 in input units; +inf if there is no such image.
        """
        chosen = self._nearest(pairs, 1)
        present = chosen >= 0
        numbers, pair_of = chosen[present], present.nonzero()[:, 0]
        order = torch.argsort(numbers)
        used, uses = torch.unique(numbers, return_counts=True)
        size, device = self.candidate_pool.block_size(pairs.samples), pairs.samples.device
        nearest = torch.full((len(pairs),), torch.inf, dtype=torch.float32)
        parts = order.split([int(part.sum()) for part in uses.split(size)])
        for block, part in zip(used.split(size), parts, strict=True):
            part = part[pair_of[part].argsort()]  # by sample: one is read while it is in the cache
            here, end_of = pair_of[part], torch.searchsorted(block, numbers[part])
            ends = self.candidate_pool.read(block, device)
            rays = Rays.towards(pairs, ends, here.to(device), end_of.to(device))
            nearest.scatter_reduce_(0, here, rays.lengths.cpu(), "amin")
        return nearest

    def _shortest(self, rays: Rays, used: Tensor, counts: Tensor | None) -> Rays:
        """Selects the shortest rays of each pair, by length and then by image number."""
        rays = rays.select(torch.argsort(used[rays.end_of], stable=True)).shortest_first()
        place = torch.arange(len(rays), device=rays.pair_of.device)
        starts = torch.searchsorted(rays.pair_of, rays.pair_of)
        most = self.count if counts is None else counts[rays.pair_of].clamp_max(self.count)
        return rays.select((place - starts < most).nonzero()[:, 0])

    def _nearest(self, pairs: Pairs, count: int) -> Tensor:
        """Returns the numbers of the nearest images of each pair.

        Returns:
            [P, count + spare] int64; -1 after the last image if there are fewer.
        """
        samples, sample_of = pairs.samples.double(), pairs.sample_of
        squares = (samples * samples).sum(1, keepdim=True)
        device, keep = samples.device, count + _SPARE
        pairs_for_class = _pairs_for_class(pairs)
        best = sample_of.new_full((len(pairs), keep), _NO_IMAGE)
        for numbers in self.candidate_pool.numbers.split(self.candidate_pool.block_size(samples)):
            block = self.candidate_pool.read(numbers, device)
            keys = _keys(samples, squares, block.double(), numbers.to(device))
            classes = self.candidate_pool.decisions[numbers]
            for c in classes.unique().tolist():
                here = pairs_for_class(c)
                if not len(here):
                    continue
                members = (classes == c).nonzero()[:, 0]
                size = min(keep, len(members))
                near = keys[:, members.to(device)].topk(size, largest=False).values
                both = torch.cat([best[here], near[sample_of[here]]], dim=1)
                best[here] = both.topk(keep, largest=False).values
        chosen = torch.where(best == _NO_IMAGE, -1, best & ((1 << _NUMBER_BITS) - 1))
        return chosen.cpu()

    def _random(self, pairs: Pairs) -> Tensor:
        """Returns the numbers of random images of each pair.

        Returns:
            [P, count] int64; -1 after the last image if there are fewer.
        """
        pool = self.candidate_pool
        images_for = pool.of_class if pairs.targeted else pool.of_other_classes
        index = pairs.sample_index[pairs.sample_of].tolist()
        criterion_class = pairs.criterion_class.tolist()
        chosen = torch.full((len(pairs), self.count), -1)
        for pair, (sample, c) in enumerate(zip(index, criterion_class, strict=True)):
            numbers = images_for(c)
            if not len(numbers):
                continue
            # The class has its own word of the counter: streams of consecutive classes would
            # overlap in the lowest one.
            picks = draw(numbers, min(self.count, len(numbers)), (self.seed, sample), (0, c, 0, 0))
            chosen[pair, : len(picks)] = picks
        return chosen


def _keys(samples: Tensor, squares: Tensor, block: Tensor, numbers: Tensor) -> Tensor:
    """Returns keys that rank images by their distance from samples, and then by their number.

    In float32 the terms of the product would cancel for images of low contrast. The distances are
    rounded to float32, which hides rounding differences between BLAS libraries and
    thread counts, so images at the same distance have an order.

    Args:
        samples: [S, D] float64.
        squares: [S, 1] float64, their squared lengths.
        block: [n, D] float64, the images.
        numbers: [n] int64, their numbers.

    Returns:
        [S, n] int64.
    """
    # ‖x - c‖² = ‖x‖² + ‖c‖² - 2 x·c
    gaps = torch.addmm((block * block).sum(1), samples, block.T, alpha=-2)
    distances = gaps.add_(squares).clamp_min_(0).sqrt_().float()
    # The bits of floats of at least 0 have the order of the floats.
    return (distances.view(torch.int32).long() << _NUMBER_BITS) | numbers


def _pairs_for_class(pairs: Pairs) -> Callable[[int], Tensor]:
    """Returns a function from a class to the pairs whose criterion it meets, [n] int64."""
    criterion_class = pairs.criterion_class.cpu()
    device = pairs.criterion_class.device
    if not pairs.targeted:
        return lambda c: (criterion_class != c).nonzero()[:, 0].to(device)
    classes, counts = criterion_class.unique(return_counts=True)
    parts = torch.argsort(criterion_class, stable=True).to(device).split(counts.tolist())
    groups = dict(zip(classes.tolist(), parts, strict=True))
    return lambda c: groups.get(c, pairs.criterion_class[:0])
