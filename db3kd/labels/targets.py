"""The targets of a sample: the classes whose distance is measured, and estimates for the others.

With many classes, most of a soft label's weight is on a few of them, but a search costs the same
for each. The images of the set show, without a query, which classes are near.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from db3kd.querying.search import UNANSWERED


@dataclass(frozen=True)
class Targets:
    """The classes to measure for n samples.

    Attributes:
        searched: [n, C] bool, True for the targets of each sample.
        sample_distance: [n, C] float32, L2 to the nearest image of each class, in input units;
            None if all other classes are targets.
    """

    searched: Tensor
    sample_distance: Tensor | None = None

    def table(self, distance: Tensor, decision: Tensor) -> Tensor:
        """Arranges the measured distances by class, and estimates the other ones.

        Args:
            distance: [P] float32, the distance of each target in the order of `searched`.
            decision: [n] int64, the predicted class of each sample.

        Returns:
            [n, C] float32, 0 for the predicted class.
        """
        table = torch.full(self.searched.shape, torch.inf, dtype=torch.float32)
        table[self.searched] = distance.cpu()
        if self.sample_distance is not None:
            table = estimate_unsearched(table, self.sample_distance, self.searched)
        predicted_column = torch.arange(table.shape[1]) == decision[:, None]
        return table.masked_fill(predicted_column, 0)


def other_classes(decision: Tensor, classes: int) -> Tensor:
    """Every class except the predicted one.

    Args:
        decision: [n] int64, the predicted class of each sample, -1 if it has none.
        classes: The number of classes C.

    Returns:
        [n, C] bool; a row is False if the sample has no decision.
    """
    predicted = decision[:, None]
    return (torch.arange(classes) != predicted) & (predicted != UNANSWERED)


def nearest_classes(sample_distance: Tensor, others: Tensor, count: int) -> Tensor:
    """The `count` other classes with the smallest sample distance; of equal ones, the first.

    Args:
        sample_distance: [n, C] float32, L2 to the nearest image of each class; +inf if the class
            has no image.
        others: [n, C] bool, the classes to choose from.
        count: How many to choose for each sample.

    Returns:
        [n, C] bool.
    """
    # NaN sorts last, behind classes without an image.
    order = sample_distance.masked_fill(~others, torch.nan).argsort(dim=1, stable=True)
    chosen = torch.zeros_like(others).scatter(1, order[:, :count], True)
    return chosen & others


def estimate_unsearched(distances: Tensor, sample_distance: Tensor, searched: Tensor) -> Tensor:
    """Fills in estimates for the classes that were not searched.

    The estimate is the sample distance of the class times the lower median, over the sample's
    targets, of measured distance / sample distance. It is therefore at least as large as the
    measured distance of half of the targets, whose sample distances are smaller, and at most the
    sample distance, which is an upper bound. Classes without images stay at +inf, as do all classes
    of a sample without any finite distance.

    Args:
        distances: [n, C] float32, the measured distances.
        sample_distance: [n, C] float32, as for `nearest_classes`.
        searched: [n, C] bool, the targets.

    Returns:
        [n, C] float32.
    """
    found = searched & distances.isfinite()
    ratios = (distances / sample_distance).masked_fill(~found, torch.nan)
    ratio = ratios.nanmedian(dim=1, keepdim=True).values.clamp_max(1)
    estimate = (sample_distance * ratio).nan_to_num(nan=torch.inf, posinf=torch.inf)
    return torch.where(searched, distances, estimate)
