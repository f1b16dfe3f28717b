"""Soft labels from distances, also for samples that lie on a boundary themselves."""

import torch
from torch import Tensor

from db3kd import ops

_ZERO = 1e-30
"""Below this a distance counts as 0: its inverse may not be a float32."""


def make_soft_labels(
    distances: Tensor,
    own: Tensor,
    *,
    normalisation: ops.Normalisation,
    scale: float,
    temperature: float,
) -> Tensor:
    """As `db3kd.ops.soft_labels`, and for distances of 0 as well.

    A distance of 0 says that the teacher has put the same image in both classes. It counts as each
    of them equally: the sample's own class and those at distance 0 share all of its weight.

    Args:
        distances: [N, C] float32, at least 0; +inf if a class was not reached.
        own: [N] int64, the teacher's class for each sample, whose column is not read.
        normalisation: "margin" or "inverse", as for the op, like scale and temperature.

    Returns:
        [N, C] float32, rows sum to 1.
    """
    same = distances.abs() < _ZERO
    same.scatter_(1, own[:, None], False)
    soft = ops.soft_labels(
        distances.masked_fill(same, torch.inf),
        own,
        normalisation=normalisation,
        scale=scale,
        temperature=temperature,
    )
    rows = same.any(1)
    if bool(rows.any()):
        shared = same[rows].scatter(1, own[rows, None], True).float()
        soft[rows] = shared / shared.sum(1, keepdim=True)
    return soft
