"""Dividing the query budget of a run over its samples and targets, before anything is asked."""

import torch
from torch import Tensor

from db3kd.labelling.settings import LabelSettings


def divide_budget(settings: LabelSettings, samples: int, classes: int) -> Tensor:
    """[samples] int64: what each sample may spend in all.

    A remainder of the run's budget goes to the first samples. Raises ValueError as `targets_among`.
    """
    per_pair = 0 if settings.measure == "sd" else settings.queries_per_pair
    limit = 1 + settings.targets_among(classes) * per_pair
    if settings.queries_per_sample is not None:
        limit = min(limit, settings.queries_per_sample)
    limits = torch.full((samples,), limit, dtype=torch.int64)
    if settings.queries is not None:
        share, rest = divmod(settings.queries, samples)
        limits = limits.clamp_max(share + (torch.arange(samples) < rest).long())
    return limits


def divide_over_targets(limits: Tensor, searched: Tensor, most: int) -> Tensor:
    """[n, C] int64: the sample limits, less the own decision, divided over the targets.

    limits: [n] int64. searched: [n, C] bool, the targets of each sample; a remainder goes to the
    first of them. most: what a target may get.
    """
    share = (limits - 1).clamp_min(0)[:, None]
    targets = searched.sum(1, keepdim=True).clamp_min(1)
    place = searched.cumsum(1) - 1
    each = share // targets + (place < share % targets).long()
    return each.clamp_max(most).masked_fill(~searched, 0)
