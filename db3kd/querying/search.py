"""The contract between a search and the driver: queries out, decisions in."""

import math
from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from db3kd.querying.device_memory import memory_limit
from db3kd.teachers.base import UNANSWERED as UNANSWERED

_BATCH_BYTES, _BATCH_SHARE = 256 * 2**20, 1 / 64
"""Memory that the images of one batch of queries may take, and the share of a GPU's memory.

Two searches run at once on a GPU, and each has up to three copies of a batch.
"""


class Query(NamedTuple):
    """A batch of images whose classes a search asks for.

    Attributes:
        images: [B, D] or [B, *image_shape] float, inside the teacher's bounds.
        accounts: [B] int64, the ledger account that pays for each image.
        prepaid: Whether the search has already checked, by its `BudgetView`, that the accounts can
            pay for all images. The ledger then does not check again, which on a GPU would wait
            for all work that is queued.
    """

    images: Tensor
    accounts: Tensor
    prepaid: bool = False


Result = TypeVar("Result")

Search = Generator[Query, Tensor, Result]
"""A generator that yields queries, receives their decisions and returns a result.

The decisions are [B] int64, and `UNANSWERED` for each query that its account cannot pay for.
Searches compose with `yield from`.

Example:
    >>> def class_of(image: Tensor) -> Search[int]:
    ...     decisions = yield Query(image[None], torch.zeros(1, dtype=torch.int64))
    ...     return int(decisions)
"""


class BudgetView(Protocol):
    """The part of the ledger that a search may read."""

    @property
    def spent(self) -> Tensor:
        """The queries that each account has spent, [A] int64."""
        ...

    @property
    def remaining(self) -> Tensor:
        """The queries that each account may still spend, [A] int64."""
        ...


def query_in_batches(
    build: Callable[[slice], Tensor],
    accounts: Tensor,
    query_batch_size: int,
    prepaid: bool = False,
) -> Search[Tensor]:
    """Queries images in batches, and builds each batch only after the previous one is answered.

    Args:
        build: Returns the images of a slice of the queries, [b, D] or [b, *image_shape].
        accounts: [B] int64, the account that pays for each query.
        query_batch_size: Maximum number of images in a batch.
        prepaid: See `Query`; holds for all batches together.

    Returns:
        The decisions, [B] int64.
    """
    decisions = []
    for start in range(0, len(accounts), query_batch_size):
        batch = slice(start, start + query_batch_size)
        decisions.append((yield Query(build(batch), accounts[batch], prepaid)))
    if len(decisions) == 1:
        return decisions[0]
    return torch.cat(decisions) if decisions else accounts.new_empty(0)


def fitting_batch_size(
    max_images: int, image_shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> int:
    """Returns how many images a batch of queries may have.

    Building a batch on a GPU takes the host as long for few images as for many, so there only
    memory limits a batch. The teacher divides it into calls of its own size.

    Args:
        max_images: Maximum number of images on a CPU.
        image_shape: The shape of an image. As float32, a batch takes at most 256 MiB, or a 64th of
            the memory of a GPU if that is more.
        device: Where the images are.
    """
    limit = memory_limit(device, _BATCH_BYTES, _BATCH_SHARE) // (4 * math.prod(image_shape))
    return max(1, limit if torch.device(device).type == "cuda" else min(max_images, limit))
