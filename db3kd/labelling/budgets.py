"""Divides the query budget of a run over its samples and targets, before the first query."""

import torch
from torch import Tensor

from db3kd.labelling.settings import LabelSettings
from db3kd.querying.ledger import UNLIMITED


def divide_budget(settings: LabelSettings, samples: int, classes: int) -> Tensor:
    """Divides a run's budget evenly over its samples; the first samples get a remainder.

    Returns:
        [samples] int64, the maximum number of queries for each sample, including its decision.

    Raises:
        ValueError: See `LabelSettings.targets_among`.
    """
    per_pair = 0 if settings.measure == "sd" else settings.queries_per_pair
    limit = min(1 + settings.targets_among(classes) * per_pair, UNLIMITED)
    if settings.queries_per_sample is not None:
        limit = min(limit, settings.queries_per_sample)
    limits = torch.full((samples,), limit, dtype=torch.int64)
    if settings.queries is not None:
        share, rest = divmod(settings.queries, samples)
        limits = limits.clamp_max(share + (torch.arange(samples) < rest).long())
    return limits


def divide_over_targets(limits: Tensor, searched: Tensor, max_queries: int) -> Tensor:
    """Divides the budget that a sample has left after its decision over its targets.

    Args:
        limits: [n] int64, the budget of each sample, including its decision.
        searched: [n, C] bool, the targets of each sample; the first of them get a remainder.
        max_queries: Maximum number of queries per target.

    Returns:
        [n, C] int64, 0 for classes that are not targets.
    """
    share = (limits - 1).clamp_min(0)[:, None]
    targets = searched.sum(1, keepdim=True).clamp_min(1)
    rank = searched.cumsum(1) - 1
    each = share // targets + (rank < share % targets).long()
    return each.clamp_max(max_queries).masked_fill(~searched, 0)
