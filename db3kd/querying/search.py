"""The contract between a search and whoever answers it: queries out, decisions in."""

import math
from collections.abc import Generator
from typing import NamedTuple, Protocol, TypeVar

from torch import Tensor

UNANSWERED = -1
"""The decision of a query that no budget covered."""

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


def fitting_batch_size(most: int, image_shape: tuple[int, ...]) -> int:
    """Images of this shape that a search builds at once: `most`, fewer where they are large."""
    return max(1, min(most, _BATCH_BYTES // (4 * math.prod(image_shape))))
