"""Runs searches against teachers within budgets.

A search is a generator that yields queries and receives decisions. `run` runs one search, and
`run_concurrently` several in turns. `decide_all` asks for the class of every image of a set; within
a search, `query_in_batches` does the same.
"""

from db3kd.querying.concurrent import default_concurrency, run_concurrently
from db3kd.querying.driver import decide_all, run, run_stepwise, run_until_complete
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import (
    UNANSWERED,
    BudgetView,
    Query,
    Search,
    fitting_batch_size,
    query_in_batches,
)
from db3kd.querying.session import SearchTask

__all__ = [
    "UNANSWERED",
    "BudgetView",
    "Ledger",
    "Query",
    "Search",
    "SearchTask",
    "decide_all",
    "default_concurrency",
    "fitting_batch_size",
    "query_in_batches",
    "run",
    "run_concurrently",
    "run_stepwise",
    "run_until_complete",
]
