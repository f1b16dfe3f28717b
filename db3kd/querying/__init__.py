"""Runs searches against teachers within budgets.

A search is a generator that yields queries and receives decisions; `run` is the only place that
spends them, and `db3kd.querying.concurrent` runs several searches side by side. `decide_all` asks
for the class of every image of a set; searches use `query_in_batches` for the same purpose.
"""

from db3kd.querying.driver import decide_all, run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import (
    UNANSWERED,
    BudgetView,
    Query,
    Search,
    fitting_batch_size,
    query_in_batches,
)

__all__ = [
    "UNANSWERED",
    "BudgetView",
    "Ledger",
    "Query",
    "Search",
    "decide_all",
    "fitting_batch_size",
    "query_in_batches",
    "run",
]
