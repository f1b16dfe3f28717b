"""The state of a boundary search: pairs, their rays, and the best boundary point of each pair."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from db3kd import ops
from db3kd.querying.search import BudgetView


@dataclass(frozen=True)
class Pairs:
    """P pairs of a sample and a criterion, which a decision meets (a hit) or not (a miss).

    A pair's number is also the ledger account that pays for its queries.

    Example:
        >>> samples, number = torch.rand(2, 784), torch.arange(2)
        >>> pairs = Pairs(samples, number, number, criterion_class=torch.tensor([3, 5]))

    Attributes:
        samples: [S, D] float32, inside the bounds.
        sample_index: [S] int64, the index of each sample in its data set; selects its random
            numbers.
        sample_of: [P] int64, the row of `samples` of each pair.
        criterion_class: [P] int64, the class to reach if `targeted`, else the class to leave.
        targeted: Whether a hit is a decision for `criterion_class`, or for any other class.
        bounds: The lowest and the highest value of an image.
    """

    samples: Tensor
    sample_index: Tensor
    sample_of: Tensor
    criterion_class: Tensor
    targeted: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)

    def __len__(self) -> int:
        return len(self.sample_of)

    def counters(self, pairs: Tensor, round_number: int) -> Tensor:
        """Returns the counters of these pairs' random directions in a round, [n, 3] int64."""
        index = self.sample_index[self.sample_of[pairs]]
        round_column = torch.full_like(index, round_number)
        return torch.stack([index, self.criterion_class[pairs], round_column], dim=1)


@dataclass(frozen=True)
class Rays:
    """R rays, each from the sample of its pair to an end inside the bounds.

    The bounds are convex, so every point of a ray lies inside them. Rays are in the order of their
    pairs.

    Attributes:
        ends: [E, D] float32, the images to which rays lead.
        pair_of: [R] int64, the pair of each ray, ascending.
        end_of: [R] int64, the row of `ends` of each ray.
        lengths: [R] float32, L2 in input units.
    """

    ends: Tensor
    pair_of: Tensor
    end_of: Tensor
    lengths: Tensor

    @classmethod
    def towards(cls, pairs: Pairs, ends: Tensor, pair_of: Tensor, end_of: Tensor) -> "Rays":
        """Makes rays and measures their lengths; see `Rays` for the arguments."""
        lengths = ops.ray_lengths(pairs.samples, ends, pairs.sample_of[pair_of], end_of)
        return cls(ends, pair_of, end_of, lengths)

    def select(self, chosen: Tensor) -> "Rays":
        """Returns the rays with these numbers, [n] int64, in this order."""
        return Rays(self.ends, self.pair_of[chosen], self.end_of[chosen], self.lengths[chosen])

    def shortest_first(self) -> "Rays":
        """Sorts the rays of each pair by length; rays of equal length keep their order."""
        order = torch.argsort(self.lengths, stable=True)
        return self.select(order[torch.argsort(self.pair_of[order], stable=True)])

    def __len__(self) -> int:
        return len(self.pair_of)


@dataclass
class Boundary:
    """The best boundary point of each pair so far.

    Attributes:
        distance: [P] float32, L2 in input units from the sample to its point; +inf if no point
            is known.
        points: [P, D] float32, on the side that meets the criterion; meaningless if the distance
            is +inf.
        snapshots: Maps a number of queries to the distance that each pair had reached with at most
            that many queries, [P] float32.
    """

    distance: Tensor
    points: Tensor
    snapshots: dict[int, Tensor]

    @classmethod
    def unknown(cls, pairs: Pairs, snapshots: tuple[int, ...] = ()) -> "Boundary":
        """Starts with no point for any pair."""
        distance = pairs.samples.new_full((len(pairs),), torch.inf)
        recorded = {count: distance.clone() for count in snapshots}
        return cls(distance, zeros_per_pair(pairs), recorded)

    def record_snapshots(self, budget: BudgetView, distance: Tensor) -> None:
        """Copies `distance` into each snapshot whose number of queries per pair has not exceeded.

        Args:
            budget: The queries that each pair has spent so far.
            distance: [P] float32, the distance of each pair now.
        """
        if not self.snapshots:
            return
        spent = budget.spent
        for count, recorded in self.snapshots.items():
            torch.where(spent <= count, distance, recorded, out=recorded)


def zeros_per_pair(pairs: Pairs) -> Tensor:
    """Returns [P, D] float32 zeros.

    On a CPU a row takes memory only when it is written to, so pairs without rays take none.
    """
    shape = (len(pairs), pairs.samples.shape[1])
    if pairs.samples.device.type == "cpu":
        return torch.from_numpy(np.zeros(shape, np.float32))
    return pairs.samples.new_zeros(shape)
