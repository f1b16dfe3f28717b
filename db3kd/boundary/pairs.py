"""What a search works on: samples, the classes they are moved to, and the rays between them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from db3kd import ops


@dataclass(frozen=True)
class Pairs:
    """P (sample, target) pairs. A pair's number is also the ledger account that pays for it.

    samples: [S, D] float32, inside the bounds.
    sample_index: [S] int64, each sample's index in its data set; names its random numbers.
    sample_of: [P] int64, the row of `samples` of each pair.
    criterion_class: [P] int64, the class to reach if `targeted`, else the class to leave.
    targeted: whether a hit is a decision for `criterion_class`, or one for any other class.
    bounds: lowest and highest value of an image.
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
        """[n, 3] int64: what names the random directions of these pairs in one round."""
        index = self.sample_index[self.sample_of[pairs]]
        return torch.stack(
            [index, self.criterion_class[pairs], torch.full_like(index, round_number)], dim=1
        )


@dataclass(frozen=True)
class Rays:
    """R rays, those of a pair side by side, each from its pair's sample to an end in bounds.

    ends: [E, D] float32. pair_of, end_of: [R] int64. lengths: [R] float32, L2.
    """

    ends: Tensor
    pair_of: Tensor
    end_of: Tensor
    lengths: Tensor

    @classmethod
    def towards(cls, pairs: Pairs, ends: Tensor, pair_of: Tensor, end_of: Tensor) -> "Rays":
        """Rays to these ends, measured."""
        lengths = ops.ray_lengths(pairs.samples, ends, pairs.sample_of[pair_of], end_of)
        return cls(ends, pair_of, end_of, lengths)

    def select(self, chosen: Tensor) -> "Rays":
        """The rays numbered by `chosen` [n] int64, in that order."""
        return Rays(self.ends, self.pair_of[chosen], self.end_of[chosen], self.lengths[chosen])

    def shortest_first(self) -> "Rays":
        """The rays of each pair by length, those of equal length in the order they have."""
        order = torch.argsort(self.lengths, stable=True)
        return self.select(order[torch.argsort(self.pair_of[order], stable=True)])

    def __len__(self) -> int:
        return len(self.pair_of)


def zero_rows(pairs: Pairs) -> Tensor:
    """[P, D] float32 zeros, a row a pair. On a CPU a row takes memory once it is written to, so a
    pair whose class no image is of takes none.
    """
    shape, device = (len(pairs), pairs.samples.shape[1]), pairs.samples.device
    if device.type == "cpu":
        return torch.from_numpy(np.zeros(shape, np.float32))
    return torch.zeros(shape, device=device)


@dataclass
class Boundary:
    """The best boundary point of each pair so far.

    distance: [P] float32, L2 in input units; +inf where none is known.
    points: [P, D] float32, on the wanted side; meaningless where the distance is +inf.
    snapshots: by number of queries a pair had spent at most, the distance it had by then, [P].
    """

    distance: Tensor
    points: Tensor
    snapshots: dict[int, Tensor]

    @classmethod
    def unknown(cls, pairs: Pairs, snapshots: tuple[int, ...] = ()) -> "Boundary":
        distance = torch.full((len(pairs),), float("inf"), device=pairs.samples.device)
        return cls(distance, zero_rows(pairs), {count: distance.clone() for count in snapshots})

    def note(self, spent: Tensor, distance: Tensor) -> None:
        """Keeps `distance` for each snapshot whose query count a pair has not passed."""
        for count, noted in self.snapshots.items():
            torch.where(spent <= count, distance, noted, out=noted)
