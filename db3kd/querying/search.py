"""The contract between a search and whoever answers it: queries out, decisions in."""

import math
from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from db3kd.teachers.base import UNANSWERED

__all__ = [
    "UNANSWERED",
    "BudgetView",
    "Query",
    "Result",
    "Search",
    "fitting_batch_size",
    "query_in_batches",
]

_BATCH_BYTES = 256 * 2**20
"""Memory that the images of one batch of queries may take."""


class Query(NamedTuple):
    """A batch of images a search wants decided.

    images: [B, D] or [B, *image_shape] float, inside the teacher's bounds.
    accounts: [B] int64, the ledger account that pays for each.
    prepaid: the search knows from its purse that every account can pay for its queries, so that the
        ledger need not look: on a GPU each look waits for all that is under way.
    """

    images: Tensor
    accounts: Tensor
    prepaid: bool = False


Result = TypeVar("Result")

Search = Generator[Query, Tensor, Result]
"""Yields queries, is sent decisions (int64 [B], UNANSWERED where refused), returns a result."""


class BudgetView(Protocol):
    """What a search may know of the ledger.

    spent, remaining: [A] int64, queries of each account.
    """

    @property
    def spent(self) -> Tensor: ...

    @property
    def remaining(self) -> Tensor: ...


def query_in_batches(
    build: Callable[[slice], Tensor],
    accounts: Tensor,
    query_batch_size: int,
    prepaid: bool = False,
) -> Search[Tensor]:
    """Queries images in batches, each of which is built when the one before it is answered.

    Args:
        build: Returns the images of a slice of the queries, `[b, D]` or `[b, *image_shape]`.
        accounts: `[B] int64`, the account that pays for each query.
        query_batch_size: The most images in a batch.
        prepaid: See `Query`; holds for all batches together.

    Returns:
        The decisions, `[B] int64`.
    """
    decisions = []
    for start in range(0, len(accounts), query_batch_size):
        batch = slice(start, start + query_batch_size)
        decisions.append((yield Query(build(batch), accounts[batch], prepaid)))
    return torch.cat(decisions) if decisions else accounts.new_empty(0)


def fitting_batch_size(max_images: int, image_shape: tuple[int, ...]) -> int:
    """Returns `max_images`, or fewer if that many images of this shape exceed 256 MiB."""
    return max(1, min(max_images, _BATCH_BYTES // (4 * math.prod(image_shape))))
