"""The ledger: what each account of a search has spent, and what it may spend."""

import torch
from torch import Tensor


class Ledger:
    """What each account may spend and has spent, in queries.

    limits: [A] int64, at least 0.
    """

    def __init__(self, limits: Tensor) -> None:
        if limits.ndim != 1 or limits.dtype != torch.int64:
            raise ValueError(f"limits: expected int64 [A], got {list(limits.shape)} {limits.dtype}")
        if limits.numel() and int(limits.min()) < 0:
            raise ValueError(f"limits: expected at least 0 queries, got {int(limits.min())}")
        self.limits = limits
        self.spent = torch.zeros_like(limits)

    @property
    def remaining(self) -> Tensor:
        """[A] int64, what each account may still spend."""
        return self.limits - self.spent

    def affordable(self, accounts: Tensor) -> Tensor | None:
        """Which queries, taken in order, the accounts can pay for: int64 rows; None for all.

        accounts: [B] int64.
        """
        wanted, remaining = self._count(accounts), self.remaining
        if bool((wanted <= remaining).all()):
            return None
        # The rank of a query among its account's queries in this batch.
        order = torch.argsort(accounts, stable=True)
        first = wanted.cumsum(0) - wanted
        rank = torch.empty_like(accounts)
        rank[order] = torch.arange(len(accounts), device=accounts.device) - first[accounts[order]]
        return (rank < remaining[accounts]).nonzero()[:, 0]

    def book(self, accounts: Tensor) -> None:
        """Counts one answered query for each entry of accounts."""
        self.spent += self._count(accounts)

    def refund(self, accounts: Tensor) -> None:
        """Undoes `book` where there turns out to be no answer."""
        self.spent -= self._count(accounts)

    def check(self) -> None:
        """Raises RuntimeError where an account is overdrawn: a search was wrong about its purse."""
        over = int((self.spent - self.limits).max()) if len(self.limits) else 0
        if over > 0:
            raise RuntimeError(
                f"a search said that its queries were covered, and spent {over} more than an "
                "account may; please report this"
            )

    def _count(self, accounts: Tensor) -> Tensor:
        """[A] int64; unlike torch.bincount it does not make the host wait."""
        return torch.zeros_like(self.limits).index_add_(0, accounts, torch.ones_like(accounts))
