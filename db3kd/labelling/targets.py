"""The targets worth searching: the classes nearest to a sample, and what is known of the others.

With many classes most of a soft label's weight lies on a few, and a search costs the same for each.
The images at hand say, without a query, which classes are near.
"""

import torch
from torch import Tensor

from db3kd.querying.search import UNANSWERED


def other_classes(decision: Tensor, classes: int) -> Tensor:
    """[n, C] bool: every class but the sample's own; none where it has no decision [n] int64."""
    own = decision[:, None]
    return (torch.arange(classes) != own) & (own != UNANSWERED)


def nearest_classes(sample_distance: Tensor, others: Tensor, count: int) -> Tensor:
    """[n, C] bool: of the others, the `count` with the least sample distance.

    sample_distance: [n, C] float32, L2 to the nearest image of each class; +inf where there is
    none. others: [n, C] bool. Of equally near classes the first is taken.
    """
    # The own class comes last, behind those without an image.
    places = sample_distance.masked_fill(~others, torch.nan).argsort(dim=1, stable=True)
    chosen = torch.zeros_like(others).scatter(1, places[:, :count], True)
    return chosen & others


def estimate_unsearched(distances: Tensor, sample_distance: Tensor, searched: Tensor) -> Tensor:
    """`distances` with an estimate where a class was not searched; all [n, C].

    The estimate of a class is its sample distance, shrunk as the search has shrunk those of the
    sample's targets: times the median of found over sample distance, the lower one of two. So it is
    no less than what was found for half of the targets, all of which have lesser sample distances,
    and no more than the sample distance, beyond which the class cannot lie. A class without images
    stays at +inf, and so do all where nothing was found.
    """
    found = searched & distances.isfinite()
    shares = (distances / sample_distance).masked_fill(~found, torch.nan)
    share = shares.nanmedian(dim=1, keepdim=True).values.clamp_max(1)
    estimate = (sample_distance * share).nan_to_num(nan=torch.inf, posinf=torch.inf)
    return torch.where(searched, distances, estimate)
