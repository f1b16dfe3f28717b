"""The ledger: how many queries each account of a search has spent and may spend."""

import torch
from torch import Tensor

from db3kd.errors import ArgumentError

UNLIMITED = 2**40
"""A limit that no account reaches. The sum of millions of them fits into int64."""

_MAX_PENDING, _SMALL = 64, 2**16
"""Bookings that may wait to be counted, and the most queries of each: 32 MiB of accounts."""


class Ledger:
    """Counts the queries of each account against the account's limit.

    Example:
        >>> ledger = Ledger(torch.tensor([2, 1]))
        >>> ledger.book(torch.tensor([0, 0]))
        >>> ledger.remaining
        tensor([0, 1])

    Args:
        limits: [A] int64, the maximum number of queries of each account, at least 0.

    Attributes:
        limits: The argument.

    Raises:
        ValueError: If `limits` has another shape or dtype, or contains a negative number.
    """

    def __init__(self, limits: Tensor) -> None:
        if limits.ndim != 1 or limits.dtype != torch.int64:
            raise ArgumentError(
                "limits", f"expected int64 [A], got {list(limits.shape)} {limits.dtype}"
            )
        if limits.numel() and int(limits.min()) < 0:
            raise ArgumentError("limits", f"expected at least 0 queries, got {int(limits.min())}")
        self.limits = limits
        self._one = limits.new_ones(1)
        self._spent = torch.zeros_like(limits)
        self._pending: list[Tensor] = []

    @property
    def spent(self) -> Tensor:
        """The answered queries of each account, [A] int64."""
        self._count_pending()
        return self._spent

    @property
    def remaining(self) -> Tensor:
        """The queries that each account may still spend, [A] int64."""
        return self.limits - self.spent

    def affordable(self, accounts: Tensor) -> Tensor | None:
        """Selects the queries that the accounts can pay for, first come, first served.

        Args:
            accounts: [B] int64, the account of each query.

        Returns:
            The rows of the affordable queries, [n] int64, or None if all are affordable.
        """
        asked, remaining = self._count(accounts), self.remaining
        if bool((asked <= remaining).all()):
            return None
        # The rank of a query among its account's queries in this batch.
        order = torch.argsort(accounts, stable=True)
        first = asked.cumsum(0) - asked
        rank = torch.empty_like(accounts)
        rank[order] = torch.arange(len(accounts), device=accounts.device) - first[accounts[order]]
        return (rank < remaining[accounts]).nonzero()[:, 0]

    def book(self, accounts: Tensor) -> None:
        """Counts one answered query for each entry of `accounts`, [B] int64.

        Counting waits until somebody reads `spent`, because on a GPU each booking would be a launch
        of its own. So the tensor must not change afterwards.
        """
        self._pending.append(accounts)
        if len(self._pending) == _MAX_PENDING or len(accounts) > _SMALL:
            self._count_pending()

    def refund(self, accounts: Tensor) -> None:
        """Reverses `book` for queries that turned out to have no answer, [B] int64."""
        self._add(self.spent, accounts, -1)

    def check(self) -> None:
        """Checks that no account has spent more than its limit.

        Raises:
            RuntimeError: If a search marked queries as prepaid that an account could not pay for.
        """
        over = int((self.spent - self.limits).max()) if len(self.limits) else 0
        if over > 0:
            raise RuntimeError(
                "a search marked queries as prepaid that its accounts cannot pay for: one account "
                f"spent {over} more than its limit; this is a bug in db3kd, please report it"
            )

    def _count_pending(self) -> None:
        if self._pending:
            self._add(self._spent, torch.cat(self._pending))
            self._pending.clear()

    def _count(self, accounts: Tensor) -> Tensor:
        """Counts the queries of each account, [A] int64; unlike `bincount` without a wait."""
        return self._add(torch.zeros_like(self.limits), accounts)

    def _add(self, counts: Tensor, accounts: Tensor, times: int = 1) -> Tensor:
        """Adds `times` to the count of each account, in place and in one launch on a GPU."""
        return counts.index_add_(0, accounts, self._one.expand(len(accounts)), alpha=times)
